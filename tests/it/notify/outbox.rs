//! What holds for every channel: one message that is edited, rings, limits, dead letters, what is held back.

use super::*;

on_both_stores! {
    async fn one_message_is_edited_from_the_opening_to_the_end(store: Store) {
        let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
        let mut outbox = Outbox::over(&store, |s| {
            to_telegram(s, &telegram);
            to_slack(s, &slack);
            to_pagerduty(s, &pagerduty);
        });
        let incident = outbox.open("5xx & <b>timeouts</b>").await;
        assert_eq!(outbox.deliver(0).await, 3);
        let first = telegram.messages();
        assert!(first[0].text.contains("🔴 CRITICAL 5xx & <b>timeouts</b>"), "{}", first[0].text);
        assert!(first[0].text.contains("No diagnosis yet."));
        assert!(slack.messages()[0].text.contains("5xx &amp; &lt;b&gt;timeouts&lt;/b&gt;"));

        outbox.diagnose(&incident.id).await;
        let approval = outbox.propose(&incident.id).await;
        outbox.deliver(2).await;
        outbox.deliver(2).await;
        let rung = &telegram.rings()[0].text;
        assert!(rung.starts_with("🔔 approval needed: 5xx & <b>timeouts</b>\ncheckout · #"), "{rung}");
        assert!(rung.ends_with("Restart checkout\nThe exact plan, and how to answer, stand in the message above."));
        assert!(slack.rings()[0].text.contains("🔔 approval needed:"));
        let text = telegram.messages()[0].text.clone();
        for part in [
            "The database refuses connections.",
            "• checkout cannot reach its database\n   E1 `connection refused to <*>`: 214 in 60 s, usually 0–3",
            "Not known\n• prometheus: circuit open",
            "Restart checkout\nrestart-service on checkout-1 · plan ",
            &approval.plan_hash[..12],
            "• 1. systemctl restart \"checkout <1>\"",
            "Press Approve to run exactly this plan, once; or Reject.",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(telegram.messages()[0].button("Approve").is_some());
        assert!(slack.messages()[0].button("approve").is_some());

        outbox.resolve(&incident.id).await;
        outbox.deliver(2).await;
        outbox.deliver(2).await;
        assert_eq!((telegram.rings().len(), slack.rings().len()), (1, 1), "one ring for one question");
        let (t, s) = (telegram.messages(), slack.messages());
        assert_eq!((t.len(), t[0].edits, s.len(), s[0].edits), (1, 2, 1, 2));
        assert!(t[0].text.starts_with("✅ RESOLVED"), "{}", t[0].text);
        assert_eq!(t[0].button("Approve"), None);
        let said: Vec<_> = pagerduty.events().iter().map(|e| e["event_action"].clone()).collect();
        assert_eq!(said, ["trigger", "trigger", "resolve"]);
        assert_eq!(pagerduty.alerts().values().collect::<Vec<_>>(), [&"resolved"]);
        let m = outbox.message(&incident.id, "telegram").await;
        assert_eq!((m.state, m.sent_version), (MessageState::Delivered, m.wanted_version));
    }

    async fn many_changes_become_one_edit_of_the_newest(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut outbox = Outbox::over(&store, |s| to_telegram(s, &telegram));
        let incident = outbox.open("slow").await;
        outbox.deliver(0).await;
        for n in 0..20 {
            outbox.change(&incident.id, |i| i.title = format!("slow {n}").into()).await;
        }
        outbox.deliver(2).await;
        outbox.deliver(2).await;
        let m = telegram.messages();
        assert_eq!((m.len(), m[0].edits), (1, 1));
        assert!(m[0].text.contains("slow 19"));
    }

    async fn every_moment_of_need_rings_once(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut outbox = Outbox::over(&store, |s| to_telegram(s, &telegram));
        let incident = outbox.open("slow").await;
        outbox.deliver(2).await;
        let run = run(&incident.id, RunState::Verifying);
        let mut tx = store.write().await.expect("a transaction");
        runs::insert(&mut tx, &run).await.expect("inserted");
        tx.commit().await.expect("committed");
        // What the run comes to, and how many times the phone has rung by then.
        let states = [
            (RunState::Verifying, 0),
            (RunState::RollingBack, 1),
            (RunState::RolledBack, 1),
            (RunState::NeedsHuman, 2),
            (RunState::NeedsHuman, 2),
        ];
        for (state, rings) in states {
            let mut tx = store.write().await.expect("a transaction");
            runs::set_state(&mut tx, &run.id, state, &"as it went".into()).await.expect("saved");
            incidents::touch(&mut tx, &incident.id).await.expect("touched");
            tx.commit().await.expect("committed");
            for _ in 0..3 {
                outbox.deliver(2).await;
            }
            assert_eq!(telegram.rings().len(), rings, "{state}");
        }
        assert!(telegram.rings()[0].text.starts_with("🔔 the fix failed: slow"), "{:?}", telegram.rings());
        assert!(telegram.rings()[1].text.starts_with("🔔 needs a human: slow"), "{:?}", telegram.rings());
        assert_eq!(telegram.messages().len(), 1);
        assert_eq!(outbox.message(&incident.id, "telegram").await.state, MessageState::Delivered);
    }

    async fn a_need_that_the_first_message_tells_or_that_is_over_rings_nobody(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut outbox = Outbox::over(&store, |s| to_telegram(s, &telegram));
        let asked = outbox.open("asked at once").await;
        outbox.propose(&asked.id).await;
        outbox.deliver(2).await;
        outbox.change(&asked.id, |i| i.title = "asked at once, and worse".into()).await;
        let flapping = outbox.open("flapping").await;
        outbox.deliver(2).await;
        outbox.deliver(2).await;
        outbox.change(&flapping.id, |i| i.flapping = true).await;
        outbox.propose(&flapping.id).await;
        let over = outbox.open("over").await;
        for _ in 0..4 {
            outbox.deliver(2).await;
        }
        outbox.propose(&over.id).await;
        outbox.deliver(2).await;
        outbox.resolve(&over.id).await;
        for _ in 0..4 {
            outbox.deliver(2).await;
        }
        assert_eq!(telegram.rings(), []);
        outbox.change(&flapping.id, |i| i.flapping = false).await;
        for _ in 0..4 {
            outbox.deliver(2).await;
        }
        assert_eq!(telegram.rings().len(), 1, "it has calmed down, and still needs an answer");
    }

    async fn a_kill_while_ringing_gives_at_most_one_more_ring(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut outbox = Outbox::over(&store, |s| to_telegram(s, &telegram));
        let incident = outbox.open("slow").await;
        outbox.deliver(2).await;
        outbox.propose(&incident.id).await;
        outbox.deliver(2).await;
        // What the killed one had done: shown the question, claimed the ring, said that it posts, and perhaps rung.
        let mut tx = store.write().await.expect("a transaction");
        let lease = Duration::from_secs(10);
        let claimed = messages::claim(&mut tx, "telegram", outbox.clock.0, lease, 1).await.expect("claimed").pop();
        let claimed = claimed.expect("the ring is due");
        messages::posting(&mut tx, &claimed, claimed.message.sent_version).await.expect("written");
        tx.commit().await.expect("committed");
        let mut tx = store.write().await.expect("a transaction");
        aiops::store::testing::end_leases(&mut tx).await;
        tx.commit().await.expect("committed");
        outbox.deliver(121).await;
        for _ in 0..3 {
            outbox.deliver(2).await;
        }
        assert_eq!(telegram.rings().len(), 1, "one, and perhaps one by the killed process");
        let mut tx = store.read().await.expect("a transaction");
        let why = decisions::of(&mut tx, decisions::About::incident(&incident.id)).await.expect("read");
        assert_eq!(why[0].outcome, "posted again");
    }

    async fn status_says_how_each_channel_stands(store: Store) {
        let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
        let mut outbox = Outbox::over(&store, |s| {
            to_telegram(s, &telegram);
            to_slack(s, &slack);
            to_pagerduty(s, &pagerduty);
        });
        let fresh = outbox.status(outbox.clock.0).await;
        assert!(fresh.iter().all(|c| c.last_delivered_at.is_none() && c.waiting == 0 && c.last_error.is_none()));
        telegram.fail_next("sendMessage", 500, "Internal: password=hunter2hunter2", json!({}));
        slack.answer_next("chat.postMessage", Answer::text(429, "").with("retry-after", 40));
        pagerduty.answer_next(Answer::text(400, "invalid event"));
        let incident = outbox.open("slow").await;
        outbox.deliver(1).await;
        let now = clock::after(outbox.clock.0, Duration::from_secs(20));
        let [t, s, p] = outbox.status(now).await.try_into().expect("three channels");
        let names = [t.channel, s.channel, p.channel].map(|c| c.as_str());
        assert_eq!(names, ["telegram", "slack", "pagerduty"]);
        assert_eq!((t.waiting, t.dead_letters, t.paused_until, t.last_delivered_at), (1, 0, None, None));
        assert!((20..60).contains(&t.oldest_waiting_seconds), "{t:?}");
        assert_eq!(t.last_error.as_deref(), Some("Telegram answered 500: Internal: password=***"));
        assert_eq!((s.waiting, s.paused_until), (1, Some(clock::after(outbox.clock.0, Duration::from_secs(40)))));
        assert_eq!((p.waiting, p.dead_letters, p.oldest_waiting_seconds), (0, 1, 0));
        assert!(p.last_error.expect("an error").contains("invalid event"));

        outbox.change(&incident.id, |i| i.title = "slower".into()).await;
        for _ in 0..3 {
            outbox.deliver(45).await;
        }
        for c in outbox.status(outbox.clock.0).await {
            let seen = (c.waiting, c.oldest_waiting_seconds, c.dead_letters, c.paused_until, c.last_error.as_deref());
            assert_eq!(seen, (0, 0, 0, None, None), "{}", c.channel);
            assert!(c.last_delivered_at.is_some(), "{}", c.channel);
        }
        // What is held back keeps its reason there, which is no error.
        outbox.change(&incident.id, |i| i.flapping = true).await;
        outbox.deliver(2).await;
        outbox.change(&incident.id, |i| i.title = "on and off".into()).await;
        outbox.deliver(2).await;
        assert_eq!(outbox.message(&incident.id, "telegram").await.state, MessageState::Suppressed);
        assert!(outbox.status(outbox.clock.0).await.iter().all(|c| (c.waiting, c.dead_letters, c.last_error.as_deref()) == (0, 0, None)));
    }

    // The process ends after Telegram took the message and before its reference is stored.
    async fn a_kill_while_posting_gives_at_most_one_duplicate(store: Store) {
        let telegram = Telegram::start(&[CHAT]);
        let mut outbox = Outbox::over(&store, |s| to_telegram(s, &telegram));
        let incident = outbox.open("slow").await;
        // What the killed one had done: claimed, said that it posts, and posted.
        let mut tx = store.write().await.expect("a transaction");
        let lease = Duration::from_secs(10);
        let claimed = messages::claim(&mut tx, "telegram", clock::now(), lease, 1).await.expect("claimed").pop();
        let claimed = claimed.expect("one is due");
        messages::posting(&mut tx, &claimed, 1).await.expect("written");
        tx.commit().await.expect("committed");

        assert_eq!(outbox.deliver(5).await, 0, "it is leased still");
        let mut tx = store.write().await.expect("a transaction");
        aiops::store::testing::end_leases(&mut tx).await;
        tx.commit().await.expect("committed");
        assert_eq!(outbox.deliver(121).await, 1);
        outbox.change(&incident.id, |i| i.title = "slower".into()).await;
        outbox.deliver(2).await;
        assert_eq!(telegram.calls("sendMessage").len(), 1, "one, and one by the killed process");
        assert_eq!(telegram.messages()[0].edits, 1);
        let mut tx = store.read().await.expect("a transaction");
        let why = decisions::of(&mut tx, decisions::About::incident(&incident.id)).await.expect("read");
        assert_eq!(why[0].outcome, "posted again");
        drop(tx);
        // The killed one was only slow and comes back: the fence keeps it from writing.
        let mut tx = store.write().await.expect("a transaction");
        let late = messages::failed(&mut tx, claimed, "late", outbox.clock.0).await;
        assert!(matches!(late, Err(aiops::store::Error::LeaseLost)));
    }

    // Whoever was paged by a process that could not say so any more is told when it is over.
    async fn a_page_by_a_killed_process_ends_with_the_incident(store: Store) {
        let pagerduty = PagerDuty::start();
        let mut outbox = Outbox::over(&store, |s| to_pagerduty(s, &pagerduty));
        let incident = outbox.open("slow").await;
        let mut tx = store.write().await.expect("a transaction");
        let lease = Duration::from_secs(10);
        let claimed = messages::claim(&mut tx, "pagerduty", clock::now(), lease, 1).await.expect("claimed").pop();
        messages::posting(&mut tx, &claimed.expect("one is due"), 1).await.expect("written");
        aiops::store::testing::end_leases(&mut tx).await;
        tx.commit().await.expect("committed");
        outbox.resolve(&incident.id).await;
        outbox.deliver(2).await;
        let actions: Vec<_> = pagerduty.events().iter().map(|e| e["event_action"].clone()).collect();
        assert_eq!(actions, ["resolve"], "and nobody is paged by that");
    }
}

#[tokio::test]
async fn too_fast_for_one_channel_pauses_that_one_only() {
    let (telegram, slack) = (Telegram::start(&[CHAT]), Slack::start());
    let mut outbox = Outbox::sqlite(|s| {
        to_telegram(s, &telegram);
        to_slack(s, &slack);
    })
    .await;
    telegram.fail_next("sendMessage", 429, "Too Many Requests: retry after 30", json!({ "retry_after": 30 }));
    outbox.open("one").await;
    outbox.open("two").await;
    for _ in 0..4 {
        outbox.deliver(3).await;
    }
    assert_eq!((telegram.calls("sendMessage").len(), slack.messages().len()), (1, 2));
    for _ in 0..4 {
        outbox.deliver(10).await;
    }
    assert_eq!(telegram.messages().len(), 2, "after the pause both came");
}

#[tokio::test]
async fn what_is_refused_for_good_is_a_dead_letter_and_the_others_say_so() {
    let (telegram, slack) = (Telegram::start(&[CHAT]), Slack::start());
    let mut outbox = Outbox::sqlite(|s| {
        to_telegram(s, &telegram);
        to_slack(s, &slack);
    })
    .await;
    for _ in 0..2 {
        telegram.fail_next("sendMessage", 403, "Forbidden: bot was kicked from the group chat", json!({}));
    }
    let incident = outbox.open("slow").await;
    for _ in 0..3 {
        outbox.deliver(2).await;
    }
    let dead = outbox.message(&incident.id, "telegram").await;
    assert_eq!(dead.state, MessageState::Dead);
    assert_eq!(
        dead.last_error.as_deref(),
        Some("Telegram answered 403: Forbidden: bot was kicked from the group chat")
    );
    assert!(
        slack.messages()[0].text.contains("⚠️ Could not reach: telegram"),
        "{}",
        slack.messages()[0].text
    );
    let mut tx = outbox.store.read().await.expect("a transaction");
    let story = timeline::of(&mut tx, &incident.id).await.expect("read");
    drop(tx);
    let failed: Vec<_> = story.iter().filter(|e| e.kind == TimelineKind::NotifyFailed).collect();
    assert_eq!(failed.len(), 1, "told once: {failed:?}");
    assert!(aiops::alarm::active().iter().any(|a| a.alarm == aiops::alarm::Alarm::MessageDead));

    // A newer version gets a new chance, and the same refusal makes no new noise.
    outbox.change(&incident.id, |i| i.title = "slower".into()).await;
    outbox.deliver(2).await;
    assert_eq!(outbox.message(&incident.id, "telegram").await.state, MessageState::Dead);
    outbox.change(&incident.id, |i| i.title = "slowest".into()).await;
    outbox.deliver(2).await;
    assert_eq!(outbox.message(&incident.id, "telegram").await.state, MessageState::Delivered);
    assert!(telegram.messages()[0].text.contains("slowest"));
    let mut tx = outbox.store.read().await.expect("a transaction");
    let story = timeline::of(&mut tx, &incident.id).await.expect("read");
    assert_eq!(story.iter().filter(|e| e.kind == TimelineKind::NotifyFailed).count(), 1);
}

#[tokio::test]
async fn what_may_work_later_is_tried_until_the_deadline() {
    let slack = Slack::start();
    let mut outbox = Outbox::sqlite(|s| {
        to_slack(s, &slack);
        s.notify.deadline = Duration::from_secs(60);
    })
    .await;
    slack.fail_next("chat.postMessage", "internal_error");
    slack.answer_next("chat.postMessage", Answer::text(502, "<html>bad gateway</html>"));
    let incident = outbox.open("slow").await;
    for _ in 0..3 {
        outbox.deliver(5).await;
    }
    let m = outbox.message(&incident.id, "slack").await;
    assert_eq!((m.state, m.attempts), (MessageState::Delivered, 0));

    let late = outbox.open("late").await;
    for _ in 0..30 {
        slack.fail_next("chat.postMessage", "fatal_error");
    }
    for _ in 0..8 {
        outbox.deliver(20).await;
    }
    let m = outbox.message(&late.id, "slack").await;
    assert_eq!(m.state, MessageState::Dead);
    assert_eq!(
        m.last_error.as_deref(),
        Some("not delivered before the deadline of 60 s: Slack answered fatal_error")
    );
}

#[tokio::test]
async fn what_is_held_back_says_why() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| {
        to_telegram(s, &telegram);
        s.notify.telegram.min_severity = Severity::Critical;
    })
    .await;
    let mild = outbox.open("mild").await;
    outbox.change(&mild.id, |i| i.severity = Severity::Warning).await;
    let planned = outbox.open("planned").await;
    outbox.change(&planned.id, |i| i.suppressed = Some("database upgrade".into())).await;
    outbox.deliver(2).await;
    outbox.deliver(2).await;
    assert_eq!(telegram.calls("sendMessage").len(), 0);
    let m = outbox.message(&planned.id, "telegram").await;
    assert_eq!((m.state, m.last_error.as_deref()), (MessageState::Suppressed, Some("database upgrade")));
    let mut tx = outbox.store.read().await.expect("a transaction");
    let why = decisions::of(&mut tx, decisions::About::incident(&mild.id)).await.expect("read");
    assert_eq!((why[0].outcome.as_str(), why[0].clause.as_str()), ("suppressed", "notify.min_severity"));
    drop(tx);

    outbox.change(&mild.id, |i| i.severity = Severity::Critical).await;
    outbox.deliver(2).await;
    assert_eq!(telegram.messages().len(), 1, "it got worse, so it is told");
}

