//! What Telegram does of its own: edits, deleted messages, groups that move, markup.

use super::*;

#[tokio::test]
async fn telegram_an_edit_that_changes_nothing_is_a_success() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| to_telegram(s, &telegram)).await;
    let incident = outbox.open("slow").await;
    outbox.deliver(0).await;
    outbox.change(&incident.id, |_| {}).await;
    outbox.deliver(2).await;
    let m = outbox.message(&incident.id, "telegram").await;
    assert_eq!((m.state, m.last_error), (MessageState::Delivered, None));
    assert_eq!(telegram.messages()[0].edits, 0);
}

#[tokio::test]
async fn telegram_a_deleted_message_is_posted_anew() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| to_telegram(s, &telegram)).await;
    let incident = outbox.open("slow").await;
    outbox.deliver(0).await;
    telegram.delete(CHAT, telegram.messages()[0].id);
    outbox.change(&incident.id, |i| i.title = "slower".into()).await;
    outbox.deliver(2).await;
    outbox.change(&incident.id, |i| i.title = "slowest".into()).await;
    outbox.deliver(2).await;
    let m = telegram.messages();
    assert_eq!((m.len(), m[0].edits), (1, 1));
    assert!(m[0].text.contains("slowest"));
}

#[tokio::test]
async fn telegram_a_group_that_moves_is_followed() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| to_telegram(s, &telegram)).await;
    let before = outbox.open("before").await;
    outbox.deliver(0).await;
    telegram.migrate(CHAT, -100_777);
    outbox.open("after").await;
    outbox.deliver(2).await;
    outbox.change(&before.id, |i| i.title = "before, changed".into()).await;
    outbox.deliver(2).await;
    let new: Vec<_> = telegram.messages().into_iter().filter(|m| m.chat == -100_777).collect();
    assert_eq!(new.len(), 2, "the new incident, and the old one posted anew");
}

#[tokio::test]
async fn telegram_markup_that_it_cannot_read_is_sent_as_text() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| to_telegram(s, &telegram)).await;
    telegram.fail_next(
        "sendMessage",
        400,
        "Bad Request: can't parse entities: Unsupported start tag",
        json!({}),
    );
    outbox.open("slow").await;
    outbox.deliver(0).await;
    assert_eq!(telegram.calls("sendMessage")[1].get("parse_mode"), None);
    assert!(telegram.messages()[0].text.contains("slow"));
}
