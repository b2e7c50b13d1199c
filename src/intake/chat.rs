//! What people press and write in chats, authorised and carried out the same way for every chat.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::{
    clock,
    config::Language,
    metrics,
    model::{Actor, LogLevel, Phrase, Verb},
    search::{Logs, SearchError, Wanted},
    steer,
    store::{self, Store, Tx, audit, buttons, chat_events, incidents},
};

crate::model::words!(
    /// What came of one event from a chat.
    Outcome {
        Done = "done",
        /// The person, the place or the button does not have the right.
        Refused = "refused",
        /// Allowed, but it could not be done as things stand.
        Failed = "failed",
        Ignored = "ignored",
    }
);

/// Makes the channel's counters exist, so that `/metrics` shows zeros instead of nothing.
pub(super) fn declare(channel: &str) {
    for outcome in Outcome::ALL {
        metrics::CHAT_EVENTS.with_label_values(&[channel, outcome.as_str()]);
    }
}

/// What is asked of us.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Ask {
    /// A button, in the place where it was pressed.
    Press {
        button: String,
        place: String,
    },
    Ack {
        incident: String,
    },
    Resolve {
        incident: String,
        reason: String,
    },
}

/// What the person is told, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub outcome: Outcome,
    pub text: String,
}

/// Why a press does nothing.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Button(Phrase),
    #[error(transparent)]
    Steer(#[from] steer::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Refusal {
    fn in_language(&self, language: Language) -> String {
        match self {
            Self::Button(why) => why.say(language),
            Self::Steer(error) => error.in_language(language),
            Self::Store(error) => error.to_string(),
        }
    }
}

/// Carries out what an allow-listed person asks. What it changes, the used button and the end of the chat's event are one
/// transaction: a kill repeats all of it or nothing. An error is the store's; the event then waits.
pub(super) async fn carry_out(
    store: &Store,
    channel: &'static str,
    event_id: &str,
    by: &Actor,
    ask: &Ask,
    language: Language,
    now: Timestamp,
) -> store::Result<Said> {
    let mut tx = store.write().await?;
    let (outcome, refusal) = match act(&mut tx, channel, by, ask, now).await {
        Ok(verb) => {
            end(tx, event_id, now).await?;
            count(channel, Outcome::Done);
            return Ok(Said { outcome: Outcome::Done, text: done(verb).say(language) });
        }
        Err(Refusal::Store(e) | Refusal::Steer(steer::Error::Store(e))) => return Err(e),
        Err(e @ Refusal::Steer(_)) => (Outcome::Failed, e),
        Err(e) => (Outcome::Refused, e),
    };
    // What was begun is undone before the refusal is written down: there is one writer.
    drop(tx);
    let detail = json!({ "asked": format!("{ask:?}"), "why": refusal.to_string() });
    write_down(store, event_id, by, &detail, now).await?;
    count(channel, outcome);
    Ok(Said { outcome, text: refusal.in_language(language) })
}

/// In the audit: somebody asked for what they did not get.
async fn write_down(
    store: &Store,
    event_id: &str,
    by: &Actor,
    detail: &serde_json::Value,
    now: Timestamp,
) -> store::Result<()> {
    let mut tx = store.write().await?;
    audit::add(&mut tx, by, "refused", &format!("chat_event:{event_id}"), detail).await?;
    end(tx, event_id, now).await
}

/// Somebody without the right asked: nothing happens, and that is written down.
pub(super) async fn refuse(
    store: &Store,
    channel: &'static str,
    event_id: &str,
    by: &Actor,
    why: &str,
    now: Timestamp,
) -> store::Result<()> {
    write_down(store, event_id, by, &json!({ "why": why }), now).await?;
    tracing::warn!(channel, by = %by, why, "refused what came from a chat");
    count(channel, Outcome::Refused);
    Ok(())
}

/// Nothing for us.
pub(super) async fn ignore(
    store: &Store,
    channel: &'static str,
    event_id: &str,
    now: Timestamp,
) -> store::Result<()> {
    end(store.write().await?, event_id, now).await?;
    count(channel, Outcome::Ignored);
    Ok(())
}

async fn end(mut tx: Tx, event_id: &str, now: Timestamp) -> store::Result<()> {
    chat_events::handled(&mut tx, event_id, now).await?;
    tx.commit().await
}

fn count(channel: &str, outcome: Outcome) {
    metrics::CHAT_EVENTS.with_label_values(&[channel, outcome.as_str()]).inc();
}

async fn act(tx: &mut Tx, channel: &str, by: &Actor, ask: &Ask, now: Timestamp) -> Result<Verb, Refusal> {
    match ask {
        Ask::Press { button, place } => press(tx, channel, button, place, by, now).await,
        Ask::Ack { incident } => {
            steer::acknowledge(tx, incident, by).await?;
            Ok(Verb::Ack)
        }
        Ask::Resolve { incident, reason } => {
            steer::resolve(tx, incident, by, reason).await?;
            Ok(Verb::Resolve)
        }
    }
}