#[tokio::test]
async fn a_flapping_incident_is_told_at_most_three_times() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| to_telegram(s, &telegram)).await;
    let incident = outbox.open("slow").await;
    outbox.deliver(2).await;
    for n in 0..100 {
        outbox
            .change(&incident.id, |i| {
                i.flapping = n >= 3;
                if n % 2 == 0 {
                    (i.state, i.resolved_at) = (IncidentState::Resolved, Some(clock::now()));
                } else {
                    (i.state, i.resolved_at) = (IncidentState::Open, None);
                    i.episode += 1;
                }
            })
            .await;
        outbox.deliver(6).await;
    }
    assert!(telegram.calls("sendMessage").len() <= 3, "{}", telegram.calls("sendMessage").len());
    let last = telegram.messages().pop().expect("one was sent");
    assert!(last.text.contains("Its alerts come and go too often"), "{}", last.text);
    assert_eq!(outbox.message(&incident.id, "telegram").await.state, MessageState::Suppressed);

    outbox.change(&incident.id, |i| i.flapping = false).await;
    outbox.deliver(2).await;
    assert!(!telegram.messages().pop().expect("still there").text.contains("come and go"));
}

/// A fingerprint's alert fires and resolves a hundred times, through correlation and the outbox as in life.
#[tokio::test]
async fn a_hundred_flips_give_three_messages_and_the_final_state() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| {
        to_telegram(s, &telegram);
        s.correlate.flap_quiet = Duration::from_millis(300);
    })
    .await;
    let correlate = correlate::Deps {
        store: outbox.store.clone(),
        settings: Arc::new(config::Live::new(outbox.settings.correlate.clone())),
        calls: Default::default(),
        channels: notify::channel_names(&outbox.settings).into(),
    };
    let labels: Labels = [("alertname", "Slow"), ("service", "checkout"), ("severity", "critical")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let mut settle = None;
    for n in 0..101 {
        let is_firing = n % 2 == 0;
        let event = AlertEvent {
            source: "alertmanager".into(),
            fingerprint: fingerprint(&labels),
            state: if is_firing { AlertState::Firing } else { AlertState::Resolved },
            labels: labels.clone(),
            annotations: [("summary".to_owned(), "checkout is slow".to_owned())].into(),
            starts_at: clock::now(),
            ends_at: (!is_firing).then(clock::now),
            expires_at: None,
            generator_url: String::new(),
        };
        let prepared = inbox::Prepared::new(&inbox::Delivery::Alerts(vec![event]));
        inbox::append(&outbox.store, &[prepared]).await.expect("appended");
        let (tx, out) = correlate::drain(&correlate, 100).await.expect("drains").expect("one waits");
        tx.commit().await.expect("committed");
        settle = out.settle.into_iter().next_back().or(settle);
        outbox.deliver(5).await;
    }
    let posted = telegram.calls("sendMessage").len();
    assert!(posted <= 3, "{posted} messages");
    let (id, _) = settle.expect("it is flapping");
    assert_eq!(outbox.message(&id, "telegram").await.state, MessageState::Suppressed);

    tokio::time::sleep(Duration::from_millis(400)).await;
    let (tx, again) = correlate::settle(&correlate, &id).await.expect("settles");
    tx.commit().await.expect("committed");
    assert_eq!(again, None, "it has been quiet long enough");
    outbox.deliver(61).await;
    let posted = telegram.calls("sendMessage").len();
    assert!(posted <= 3, "{posted} messages");
    let last = telegram.messages().pop().expect("it was told").text;
    assert!(last.starts_with("🔴 CRITICAL checkout is slow"), "{last}");
    assert!(!last.contains("come and go"), "{last}");
    assert_eq!(outbox.message(&id, "telegram").await.state, MessageState::Delivered);
}

