//! Sends one request to an allowed host. No redirect is followed; the answer is bounded.

use tokio_util::sync::CancellationToken;

use super::{Context, Ended, Outcome, Tools};
use crate::model::Action;

const MAX_BODY: usize = 64 << 10;

pub(super) async fn run(
    tools: &Tools,
    action: &Action,
    context: &Context,
    stop: &CancellationToken,
) -> Outcome {
    let Action::Http { method, expect, .. } = action else {
        return Outcome::failed("not a request");
    };
    let safe = method == "GET" || method == "HEAD";
    let request = match prepare(tools, action, context) {
        Ok(request) => request,
        Err(why) => return Outcome::failed(&why),
    };
    tokio::select! {
        () = stop.cancelled() => match safe {
            true => Outcome::new(Ended::Stopped, "stopped while asking"),
            false => Outcome::new(Ended::Unknown, "stopped while the request was under way"),
        },
        outcome = send(request, expect, safe) => outcome,
    }
}

/// The allow-list is asked again: the settings may have changed since the plan was made.
fn prepare(tools: &Tools, action: &Action, context: &Context) -> Result<reqwest::RequestBuilder, String> {
    let Action::Http { method, url, headers, body, .. } = action else {
        return Err("not a request".into());
    };
    let url = reqwest::Url::parse(url).map_err(|e| format!("{url:?} is not a URL: {e}"))?;
    let policy = tools.registry.current().policy.clone();
    if policy.http_host(&url).is_none() {
        return Err(format!(
            "{} is not in playbooks.http_hosts (any more)",
            url.host_str().unwrap_or_default()
        ));
    }
    let method = reqwest::Method::from_bytes(method.as_bytes()).map_err(|e| e.to_string())?;
    let mut request = tools.http.request(method, url.clone()).timeout(context.timeout);
    // The other side can tell a repeat of the same run by this.
    request = request.header("idempotency-key", &context.run_id);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(auth) = policy.auth(&url) {
        request = auth.apply(request);
    }
    Ok(match body {
        Some(body) => request.json(body),
        None => request,
    })
}

async fn send(request: reqwest::RequestBuilder, expect: &[u16], safe: bool) -> Outcome {
    let response = match request.send().await {
        Ok(response) => response,
        // Nothing was sent if there was no connection; after that, it may have been done although we heard nothing.
        Err(e) if safe || e.is_connect() || e.is_builder() => {
            return Outcome::failed(&format!("no answer: {}", chain(&e.without_url())));
        }
        Err(e) => {
            let text = format!("sent, but no answer came: {}", chain(&e.without_url()));
            return Outcome::new(Ended::Unknown, &text);
        }
    };
    let status = response.status();
    let accepted = if expect.is_empty() { status.is_success() } else { expect.contains(&status.as_u16()) };
    let body = read_bounded(response, MAX_BODY).await.unwrap_or_else(|e| e.into_bytes());
    let text = format!("{status} {}", String::from_utf8_lossy(&body));
    if accepted { Outcome::succeeded(&text) } else { Outcome::failed(&text) }
}

/// The error with its causes; reqwest's own text leaves them out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The body, if it is not longer than `max` bytes.
async fn read_bounded(mut response: reqwest::Response, max: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| e.without_url().to_string())? {
        if body.len() + chunk.len() > max {
            return Err(format!("the answer is longer than {max} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
