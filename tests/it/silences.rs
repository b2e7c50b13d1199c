//! Silences that people make at run time: what they hold back, for how long, and who may make them.

use std::time::Duration;

use aiops::{
    clock, config,
    correlate::{self, Deps},
    model::*,
    notify, steer,
    store::{Store, decisions::About, jobs, messages, retention, silences},
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    correlate::{alert, all, clauses, deps, firing, resolved},
    server::Running,
    stores::on_both_stores,
};

fn ann() -> Actor {
    Actor::token("ann")
}

async fn silence(store: &Store, matches: serde_json::Value, lasts: Duration) -> Silence {
    let matches = serde_json::from_value(matches).expect("matchers");
    let mut tx = store.write().await.expect("begins");
    let until = clock::after(clock::now(), lasts);
    let made = steer::silence(&mut tx, matches, until, "disk swap", &ann()).await.expect("made");
    tx.commit().await.expect("commits");
    made
}

async fn settle(deps: &Deps, id: &str) -> Option<Timestamp> {
    let (tx, again) = correlate::settle(deps, id).await.expect("settles");
    tx.commit().await.expect("commits");
    again
}

/// Lets the outbox work; the one message that is owed.
async fn told(store: &Store, id: &str) -> Message {
    let mut settings = config::Settings::default();
    settings.notify.first_delay = Duration::ZERO;
    let outbox = notify::Deps::new(store.clone(), &settings).expect("the settings are right");
    notify::deliver_due(&outbox, clock::after(clock::now(), Duration::from_secs(60)))
        .await
        .expect("delivers");
    let mut tx = store.read().await.expect("begins");
    messages::of(&mut tx, id).await.expect("reads").remove(0)
}

const HOUR: Duration = Duration::from_secs(3600);

on_both_stores! {
    async fn a_silenced_alert_opens_an_incident_that_is_told_when_the_silence_ends(store: Store) {
        let deps = deps(&store, config::Correlate::default());
        let lasts = Duration::from_millis(2500);
        let s = silence(&store, json!({"alertname": "~Disk.*", "service": "db"}), lasts).await;
        let out = alert(&deps, firing("DiskSlow", "db", clock::now())).await;
        let i = all(&store).await.remove(0);
        let why = i.suppressed.clone().expect("held back");
        assert!(why.starts_with("silence: disk swap (by token:ann, until 20") && why.ends_with(" UTC)"), "{why}");
        assert_eq!(out.settle, [(i.id.clone(), s.until)], "it is looked at again when the silence ends");
        let clause = ("suppressed".to_owned(), format!("silence {}", s.short_id()));
        assert!(clauses(&store, About::incident(&i.id)).await.contains(&clause));
        let message = told(&store, &i.id).await;
        assert_eq!((message.state, message.sent_version), (MessageState::Suppressed, 0));
        assert_eq!(settle(&deps, &i.id).await, Some(s.until), "too early");
        assert!(all(&store).await[0].suppressed.is_some());

        tokio::time::sleep(lasts).await;
        assert_eq!(settle(&deps, &i.id).await, None);
        assert_eq!(all(&store).await[0].suppressed, None);
        let message = told(&store, &i.id).await;
        assert_eq!(message.state, MessageState::Delivered);
    }

    async fn an_alert_outside_the_silence_lifts_it(store: Store) {
        let deps = deps(&store, config::Correlate::default());
        silence(&store, json!({"alertname": "DiskSlow"}), HOUR).await;
        alert(&deps, firing("DiskSlow", "db", clock::now())).await;
        let i = all(&store).await.remove(0);
        assert_eq!(told(&store, &i.id).await.state, MessageState::Suppressed);
        alert(&deps, firing("DbDown", "db", clock::now())).await;
        assert_eq!(all(&store).await[0].suppressed, None);
        assert_eq!(told(&store, &i.id).await.state, MessageState::Delivered);
        let clause = ("told".to_owned(), "a signal outside".to_owned());
        assert!(clauses(&store, About::incident(&i.id)).await.contains(&clause));
        alert(&deps, firing("DiskSlow", "web", clock::now())).await;
        assert!(all(&store).await[0].suppressed.is_some(), "any service");
        alert(&deps, firing("DiskSlower", "api", clock::now())).await;
        assert_eq!(all(&store).await[0].suppressed, None, "a value is the whole value");
    }

    async fn an_expired_silence_tells_at_once_unless_another_holds(store: Store) {
        let deps = deps(&store, config::Correlate::default());
        let longer = silence(&store, json!({"service": "db"}), HOUR * 2).await;
        let shorter = silence(&store, json!({"alertname": "DiskSlow"}), HOUR).await;
        alert(&deps, firing("DiskSlow", "db", clock::now())).await;
        let i = all(&store).await.remove(0);

        for (ends, again) in [(&longer, Some(shorter.until)), (&shorter, None)] {
            let mut tx = store.write().await.expect("begins");
            steer::expire_silence(&mut tx, ends.short_id(), &ann()).await.expect("expires");
            let lease = Duration::from_secs(30);
            let mut due = jobs::claim(&mut tx, "us", clock::now(), lease, 10).await.expect("claims");
            let job = due.remove(0);
            assert_eq!((job.kind, job.subject.as_str(), due.len()), (JobKind::Settle, i.id.as_str(), 0));
            jobs::finish(&mut tx, job).await.expect("done");
            let twice = steer::expire_silence(&mut tx, &ends.id, &ann()).await.expect_err("it is over");
            assert_eq!(twice.to_string(), format!("silence {} is over already", ends.short_id()));
            tx.commit().await.expect("commits");
            assert_eq!(settle(&deps, &i.id).await, again);
            assert_eq!(all(&store).await[0].suppressed.is_some(), again.is_some());
        }
        assert_eq!(told(&store, &i.id).await.state, MessageState::Delivered);
    }

    async fn a_silence_holds_what_was_told_before_and_fires_again(store: Store) {
        let deps = deps(&store, config::Correlate { flap_count: 100, ..Default::default() });
        let first = firing("DiskSlow", "db", clock::now());
        alert(&deps, first.clone()).await;
        let i = all(&store).await.remove(0);
        assert_eq!(told(&store, &i.id).await.episode, 1);
        silence(&store, json!({"service": "db"}), HOUR).await;
        alert(&deps, firing("DiskFull", "db", clock::now())).await;
        assert_eq!(all(&store).await[0].suppressed, None, "what people know of is not hidden from them");
        alert(&deps, resolved(&firing("DiskFull", "db", clock::now()))).await;
        alert(&deps, resolved(&first)).await;
        assert_eq!(told(&store, &i.id).await.state, MessageState::Delivered, "its end is told");
        alert(&deps, firing("DiskSlow", "db", clock::now())).await;
        let again = all(&store).await.remove(0);
        assert_eq!((again.episode, again.suppressed.is_some()), (2, true));
        let message = told(&store, &i.id).await;
        assert_eq!((message.state, message.episode), (MessageState::Suppressed, 1), "no phone rings");
    }

    async fn old_silences_are_forgotten(store: Store) {
        let s = silence(&store, json!({"service": "db"}), HOUR).await;
        let ages = config::Retention::default();
        let mut tx = store.write().await.expect("begins");
        let mut sweep = async |at| retention::sweep(&mut tx, &ages, at).await.expect("sweeps");
        assert_eq!(sweep(s.until).await, 0);
        assert!(sweep(clock::after(s.until, ages.incidents + HOUR)).await > 0);
        assert_eq!(silences::find(&mut tx, &s.id).await.expect("reads"), None);
    }
}

