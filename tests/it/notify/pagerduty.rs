//! What PagerDuty does of its own: which refusals are worth another try.

use super::*;

#[tokio::test]
async fn pagerduty_refusals_are_told_apart() {
    let pagerduty = PagerDuty::start();
    let mut outbox = Outbox::sqlite(|s| to_pagerduty(s, &pagerduty)).await;
    pagerduty.answer_next(Answer::text(429, "slow down"));
    pagerduty.answer_next(Answer::text(500, "oops"));
    let incident = outbox.open("slow").await;
    for _ in 0..4 {
        outbox.deliver(11).await;
    }
    assert_eq!(pagerduty.alerts().values().collect::<Vec<_>>(), [&"triggered"]);
    outbox.change(&incident.id, |i| i.state = IncidentState::Acknowledged).await;
    outbox.deliver(1).await;
    assert_eq!(pagerduty.alerts().values().collect::<Vec<_>>(), [&"acknowledged"]);
    pagerduty.answer_next(Answer::text(400, "{\"status\":\"invalid event\"}"));
    outbox.resolve(&incident.id).await;
    outbox.deliver(1).await;
    let m = outbox.message(&incident.id, "pagerduty").await;
    assert_eq!(m.state, MessageState::Dead);
    assert!(m.last_error.expect("a reason").contains("invalid event"));
}
