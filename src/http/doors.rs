//! Who may knock: the names that the server answers to, and the credentials of each source of alerts and telemetry.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr};

use actix_web::http::{Uri, header, header::HeaderMap};
use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

use super::problem::{Problem, Result};
use crate::config::{Mapping, Settings, Source};

/// Made from the settings, and anew when they are reloaded.
pub struct Doors {
    /// The address that the listener is bound to.
    bound: IpAddr,
    /// Lower-case host names from the settings.
    names: Vec<String>,
    /// `https://aiops.example.org`, as a browser writes it into `Origin`.
    public_origin: Option<String>,
    sources: BTreeMap<String, Credentials>,
}

/// Of one source; each as the whole `Authorization` header that proves it.
struct Credentials {
    bearer: Vec<String>,
    basic: Vec<String>,
    mapping: Option<Mapping>,
}

/// What a source's own credentials say about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// One of the source's credentials fits.
    Known,
    /// The source has credentials, and none fits.
    Wrong,
    /// Nobody has set any for this source.
    Unset,
}

impl Doors {
    pub fn new(settings: &Settings, bound: SocketAddr) -> Self {
        let public = settings.public_url.parse::<Uri>().ok();
        let public_host = public.as_ref().and_then(Uri::host).map(str::to_owned);
        let names = settings.http.allowed_hosts.iter().cloned().chain(public_host);
        Self {
            bound: bound.ip(),
            names: names.map(|name| host_of(&name).to_ascii_lowercase()).collect(),
            public_origin: public.as_ref().and_then(origin_of),
            sources: settings.intake.sources.iter().map(|(n, s)| (n.clone(), Credentials::new(s))).collect(),
        }
    }

    /// 403 unless `Host` is a name of this server, and `Origin`, if there is one, the same place.
    pub fn check(&self, headers: &HeaderMap) -> Result<()> {
        let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("");
        if !self.answers_to(host) {
            let detail = "this name is not one of mine; add it to http.allowed_hosts if it should be";
            return Err(Problem::forbidden(detail).closing());
        }
        match headers.get(header::ORIGIN) {
            None => Ok(()),
            Some(origin) if self.same_origin(origin.as_bytes(), host) => Ok(()),
            Some(_) => {
                Err(Problem::forbidden("requests from pages of other origins are not taken").closing())
            }
        }
    }

    /// A name that somebody else's DNS controls must never be answered to; an IP literal cannot be rebound.
    fn answers_to(&self, host: &str) -> bool {
        let name = host_of(host);
        if let Ok(ip) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return ip.is_loopback() && self.takes_loopback()
                || ip == self.bound
                || self.bound.is_unspecified();
        }
        name.eq_ignore_ascii_case("localhost") && self.takes_loopback()
            || self.names.iter().any(|known| name.eq_ignore_ascii_case(known))
    }

    fn takes_loopback(&self) -> bool {
        self.bound.is_loopback() || self.bound.is_unspecified()
    }

    fn same_origin(&self, origin: &[u8], host: &str) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        if self.public_origin.as_deref().is_some_and(|public| public.eq_ignore_ascii_case(origin)) {
            return true;
        }
        let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    }

    /// True for a request that comes from this host, straight to a loopback listener: not through a proxy, and not under a
    /// name that was set up for others.
    pub fn is_local(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).map_or("", host_of);
        let proxied = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];
        self.bound.is_loopback()
            && !self.names.iter().any(|name| host.eq_ignore_ascii_case(name))
            && !proxied.iter().any(|name| headers.contains_key(*name))
    }

    /// Compares the `Authorization` header with the source's credentials in constant time.
    pub fn knock(&self, source: &str, authorization: &[u8]) -> Knock {
        let Some(credentials) = self.sources.get(source).filter(|c| c.any()) else { return Knock::Unset };
        if credentials.fit(authorization) { Knock::Known } else { Knock::Wrong }
    }

    pub fn mapping(&self, source: &str) -> Option<&Mapping> {
        self.sources.get(source)?.mapping.as_ref()
    }
}

impl Credentials {
    fn new(source: &Source) -> Self {
        Self {
            bearer: source.bearer.iter().map(|s| s.expose().to_owned()).collect(),
            basic: source
                .basic
                .iter()
                .map(|b| STANDARD.encode(format!("{}:{}", b.user, b.password.expose())))
                .collect(),
            mapping: source.mapping.clone(),
        }
    }

    fn any(&self) -> bool {
        !self.bearer.is_empty() || !self.basic.is_empty()
    }

