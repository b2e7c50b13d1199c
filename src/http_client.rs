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
