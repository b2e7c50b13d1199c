//! Watches the program itself: measures its queues, and turns internal alarms into alerts on the same road as everybody
//! else's, so that they open incidents and reach people.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    alarm::{self, Alarm},
    clock::{self, Step},
    metrics::{self, INBOX_AGE_MS, INBOX_DEPTH, INCIDENTS_OPEN},
    model::{AlertEvent, AlertState, Labels, fingerprint},
    store::{
        Result, Store, alerts,
        inbox::{self, Delivery, Prepared},
        incidents, jobs, set_back,
    },
};

const EVERY: Duration = Duration::from_secs(2);
/// An acknowledged alert that waits longer than this is a page of its own.
const INBOX_AGE: Duration = Duration::from_secs(15);
const JOBS_AGE: Duration = Duration::from_secs(60);
/// The source of the alerts about ourselves.
const SOURCE: &str = "aiops";

/// Looks at everything again and again until cancelled.
pub async fn run(store: Store, cancel: CancellationToken) {
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
        if let Err(e) = look(&store).await {
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
pub async fn look(store: &Store) -> Result<()> {
    let now = clock::now();
    let (depth, oldest) = inbox::backlog(store).await?;
    let mut tx = store.read().await?;
    let (waiting, next) = jobs::backlog(&mut tx, now).await?;
    INCIDENTS_OPEN.set(incidents::count_open(&mut tx).await?);
    let told = alerts::firing_from(&mut tx, &[SOURCE]).await?;
    drop(tx);

    let inbox_age = oldest.map_or(Duration::ZERO, |at| clock::between(at, now));
    let jobs_age = next.map_or(Duration::ZERO, |at| clock::between(at, now));
    INBOX_DEPTH.set(depth);
    INBOX_AGE_MS.set(i64::try_from(inbox_age.as_millis()).unwrap_or(i64::MAX));
    set(Alarm::InboxAging, inbox_age > INBOX_AGE, || {
        format!(
            "{depth} acknowledged deliveries wait for correlation, the oldest for {} s",
            inbox_age.as_secs()
        )
    });
    set(Alarm::JobsAging, jobs_age > JOBS_AGE, || {
        format!("{waiting} jobs wait, one has been due for {} s", jobs_age.as_secs())
    });

    let events = news(&alarm::active(), &told);
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
fn news(active: &[alarm::Active], told: &[crate::model::Alert]) -> Vec<AlertEvent> {
    let labels = |alarm: Alarm| {
        let (alarm, severity) = (alarm.as_str(), alarm.severity().as_str());
        let pairs =
            [("alertname", "AiopsAlarm"), ("alarm", alarm), ("service", "aiops"), ("severity", severity)];
        pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into_iter().collect::<Labels>()
    };
    let is_told =
        |a: &alarm::Active| told.iter().any(|t| t.labels.get("alarm").is_some_and(|l| l == a.alarm.as_str()));
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
    let is_active = |t: &crate::model::Alert| {
        active.iter().any(|a| t.labels.get("alarm").is_some_and(|l| l == a.alarm.as_str()))
    };
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
        let events = news(&active, &[]);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].annotations["summary"], "aiops itself: 9 wait");
        let told = crate::model::Alert {
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
        assert!(news(&active, std::slice::from_ref(&told)).is_empty());
        assert_eq!(news(&[], &[told])[0].state, AlertState::Resolved);
    }
}
