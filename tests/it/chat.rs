//! What people press and write in chats: who may, where, once, and what is never lost.

use std::time::Duration;

use aiops::{
    clock,
    config::{Language, Secret, Settings},
    intake::{slack as slack_intake, telegram as telegram_intake},
    model::*,
    store::{
        Store, approvals, audit, chat_events, incidents,
        leases::{self, Lease},
        runs,
    },
};
use serde_json::json;

use crate::{
    fakes::{
        slack::{self, Slack},
        telegram::Telegram,
    },
    notify::{CHAT, Clock, deps, open, propose, propose_for, quiet, to_slack, to_telegram},
    stores::{self, on_both_stores},
};

const ANN: i64 = 42;
const STRANGER: i64 = 666;

fn poller(store: &Store, settings: &Settings) -> telegram_intake::Deps {
    telegram_intake::Deps::new(store.clone(), settings.notify.telegram.clone(), Language::English)
}

async fn poll(deps: &telegram_intake::Deps) -> usize {
    let lease = poll_lease(&deps.store).await;
    telegram_intake::poll_once(deps, &lease).await.expect("the poll works")
}

/// Only its owner may poll.
pub async fn poll_lease(store: &Store) -> Lease {
    let mut tx = store.write().await.expect("a transaction");
    let lease =
        leases::acquire(&mut tx, "telegram.poll", "test", Duration::from_secs(30)).await.expect("asks");
    tx.commit().await.expect("committed");
    lease.expect("it is ours")
}

async fn approval(store: &Store, id: &str) -> Approval {
    let mut tx = store.read().await.expect("a transaction");
    approvals::get(&mut tx, id).await.expect("read").expect("it is there")
}

async fn incident(store: &Store, id: &str) -> Incident {
    let mut tx = store.read().await.expect("a transaction");
    incidents::get(&mut tx, id).await.expect("read").expect("it is there")
}

async fn run_count(store: &Store, incident: &str) -> usize {
    let mut tx = store.read().await.expect("a transaction");
    runs::of(&mut tx, incident).await.expect("read").len()
}

/// The actions in the audit, oldest first.
async fn audited(store: &Store) -> Vec<String> {
    let mut tx = store.read().await.expect("a transaction");
    let page = audit::list(&mut tx, 100, None).await.expect("read");
    page.items.into_iter().rev().map(|e| format!("{} {}", e.actor.id, e.action)).collect()
}

on_both_stores! {
    async fn a_button_does_once_what_it_says(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut settings = quiet();
        to_telegram(&mut settings, &telegram);
        let (deps, poller, mut clock) = (deps(&store, &settings), poller(&store, &settings), Clock::new());
        let opened = open(&store, &settings, "slow").await;
        let asked = propose(&store, &opened.id).await;
        clock.deliver(&deps, 2).await;
        let message = telegram.messages().remove(0);
        let approve = message.button("Approve").expect("it is offered");
        let first = telegram.press(ANN, CHAT, message.id, &approve);
        let again = telegram.press(ANN, CHAT, message.id, &approve);
        assert_eq!(poll(&poller).await, 2);
        assert_eq!(telegram.callback(&first).as_deref(), Some("Approved: it starts now"));
        assert_eq!(telegram.callback(&again).as_deref(), Some("this button was used already"));
        let answered = approval(&store, &asked.id).await;
        assert_eq!(answered.state, ApprovalState::Approved);
        assert_eq!(answered.decided_by.expect("somebody").to_string(), "@ann (telegram:42)");
        assert_eq!(run_count(&store, &opened.id).await, 1);
        clock.deliver(&deps, 2).await;
        let edited = telegram.messages().remove(0);
        assert_eq!((edited.edits, edited.button("Approve")), (1, None));
        assert!(edited.text.contains("Approved by @ann (telegram:42)."), "{}", edited.text);

        // Telegram is asked for what comes after; nothing is done twice by whoever polls next.
        drop(poller);
        let next = telegram_intake::Deps::new(store.clone(), settings.notify.telegram.clone(), Language::English);
        let late = poll_lease(&store).await;
        let press = telegram.press(ANN, CHAT, message.id, &approve);
        let mut tx = store.write().await.expect("a transaction");
        leases::release(&mut tx, &late).await.expect("its time ends");
        tx.commit().await.expect("committed");
        let refused = telegram_intake::poll_once(&next, &late).await.expect_err("it was paused for long");
        assert!(refused.to_string().contains("lease was lost"), "{refused:#}");
        assert_eq!(telegram.callback(&press), None, "nothing is kept, nothing is done");
        assert_eq!(poll(&next).await, 1, "the next owner gets it");
        assert_eq!(telegram.callback(&press).as_deref(), Some("this button was used already"));
        assert_eq!(run_count(&store, &opened.id).await, 1);
    }

    async fn what_two_replicas_act_on_at_once_counts_once(store: Store) {
        let now = clock::now();
        let mut tx = store.write().await.expect("a transaction");
        chat_events::add(&mut tx, "slack", "e1", "{}", now).await.expect("kept");
        chat_events::handled(&mut tx, "e1", now).await.expect("the first");
        let second = chat_events::handled(&mut tx, "e1", now).await;
        assert!(matches!(second, Err(aiops::store::Error::LeaseLost)), "the second writes nothing");
    }
}

