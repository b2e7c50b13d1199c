//! The Bot API, as far as it is used: messages with their HTML read as Telegram reads it, edits, buttons, long polls.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

use super::{Answer, Faults, Request, Server, serve};

pub const TOKEN: &str = "123456789:AAFakeFakeFakeFakeFakeFakeFakeFake_-1";

/// A bot with the chats that it may write to.
pub struct Telegram {
    server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    chats: BTreeSet<i64>,
    migrated: BTreeMap<i64, i64>,
    messages: Vec<Message>,
    /// Answers to our own messages: they ring.
    rings: Vec<Message>,
    next_id: i64,
    updates: Vec<Value>,
    next_update: i64,
    polling: bool,
    faults: Faults,
    calls: Vec<(String, Value)>,
    /// Callback query id → the text that the presser saw, once answered.
    callbacks: BTreeMap<String, Option<String>>,
}

/// A message as people see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub chat: i64,
    pub id: i64,
    /// The markup taken away.
    pub text: String,
    pub keyboard: Value,
    pub edits: usize,
    /// When it was posted.
    pub at: SystemTime,
}

impl Message {
    /// The callback data under the button with this label.
    pub fn button(&self, label: &str) -> Option<String> {
        let rows = self.keyboard["inline_keyboard"].as_array()?;
        let mut buttons = rows.iter().filter_map(Value::as_array).flatten();
        let found = buttons.find(|b| b["text"] == label)?;
        found["callback_data"].as_str().map(str::to_owned)
    }
}

impl Telegram {
    pub fn start(chats: &[i64]) -> Self {
        let chats = chats.iter().copied().collect();
        let state =
            Arc::new(Mutex::new(State { chats, next_id: 100, next_update: 7000, ..State::default() }));
        let shared = state.clone();
        let server = serve(move |request| answer(shared.clone(), request));
        Self { server, state }
    }

    pub fn url(&self) -> &str {
        &self.server.url
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under it")
    }

    pub fn messages(&self) -> Vec<Message> {
        self.state().messages.clone()
    }

    /// What was posted as an answer to one of our own messages.
    pub fn rings(&self) -> Vec<Message> {
        self.state().rings.clone()
    }

    /// The parameters of every call of a method.
    pub fn calls(&self, method: &str) -> Vec<Value> {
        self.state().calls.iter().filter(|(m, _)| m == method).map(|(_, p)| p.clone()).collect()
    }

    /// The next call of the method is answered with this error.
    pub fn fail_next(&self, method: &str, code: u16, description: &str, parameters: Value) {
        let body =
            json!({ "ok": false, "error_code": code, "description": description, "parameters": parameters });
        self.state().faults.push(method, Answer::json(code, body));
    }

    /// Somebody deletes a message.
    pub fn delete(&self, chat: i64, id: i64) {
        self.state().messages.retain(|m| (m.chat, m.id) != (chat, id));
    }

    /// A group becomes a supergroup.
    pub fn migrate(&self, old: i64, new: i64) {
        let mut state = self.state();
        state.chats.remove(&old);
        state.chats.insert(new);
        state.migrated.insert(old, new);
    }

    /// Somebody presses a button; the id of the callback query.
    pub fn press(&self, user: i64, chat: i64, message: i64, data: &str) -> String {
        let mut state = self.state();
        let id = format!("cb{}", state.next_update);
        state.callbacks.insert(id.clone(), None);
        state.push(json!({ "callback_query": {
            "id": id,
            "from": { "id": user, "is_bot": false, "first_name": "Ann", "username": "ann" },
            "message": { "message_id": message, "date": 1, "chat": { "id": chat, "type": "group" } },
            "chat_instance": "1",
            "data": data,
        }}));
        id
    }

    /// Somebody writes; `more` is merged into the message.
    pub fn write(&self, user: i64, chat: i64, text: &str, more: Value) {
        let mut message = json!({
            "message_id": 1,
            "date": jiff::Timestamp::now().as_second(),
            "from": { "id": user, "is_bot": false, "first_name": "Ann", "username": "ann" },
            "chat": { "id": chat, "type": "group" },
            "text": text,
        });
        for (key, value) in more.as_object().expect("an object") {
            message[key] = value.clone();
        }
        self.state().push(json!({ "message": message }));
    }

    /// What the presser saw: `None` while the query is not answered.
    pub fn callback(&self, id: &str) -> Option<String> {
        self.state().callbacks.get(id).cloned().flatten()
    }
}

impl State {
    fn push(&mut self, mut update: Value) {
        update["update_id"] = self.next_update.into();
        self.next_update += 1;
        self.updates.push(update);
    }
}

type Outcome = Result<Value, (u16, String)>;

