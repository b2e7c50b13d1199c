//! Slack's Web API and an incoming webhook, as far as they are used.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::SystemTime,
};

use serde_json::{Value, json};

use super::{Answer, Faults, Request, Server, serve};

pub const TOKEN: &str = "xoxb-1111111111-fakefakefake";
pub const CHANNEL: &str = "C0FAKE0001";
const HOOK: &str = "/services/T000/B000/fakefakefakefake";

/// A workspace with one channel.
pub struct Slack {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    messages: Vec<Message>,
    /// Answers in threads that the channel shows too: they ring.
    rings: Vec<Message>,
    faults: Faults,
    calls: Vec<(String, Value)>,
}

/// A message as the channel shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub ts: String,
    /// The sections' texts, one to a line, mrkdwn as it was sent.
    pub text: String,
    pub blocks: Vec<Value>,
    pub edits: usize,
    /// When it was posted.
    pub at: SystemTime,
}

impl Message {
    /// The value of the button with this action.
    pub fn button(&self, action: &str) -> Option<String> {
        let elements = self.blocks.iter().filter_map(|b| b["elements"].as_array()).flatten();
        let found = elements.into_iter().find(|e| e["action_id"] == action)?;
        found["value"].as_str().map(str::to_owned)
    }
}

impl Slack {
    pub fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        let server = serve(move |request| {
            let answer = answer(&mut shared.lock().expect("nothing panics under it"), &request);
            async move { answer }
        });
        Self { server, state }
    }

    /// Base URL of the Web API.
    pub fn api(&self) -> String {
        format!("{}/api", self.server.url)
    }

    pub fn webhook(&self) -> String {
        format!("{}{HOOK}", self.server.url)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under it")
    }

    pub fn messages(&self) -> Vec<Message> {
        self.state().messages.clone()
    }

    /// What was posted in a thread and shown in the channel.
    pub fn rings(&self) -> Vec<Message> {
        self.state().rings.clone()
    }

    /// The parameters of every call of a method; `webhook` for the webhook.
    pub fn calls(&self, method: &str) -> Vec<Value> {
        self.state().calls.iter().filter(|(m, _)| m == method).map(|(_, p)| p.clone()).collect()
    }

    /// The next call of the method answers `ok: false` with this error, and HTTP 200.
    pub fn fail_next(&self, method: &str, error: &str) {
        self.answer_next(method, Answer::json(200, json!({ "ok": false, "error": error })));
    }

    pub fn answer_next(&self, method: &str, answer: Answer) {
        self.state().faults.push(method, answer);
    }
}

fn answer(state: &mut State, request: &Request) -> Answer {
    let hooked = request.path == HOOK;
    let method = if hooked { "webhook" } else { request.path.trim_start_matches("/api/") };
    let Some(parameters) = request.json() else { return error("invalid_form_data") };
    state.calls.push((method.to_owned(), parameters.clone()));
    if let Some(fault) = state.faults.take(method) {
        return fault;
    }
    if hooked {
        return match post(state, &parameters) {
            Ok(_) => Answer::text(200, "ok"),
            Err(e) => Answer::text(400, e),
        };
    }
    if request.authorization != format!("Bearer {TOKEN}") {
        return error("invalid_auth");
    }
    match call(state, method, &parameters) {
        Ok(mut answer) => {
            answer["ok"] = true.into();
            Answer::json(200, answer)
        }
        Err(e) => error(e),
    }
}

fn error(code: &str) -> Answer {
    Answer::json(200, json!({ "ok": false, "error": code }))
}

fn call(state: &mut State, method: &str, p: &Value) -> Result<Value, &'static str> {
    if method == "auth.test" {
        return Ok(json!({ "user": "aiops", "team": "Test", "user_id": "U0AIOPS" }));
    }
    if p["channel"] != CHANNEL {
        return Err("channel_not_found");
    }
    match method {
        "chat.postMessage" => {
            let ts = post(state, p)?;
            Ok(json!({ "channel": CHANNEL, "ts": ts }))
        }
        "chat.update" => {
            let (text, blocks) = content(p)?;
            let found = state.messages.iter_mut().find(|m| p["ts"] == m.ts.as_str());
            let message = found.ok_or("message_not_found")?;
            (message.text, message.blocks) = (text, blocks);
            message.edits += 1;
            Ok(json!({ "channel": CHANNEL, "ts": message.ts }))
        }
        "chat.postEphemeral" => match (p["user"].as_str(), p["text"].as_str()) {
            (Some(_), Some(_)) => Ok(json!({ "message_ts": "1.1" })),
            _ => Err("no_text"),
        },
        _ => Err("unknown_method"),
    }
}

fn post(state: &mut State, p: &Value) -> Result<String, &'static str> {
    let (text, blocks) = content(p)?;
    let ts = format!("1700000000.{:06}", state.messages.len() + state.rings.len() + 1);
    let message = Message { ts: ts.clone(), text, blocks, edits: 0, at: SystemTime::now() };
    match p["thread_ts"].as_str() {
        None => state.messages.push(message),
        Some(main) if !state.messages.iter().any(|m| m.ts == main) => return Err("thread_not_found"),
        Some(_) if p["reply_broadcast"] == true => state.rings.push(message),
        Some(_) => return Err("the fake rings nobody in a thread"),
    }
    Ok(ts)
}

/// The limits that Slack documents, and the total at which it begins to refuse.
fn content(p: &Value) -> Result<(String, Vec<Value>), &'static str> {
    let length = |text: &Value| text.as_str().unwrap_or_default().encode_utf16().count();
    if length(&p["text"]) == 0 {
        return Err("no_text");
    }
    let blocks = p["blocks"].as_array().cloned().unwrap_or_default();
    if blocks.len() > 50 {
        return Err("invalid_blocks");
    }
    let mut texts = Vec::new();
    for block in &blocks {
        match block["type"].as_str() {
            Some("section") if (1..=3000).contains(&length(&block["text"]["text"])) => {
                texts.push(block["text"]["text"].as_str().expect("it has a length").to_owned());
            }
            Some("header") if (1..=150).contains(&length(&block["text"]["text"])) => {}
            Some("actions") => elements(block)?,
            _ => return Err("invalid_blocks"),
        }
    }
    let text = texts.join("\n");
    if text.encode_utf16().count() > 13_100 { Err("msg_blocks_too_long") } else { Ok((text, blocks)) }
}

fn elements(block: &Value) -> Result<(), &'static str> {
    let elements = block["elements"].as_array().ok_or("invalid_blocks")?;
    let mut seen = std::collections::BTreeSet::new();
    let fine = elements.iter().all(|e| {
        let label = e["text"]["text"].as_str().unwrap_or_default();
        e["type"] == "button"
            && e["text"]["type"] == "plain_text"
            && (1..=75).contains(&label.chars().count())
            && e["value"].as_str().is_some_and(|v| v.len() <= 2000)
            && seen.insert(e["action_id"].to_string())
    });
    if fine && (1..=25).contains(&elements.len()) { Ok(()) } else { Err("invalid_blocks") }
}
