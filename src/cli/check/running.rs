//! A running server's own view: its circuit breakers, channels and alarms.

use serde_json::Value;

use super::finding::Findings;
use crate::cli::{
    Context, Exit,
    client::{Client, ServerArgs},
};

pub async fn check(args: &ServerArgs, context: &Context, findings: &mut Findings) {
    let status: Result<Value, _> = match Client::new(args, context) {
        Ok(client) => client.get("/status", &[]).await,
        Err(e) => Err(e),
    };
    match status {
        Ok(status) => report(&status, findings),
        Err(e) if e.exit == Exit::Unavailable => {
            findings.ok("server", "not running; its circuit breakers were not asked")
        }
        Err(e) => findings.advice("server", e.message),
    }
}

fn report(status: &Value, findings: &mut Findings) {
    match status["not_ready"].as_str() {
        Some(why) => findings.error("server", format!("running, but not ready: {why}")),
        None => findings.ok("server", "running"),
    }
    for alarm in status["alarms"].as_array().into_iter().flatten() {
        findings.error("alarm", alarm["text"].as_str().map_or_else(|| alarm.to_string(), str::to_owned));
    }
    for breaker in status["breakers"].as_array().into_iter().flatten() {
        let word = |key: &str| breaker[key].as_str().unwrap_or("unknown").to_owned();
        let at = format!("breaker {}", word("name"));
        match word("state").as_str() {
            "closed" => findings.ok(at, "closed"),
            state => findings.error(
                at,
                format!("{state} since {}: the server found: {}", word("since"), word("last_error")),
            ),
        }
    }
}