#[tokio::test]
async fn a_reopened_incident_rings_again() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| to_telegram(s, &telegram)).await;
    let incident = outbox.open("slow").await;
    outbox.deliver(2).await;
    outbox.resolve(&incident.id).await;
    outbox.deliver(2).await;
    outbox
        .change(&incident.id, |i| {
            (i.state, i.resolved_at, i.episode) = (IncidentState::Open, None, 2);
        })
        .await;
    outbox.deliver(2).await;
    let m = telegram.messages();
    assert_eq!(m.len(), 2, "an edit would have rung nobody");
    assert!(m[0].text.starts_with("✅") && m[1].text.starts_with("🔴"));
}

#[tokio::test]
async fn the_first_message_waits_a_moment_for_the_diagnosis() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| {
        to_telegram(s, &telegram);
        s.notify.first_delay = Duration::from_secs(2);
    })
    .await;
    outbox.open("nobody diagnoses it").await;
    outbox.deliver(0).await;
    assert_eq!(telegram.messages().len(), 0);
    outbox.deliver(3).await;
    assert_eq!(telegram.messages().len(), 1, "not longer than that");
    let quick = outbox.open("diagnosed at once").await;
    outbox.diagnose(&quick.id).await;
    outbox.deliver(1).await;
    assert!(telegram.messages()[1].text.contains("The database refuses connections."));
}

