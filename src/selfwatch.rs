//! Watches the program itself: measures its queues, and turns internal alarms into alerts on the same road as everybody
//! else's, so that they open incidents and reach people.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    alarm::{self, Alarm},
    clock::{self, Step},
    metrics::{self, INBOX_AGE_MS, INBOX_DEPTH, INCIDENTS_OPEN},
    model::{Alert, AlertEvent, AlertState, Labels, fingerprint},
    store::{
        Result, Store, alerts,
        inbox::{self, Delivery, Prepared},
        incidents, jobs,
        leases::members,
        messages, set_back,
    },
};

const EVERY: Duration = Duration::from_secs(2);
/// An acknowledged alert that waits longer than this is a page of its own.
const INBOX_AGE: Duration = Duration::from_secs(15);
const JOBS_AGE: Duration = Duration::from_secs(60);
/// The source of the alerts about ourselves.
const SOURCE: &str = "aiops";
/// The label that says whose alarm it is, where there are several replicas.
const REPLICA: &str = "replica";

/// Looks at everything again and again until cancelled. `replica` names this process where there are several.
pub async fn run(store: Store, replica: Option<String>, cancel: CancellationToken) {
    // A series that appears with its first step would show no rise.
    for direction in ["forward", "back"] {
        metrics::CLOCK_STEPS.with_label_values(&[direction]);
    }
    let mut steps = clock::Steps::default();
    let mut behind = Duration::ZERO;
    while !cancel.is_cancelled() {
        if let Some(step) = steps.look() {
            behind = stepped(step, behind);
        }
        if !behind.is_zero() {
            match catch_up(&store, behind).await {
                Ok(()) => behind = Duration::ZERO,
                Err(e) => tracing::error!(error = %e, "what waits could not follow the clock; trying again"),
            }
        }
        if let Err(e) = look(&store, replica.as_deref()).await {
            tracing::error!(error = %e, "watching our own queues failed");
        }
        tokio::select! {
            () = cancel.cancelled() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Tells of a clock that was set; how far what waits is behind it.
fn stepped(step: Step, behind: Duration) -> Duration {
    let (direction, by) = match step {
        Step::Forward(by) => ("forward", by),
        Step::Back(by) => ("back", by),
    };
    metrics::CLOCK_STEPS.with_label_values(&[direction]).inc();
    tracing::warn!(direction, by = ?by, "the wall clock was set; let NTP slew it, and look at the host");
    match step {
        Step::Forward(by) => behind.saturating_sub(by),
        Step::Back(by) => behind + by,
    }
}

/// Lets what waits in the store follow a clock that was set back. Where several processes share the store it holds the times of
/// all of them: there one wrong clock must not move what the others wrote.
async fn catch_up(store: &Store, by: Duration) -> Result<()> {
    if store.engine_name() != "sqlite" {
        return Ok(());
    }
    let mut tx = store.write().await?;
    set_back::follow(&mut tx, by, clock::now()).await?;
    tx.commit().await
}

/// Measures once, raises or clears what follows from it, and tells of all alarms that began or ended.
pub async fn look(store: &Store, replica: Option<&str>) -> Result<()> {
    let now = clock::now();
    let (depth, oldest) = inbox::backlog(store).await?;
    let mut tx = store.read().await?;
    let (waiting, next) = jobs::backlog(&mut tx, now).await?;
    INCIDENTS_OPEN.set(incidents::count_open(&mut tx).await?);
    let told = alerts::firing_from(&mut tx, &[SOURCE]).await?;
    let living = members(&mut tx).await?;
    if alarm::active().iter().any(|a| a.alarm == Alarm::MessageDead)
        && messages::unreached(&mut tx).await? == 0
    {
        // Delivered meanwhile, perhaps by another replica.
        alarm::clear(Alarm::MessageDead);
    }
    drop(tx);

    let inbox_age = oldest.map_or(Duration::ZERO, |at| clock::between(at, now));
    let jobs_age = next.map_or(Duration::ZERO, |at| clock::between(at, now));
    INBOX_DEPTH.set(depth);
    INBOX_AGE_MS.set(i64::try_from(inbox_age.as_millis()).unwrap_or(i64::MAX));
    // While all places are taken the worker itself does not look.
    metrics::JOBS_AGE_MS.set(i64::try_from(jobs_age.as_millis()).unwrap_or(i64::MAX));
    set(Alarm::InboxAging, inbox_age > INBOX_AGE, || {
        format!(
            "{depth} acknowledged deliveries wait for correlation, the oldest for {} s",
            inbox_age.as_secs()
        )
    });
    set(Alarm::JobsAging, jobs_age > JOBS_AGE, || {
        format!("{waiting} jobs wait, one has been due for {} s", jobs_age.as_secs())
    });

    // Whose alarm it is knows when it is over; whoever is gone leaves that to those who live.
    let told: Vec<Alert> = told
        .into_iter()
        .filter(|t| match (t.labels.get(REPLICA), replica) {
            (Some(theirs), Some(ours)) => theirs == ours || !living.contains(theirs),
            _ => true,
        })
        .collect();
    let events = news(&alarm::active(), &told, replica);
    if !events.is_empty() {
        inbox::append(store, &[Prepared::new(&Delivery::Alerts(events))]).await?;
        // What has just been made durable says that it is over; the next look tells of that, too.
        alarm::clear(Alarm::StoreFailing);
    }
    Ok(())
}

fn set(alarm: Alarm, wrong: bool, text: impl Fn() -> String) {
    if wrong { alarm::raise(alarm, text()) } else { alarm::clear(alarm) }
}

/// Firing events for alarms that nobody was told of, resolved ones for those that are over, also over a restart.
fn news(active: &[alarm::Active], told: &[Alert], replica: Option<&str>) -> Vec<AlertEvent> {
    let is_ours = |t: &Alert| t.labels.get(REPLICA).map(String::as_str) == replica;
    let labels = |alarm: Alarm| {
        let (alarm, severity) = (alarm.as_str(), alarm.severity().as_str());
        let pairs =
            [("alertname", "AiopsAlarm"), ("alarm", alarm), ("service", "aiops"), ("severity", severity)];
        let replica = replica.map(|name| (REPLICA, name));
        pairs.into_iter().chain(replica).map(|(k, v)| (k.to_owned(), v.to_owned())).collect::<Labels>()
    };
    let is_of = |t: &Alert, a: &alarm::Active| t.labels.get("alarm").is_some_and(|l| l == a.alarm.as_str());
    let is_told = |a: &alarm::Active| told.iter().any(|t| is_ours(t) && is_of(t, a));
    let begun = active.iter().filter(|a| !is_told(a)).map(|a| {
        let labels = labels(a.alarm);
        AlertEvent {
            source: SOURCE.into(),
            fingerprint: fingerprint(&labels),
            state: AlertState::Firing,
            annotations: [("summary".to_owned(), format!("aiops itself: {}", a.text))].into(),
            labels,
            starts_at: a.since,
            ends_at: None,
            expires_at: None,
            generator_url: String::new(),
        }
    });
    let is_active = |t: &Alert| is_ours(t) && active.iter().any(|a| is_of(t, a));
    let over = told.iter().filter(|t| !is_active(t)).map(|t| AlertEvent {
        source: SOURCE.into(),
        fingerprint: t.fingerprint.clone(),
        state: AlertState::Resolved,
        labels: t.labels.clone(),
        annotations: t.annotations.clone(),
        starts_at: t.starts_at,
        ends_at: Some(clock::now()),
        expires_at: None,
        generator_url: String::new(),
    });
    begun.chain(over).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_told_of_once_and_its_end_too() {
        let active = [alarm::Active { alarm: Alarm::InboxAging, since: clock::now(), text: "9 wait".into() }];
        let events = news(&active, &[], None);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].annotations["summary"], "aiops itself: 9 wait");
        let told = Alert {
            fingerprint: events[0].fingerprint.clone(),
            source: SOURCE.into(),
            labels: events[0].labels.clone(),
            annotations: Labels::new(),
            state: AlertState::Firing,
            starts_at: events[0].starts_at,
            ends_at: None,
            expires_at: None,
            generator_url: String::new(),
            incident_id: None,
            last_seen_at: clock::now(),
        };
        assert!(news(&active, std::slice::from_ref(&told), None).is_empty());
        assert_eq!(news(&[], std::slice::from_ref(&told), None)[0].state, AlertState::Resolved);

        let ours = news(&active, &[], Some("a"));
        assert_eq!(ours[0].labels[REPLICA], "a");
        assert_ne!(ours[0].fingerprint, told.fingerprint);
        let dead = Alert { labels: ours[0].labels.clone(), fingerprint: ours[0].fingerprint.clone(), ..told };
        let events = news(&active, &[dead], Some("b"));
        let states: Vec<AlertState> = events.iter().map(|e| e.state).collect();
        assert_eq!(
            states,
            [AlertState::Firing, AlertState::Resolved],
            "ours begins, that of a dead one ends"
        );
    }
}