    fn fit(&self, authorization: &[u8]) -> bool {
        let (known, given) = match (bearer(authorization), scheme(authorization, b"basic ")) {
            (Some(given), _) => (&self.bearer, given),
            (_, Some(given)) => (&self.basic, given),
            _ => return false,
        };
        // Every one is compared, so that the time does not tell which of two is meant.
        known.iter().fold(false, |fits, one| fits | bool::from(one.as_bytes().ct_eq(given)))
    }
}

/// What follows `Bearer ` in an `Authorization` header.
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    scheme(authorization, b"bearer ")
}

fn scheme<'a>(authorization: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = authorization.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest.trim_ascii())
}

/// A `Host` value without its port.
fn host_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            if name.contains(':') && !name.starts_with('[') { host } else { name }
        }
        _ => host,
    }
}

fn origin_of(url: &Uri) -> Option<String> {
    let authority = url.authority()?.as_str();
    let authority = match (url.scheme_str()?, url.port_u16()) {
        ("http", Some(80)) | ("https", Some(443)) => host_of(authority),
        _ => authority,
    };
    Some(format!("{}://{authority}", url.scheme_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors(bound: &str, allowed: &[&str], public: &str) -> Doors {
        let mut settings = Settings { public_url: public.into(), ..Settings::default() };
        settings.http.allowed_hosts = allowed.iter().map(|s| (*s).to_owned()).collect();
        Doors::new(&settings, bound.parse().expect("an address"))
    }
    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            let name = header::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.insert(name, value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn only_its_own_names_are_answered() {
        let d = doors("127.0.0.1:8080", &["aiops.local"], "https://ops.example.org:443/x");
        for (host, fits) in [
            ("127.0.0.1:8080", true),
            ("127.0.0.1", true),
            ("127.0.0.1:19801", true),
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("[::1]:8080", true),
            ("aiops.local", true),
            ("ops.example.org", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:8080", false),
            ("10.0.0.1:8080", false),
            ("", false),
        ] {
            assert_eq!(d.check(&headers(&[("host", host)])).is_ok(), fits, "{host}");
        }
        let d = doors("0.0.0.0:8080", &[], "");
        assert!(d.check(&headers(&[("host", "10.0.0.1:8080")])).is_ok());
        assert!(d.check(&headers(&[("host", "pod.local:8080")])).is_err());
        let d = doors("10.0.0.1:8080", &[], "");
        assert!(d.check(&headers(&[("host", "10.0.0.1:8080")])).is_ok());
        assert!(d.check(&headers(&[("host", "localhost:8080")])).is_err());
    }

    #[test]
    fn another_origin_is_refused() {
        let d = doors("127.0.0.1:8080", &[], "https://ops.example.org:443/x");
        for (origin, fits) in [
            ("http://127.0.0.1:8080", true),
            ("https://ops.example.org", true),
            ("http://127.0.0.1:9999", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            let h = headers(&[("host", "127.0.0.1:8080"), ("origin", origin)]);
            assert_eq!(d.check(&h).is_ok(), fits, "{origin}");
        }
    }

    #[test]
    fn a_proxy_makes_it_not_local() {
        let d = doors("127.0.0.1:8080", &["ops.example.org"], "");
        assert!(d.is_local(&headers(&[("host", "127.0.0.1:8080")])));
        assert!(!d.is_local(&headers(&[("host", "127.0.0.1:8080"), ("x-forwarded-for", "8.8.8.8")])));
        assert!(!d.is_local(&headers(&[("host", "ops.example.org")])));
        assert!(!doors("0.0.0.0:8080", &[], "").is_local(&headers(&[("host", "127.0.0.1:8080")])));
    }

    #[test]
    fn both_secrets_of_a_rotation_fit() {
        let mut settings = Settings::default();
        let yaml =
            "bearer: [old-secret-old-secret, new-secret-new-secret]\nbasic: [{user: am, password: sesame}]";
        let source = serde_yaml::from_str(yaml).expect("valid");
        settings.intake.sources.insert("alertmanager".into(), source);
        let d = Doors::new(&settings, "127.0.0.1:1".parse().expect("an address"));
        let knock = |a: &str| d.knock("alertmanager", a.as_bytes());
        assert_eq!(knock("Bearer old-secret-old-secret"), Knock::Known);
        assert_eq!(knock("bearer new-secret-new-secret"), Knock::Known);
        assert_eq!(knock("Basic YW06c2VzYW1l"), Knock::Known);
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer old", "Basic YW06c2VzYW0=", "Basic old-secret-old-secret"]
        {
            assert_eq!(knock(wrong), Knock::Wrong, "{wrong:?}");
        }
        assert_eq!(d.knock("prometheus", b""), Knock::Unset);
    }
}
