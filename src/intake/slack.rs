//! Slack, incoming: signed button presses; kept before they are answered, acted on afterwards, once.

use std::time::Duration;

use jiff::Timestamp;
use ring::hmac;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::chat::{self, Ask, Outcome};
use crate::{
    clock,
    config::{self, Language, Secret},
    model::Actor,
    slack_api::SlackApi,
    store::{self, Store, chat_events},
};

const CHANNEL: &str = "slack";
/// How far Slack's clock and ours may be apart; also how long a request could be replayed if we did not remember it.
const MAX_SKEW: i64 = 300;

/// What the receiver needs.
pub struct Deps {
    pub store: Store,
    pub settings: config::Slack,
    pub language: Language,
    api: SlackApi,
    bell: Notify,
}

impl Deps {
    pub fn new(store: Store, settings: config::Slack, language: Language) -> Self {
        chat::declare(CHANNEL);
        let api = SlackApi::new(&settings);
        Self { store, settings, language, api, bell: Notify::new() }
    }
}

/// Why a request is not Slack's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    #[error("no signing secret is set")]
    NoSecret,
    #[error("the timestamp is missing, unreadable or more than 300 s away")]
    Timestamp,
    #[error("the signature is wrong")]
    Signature,
}

/// Checks `X-Slack-Signature` (`v0=` and HMAC-SHA256 over `v0:{timestamp}:{raw body}`, hexadecimal) in constant time, and
/// that `X-Slack-Request-Timestamp` is near `now`.
pub fn verify(
    secret: &Secret,
    timestamp: &str,
    body: &[u8],
    signature: &str,
    now: Timestamp,
) -> Result<(), Unverified> {
    if secret.is_empty() {
        return Err(Unverified::NoSecret);
    }
    let sent_at: i64 = timestamp.parse().map_err(|_| Unverified::Timestamp)?;
    if now.as_second().abs_diff(sent_at) > MAX_SKEW.unsigned_abs() {
        return Err(Unverified::Timestamp);
    }
    let given = signature.strip_prefix("v0=").and_then(unhex).ok_or(Unverified::Signature)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let signed = [b"v0:", timestamp.as_bytes(), b":", body].concat();
    hmac::verify(&key, &signed, &given).map_err(|_| Unverified::Signature)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// A request as it came: the two headers and the raw bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `X-Slack-Request-Timestamp`.
    pub timestamp: &'a str,
    /// `X-Slack-Signature`.
    pub signature: &'a str,
    pub body: &'a [u8],
}

/// What Slack is answered, at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200 with an empty body. Also for a replay, which does nothing.
    Taken,
    /// 401.
    Unverified(Unverified),
    /// 400: signed, but nothing that Slack would send.
    Malformed,
}

#[derive(Deserialize)]
struct Form {
    payload: String,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "type")]
    kind: String,
    user: Id,
    channel: Option<Id>,
    #[serde(default)]
    actions: Vec<Action>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

#[derive(Deserialize)]
struct Action {
    value: Option<String>,
}

/// Takes a press: checked, and durable before Slack hears that we have it.
pub async fn handle(deps: &Deps, request: Request<'_>, now: Timestamp) -> store::Result<Answer> {
    let Request { timestamp, signature, body } = request;
    if let Err(why) = verify(&deps.settings.signing_secret, timestamp, body, signature, now) {
        crate::metrics::CHAT_EVENTS.with_label_values(&[CHANNEL, Outcome::Refused.as_str()]).inc();
        tracing::warn!(%why, "a request to Slack's interactive route is not Slack's");
        return Ok(Answer::Unverified(why));
    }
    let Some(payload) = payload(body) else { return Ok(Answer::Malformed) };
    let id = format!("{CHANNEL}:{signature}");
    let mut tx = deps.store.write().await?;
    if !chat_events::add(&mut tx, CHANNEL, &id, &payload, now).await? {
        tracing::warn!("a press that Slack sent before came again; it does nothing");
    }
    tx.commit().await?;
    deps.bell.notify_one();
    Ok(Answer::Taken)
}