#[tokio::test]
async fn a_russian_chat_is_answered_and_refused_in_russian() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    settings.language = Language::Russian;
    to_telegram(&mut settings, &telegram);
    let (deps, mut clock) = (deps(&kept.store, &settings), Clock::new());
    let poller =
        telegram_intake::Deps::new(kept.store.clone(), settings.notify.telegram.clone(), settings.language);
    let opened = open(&kept.store, &settings, "медленно").await;
    clock.deliver(&deps, 1).await;
    let message = telegram.messages().remove(0);
    let ack = message.button("Взять в работу").expect("it is offered");
    let first = telegram.press(ANN, CHAT, message.id, &ack);
    let again = telegram.press(ANN, CHAT, message.id, &ack);
    telegram.write(ANN, CHAT, &format!("/ack {}", opened.short_id()), json!({}));
    telegram.write(ANN, CHAT, "/ack ffffff", json!({}));
    telegram.write(ANN, CHAT, "/status", json!({}));
    poll(&poller).await;
    assert_eq!(telegram.callback(&first).as_deref(), Some("Теперь это ваше"));
    assert_eq!(telegram.callback(&again).as_deref(), Some("эту кнопку уже нажимали"));
    let answers: Vec<String> = telegram.messages().into_iter().skip(1).map(|m| m.text).collect();
    assert_eq!(answers[0], "уже в работе у @ann (telegram:42)");
    assert_eq!(answers[1], "нет инцидента ffffff");
    let status = format!("Открытых инцидентов: 1\n#{} критично checkout · медленно · с ", opened.short_id());
    assert!(answers[2].starts_with(&status) && answers[2].ends_with(" · в работе"), "{}", answers[2]);
    let mut tx = kept.store.read().await.expect("a transaction");
    let said = audit::list(&mut tx, 100, None).await.expect("read").items;
    let why = said.iter().find(|e| e.detail["why"].as_str() == Some("this button was used already"));
    assert!(why.is_some(), "the audit stays English: {said:?}");
}

#[tokio::test]
async fn a_button_is_refused_to_whoever_may_not() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, poller) = (deps(&kept.store, &settings), poller(&kept.store, &settings));
    let opened = open(&kept.store, &settings, "slow").await;
    let asked = propose(&kept.store, &opened.id).await;
    Clock::new().deliver(&deps, 2).await;
    let message = telegram.messages().remove(0);
    let approve = message.button("Approve").expect("it is offered");
    assert!(approve.len() <= 64 && !approve.contains(&asked.id), "opaque");
    let stranger = telegram.press(STRANGER, CHAT, message.id, &approve);
    let elsewhere = telegram.press(ANN, -6000, message.id, &approve);
    let forged = telegram.press(ANN, CHAT, message.id, "approve");
    let guessed = telegram.press(ANN, CHAT, message.id, &asked.id);
    poll(&poller).await;
    assert_eq!(telegram.callback(&stranger).as_deref(), Some("You are not allowed to do this"));
    assert_eq!(telegram.callback(&elsewhere).as_deref(), Some("this button belongs to another chat"));
    assert_eq!(telegram.callback(&forged).as_deref(), Some("this button is not one of ours"));
    assert_eq!(telegram.callback(&guessed).as_deref(), Some("this button is not one of ours"));
    assert_eq!(approval(&kept.store, &asked.id).await.state, ApprovalState::Pending);
    assert_eq!(run_count(&kept.store, &opened.id).await, 0);
    assert_eq!(audited(&kept.store).await, ["666 refused", "42 refused", "42 refused", "42 refused"]);
}