fn bad(description: impl Into<String>) -> (u16, String) {
    (400, format!("Bad Request: {}", description.into()))
}

async fn answer(state: Arc<Mutex<State>>, request: Request) -> Answer {
    let Some(method) = request.path.strip_prefix(&format!("/bot{TOKEN}/")).map(str::to_owned) else {
        return refuse(401, "Unauthorized");
    };
    let Some(parameters) = request.json() else { return refuse(400, "Bad Request: JSON is expected") };
    {
        let mut state = state.lock().expect("nothing panics under it");
        state.calls.push((method.clone(), parameters.clone()));
        if let Some(fault) = state.faults.take(&method) {
            return fault;
        }
    }
    let outcome = if method == "getUpdates" {
        updates(&state, &parameters).await
    } else {
        call(&mut state.lock().expect("nothing panics under it"), &method, &parameters)
    };
    match outcome {
        Ok(result) => Answer::json(200, json!({ "ok": true, "result": result })),
        Err((code, text)) => match text.strip_prefix("Bad Request: migrated ") {
            Some(new) => Answer::json(
                400,
                json!({
                    "ok": false, "error_code": 400,
                    "description": "Bad Request: group chat was upgraded to a supergroup chat",
                    "parameters": { "migrate_to_chat_id": new.parse::<i64>().expect("a chat id") },
                }),
            ),
            None => refuse(code, &text),
        },
    }
}

fn refuse(code: u16, description: &str) -> Answer {
    Answer::json(code, json!({ "ok": false, "error_code": code, "description": description }))
}

fn call(state: &mut State, method: &str, p: &Value) -> Outcome {
    match method {
        "getMe" => Ok(
            json!({ "id": 123456789, "is_bot": true, "first_name": "aiops", "username": "aiops_test_bot" }),
        ),
        "getChat" => {
            let chat = chat(state, p)?;
            Ok(json!({ "id": chat, "type": "group" }))
        }
        "sendMessage" => {
            known(
                p,
                &[
                    "chat_id",
                    "text",
                    "parse_mode",
                    "link_preview_options",
                    "reply_markup",
                    "reply_parameters",
                ],
            )?;
            let (chat, text, keyboard) = (chat(state, p)?, text(p)?, keyboard(p)?);
            state.next_id += 1;
            let message =
                Message { chat, id: state.next_id, text, keyboard, edits: 0, at: SystemTime::now() };
            let answered = p["reply_parameters"]["message_id"].as_i64();
            let rings = answered.is_some_and(|id| state.messages.iter().any(|m| m.id == id));
            if rings { &mut state.rings } else { &mut state.messages }.push(message.clone());
            Ok(shown(&message))
        }
        "editMessageText" => {
            known(
                p,
                &["chat_id", "message_id", "text", "parse_mode", "link_preview_options", "reply_markup"],
            )?;
            let (chat, text, keyboard) = (chat(state, p)?, text(p)?, keyboard(p)?);
            let id = p["message_id"].as_i64().ok_or_else(|| bad("message identifier is not specified"))?;
            let found = state.messages.iter_mut().find(|m| (m.chat, m.id) == (chat, id));
            let message = found.ok_or_else(|| bad("message to edit not found"))?;
            if (&message.text, &message.keyboard) == (&text, &keyboard) {
                return Err(bad(
                    "message is not modified: specified new message content and reply markup are exactly the same as a \
                     current content and reply markup of the message",
                ));
            }
            (message.text, message.keyboard) = (text, keyboard);
            message.edits += 1;
            Ok(shown(message))
        }
        "answerCallbackQuery" => {
            known(p, &["callback_query_id", "text", "show_alert"])?;
            let said = p["text"].as_str().unwrap_or_default();
            if said.encode_utf16().count() > 200 {
                return Err(bad("MESSAGE_TOO_LONG"));
            }
            let id = p["callback_query_id"].as_str().unwrap_or_default();
            match state.callbacks.get_mut(id) {
                Some(answered) => *answered = Some(said.to_owned()),
                None => {
                    return Err(bad("query is too old and response timeout expired or query ID is invalid"));
                }
            }
            Ok(Value::Bool(true))
        }
        _ => Err((404, "Not Found".into())),
    }
}

fn shown(message: &Message) -> Value {
    json!({ "message_id": message.id, "date": 1, "chat": { "id": message.chat, "type": "group" }, "text": message.text })
}

fn known(p: &Value, names: &[&str]) -> Result<(), (u16, String)> {
    let unknown = p.as_object().and_then(|o| o.keys().find(|k| !names.contains(&k.as_str())).cloned());
    unknown.map_or(Ok(()), |name| Err(bad(format!("the fake knows no parameter {name}"))))
}

