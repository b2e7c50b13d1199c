//! The services that the settings name (store, monitoring, language models, channels): whether they answer, and answer as what
//! they should be.

use std::time::Duration;

use serde_json::Value;
use sqlx::Connection;

use super::finding::Findings;
use crate::{
    bus,
    config::{HttpAuth, Settings},
    llm,
    notify::channels,
};

pub async fn check(settings: &Settings, findings: &mut Findings) {
    let http = crate::http_client::new();
    store(settings, findings).await;
    redis(settings, findings).await;
    monitoring(settings, &http, findings).await;
    models(settings, &http, findings).await;
    people(settings, findings).await;
}

async fn store(settings: &Settings, findings: &mut Findings) {
    let url = settings.store.url.expose();
    if url.is_empty() {
        return findings.ok("store", "SQLite in the data directory");
    }
    let ask = async { sqlx::PgConnection::connect(url).await?.ping().await };
    match tokio::time::timeout(Duration::from_secs(5), ask).await {
        Ok(Ok(())) => findings.ok("store.url", "PostgreSQL answers"),
        Ok(Err(e)) => findings.error("store.url", crate::redact::mask(&e.to_string())),
        Err(_) => findings.error("store.url", "PostgreSQL did not answer within 5s"),
    }
}

async fn redis(settings: &Settings, findings: &mut Findings) {
    if !settings.redis.is_on() {
        return;
    }
    match bus::reach(&settings.redis).await {
        Err(e) => findings.error("redis", e),
        Ok(reached) => {
            findings.ok("redis", reached.about);
            reached.problems.into_iter().for_each(|problem| findings.error("redis", problem));
            reached.notes.into_iter().for_each(|note| findings.advice("redis", note));
        }
    }
}

async fn models(settings: &Settings, http: &reqwest::Client, findings: &mut Findings) {
    let reached = llm::reach(&settings.llm, http).await;
    if reached.is_empty() {
        findings.advice("llm", "no model is set: diagnoses come from the rules alone");
    }
    for (name, reached) in reached {
        match reached {
            Ok(()) => findings.ok(format!("llm.{name}"), "answers, and has the model"),
            Err(e) => findings.error(format!("llm.{name}"), e),
        }
    }
}

async fn people(settings: &Settings, findings: &mut Findings) {
    let routes = match channels::build(settings) {
        Ok(routes) => routes,
        Err(e) => return findings.error("notify", format!("{e:#}")),
    };
    if routes.is_empty() {
        findings.advice("notify", "no channel is set: nobody is told");
    }
    for route in routes {
        let at = format!("notify.{}", route.channel.kind());
        match route.channel.check().await {
            Ok(found) => findings.ok(at, found),
            Err(e) => findings.error(at, e),
        }
    }
}

async fn monitoring(settings: &Settings, http: &reqwest::Client, findings: &mut Findings) {
    let (prometheus, alertmanager) = (&settings.prometheus, &settings.alertmanager);
    if prometheus.url.is_empty() {
        findings
            .advice("prometheus.url", "is not set: no metrics as evidence, and no verification by PromQL");
    } else {
        let ask = Ask { http, auth: &prometheus.auth, timeout: prometheus.timeout };
        let url = format!("{}/api/v1/query?query=vector(1)", prometheus.url.trim_end_matches('/'));
        ask.about("prometheus.url", &url, |v| v["status"] == "success", findings).await;
    }
    if alertmanager.urls.is_empty() {
        findings.advice(
            "alertmanager.urls",
            "is not set: what its webhook missed (a restart, a long outage) is not repaired",
        );
    }
    for (i, url) in alertmanager.urls.iter().enumerate() {
        let ask = Ask { http, auth: &alertmanager.auth, timeout: alertmanager.timeout };
        let url = format!("{}/api/v2/status", url.trim_end_matches('/'));
        ask.about(&format!("alertmanager.urls[{i}]"), &url, |v| v["versionInfo"].is_object(), findings).await;
    }
}

struct Ask<'a> {
    http: &'a reqwest::Client,
    auth: &'a HttpAuth,
    timeout: Duration,
}

impl Ask<'_> {
    async fn about(&self, at: &str, url: &str, right: impl Fn(&Value) -> bool, findings: &mut Findings) {
        let started = std::time::Instant::now();
        match self.get(url).await {
            Ok(answer) if right(&answer) => {
                findings.ok(at, format!("answers in {} ms", started.elapsed().as_millis()));
            }
            Ok(_) => findings.error(at, format!("{url} answers something else; is it the right service?")),
            Err(e) => findings.error(at, format!("{url}: {e}")),
        }
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let request = self.auth.apply(self.http.get(url)).timeout(self.timeout);
        let answer = request.send().await.map_err(|e| cause(e, self.timeout))?;
        let status = answer.status();
        match status.as_u16() {
            401 | 403 => return Err(format!("answered {status}: set the auth beside it")),
            _ if !status.is_success() => return Err(format!("answered {status}")),
            _ => {}
        }
        answer.json().await.map_err(|_| "answered something that is no JSON".to_owned())
    }
}

/// The innermost reason, without the URL, which may carry more than a terminal should show.
fn cause(error: reqwest::Error, timeout: Duration) -> String {
    if error.is_timeout() {
        return format!("did not answer within {}", humantime::format_duration(timeout));
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
