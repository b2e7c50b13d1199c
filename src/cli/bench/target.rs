//! What may be loaded: a server of our own, or one that its owner has given up for it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use crate::cli::{Exit, Failure};

/// Where requests go.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    /// For the `Host` header.
    pub host: String,
    /// Before every path.
    pub prefix: String,
}

fn usage(message: String) -> Failure {
    Failure::new(Exit::Usage, message)
}

impl Target {
    /// A server that we did not start. Load opens incidents there and pages whoever is on call, so it must be `disposable`; one
    /// on another host must be twice.
    pub fn foreign(flag: &str, url: &str, disposable: &[String]) -> Result<Self, Failure> {
        let target = Self::parse(flag, url)?;
        let named = |wanted: &str| disposable.iter().any(|d| d == wanted);
        if !target.address.ip().is_loopback() && !named(&target.host) {
            return Err(usage(format!(
                "{flag} {url}: this puts full load on another machine; if it is yours and nobody needs it, say --disposable {}",
                target.host
            )));
        }
        if !named(&target.host) && !named("loopback") {
            return Err(usage(format!(
                "{flag} {url}: this opens thousands of incidents there and tells its people of them; if nobody needs that \
                 server, say --disposable loopback"
            )));
        }
        Ok(target)
    }

    /// A server of our own.
    pub fn own(url: &str) -> anyhow::Result<Self> {
        Self::parse("the server's own URL", url).map_err(|failure| anyhow::anyhow!(failure.message))
    }

    fn parse(flag: &str, url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| usage(format!("{flag} {url}: {why}; write http://127.0.0.1:9093"));
        let parsed = reqwest::Url::parse(url).map_err(|e| wrong(&e.to_string()))?;
        if parsed.scheme() != "http" {
            return Err(wrong("only plain http is spoken"));
        }
        let host = parsed.host_str().ok_or_else(|| wrong("it names no host"))?;
        let port = parsed.port_or_known_default().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let address = match bare.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port),
            Err(_) => (bare, port)
                .to_socket_addrs()
                .ok()
                .and_then(|mut all| all.next())
                .ok_or_else(|| wrong("this name has no address"))?,
        };
        let prefix = parsed.path().trim_end_matches('/').to_owned();
        Ok(Self { address, host: format!("{host}:{port}"), prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(url: &str, disposable: &[&str]) -> Result<String, String> {
        let disposable: Vec<String> = disposable.iter().map(|d| (*d).to_owned()).collect();
        Target::foreign("--url", url, &disposable).map(|t| t.host).map_err(|e| {
            assert_eq!(e.exit, Exit::Usage);
            e.message
        })
    }

    #[test]
    fn only_what_its_owner_gave_up_is_loaded() {
        let loopback = "http://127.0.0.1:9093";
        assert!(verdict(loopback, &[]).unwrap_err().contains("say --disposable loopback"));
        assert_eq!(verdict(loopback, &["loopback"]).as_deref(), Ok("127.0.0.1:9093"));
        assert_eq!(verdict("http://[::1]:9093/", &["loopback"]).as_deref(), Ok("[::1]:9093"));
        let far = "http://10.1.2.3:9093";
        for too_little in [&[][..], &["loopback"], &["10.1.2.4:9093"]] {
            assert!(verdict(far, too_little).unwrap_err().contains("say --disposable 10.1.2.3:9093"));
        }
        assert_eq!(verdict(far, &["10.1.2.3:9093"]).as_deref(), Ok("10.1.2.3:9093"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        for wrong in ["127.0.0.1:9093", "https://127.0.0.1", "http://", "nonsense"] {
            assert!(
                verdict(wrong, &["loopback"]).unwrap_err().contains("write http://127.0.0.1:9093"),
                "{wrong}"
            );
        }
    }
}