#[tokio::test]
async fn an_expired_button_does_nothing() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, poller) = (deps(&kept.store, &settings), poller(&kept.store, &settings));
    let opened = open(&kept.store, &settings, "slow").await;
    let asked = propose_for(&kept.store, &opened.id, Duration::ZERO).await;
    Clock::new().deliver(&deps, 2).await;
    let message = telegram.messages().remove(0);
    let press = telegram.press(ANN, CHAT, message.id, &message.button("Approve").expect("it is offered"));
    poll(&poller).await;
    let said = telegram.callback(&press);
    assert_eq!(said.as_deref(), Some("this button has expired; look at the newest message"));
    assert_eq!(approval(&kept.store, &asked.id).await.state, ApprovalState::Pending);
}

#[tokio::test]
async fn what_was_pressed_survives_a_kill_before_it_is_acted_on() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    let (deps, poller) = (deps(&kept.store, &settings), poller(&kept.store, &settings));
    let opened = open(&kept.store, &settings, "slow").await;
    Clock::new().deliver(&deps, 2).await;
    let message = telegram.messages().remove(0);
    let ack = message.button("Acknowledge").expect("it is offered");
    // What the killed process had done: kept the press together with the offset.
    let body = json!({ "update_id": 7000, "callback_query": {
        "id": "gone", "from": { "id": ANN }, "data": ack,
        "message": { "message_id": message.id, "chat": { "id": CHAT } },
    }});
    let mut tx = kept.store.write().await.expect("a transaction");
    let now = clock::now();
    aiops::store::chat_events::add(&mut tx, "telegram", "telegram:7000", &body.to_string(), now)
        .await
        .expect("kept");
    tx.commit().await.expect("committed");
    assert_eq!(poll(&poller).await, 0);
    assert_eq!(incident(&kept.store, &opened.id).await.state, IncidentState::Acknowledged);
}

#[tokio::test]
async fn commands_work_for_those_who_are_known_and_where_they_are_allowed() {
    let kept = stores::sqlite().await;
    let telegram = Telegram::start(&[CHAT, ANN]);
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    settings.notify.telegram.allowed_chats = vec![ANN];
    let poller = poller(&kept.store, &settings);
    let one = open(&kept.store, &settings, "slow").await;
    let two = open(&kept.store, &settings, "slower").await;
    let ack = format!("/ack {}", one.short_id());
    telegram.write(STRANGER, CHAT, &ack, json!({}));
    telegram.write(ANN, -6000, &ack, json!({}));
    telegram.write(ANN, CHAT, &ack, json!({ "forward_origin": { "type": "user" } }));
    telegram.write(1_087_968_824, CHAT, &ack, json!({ "sender_chat": { "id": CHAT } }));
    telegram.write(ANN, CHAT, "just talking", json!({}));
    poll(&poller).await;
    assert_eq!(telegram.calls("sendMessage").len(), 0, "strangers are not answered");
    assert_eq!(incident(&kept.store, &one.id).await.state, IncidentState::Open);

    telegram.write(ANN, CHAT, &ack, json!({ "date": 1_700_000_000 }));
    telegram.write(ANN, CHAT, "/status", json!({}));
    telegram.write(ANN, CHAT, &format!("/ack@aiops_test_bot #{}", one.short_id()), json!({}));
    telegram.write(ANN, ANN, &format!("/resolve {} it was DNS", two.short_id()), json!({}));
    telegram.write(ANN, CHAT, "/ack 0000000", json!({}));
    telegram.write(ANN, CHAT, "/help", json!({}));
    poll(&poller).await;
    let said: Vec<String> = telegram.messages().into_iter().map(|m| m.text).collect();
    assert!(said[0].starts_with("This command reached me too late"), "{}", said[0]);
    assert!(
        said[1].starts_with("Open incidents: 2\n#") && said[1].contains("critical checkout · slower"),
        "{}",
        said[1]
    );
    assert_eq!(said[2..5], ["It is yours now", "Resolved", "there is no incident 0000000"]);
    assert!(said[5].starts_with("/status: open incidents"));
    assert_eq!(incident(&kept.store, &one.id).await.state, IncidentState::Acknowledged);
    assert_eq!(incident(&kept.store, &two.id).await.state, IncidentState::Resolved);
}