#[tokio::test]
async fn check_says_what_each_channel_reaches_and_never_a_secret() {
    let (telegram, slack, pagerduty) = (Telegram::start(&[CHAT]), Slack::start(), PagerDuty::start());
    let mut settings = quiet();
    to_telegram(&mut settings, &telegram);
    to_slack(&mut settings, &slack);
    to_pagerduty(&mut settings, &pagerduty);
    let found = async |settings: &Settings| {
        let mut said = Vec::new();
        for route in notify::channels::build(settings).expect("right settings") {
            said.push(route.channel.check().await);
        }
        said
    };
    assert_eq!(
        found(&settings).await,
        [
            Ok("@aiops_test_bot reaches chat -5000".to_owned()),
            Ok("aiops in Test writes to C0FAKE0001".to_owned()),
            Ok("reachable; the routing key is proved only by an event".to_owned()),
        ]
    );
    assert_eq!(pagerduty.events().len(), 0, "nobody is paged by a check");
    settings.notify.telegram.api = "http://127.0.0.1:1".into();
    settings.notify.slack.api = "http://127.0.0.1:1".into();
    settings.notify.pagerduty.api = "http://127.0.0.1:1".into();
    for wrong in found(&settings).await {
        let wrong = wrong.expect_err("nobody is there");
        for secret in [fakes::telegram::TOKEN, fakes::slack::TOKEN, fakes::pagerduty::ROUTING_KEY] {
            assert!(!wrong.contains(secret), "{wrong}");
        }
    }
}

/// Runs are shown with their steps; used where a message must name a failure.
#[tokio::test]
async fn a_run_that_needs_a_human_says_so_first() {
    let telegram = Telegram::start(&[CHAT]);
    let mut outbox = Outbox::sqlite(|s| to_telegram(s, &telegram)).await;
    let incident = outbox.open("slow").await;
    let run = run(&incident.id, RunState::NeedsHuman);
    let mut tx = outbox.store.write().await.expect("a transaction");
    runs::insert(&mut tx, &run).await.expect("inserted");
    tx.commit().await.expect("committed");
    outbox.deliver(2).await;
    let text = telegram.messages()[0].text.clone();
    let expected = "What was done\nNEEDS A HUMAN: Restart checkout · step restart was under way when the service ended\n\
                    Call the database team.\nApproved by @ann (telegram:42).";
    assert!(text.contains(expected), "{text}");
}