/// The JSON in the form's one field.
fn payload(body: &[u8]) -> Option<String> {
    let url = reqwest::Url::parse(&format!("form:?{}", std::str::from_utf8(body).ok()?)).ok()?;
    let field = url.query_pairs().find(|(name, _)| name == "payload")?;
    let form = Form { payload: field.1.into_owned() };
    serde_json::from_str::<Payload>(&form.payload).ok()?;
    Some(form.payload)
}

/// Acts on what was taken, until cancelled.
pub async fn run(deps: &Deps, cancel: CancellationToken) {
    while !cancel.is_cancelled() {
        if let Err(e) = act_on_waiting(deps, clock::now()).await {
            tracing::error!(error = %e, "acting on presses in Slack; trying again");
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = deps.bell.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}

/// Acts on what waits; how many events there were.
pub async fn act_on_waiting(deps: &Deps, now: Timestamp) -> store::Result<usize> {
    let mut tx = deps.store.read_few().await?;
    let waiting = chat_events::waiting(&mut tx, CHANNEL).await?;
    drop(tx);
    for event in &waiting {
        let acted = match serde_json::from_str::<Payload>(&event.body) {
            Ok(payload) if payload.kind == "block_actions" => pressed(deps, &event.id, payload, now).await,
            _ => chat::ignore(&deps.store, CHANNEL, &event.id, now).await,
        };
        match acted {
            // Another replica has acted on it meanwhile.
            Ok(()) | Err(store::Error::LeaseLost) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(waiting.len())
}

async fn pressed(deps: &Deps, event_id: &str, payload: Payload, now: Timestamp) -> store::Result<()> {
    // The name in the payload is the user's own choice, so the id alone stands in the audit.
    let by = Actor { via: CHANNEL.into(), id: payload.user.id.clone(), name: None };
    let place = payload.channel.map_or_else(String::new, |c| c.id);
    let button = payload.actions.into_iter().next().and_then(|a| a.value);
    let said = match button {
        _ if !deps.settings.allowed_users.contains(&by.id) => {
            chat::refuse(&deps.store, CHANNEL, event_id, &by, "not in notify.slack.allowed_users", now)
                .await?;
            Some(chat::not_allowed(deps.language))
        }
        Some(button) => {
            let ask = Ask::Press { button, place: place.clone() };
            let said = chat::carry_out(&deps.store, CHANNEL, event_id, &by, &ask, deps.language, now).await?;
            // What was done shows in the message itself.
            (said.outcome != Outcome::Done).then_some(said.text)
        }
        None => return chat::ignore(&deps.store, CHANNEL, event_id, now).await,
    };
    if let Some(text) = said {
        let whisper = json!({ "channel": place, "user": by.id, "text": text });
        if let Err(e) = deps.api.call("chat.postEphemeral", &whisper).await {
            tracing::debug!(error = %e, "telling somebody in Slack that a press did nothing");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of Slack's documentation, "Verifying requests from Slack".
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn check(body: &str, signature: &str, seconds_later: i64) -> Result<(), Unverified> {
        let now = Timestamp::from_second(1_531_420_618 + seconds_later).expect("in range");
        let secret = Secret::new("8f742231b10e8888abcd99yyyzzz85a5");
        verify(&secret, "1531420618", body.as_bytes(), signature, now)
    }

    #[test]
    fn slacks_own_example_is_accepted() {
        assert_eq!(check(BODY, SIGNATURE, 0), Ok(()));
        assert_eq!(check(BODY, SIGNATURE, 300), Ok(()));
    }

    #[test]
    fn what_differs_in_anything_is_refused() {
        assert_eq!(check(BODY, SIGNATURE, 301), Err(Unverified::Timestamp));
        assert_eq!(check(BODY, SIGNATURE, -301), Err(Unverified::Timestamp));
        assert_eq!(check(&BODY[1..], SIGNATURE, 0), Err(Unverified::Signature));
        for wrong in ["", "v0=", "v0=zz", "v1=a2", &SIGNATURE[..SIGNATURE.len() - 2], "a2114d57"] {
            assert_eq!(check(BODY, wrong, 0), Err(Unverified::Signature), "{wrong}");
        }
        let none = Secret::default();
        let now = Timestamp::from_second(1_531_420_618).expect("in range");
        assert_eq!(verify(&none, "1531420618", b"", SIGNATURE, now), Err(Unverified::NoSecret));
    }
}
