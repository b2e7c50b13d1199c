//! The one outgoing HTTP client: one TLS provider, no redirects, bounded times.

use std::time::Duration;

/// Makes *ring* the TLS provider of the process. Must come before any client is made; further calls do nothing.
pub fn install_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client with a connect timeout of 5 s and a total one of 30 s (callers set shorter ones per request). It follows no
/// redirect: a redirect would carry a request, and its credentials, to a place that nobody configured.
pub fn new() -> reqwest::Client {
    install_tls();
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("aiops/", env!("CARGO_PKG_VERSION")))
        .build()
        .expect("the TLS provider is installed and the options are constant")
}

/// Why a request failed, with its causes and without its URL, which may carry a token.
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(c) = cause {
        text = format!("{text}: {c}");
        cause = c.source();
    }
    text
}

/// The provider's wish in `Retry-After`, in seconds (the form with a date is not used by those that we talk to).
pub fn retry_after(answer: &reqwest::Response) -> Option<Duration> {
    let value = answer.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// How far the clock of whoever gave this answer is ahead of ours, in seconds, by its `Date`.
pub fn ahead(headers: &reqwest::header::HeaderMap) -> Option<i64> {
    let date = headers.get(reqwest::header::DATE)?.to_str().ok()?;
    let at = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    Some(at.as_second() - crate::clock::now().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_tells_how_far_a_clock_is_ahead() {
        let mut headers = reqwest::header::HeaderMap::new();
        assert_eq!(ahead(&headers), None);
        headers.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().expect("a value"));
        assert!(ahead(&headers).expect("a date") < -900_000_000);
    }
}