#[tokio::test]
async fn silences_are_made_listed_expired_and_audited() {
    let running = Running::start().await;
    let body = r#"{"matches":{"service":"db","alertname":"~Disk.*"},"duration":"2h","reason":" disk swap "}"#;
    let operator = format!("Bearer {}", running.token(Role::Operator).await);
    let viewer = format!("Bearer {}", running.token(Role::Viewer).await);
    let post = async |bearer: &str| {
        let headers = [("Content-Type", "application/json"), ("Authorization", bearer)];
        running.send("POST", "/api/v1/silences", &headers, body.as_bytes()).await
    };
    post(&viewer).await.is_problem(403, "this needs operator");
    let made = post(&operator).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!((&made["reason"], &made["by"]["via"]), (&json!("disk swap"), &json!("token")));
    assert_eq!(made["matches"], json!({"service": "db", "alertname": "~Disk.*"}));
    let listed = running.call("GET", "/api/v1/silences", "").await.json();
    assert_eq!(listed["items"], json!([made]));
    let path = format!("/api/v1/silences/{}", made["id"].as_str().expect("an id"));
    assert_eq!(running.call("DELETE", &path, "").await.status, 204);
    running.call("DELETE", &path, "").await.is_problem(409, "is over already");
    running.call("DELETE", "/api/v1/silences/ffffff", "").await.is_problem(404, "there is no silence ffffff");
    assert_eq!(running.call("GET", "/api/v1/silences", "").await.json()["items"], json!([]));
    let ended = running.call("GET", "/api/v1/silences?all=true", "").await.json();
    assert_eq!(ended["items"][0]["id"], made["id"]);
    let audit = running.call("GET", "/api/v1/audit", "").await.json();
    let acts: Vec<_> = audit["items"].as_array().expect("items").iter().map(|e| &e["action"]).collect();
    assert_eq!(acts, ["silence.expire", "silence.create"]);
    running.stop().await;
}

#[tokio::test]
async fn a_silence_that_would_hide_too_much_is_refused() {
    let running = Running::start().await;
    for (body, words) in [
        (r#"{"duration":"2h","reason":"x"}"#, "missing field `matches`"),
        (r#"{"matches":{},"duration":"2h","reason":"x"}"#, "at least one label"),
        (r#"{"matches":{"service":"~.*"},"duration":"2h","reason":"x"}"#, "would silence everything"),
        (r#"{"matches":{"service":"~("},"duration":"2h","reason":"x"}"#, "matches.service"),
        (r#"{"matches":{"service":"db"},"duration":"2h","reason":" "}"#, "reason: say why"),
        (r#"{"matches":{"service":"db"},"duration":"soon","reason":"x"}"#, "write it as 2h"),
        (r#"{"matches":{"service":"db"},"duration":"0s","reason":"x"}"#, "end in the future"),
        (r#"{"matches":{"service":"db"},"duration":"31d","reason":"x"}"#, "at most 30 days"),
        (r#"{"matches":{"service":"db"},"duration":"999999999999y","reason":"x"}"#, ""),
        (r#"{"matches":{"service":"db"},"until":"2999-01-01T00:00:00Z","reason":"x"}"#, "at most 30 days"),
        (r#"{"matches":{"service":"db"},"until":"2001-01-01T00:00:00Z","reason":"x"}"#, "in the future"),
        (r#"{"matches":{"service":"db"},"until":"noon","reason":"x"}"#, "the body"),
        (r#"{"matches":{"service":"db"},"reason":"x"}"#, "either duration or until"),
        (r#"{"matches":{"service":"db"},"duration":"1h","reason":"x","for":"me"}"#, "unknown field `for`"),
    ] {
        running.call("POST", "/api/v1/silences", body).await.is_problem(400, words);
    }
    assert_eq!(running.call("GET", "/api/v1/silences?all=true", "").await.json()["items"], json!([]));
    running.stop().await;
}
