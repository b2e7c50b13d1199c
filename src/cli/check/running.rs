//! A running server's own view: its circuit breakers, channels and alarms.

use jiff::Timestamp;
use serde_json::Value;

use super::finding::Findings;
use crate::cli::{
    Context, Exit,
    client::{Client, ServerArgs},
    output,
};

pub async fn check(args: &ServerArgs, context: &Context, findings: &mut Findings) {
    let status: Result<Value, _> = match Client::new(args, context) {
        Ok(client) => client.get("/status", &[]).await,
        Err(e) => Err(e),
    };
    match status {
        Ok(status) => report(&status, findings),
        Err(e) if e.exit == Exit::Unavailable => {
            findings.ok("server", "not running; its circuit breakers and channels were not asked")
        }
        Err(e) => findings.advice("server", e.message),
    }
}

pub fn report(status: &Value, findings: &mut Findings) {
    match status["not_ready"].as_str() {
        Some(why) => findings.error("server", format!("running, but not ready: {why}")),
        None => findings.ok("server", "running"),
    }
    for alarm in status["alarms"].as_array().into_iter().flatten() {
        findings.error("alarm", alarm["text"].as_str().map_or_else(|| alarm.to_string(), str::to_owned));
    }
    for found in status["channels"].as_array().into_iter().flatten() {
        channel(found, findings);
    }
    export(&status["export"], findings);
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

/// The copies of our own records; nothing if there is no export.
fn export(export: &Value, findings: &mut Findings) {
    if !export.is_object() {
        return;
    }
    let count = |key: &str| export[key].as_u64().unwrap_or(0);
    let (waiting, refused) = (count("waiting"), count("refused"));
    if refused > 0 {
        let why = export["refusal"].as_str().unwrap_or("no reason is kept");
        findings.error(
            "export",
            format!("{refused} changes were refused ({why}); mend the index, then run `aiops check --fix`"),
        );
    }
    match export["error"].as_str() {
        Some(error) => findings.error("export", format!("{waiting} changes wait: {error}")),
        None if refused == 0 => findings.ok("export", format!("{waiting} changes wait")),
        None => {}
    }
}

/// A dead letter is wrong until that channel is told; what waits may still arrive.
fn channel(channel: &Value, findings: &mut Findings) {
    let count = |key: &str| channel[key].as_u64().unwrap_or(0);
    let time = |key: &str| channel[key].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    let at = format!("channel {}", channel["channel"].as_str().unwrap_or("unknown"));
    let (dead, waiting) = (count("dead_letters"), count("waiting"));
    let mut said = Vec::new();
    if dead > 0 {
        said.push(format!("could not tell {}", messages(dead)));
    }
    if waiting > 0 {
        let age = output::age(count("oldest_waiting_seconds"));
        said.push(format!("{} to be told, owed for up to {age}", messages(waiting)));
    }
    if let Some(until) = time("paused_until") {
        said.push(format!("its provider asked for a pause until {}", output::date_time(until)));
    }
    let error = channel["last_error"].as_str();
    said.extend(error.map(|e| format!("the last error: {e}")));
    said.push(match time("last_delivered_at") {
        Some(at) => format!("last told {} ago", output::ago(at)),
        None => "nothing told yet".into(),
    });
    let text = said.join("; ");
    match (dead, error.is_some() || channel["paused_until"].is_string()) {
        (1.., _) => findings.error(at, text),
        (0, true) => findings.advice(at, text),
        (0, false) => findings.ok(at, text),
    }
}

fn messages(count: u64) -> String {
    if count == 1 { "1 message".into() } else { format!("{count} messages") }
}
