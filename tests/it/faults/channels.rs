//! Channels that fail on the far side; what each of them does of its own is in `notify`.

use std::time::Duration;

use aiops::{model::MessageState, notify::Deps};
use serde_json::json;

use crate::{
    fakes::telegram::Telegram,
    notify::{CHAT, Outbox, to_email, to_telegram},
    peers,
};

#[tokio::test]
async fn telegram_that_fails_or_asks_for_a_pause_is_told_once_it_works() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| to_telegram(s, &telegram)).await;
    telegram.fail_next("sendMessage", 500, "Internal Server Error", json!({}));
    telegram.fail_next("sendMessage", 502, "Bad Gateway", json!({}));
    telegram.fail_next("sendMessage", 429, "Too Many Requests: retry after 30", json!({ "retry_after": 30 }));
    let incident = outbox.open("slow").await;
    for _ in 0..4 {
        outbox.deliver(5).await;
    }
    assert_eq!(telegram.calls("sendMessage").len(), 3, "the pause is kept");
    let waiting = outbox.message(&incident.id, "telegram").await;
    assert_eq!(waiting.state, MessageState::Due);
    for _ in 0..4 {
        outbox.deliver(10).await;
    }
    assert_eq!(telegram.messages().len(), 1, "once, and not once for each try");
    assert_eq!(outbox.message(&incident.id, "telegram").await.state, MessageState::Delivered);
}

#[tokio::test]
async fn a_telegram_that_hangs_holds_up_nobody_else_and_is_given_up_in_time() {
    let smtp = peers::Smtp::start().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound");
    let mut outbox = Outbox::sqlite(|s| {
        to_email(s, smtp.port, &["ann@example.org"]);
        s.notify.telegram.token = aiops::config::Secret::new("123456:abcdefghijklmnopqrstuvwxyz");
        s.notify.telegram.api = format!("http://{address}");
        s.notify.telegram.chat_id = CHAT;
        s.notify.telegram.timeout = Duration::from_millis(300);
    })
    .await;
    let incident = outbox.open("slow").await;
    outbox.deliver(0).await;
    assert_eq!(smtp.mails().len(), 1, "the mail did not wait");
    let hanging = outbox.message(&incident.id, "telegram").await;
    assert_eq!(hanging.state, MessageState::Due);
    let why = hanging.last_error.expect("a reason");
    assert!(why.contains("operation timed out"), "{why}");
}

#[tokio::test]
async fn a_mail_server_that_refuses_some_reaches_the_others_and_says_who_was_not() {
    let smtp = peers::Smtp::start().await;
    let to = ["ann@example.org", "fail550@example.org", "fail451@example.org"];
    let mut outbox = Outbox::sqlite(|s| to_email(s, smtp.port, &to)).await;
    let incident = outbox.open("slow").await;
    outbox.deliver(0).await;
    let reached: Vec<_> = smtp.mails().into_iter().flat_map(|m| m.to).collect();
    assert_eq!(reached, ["ann@example.org"]);
    let waiting = outbox.message(&incident.id, "email").await;
    assert_eq!(waiting.state, MessageState::Due, "451 may work later, and is tried again");
    assert!(waiting.last_error.expect("a reason").contains("fail451@example.org"));
    outbox.settings.notify.deadline = Duration::from_secs(1);
    let impatient = Deps::new(outbox.store.clone(), &outbox.settings).expect("right settings");
    outbox.clock.deliver(&impatient, 60).await;
    let dead = outbox.message(&incident.id, "email").await;
    assert_eq!(dead.state, MessageState::Dead, "who is never reached is told of");
    assert_eq!(smtp.mails().len(), 1, "whoever was reached is not written to again");
}