/// A press as Slack sends it: the headers and the form.
struct Press {
    timestamp: String,
    signature: String,
    body: String,
}

impl Press {
    fn signed(secret: &str, user: &str, channel: &str, button: &str) -> Self {
        let payload = json!({
            "type": "block_actions",
            "user": { "id": user, "username": "ann", "team_id": "T1" },
            "channel": { "id": channel, "name": "ops" },
            "message": { "ts": "1700000000.000001" },
            "actions": [{ "action_id": "approve", "block_id": "b", "type": "button", "value": button }],
        });
        let body = form(&payload.to_string());
        let timestamp = clock::now().as_second().to_string();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
        let tag = ring::hmac::sign(&key, format!("v0:{timestamp}:{body}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        Self { timestamp, signature: format!("v0={hex}"), body }
    }

    async fn send(&self, deps: &slack_intake::Deps) -> slack_intake::Answer {
        let body = self.body.as_bytes();
        let request = slack_intake::Request { timestamp: &self.timestamp, signature: &self.signature, body };
        slack_intake::handle(deps, request, clock::now()).await.expect("the store works")
    }
}

/// `application/x-www-form-urlencoded`, as Slack writes it.
fn form(payload: &str) -> String {
    let mut url = reqwest::Url::parse("http://x/").expect("a URL");
    url.query_pairs_mut().append_pair("payload", payload);
    url.query().expect("just set").to_owned()
}

#[tokio::test]
async fn slack_presses_are_proved_and_used_once() {
    const SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    let kept = stores::sqlite().await;
    let slack = Slack::start();
    let mut settings = quiet();
    to_slack(&mut settings, &slack);
    settings.notify.slack.signing_secret = Secret::new(SECRET);
    let receiver =
        slack_intake::Deps::new(kept.store.clone(), settings.notify.slack.clone(), Language::English);
    let deps = deps(&kept.store, &settings);
    let opened = open(&kept.store, &settings, "slow & <!channel>").await;
    let asked = propose(&kept.store, &opened.id).await;
    Clock::new().deliver(&deps, 2).await;
    let approve = slack.messages()[0].button("approve").expect("it is offered");
    let act = async || slack_intake::act_on_waiting(&receiver, clock::now()).await.expect("the store works");

    let unsigned = Press::signed("not the secret at all", "U042", slack::CHANNEL, &approve);
    let refused = slack_intake::Answer::Unverified(slack_intake::Unverified::Signature);
    assert_eq!(unsigned.send(&receiver).await, refused);
    let stranger = Press::signed(SECRET, "U666", slack::CHANNEL, &approve);
    assert_eq!(stranger.send(&receiver).await, slack_intake::Answer::Taken);
    let elsewhere = Press::signed(SECRET, "U042", "C0OTHER", &approve);
    assert_eq!(elsewhere.send(&receiver).await, slack_intake::Answer::Taken);
    assert_eq!(act().await, 2);
    assert_eq!(approval(&kept.store, &asked.id).await.state, ApprovalState::Pending);
    assert_eq!(slack.calls("chat.postEphemeral")[0]["text"], "You are not allowed to do this");

    let good = Press::signed(SECRET, "U042", slack::CHANNEL, &approve);
    assert_eq!(good.send(&receiver).await, slack_intake::Answer::Taken);
    assert_eq!(good.send(&receiver).await, slack_intake::Answer::Taken, "a replay is answered");
    assert_eq!(act().await, 1, "and does nothing");
    assert_eq!(approval(&kept.store, &asked.id).await.state, ApprovalState::Approved);
    assert_eq!(run_count(&kept.store, &opened.id).await, 1);
    assert_eq!(audited(&kept.store).await[..2], ["U666 refused", "U042 refused"]);

    let nonsense = Press { body: form("{}"), ..Press::signed(SECRET, "U042", slack::CHANNEL, "x") };
    assert_eq!(nonsense.send(&receiver).await, refused, "another body than the one that was signed");
}