/// A button works once, in the place where it was shown, before it expires, for exactly the plan that stood beside it.
async fn press(
    tx: &mut Tx,
    channel: &str,
    id: &str,
    place: &str,
    by: &Actor,
    now: Timestamp,
) -> Result<Verb, Refusal> {
    let button = buttons::get(tx, id).await?.ok_or(Refusal::Button(Phrase::ButtonUnknown {}))?;
    if button.channel != channel || button.place.is_empty() || button.place != place {
        return Err(Refusal::Button(Phrase::ButtonElsewhere {}));
    }
    if button.expires_at <= now {
        return Err(Refusal::Button(Phrase::ButtonExpired {}));
    }
    if !buttons::take(tx, id, by, now).await? {
        return Err(Refusal::Button(Phrase::ButtonUsed {}));
    }
    let approval = button.approval_id.as_deref().unwrap_or_default();
    match button.verb {
        Verb::Approve => {
            steer::approve(tx, approval, by, button.plan_hash.as_deref().unwrap_or_default()).await?;
        }
        Verb::Reject => steer::reject(tx, approval, by, "").await?,
        Verb::Ack => drop(steer::acknowledge(tx, &button.incident_id, by).await?),
        Verb::Resolve => drop(steer::resolve(tx, &button.incident_id, by, "").await?),
    }
    Ok(button.verb)
}

fn done(verb: Verb) -> Phrase {
    match verb {
        Verb::Approve => Phrase::ApprovedItStarts {},
        Verb::Reject => Phrase::RejectedNothingDone {},
        Verb::Ack => Phrase::YoursNow {},
        Verb::Resolve => Phrase::ResolvedNow {},
    }
}

/// What a stranger is told.
pub(super) fn not_allowed(language: Language) -> String {
    Phrase::NotAllowed {}.say(language)
}

/// Open incidents, newest first, at most ten; plain text.
pub(super) async fn status(store: &Store, language: Language) -> store::Result<String> {
    let filter = incidents::Filter { open_only: true, ..Default::default() };
    let mut tx = store.read_few().await?;
    let page = incidents::list(&mut tx, &filter, 10, None).await?;
    let total = incidents::count_open(&mut tx).await?;
    drop(tx);
    if total == 0 {
        return Ok(Phrase::NoOpenIncidents {}.say(language));
    }
    let head = Phrase::OpenIncidents { count: total }.say(language);
    let lines = page.items.iter().map(|i| {
        let title: String = i.title.in_language(language).chars().take(120).collect();
        let line = Phrase::OpenIncident {
            id: i.short_id().to_owned(),
            severity: i.severity,
            service: i.service.clone(),
            title,
            since: i.started_at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
            state: i.state,
        };
        line.say(language)
    });
    Ok(std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n"))
}

/// Which log lines somebody wants to see.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogsAsk {
    pub service: String,
    pub back: Duration,
    pub level: Option<LogLevel>,
    pub text: String,
}

impl LogsAsk {
    /// `checkout 15m error connection refused`: how far back and the level may be left out, and the words.
    pub fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut words = words.peekable();
        let service = words.next()?.to_owned();
        let back = words.peek().and_then(|w| humantime::parse_duration(w).ok());
        if back.is_some() {
            words.next();
        }
        let level = words.peek().and_then(|w| level(w));
        if level.is_some() {
            words.next();
        }
        let back = back.unwrap_or(Duration::from_secs(15 * 60));
        Some(Self { service, back, level, text: words.collect::<Vec<_>>().join(" ") })
    }
}

/// A level as people write it in either language; a number is none, for it may be a word that is looked for.
fn level(word: &str) -> Option<LogLevel> {
    let word = word.to_lowercase();
    match word.as_str() {
        "ошибка" | "ошибки" | "errors" => Some(LogLevel::Error),
        "предупреждение" | "предупреждения" | "warnings" => Some(LogLevel::Warn),
        _ if word.starts_with(|c: char| c.is_ascii_digit()) => None,
        _ => LogLevel::parse(&word),
    }
}

/// Lines of one answer, and what is shown of each.
const MOST_LINES: usize = 10;
const MOST_OF_A_LINE: usize = 300;

/// The newest lines that fit, secrets masked: a heading and the lines.
pub(super) async fn logs(
    logs: &Logs,
    ask: &LogsAsk,
    language: Language,
    now: Timestamp,
) -> (String, Vec<String>) {
    let from = clock::before(now, ask.back);
    let wanted = Wanted {
        service: Some(ask.service.clone()),
        text: ask.text.clone(),
        level: ask.level,
        limit: MOST_LINES,
        ..Wanted::between(from, clock::after(now, Duration::from_secs(1)))
    };
    let since = from.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let found = match logs.lines(&wanted, Duration::from_secs(10)).await {
        Ok(found) => found,
        Err(SearchError::Unavailable(why)) => {
            return (Phrase::LogsUnavailable { why }.say(language), Vec::new());
        }
        Err(e @ SearchError::Cursor) => {
            return (Phrase::LogsUnavailable { why: e.to_string().into() }.say(language), Vec::new());
        }
    };
    let count = found.lines.len() as i64;
    let mut head = match (count, found.next) {
        (0, _) => Phrase::NoLogLines { since },
        (_, None) => Phrase::LogLines { count, since },
        (_, Some(_)) => Phrase::LogLinesAndMore { count, since },
    }
    .say(language);
    for gap in found.gaps {
        head = format!("{head}\n({})", gap.in_language(language));
    }
    let lines = found.lines.iter().map(|line| {
        let level = line.level.map_or("?", LogLevel::as_str);
        let message: String = line.message.chars().take(MOST_OF_A_LINE).collect();
        format!("{} {level} {message}", line.at.strftime("%H:%M:%S"))
    });
    (head, lines.collect())
}

/// How old a written command may be: what was meant for another hour is not done now.
pub(super) fn is_stale(written_at: i64, now: Timestamp) -> bool {
    Timestamp::from_second(written_at).is_ok_and(|at| clock::between(at, now).as_secs() > 600)
}
