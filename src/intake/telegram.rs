//! Telegram, incoming: long polling; what people press and write is kept before it is acted on, and acted on once.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::chat::{self, Ask, LogsAsk, Outcome, Said};
use crate::{
    bot_api::{ApiError, BotApi},
    clock,
    config::{self, Language},
    model::{Actor, Phrase},
    owned::Keeper,
    retry::Backoff,
    search::Logs,
    store::{
        self, Store,
        chat_events::{self, ChatEvent},
        flags,
        leases::{self, Lease},
    },
};

const CHANNEL: &str = "telegram";
const RETRY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// What the poller needs.
pub struct Deps {
    pub store: Store,
    pub settings: config::Telegram,
    pub language: Language,
    logs: Logs,
    api: BotApi,
}

impl Deps {
    pub fn new(store: Store, settings: config::Telegram, language: Language) -> Self {
        chat::declare(CHANNEL);
        let api = BotApi::new(&settings);
        Self { store, settings, language, logs: Logs::default(), api }
    }

    /// What `/logs` searches.
    pub fn with_logs(mut self, logs: Logs) -> Self {
        self.logs = logs;
        self
    }

    /// The bot's own number begins its token; another bot counts its updates from elsewhere.
    fn offset_key(&self) -> String {
        format!("telegram.offset.{}", self.settings.token.expose().split(':').next().unwrap_or_default())
    }
}

#[derive(Deserialize)]
struct Update {
    update_id: i64,
    message: Option<Message>,
    callback_query: Option<Callback>,
}

#[derive(Deserialize)]
struct Message {
    message_id: i64,
    #[serde(default)]
    date: i64,
    from: Option<User>,
    /// Set when a channel or an anonymous admin speaks: then nobody knows who it is.
    sender_chat: Option<Value>,
    chat: Chat,
    text: Option<String>,
    forward_origin: Option<Value>,
    forward_date: Option<i64>,
    via_bot: Option<Value>,
}

#[derive(Deserialize)]
struct Chat {
    id: i64,
}

#[derive(Deserialize)]
struct Callback {
    id: String,
    from: User,
    message: Option<Message>,
    data: Option<String>,
}

#[derive(Deserialize)]
struct User {
    id: i64,
    #[serde(default)]
    is_bot: bool,
    username: Option<String>,
}

impl User {
    fn actor(&self) -> Actor {
        let name = self.username.as_ref().map(|n| format!("@{n}"));
        Actor { via: CHANNEL.into(), id: self.id.to_string(), name }
    }
}

/// The name whose owner polls: Telegram allows one poller.
const POLL: &str = "telegram.poll";

/// Polls whenever this replica is the one that does, until cancelled.
pub async fn run(deps: &Deps, keeper: &Keeper, cancel: CancellationToken) {
    keeper.run(POLL, cancel, |lease, ours| async move { poll(deps, &lease, ours).await }).await;
}

async fn poll(deps: &Deps, lease: &Lease, cancel: CancellationToken) {
    let mut failures = 0;
    while !cancel.is_cancelled() {
        let polled = tokio::select! {
            () = cancel.cancelled() => return,
            polled = poll_once(deps, lease) => polled,
        };
        let Err(e) = polled else {
            failures = 0;
            continue;
        };
        failures += 1;
        tracing::warn!(error = format!("{e:#}"), "polling Telegram failed");
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(RETRY.wait(failures)) => {}
        }
    }
}

/// Asks once (waiting for news as long as the settings say), keeps what comes, and acts on it; how many new events there were.
pub async fn poll_once(deps: &Deps, lease: &Lease) -> anyhow::Result<usize> {
    let mut tx = deps.store.read_few().await?;
    let offset = flags::get(&mut tx, &deps.offset_key()).await?.and_then(|v| v.as_i64());
    drop(tx);
    act_on_waiting(deps, clock::now()).await?;
    let updates = fetch(deps, offset).await?;
    keep(deps, lease, &updates).await?;
    act_on_waiting(deps, clock::now()).await?;
    Ok(updates.len())
}

async fn fetch(deps: &Deps, offset: Option<i64>) -> Result<Vec<Value>, ApiError> {
    let seconds = deps.settings.poll.as_secs();
    let mut parameters = json!({ "timeout": seconds, "allowed_updates": ["message", "callback_query"] });
    if let Some(offset) = offset {
        parameters["offset"] = offset.into();
    }
    deps.api.call_within("getUpdates", &parameters, deps.settings.poll + Duration::from_secs(10)).await
}

/// Together with the offset, before anything is done: Telegram forgets what is before the offset that it is asked for next.
async fn keep(deps: &Deps, lease: &Lease, updates: &[Value]) -> store::Result<()> {
    let Some(last) = updates.iter().filter_map(|u| u["update_id"].as_i64()).max() else { return Ok(()) };
    let mut tx = deps.store.write().await?;
    // Whoever was paused over the poll must not set the offset back.
    leases::hold(&mut tx, lease).await?;
    for update in updates {
        let id = format!("{CHANNEL}:{}:{}", deps.offset_key(), update["update_id"]);
        chat_events::add(&mut tx, CHANNEL, &id, &update.to_string(), clock::now()).await?;
    }
    flags::set(&mut tx, &deps.offset_key(), &(last + 1).into()).await?;
    tx.commit().await
}