fn chat(state: &State, p: &Value) -> Result<i64, (u16, String)> {
    let chat = p["chat_id"].as_i64().ok_or_else(|| bad("chat_id is empty"))?;
    if let Some(new) = state.migrated.get(&chat) {
        return Err(bad(format!("migrated {new}")));
    }
    if state.chats.contains(&chat) { Ok(chat) } else { Err(bad("chat not found")) }
}

fn text(p: &Value) -> Result<String, (u16, String)> {
    let raw = p["text"].as_str().ok_or_else(|| bad("message text is empty"))?;
    let text = match p["parse_mode"].as_str() {
        None => raw.to_owned(),
        Some("HTML") => parse(raw).map_err(|e| bad(format!("can't parse entities: {e}")))?,
        Some(_) => return Err(bad("unsupported parse_mode")),
    };
    match text.trim().encode_utf16().count() {
        0 => Err(bad("message text is empty")),
        n if n > 4096 => Err(bad("message is too long")),
        _ => Ok(text),
    }
}

/// Reads HTML as Telegram does: its own tags only, all closed in order, four named entities and the numeric ones.
fn parse(html: &str) -> Result<String, String> {
    const TAGS: [&str; 14] = [
        "b",
        "strong",
        "i",
        "em",
        "u",
        "ins",
        "s",
        "strike",
        "del",
        "code",
        "pre",
        "a",
        "blockquote",
        "tg-spoiler",
    ];
    let mut open: Vec<&str> = Vec::new();
    let mut text = String::new();
    let mut rest = html;
    while let Some(c) = rest.chars().next() {
        match c {
            '<' => {
                let end = rest.find('>').ok_or("Unclosed start tag")?;
                let tag = &rest[1..end];
                rest = &rest[end + 1..];
                if let Some(name) = tag.strip_prefix('/') {
                    if open.pop() != Some(name) {
                        return Err(format!("Unmatched end tag \"{name}\""));
                    }
                    continue;
                }
                let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
                if !TAGS.contains(&name) {
                    return Err(format!("Unsupported start tag \"{name}\""));
                }
                let href = attributes.strip_prefix("href=\"").and_then(|a| a.strip_suffix('"'));
                if (name == "a") != href.is_some_and(|h| !h.contains('"')) {
                    return Err(format!("Unexpected attributes of \"{name}\""));
                }
                open.push(name);
            }
            '&' => {
                let entities = [("&lt;", '<'), ("&gt;", '>'), ("&amp;", '&'), ("&quot;", '"')];
                match entities.iter().find(|(e, _)| rest.starts_with(e)) {
                    Some((entity, means)) => {
                        text.push(*means);
                        rest = &rest[entity.len()..];
                    }
                    // Telegram takes an ampersand that begins no entity as it is; ours is always escaped.
                    None => return Err("a bare ampersand".into()),
                }
            }
            c => {
                text.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    if open.is_empty() {
        Ok(text)
    } else {
        Err(format!("Can't find end tag corresponding to start tag {open:?}"))
    }
}

fn keyboard(p: &Value) -> Result<Value, (u16, String)> {
    let keyboard = p["reply_markup"].clone();
    let rows = keyboard["inline_keyboard"].as_array().cloned().unwrap_or_default();
    for button in rows.iter().filter_map(Value::as_array).flatten() {
        let data = button["callback_data"].as_str().unwrap_or_default();
        if data.is_empty() || data.len() > 64 {
            return Err(bad("BUTTON_DATA_INVALID"));
        }
        if button["text"].as_str().unwrap_or_default().is_empty() {
            return Err(bad("inline keyboard button text is empty"));
        }
    }
    Ok(keyboard)
}

/// A poll under way. It ends also when the poller vanishes.
struct Polling<'a>(&'a Mutex<State>);

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.lock().expect("nothing panics under it").polling = false;
    }
}

/// One poller at a time; an offset forgets what is before it; waits for news.
async fn updates(state: &Mutex<State>, p: &Value) -> Outcome {
    let until = Instant::now() + Duration::from_secs(p["timeout"].as_u64().unwrap_or(0));
    {
        let mut state = state.lock().expect("nothing panics under it");
        if std::mem::replace(&mut state.polling, true) {
            return Err((409, "Conflict: terminated by other getUpdates request".into()));
        }
        if let Some(offset) = p["offset"].as_i64() {
            state.updates.retain(|u| u["update_id"].as_i64() >= Some(offset));
        }
    }
    let _polling = Polling(state);
    loop {
        {
            let state = state.lock().expect("nothing panics under it");
            if !state.updates.is_empty() || Instant::now() >= until {
                return Ok(Value::Array(state.updates.iter().take(100).cloned().collect()));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
