//! Talks to a running server by its API; every failure says what to do about it.

use std::{path::PathBuf, time::Duration};

use reqwest::{Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Context, Exit, Failure};
use crate::config::{Secret, Settings};

/// Which server, with which token, and how to show the answer.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Base URL of the server; by default the address that the settings tell it to listen on
    #[arg(long, env = "AIOPS_SERVER", value_name = "URL")]
    server: Option<String>,
    /// File that holds the token; by default $AIOPS_TOKEN, else admin.token in the data directory
    #[arg(long, env = "AIOPS_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the server's answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// A server and the right to speak to it.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Secret,
}

/// What an error answer tells (RFC 9457).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
}

impl Client {
    /// Reads the settings only for what the arguments leave open.
    pub fn new(args: &ServerArgs, context: &Context) -> Result<Self, Failure> {
        let loaded = std::cell::OnceCell::new();
        let settings = || -> Result<Settings, Failure> {
            if loaded.get().is_none() {
                let _ = loaded.set(context.settings()?.settings);
            }
            Ok(loaded.get().cloned().unwrap_or_default())
        };
        let base = match &args.server {
            Some(url) => checked(url)?,
            None => own_address(&settings()?)?,
        };
        Ok(Self::at(base, token(args, settings)?))
    }

    /// `base` is a URL without a slash at its end.
    pub fn at(base: String, token: Secret) -> Self {
        Self { http: crate::http_client::new(), base, token }
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Failure> {
        self.call(Method::GET, path, query, None).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Failure> {
        self.call(Method::POST, path, &[], Some(body)).await
    }

    /// The text of `/metrics`, and how far the server's clock is ahead of ours, in seconds.
    pub async fn metrics(&self) -> Result<(String, Option<i64>), Failure> {
        let request = self.http.get(format!("{}/metrics", self.base)).bearer_auth(self.token.expose());
        let answer =
            request.timeout(Duration::from_secs(20)).send().await.map_err(|e| self.unreachable(&e))?;
        let (status, ahead) = (answer.status(), crate::http_client::ahead(answer.headers()));
        let text = answer.text().await.map_err(|e| self.unreachable(&e))?;
        if status.is_success() { Ok((text, ahead)) } else { Err(self.refused(status, text.as_bytes())) }
    }

    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        let _: Value = self.call(Method::DELETE, path, &[], None).await?;
        Ok(())
    }

    /// A request to `/api/v1{path}` with the token, for answers that are no JSON.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.base)).bearer_auth(self.token.expose())
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<T, Failure> {
        let mut request = self.request(method, path).query(query);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer =
            request.timeout(Duration::from_secs(20)).send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        if !status.is_success() {
            return Err(self.refused(status, &bytes));
        }
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|e| {
            Failure::failed(format!(
                "{} answered something else than expected ({e}); is it aiops {}?",
                self.base,
                env!("CARGO_PKG_VERSION")
            ))
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let base = &self.base;
        let message = if error.is_connect() {
            format!(
                "no server at {base}: {}\n  Start it with `aiops serve`, or name another one with --server or AIOPS_SERVER.",
                root_cause(error)
            )
        } else if error.is_timeout() {
            format!("{base} did not answer in time")
        } else {
            format!("{base}: {}", root_cause(error))
        };
        Failure::new(Exit::Unavailable, message)
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Failure {
        let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        let said = [problem.detail, problem.title].into_iter().find(|t| !t.is_empty());
        let said = said.unwrap_or_else(|| format!("{} answered {status}", self.base));
        match status {
            StatusCode::UNAUTHORIZED => Failure::new(
                Exit::NotAllowed,
                format!(
                    "{} does not accept the token: {said}\n  It is read from --token-file, AIOPS_TOKEN, or admin.token in the \
                     server's data directory.",
                    self.base
                ),
            ),
            StatusCode::FORBIDDEN => Failure::new(Exit::NotAllowed, said),
            StatusCode::SERVICE_UNAVAILABLE => Failure::new(Exit::Unavailable, said),
            _ => Failure::failed(said),
        }
    }
}

/// What a probe such as `/readyz` answers. A token is sent if there is one: on loopback, and where probes are public, none is needed.
pub async fn probe(args: &ServerArgs, context: &Context, path: &str) -> Result<String, Failure> {
    let settings = context.settings()?.settings;
    let base = match &args.server {
        Some(url) => checked(url)?,
        None => own_address(&settings)?,
    };
    let known = token(args, || Ok(settings.clone())).ok();
    let client = Client::at(base, known.clone().unwrap_or_else(|| Secret::new("")));
    let mut request = client.http.get(format!("{}{path}", client.base)).timeout(Duration::from_secs(4));
    if let Some(token) = known {
        request = request.bearer_auth(token.expose());
    }
    let answer = request.send().await.map_err(|e| client.unreachable(&e))?;
    let status = answer.status();
    let bytes = answer.bytes().await.map_err(|e| client.unreachable(&e))?;
    if !status.is_success() {
        return Err(client.refused(status, &bytes));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The body of a request that may say why.
pub fn because(reason: Option<&str>) -> Value {
    reason.map_or_else(|| serde_json::json!({}), |reason| serde_json::json!({ "reason": reason }))
}

/// The innermost cause: "Connection refused (os error 111)".
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn checked(url: &str) -> Result<String, Failure> {
    let base = url.trim_end_matches('/');
    match reqwest::Url::parse(base) {
        Ok(u) if matches!(u.scheme(), "http" | "https") && u.host().is_some() => Ok(base.to_owned()),
        _ => Err(Failure::new(
            Exit::Usage,
            format!("--server (or AIOPS_SERVER): {url:?} is not a URL such as http://127.0.0.1:8080"),
        )),
    }
}

/// Where a server with these settings listens, seen from this machine.
fn own_address(settings: &Settings) -> Result<String, Failure> {
    let listen: std::net::SocketAddr =
        settings.listen.parse().map_err(|e| Failure::new(Exit::Config, format!("listen: {e}")))?;
    if listen.port() == 0 {
        return Err(Failure::new(
            Exit::Usage,
            "the settings let the server take any port: name its URL with --server or AIOPS_SERVER",
        ));
    }
    let host = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    Ok(format!("http://{}", std::net::SocketAddr::new(host, listen.port())))
}

fn token(args: &ServerArgs, settings: impl Fn() -> Result<Settings, Failure>) -> Result<Secret, Failure> {
    let file = match (&args.token_file, std::env::var("AIOPS_TOKEN")) {
        (Some(file), _) => file.clone(),
        (None, Ok(token)) if !token.is_empty() => return Ok(Secret::new(token)),
        _ => settings()?.data_dir.join("admin.token"),
    };
    let text = std::fs::read_to_string(&file).map_err(|e| {
        Failure::new(
            Exit::NotAllowed,
            format!(
                "no token: {} cannot be read: {e}\n  The first `aiops serve` makes admin.token in its data directory; name \
                 another file with --token-file, or set AIOPS_TOKEN.",
                file.display()
            ),
        )
    })?;
    Ok(Secret::new(text.trim()))
}

/// One page of a list.
#[derive(Deserialize, Serialize)]
pub(super) struct Items<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// What may stand in a path: an id, or the end of one.
pub(super) fn id(text: &str) -> Result<&str, Failure> {
    let fits = text.len() >= 4 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if fits {
        return Ok(text);
    }
    let message =
        format!("{text:?} is not an id: give it as the lists show it, at least its last four characters");
    Err(Failure::new(Exit::Usage, message))
}

/// What may stand in a path: the name of a token, the id of a playbook.
pub(super) fn path_word(text: &str) -> Result<&str, Failure> {
    let fits = !text.is_empty()
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fits {
        return Ok(text);
    }
    Err(Failure::new(Exit::Usage, format!("{text:?} is not a name: letters, digits and - _ . only")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_looked_for_where_the_settings_put_it() {
        let at = |listen: &str| own_address(&Settings { listen: listen.into(), ..Settings::default() });
        assert_eq!(at("0.0.0.0:81").expect("an address"), "http://127.0.0.1:81");
        assert_eq!(at("[::]:81").expect("an address"), "http://[::1]:81");
        assert_eq!(at("10.0.0.7:81").expect("an address"), "http://10.0.0.7:81");
        assert_eq!(at("127.0.0.1:0").expect_err("nobody knows the port").exit, Exit::Usage);
        assert_eq!(checked("ftp://x").expect_err("no such API").exit, Exit::Usage);
    }
}