async fn act_on_waiting(deps: &Deps, now: Timestamp) -> store::Result<()> {
    let mut tx = deps.store.read_few().await?;
    let waiting = chat_events::waiting(&mut tx, CHANNEL).await?;
    drop(tx);
    for event in waiting {
        match act_on(deps, &event, now).await {
            // Another replica has acted on it meanwhile.
            Ok(()) | Err(store::Error::LeaseLost) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn act_on(deps: &Deps, event: &ChatEvent, now: Timestamp) -> store::Result<()> {
    match serde_json::from_str::<Update>(&event.body) {
        Ok(Update { callback_query: Some(callback), .. }) => pressed(deps, &event.id, callback, now).await,
        Ok(Update { message: Some(message), .. }) => written(deps, &event.id, message, now).await,
        Ok(Update { update_id, .. }) => {
            tracing::debug!(update_id, "a Telegram update of a kind that we do not use");
            chat::ignore(&deps.store, CHANNEL, &event.id, now).await
        }
        Err(e) => {
            tracing::warn!(error = %e, "a Telegram update that we cannot read");
            chat::ignore(&deps.store, CHANNEL, &event.id, now).await
        }
    }
}

async fn pressed(deps: &Deps, event_id: &str, callback: Callback, now: Timestamp) -> store::Result<()> {
    let by = callback.from.actor();
    let said = match (&callback.message, &callback.data) {
        _ if !is_allowed(deps, &callback.from) => {
            chat::refuse(&deps.store, CHANNEL, event_id, &by, "not in notify.telegram.allowed_users", now)
                .await?;
            Said { outcome: Outcome::Refused, text: chat::not_allowed(deps.language) }
        }
        (Some(message), Some(data)) => {
            let ask = Ask::Press { button: data.clone(), place: message.chat.id.to_string() };
            chat::carry_out(&deps.store, CHANNEL, event_id, &by, &ask, deps.language, now).await?
        }
        _ => {
            chat::refuse(&deps.store, CHANNEL, event_id, &by, "a press without its message", now).await?;
            Said { outcome: Outcome::Refused, text: chat::not_allowed(deps.language) }
        }
    };
    let text: String = said.text.chars().take(180).collect();
    let alert = said.outcome != Outcome::Done;
    let answer = json!({ "callback_query_id": callback.id, "text": text, "show_alert": alert });
    let answered: Result<Value, _> = deps.api.call("answerCallbackQuery", &answer).await;
    if let Err(e) = answered {
        // What was asked is done or refused all the same; the message shows it.
        tracing::debug!(error = %e, "answering a press");
    }
    Ok(())
}

fn is_allowed(deps: &Deps, user: &User) -> bool {
    !user.is_bot && deps.settings.allowed_users.contains(&user.id)
}

async fn written(deps: &Deps, event_id: &str, message: Message, now: Timestamp) -> store::Result<()> {
    let Some(command) = message.text.as_deref().and_then(Command::parse) else {
        return chat::ignore(&deps.store, CHANNEL, event_id, now).await;
    };
    let nobody = Actor { via: CHANNEL.into(), id: format!("chat {}", message.chat.id), name: None };
    let by = message.from.as_ref().map_or(nobody, User::actor);
    if let Some(why) = why_not(deps, &message) {
        // No answer: a stranger need not know that somebody listens.
        return chat::refuse(&deps.store, CHANNEL, event_id, &by, why, now).await;
    }
    let text = match command {
        Command::Help => help(deps.language),
        Command::Status => chat::status(&deps.store, deps.language).await?,
        Command::Logs(ask) => {
            let (head, lines) = chat::logs(&deps.logs, &ask, deps.language, now).await;
            reply_with_lines(deps, &message, &head, &lines).await;
            return chat::ignore(&deps.store, CHANNEL, event_id, now).await;
        }
        Command::Do(_) if chat::is_stale(message.date, now) => Phrase::TooLate {}.say(deps.language),
        Command::Do(ask) => {
            let said = chat::carry_out(&deps.store, CHANNEL, event_id, &by, &ask, deps.language, now).await?;
            reply(deps, &message, &said.text).await;
            return Ok(());
        }
    };
    reply(deps, &message, &text).await;
    chat::ignore(&deps.store, CHANNEL, event_id, now).await
}

/// Why a message is no command of somebody whom we know.
fn why_not(deps: &Deps, message: &Message) -> Option<&'static str> {
    let chats = || std::iter::once(&deps.settings.chat_id).chain(&deps.settings.allowed_chats);
    match &message.from {
        _ if message.forward_origin.is_some() || message.forward_date.is_some() => {
            Some("a forwarded message")
        }
        _ if message.sender_chat.is_some() => Some("an anonymous admin or a channel"),
        _ if message.via_bot.is_some() => Some("written by a bot"),
        None => Some("no sender"),
        Some(user) if !is_allowed(deps, user) => Some("not in notify.telegram.allowed_users"),
        Some(_) if !chats().any(|id| *id == message.chat.id) => Some("not in notify.telegram.allowed_chats"),
        Some(_) => None,
    }
}

async fn reply(deps: &Deps, to: &Message, text: &str) {
    let text: String = text.chars().take(2000).collect();
    send(deps, to, json!({ "text": text })).await;
}

/// The lines stand in a block of code: no link, no name and no command in them can be pressed.
async fn reply_with_lines(deps: &Deps, to: &Message, head: &str, lines: &[String]) {
    // Telegram counts in units of UTF-16, and takes 4,096 of them.
    let units = |text: &str| text.encode_utf16().count();
    let mut block = String::new();
    for line in lines {
        if units(head) + units(&block) + units(line) > 4000 {
            break;
        }
        block = format!("{block}\n{line}");
    }
    let mut message = json!({ "text": format!("{head}{block}") });
    if !block.is_empty() {
        let length = units(&block) - 1;
        message["entities"] = json!([{ "type": "pre", "offset": units(head) + 1, "length": length }]);
    }
    send(deps, to, message).await;
}

async fn send(deps: &Deps, to: &Message, mut message: Value) {
    message["chat_id"] = to.chat.id.into();
    message["reply_parameters"] = json!({ "message_id": to.message_id, "allow_sending_without_reply": true });
    let sent: Result<Value, _> = deps.api.call("sendMessage", &message).await;
    if let Err(e) = sent {
        tracing::warn!(error = %e, "answering a command in Telegram");
    }
}

/// What people may write.
#[derive(Debug, PartialEq)]
enum Command {
    Help,
    Status,
    Logs(LogsAsk),
    Do(Ask),
}

impl Command {
    /// `/ack 1a2b3c`, also as `/ack@our_bot #1a2b3c`; `None` if it is none of ours.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let command = words.next()?.strip_prefix('/')?.split('@').next()?;
        let mut incident = || words.next().map(|id| id.trim_start_matches('#').to_owned());
        Some(match command {
            "help" | "start" => Self::Help,
            "status" => Self::Status,
            "logs" | "логи" => LogsAsk::parse(words).map_or(Self::Help, Self::Logs),
            "ack" => incident().map_or(Self::Help, |incident| Self::Do(Ask::Ack { incident })),
            "resolve" => match incident() {
                Some(incident) => {
                    Self::Do(Ask::Resolve { incident, reason: words.collect::<Vec<_>>().join(" ") })
                }
                None => Self::Help,
            },
            _ => return None,
        })
    }
}

fn help(language: Language) -> String {
    let [status, ack, resolve, id] = ["/status", "/ack", "/resolve", "ID"].map(str::to_owned);
    let help = Phrase::Help { status, ack, resolve, id }.say(language);
    let command = if language == Language::Russian { "/логи" } else { "/logs" };
    let logs = Phrase::HelpLogs { logs: command.into(), back: "15m".into() };
    format!("{help}\n{}", logs.say(language))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let ack = |id: &str| Some(Command::Do(Ask::Ack { incident: id.into() }));
        assert_eq!(Command::parse("/ack 1a2b3c"), ack("1a2b3c"));
        assert_eq!(Command::parse("/ack@aiops_bot  #1a2b3c"), ack("1a2b3c"));
        assert_eq!(Command::parse("/ack"), Some(Command::Help));
        assert_eq!(
            Command::parse("/resolve 1a2b3c it was DNS"),
            Some(Command::Do(Ask::Resolve { incident: "1a2b3c".into(), reason: "it was DNS".into() }))
        );
        assert_eq!(Command::parse("/status"), Some(Command::Status));
        let logs = |service: &str, minutes: u64, level, text: &str| {
            let back = Duration::from_secs(60 * minutes);
            Some(Command::Logs(LogsAsk { service: service.into(), back, level, text: text.into() }))
        };
        let error = Some(crate::model::LogLevel::Error);
        assert_eq!(Command::parse("/logs checkout"), logs("checkout", 15, None, ""));
        assert_eq!(
            Command::parse("/logs checkout 2h error connection refused"),
            logs("checkout", 120, error, "connection refused")
        );
        assert_eq!(Command::parse("/логи касса ошибки отказ"), logs("касса", 15, error, "отказ"));
        assert_eq!(Command::parse("/логи"), Some(Command::Help));
        assert_eq!(Command::parse("ack 1a2b3c"), None);
        assert_eq!(Command::parse("/unknown"), None);
        assert_eq!(Command::parse(""), None);
    }
}
