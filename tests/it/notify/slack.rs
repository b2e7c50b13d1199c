//! What Slack does of its own: delays, windows for edits, incoming webhooks.

use super::*;

#[tokio::test]
async fn slack_is_obeyed_and_its_refusals_are_told_apart() {
    let slack = Slack::start();
    let mut outbox = Outbox::sqlite(|s| to_slack(s, &slack)).await;
    slack.answer_next("chat.postMessage", Answer::text(429, "").with("retry-after", 20));
    let incident = outbox.open("slow").await;
    for _ in 0..3 {
        outbox.deliver(5).await;
    }
    assert_eq!(slack.calls("chat.postMessage").len(), 1, "Retry-After is honoured");
    outbox.deliver(10).await;
    assert_eq!(slack.messages().len(), 1);

    slack.fail_next("chat.update", "edit_window_closed");
    outbox.change(&incident.id, |i| i.title = "slower".into()).await;
    outbox.deliver(2).await;
    assert_eq!(slack.messages().len(), 2, "what cannot be edited is posted anew");
    outbox.change(&incident.id, |i| i.title = "slowest".into()).await;
    outbox.deliver(2).await;
    assert!(slack.messages()[1].text.contains("slowest"));

    slack.fail_next("chat.update", "is_archived");
    outbox.change(&incident.id, |i| i.title = "over".into()).await;
    outbox.deliver(2).await;
    let m = outbox.message(&incident.id, "slack").await;
    assert_eq!((m.state, m.last_error.as_deref()), (MessageState::Dead, Some("Slack answered is_archived")));
}

#[tokio::test]
async fn a_slack_webhook_is_told_the_milestones() {
    let slack = Slack::start();
    let mut outbox = Outbox::sqlite(|s| {
        s.notify.slack = config::Slack { webhook: Secret::new(slack.webhook()), ..config::Slack::default() };
    })
    .await;
    let incident = outbox.open("slow").await;
    outbox.deliver(2).await;
    outbox.diagnose(&incident.id).await;
    outbox.deliver(2).await;
    outbox.propose(&incident.id).await;
    outbox.deliver(2).await;
    outbox.resolve(&incident.id).await;
    outbox.deliver(2).await;
    let texts: Vec<String> = slack.calls("webhook").iter().map(|c| c["text"].to_string()).collect();
    assert_eq!(
        texts,
        [
            "\"[CRITICAL] checkout: slow\"",
            "\"[CRITICAL] approval needed: checkout: slow\"",
            "\"[RESOLVED] checkout: slow\""
        ]
    );
}
