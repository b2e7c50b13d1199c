//! PagerDuty's Events API v2: takes events in order and keeps one alert for each dedup key.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};

use super::{Answer, Faults, Request, Server, serve};

pub const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

pub struct PagerDuty {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    events: Vec<Value>,
    /// Dedup key → `triggered`, `acknowledged` or `resolved`.
    alerts: BTreeMap<String, &'static str>,
    faults: Faults,
}

impl PagerDuty {
    pub fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let server = serve(move |request| {
            let answer = answer(&mut shared.lock().expect("nothing panics under it"), &request);
            async move { answer }
        });
        Self { server, state }
    }

    pub fn url(&self) -> &str {
        &self.server.url
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under it")
    }

    /// All events that were taken.
    pub fn events(&self) -> Vec<Value> {
        self.state().events.clone()
    }

    /// What each alert stands at.
    pub fn alerts(&self) -> BTreeMap<String, &'static str> {
        self.state().alerts.clone()
    }

    pub fn answer_next(&self, answer: Answer) {
        self.state().faults.push("enqueue", answer);
    }
}

fn answer(state: &mut State, request: &Request) -> Answer {
    if (request.method.as_str(), request.path.as_str()) != ("POST", "/v2/enqueue") {
        return Answer::text(404, "not found");
    }
    if let Some(fault) = state.faults.take("enqueue") {
        return fault;
    }
    let checked = request.json().ok_or("not JSON".to_owned()).and_then(|event| check(&event).map(|()| event));
    let event = match checked {
        Ok(event) => event,
        Err(why) => {
            return Answer::json(
                400,
                json!({ "status": "invalid event", "message": "Event object is invalid", "errors": [why] }),
            );
        }
    };
    let key = event["dedup_key"].as_str().expect("checked").to_owned();
    let now = state.alerts.get(&key).copied();
    // What is not triggered cannot be acknowledged or resolved; PagerDuty takes such an event and does nothing.
    let next = match (event["event_action"].as_str(), now) {
        (Some("trigger"), Some("acknowledged")) => Some("acknowledged"),
        (Some("trigger"), _) => Some("triggered"),
        (Some("acknowledge"), Some("triggered")) => Some("acknowledged"),
        (Some("resolve"), Some("triggered" | "acknowledged")) => Some("resolved"),
        _ => now,
    };
    if let Some(next) = next {
        state.alerts.insert(key.clone(), next);
    }
    state.events.push(event);
    Answer::json(202, json!({ "status": "success", "message": "Event processed", "dedup_key": key }))
}

fn check(event: &Value) -> Result<(), String> {
    let text = |v: &Value, max: usize| v.as_str().is_some_and(|s| !s.is_empty() && s.chars().count() <= max);
    let rules = [
        (event["routing_key"] == ROUTING_KEY, "routing_key"),
        (text(&event["dedup_key"], 255), "dedup_key"),
        (["trigger", "acknowledge", "resolve"].iter().any(|a| event["event_action"] == *a), "event_action"),
        (event.to_string().len() <= 512_000, "size"),
    ];
    let payload = &event["payload"];
    let severities = ["critical", "error", "warning", "info"];
    let triggered = [
        (text(&payload["summary"], 1024), "payload.summary"),
        (text(&payload["source"], 1024), "payload.source"),
        (severities.iter().any(|s| payload["severity"] == *s), "payload.severity"),
    ];
    let all = rules.iter().chain(triggered.iter().filter(|_| event["event_action"] == "trigger"));
    match all.into_iter().find(|(holds, _)| !holds) {
        Some((_, name)) => Err(format!("{name} is invalid")),
        None => Ok(()),
    }
}
