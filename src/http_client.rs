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
