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
    findings.ok("server", "running");
    for (name, state) in status["breakers"].as_object().into_iter().flatten() {
        let at = format!("breaker {name}");
        match state.as_str().or_else(|| state["state"].as_str()).unwrap_or("unknown") {
            "closed" => findings.ok(at, "closed"),
            other => findings
                .error(at, format!("{other}: the service failed too often and is left alone for a while")),
        }
    }
}
