//! The outbox worker: claims what is owed to each channel, tells it as it is now, and records what became of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Channel, ChannelKind, Letter, SendError, Sent,
    channels::{Bell, How, Route, need},
    lanes::Lanes,
    render::{Answer, Style, document, ring},
    view::IncidentView,
};
use crate::{
    alarm::{self, Alarm},
    clock,
    config::Settings,
    metrics,
    model::{Actor, Incident, MessageState, Phrase, Said, Seconds, Stage, TimelineKind, Verb},
    retry::Backoff,
    store::{
        self, Store,
        buttons::Wanted,
        decisions::{self, About},
        messages::{self, Claimed, Delivery},
    },
};

/// What a killed process had claimed is another's after that; renewed while a slow provider is asked.
const LEASE: Duration = Duration::from_secs(12);
const RENEW_EVERY: Duration = Duration::from_secs(4);
const CALL: Duration = Duration::from_secs(20);
/// Another replica's work may fall to us: look again after this long even if nobody rings.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What the worker needs.
pub struct Deps {
    pub store: Store,
    pub routes: Vec<Route>,
    pub style: Style,
    pub first_delay: Duration,
    pub deadline: Duration,
    pub button_ttl: Duration,
    pub backoff: Backoff,
    pub(super) lanes: Lanes,
}

impl Deps {
    pub fn new(store: Store, settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self::over(store, settings, super::channels::build(settings)?))
    }

    /// Over other channels than those that the settings name.
    pub fn over(store: Store, settings: &Settings, routes: Vec<Route>) -> Self {
        for (route, outcome) in routes.iter().flat_map(|r| Outcome::ALL.iter().map(move |o| (r, o))) {
            metrics::NOTIFY_OUTCOMES.with_label_values(&[route.channel.kind().as_str(), outcome.as_str()]);
        }
        Self {
            store,
            routes,
            style: Style::of(settings),
            first_delay: settings.notify.first_delay,
            deadline: settings.notify.deadline,
            button_ttl: settings.notify.button_ttl,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
            lanes: Lanes::default(),
        }
    }
}

crate::model::words!(
    /// What came of one claimed message.
    Outcome {
        Posted = "posted",
        Edited = "edited",
        Unchanged = "unchanged",
        /// A short new message, because an edit rings nobody.
        Rung = "rung",
        Waiting = "waiting",
        Retried = "retried",
        Paused = "paused",
        Suppressed = "suppressed",
        Dead = "dead",
        /// An earlier owner ended while it posted: people may see it twice.
        Uncertain = "uncertain",
        LeaseLost = "lease_lost",
    }
);

/// Delivers for ever: one loop for each channel, so that a slow provider holds up only its own.
pub async fn run(deps: Arc<Deps>, cancel: CancellationToken) {
    retire(&deps).await;
    let bells: Vec<Arc<Notify>> = deps.routes.iter().map(|_| Arc::default()).collect();
    let mut loops = JoinSet::new();
    for (route, bell) in deps.routes.iter().cloned().zip(&bells) {
        let (deps, bell, cancel) = (deps.clone(), bell.clone(), cancel.clone());
        loops.spawn(async move { serve(&deps, &route, &bell, &cancel).await });
    }
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            () = deps.store.bells.messages.notified() => bells.iter().for_each(|b| b.notify_one()),
        }
    }
    while loops.join_next().await.is_some() {}
}

async fn retire(deps: &Deps) {
    let names: Vec<String> = deps.routes.iter().map(|r| r.channel.kind().to_string()).collect();
    let retired = async {
        let mut tx = deps.store.write().await?;
        let n = messages::retire(&mut tx, &names).await?;
        tx.commit().await?;
        store::Result::Ok(n)
    };
    match retired.await {
        Ok(0) => {}
        Ok(n) => {
            tracing::warn!(messages = n, "messages to channels that are no longer configured are held back")
        }
        Err(e) => {
            tracing::error!(error = %e, "looking for messages to channels that are no longer configured")
        }
    }
}

async fn serve(deps: &Arc<Deps>, route: &Route, bell: &Notify, cancel: &CancellationToken) {
    let mut under_way = JoinSet::new();
    let parallel = route.channel.capabilities().parallel;
    while !cancel.is_cancelled() {
        while under_way.try_join_next().is_some() {}
        let wait = match claim(deps, route, clock::now(), parallel - under_way.len()).await {
            Ok(Next::Deliver(claimed)) => {
                for claimed in claimed {
                    let (deps, route) = (deps.clone(), route.clone());
                    under_way.spawn(async move {
                        if let Err(e) = deliver_claimed(&deps, &route, claimed, clock::now()).await {
                            tracing::error!(channel = %route.channel.kind(), error = %e, "the outcome of a message could not be stored; its lease will end");
                        }
                    });
                }
                continue;
            }
            Ok(Next::At(at)) => clock::between(clock::now(), at).min(LOOK_AGAIN),
            Ok(Next::Idle) => LOOK_AGAIN,
            Err(e) => {
                tracing::error!(channel = %route.channel.kind(), error = %e, "the outbox cannot use the store");
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = bell.notified() => {}
            Some(_) = under_way.join_next() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    while under_way.join_next().await.is_some() {}
}

/// Handles everything that is due at `now`, as far as the channels' limits allow; how many messages were handled.
pub async fn deliver_due(deps: &Deps, now: Timestamp) -> store::Result<usize> {
    let mut handled = 0;
    for route in &deps.routes {
        while let Next::Deliver(claimed) = claim(deps, route, now, 1).await? {
            for claimed in claimed {
                deliver_claimed(deps, route, claimed, now).await?;
                handled += 1;
            }
        }
    }
    Ok(handled)
}

/// When there is something for [`deliver_due`] next; not before `now`.
pub async fn next_due(deps: &Deps, now: Timestamp) -> store::Result<Option<Timestamp>> {
    let mut tx = deps.store.read_few().await?;
    let mut next = None;
    for route in &deps.routes {
        let kind = route.channel.kind();
        let due = messages::next_due(&mut tx, kind.as_str()).await?.map(|at| at.max(now));
        let free = deps.lanes.free(kind, route.channel.capabilities().limits);
        let at = due.map(|due| free.map_or(due, |free| free.max(due)));
        next = next.into_iter().chain(at).min();
    }
    Ok(next)
}

/// What the loop of a channel does next.
enum Next {
    /// At least one.
    Deliver(Vec<Claimed>),
    At(Timestamp),
    Idle,
}

/// Claims what is due, at most so many and as many as the channel's limits allow.
async fn claim(deps: &Deps, route: &Route, now: Timestamp, most: usize) -> store::Result<Next> {
    let (kind, limits) = (route.channel.kind(), route.channel.capabilities().limits);
    let mut slots = 0;
    let free = loop {
        if slots == most {
            break None;
        }
        match deps.lanes.enter(kind, limits, now) {
            Ok(()) => slots += 1,
            Err(free) => break Some(free),
        }
    };
    let give_back = |slots: usize| (0..slots).for_each(|_| deps.lanes.give_back(kind));
    if slots == 0 {
        return Ok(free.map_or(Next::Idle, Next::At));
    }
    let claimed = async {
        // The one writer is not asked for nothing.
        let mut tx = deps.store.read_few().await?;
        let due = messages::next_due(&mut tx, kind.as_str()).await?;
        drop(tx);
        match due {
            None => return Ok(Next::Idle),
            Some(at) if at > now => return Ok(Next::At(at)),
            Some(_) => {}
        }
        let mut tx = deps.store.write().await?;
        let claimed = messages::claim(&mut tx, kind.as_str(), now, LEASE, slots as i64).await?;
        tx.commit().await?;
        store::Result::Ok(if claimed.is_empty() { Next::Idle } else { Next::Deliver(claimed) })
    };
    let next = claimed.await.inspect_err(|_| give_back(slots))?;
    give_back(slots - if let Next::Deliver(claimed) = &next { claimed.len() } else { 0 });
    Ok(next)
}

async fn deliver_claimed(deps: &Deps, route: &Route, claimed: Claimed, now: Timestamp) -> store::Result<()> {
    let kind = route.channel.kind();
    let span = tracing::info_span!("notify", incident.id = claimed.message.incident_id, channel = %kind);
    let outcome = match deliver(deps, route, claimed, now).instrument(span).await {
        // Somebody else has it by now, and records what becomes of it.
        Err(store::Error::LeaseLost) => Outcome::LeaseLost,
        outcome => outcome?,
    };
    metrics::NOTIFY_OUTCOMES.with_label_values(&[kind.as_str(), outcome.as_str()]).inc();
    if matches!(outcome, Outcome::Waiting | Outcome::Suppressed | Outcome::Unchanged) {
        deps.lanes.give_back(kind);
    }
    Ok(())
}

async fn deliver(deps: &Deps, route: &Route, claimed: Claimed, now: Timestamp) -> store::Result<Outcome> {
    let mut tx = deps.store.read_few().await?;
    let Some(incident) = store::incidents::get(&mut tx, &claimed.message.incident_id).await? else {
        drop(tx);
        return give_up(deps, claimed, i64::MAX, MessageState::Suppressed, "the incident is gone", None)
            .await;
    };
    // Before the rest is read: of what nobody is told of, most needs no more.
    if let Some((clause, why)) = held_back(&incident, route, &claimed) {
        drop(tx);
        let about = Some((incident.id.as_str(), clause));
        return give_up(deps, claimed, incident.version, MessageState::Suppressed, &why, about).await;
    }
    let view = IncidentView::of(&mut tx, incident).await?;
    drop(tx);
    if let Some(until) = first_wait(deps, &view, &claimed).filter(|until| *until > now) {
        let mut tx = deps.store.write().await?;
        messages::postpone(&mut tx, claimed, until).await?;
        tx.commit().await?;
        return Ok(Outcome::Waiting);
    }
    let reference = live_reference(route, &view, &claimed).cloned();
    if let (Some(bell), Some(reference)) = (route.channel.bell(), &reference)
        && let Some(moment) = owed_ring(&view, route, &claimed)
    {
        let document = ring(&view, &deps.style);
        let letter = Letter { document, view, buttons: BTreeMap::new(), tried: tried(&claimed) };
        return ring_for(deps, route, bell, claimed, &letter, reference, &moment, now).await;
    }
    let letter = prepare(deps, route, &claimed, view, reference.is_none(), now).await?;
    let result = tokio::select! {
        result = call(route.channel.as_ref(), &letter, reference.as_ref()) => result,
        () = keep(deps, &claimed) => return Err(store::Error::LeaseLost),
    };
    record(deps, route, claimed, &letter, result, now).await
}

fn tried(claimed: &Claimed) -> bool {
    claimed.uncertain || claimed.message.attempts > 0
}

/// Why people are not told now: the clause and the reason. A message that they have goes on being edited, but for flapping.
fn held_back(i: &Incident, route: &Route, claimed: &Claimed) -> Option<(&'static str, String)> {
    let told = claimed.message.sent_version > 0;
    if i.flapping && told && claimed.shows_flapping {
        return Some(("correlate.flap_count", "flapping: held back until it calms down".into()));
    }
    if told && i.episode == claimed.message.episode {
        return None;
    }
    if let Some((clause, reason)) = i.held_back() {
        return Some((clause, reason.to_owned()));
    }
    let too_low = i.severity < route.min_severity;
    too_low.then(|| {
        let why =
            format!("severity {} is below the channel's min_severity {}", i.severity, route.min_severity);
        ("notify.min_severity", why)
    })
}

/// A first message waits a moment for the diagnosis, so that both come together.
fn first_wait(deps: &Deps, view: &IncidentView, claimed: &Claimed) -> Option<Timestamp> {
    let first = claimed.message.sent_version == 0 && view.incident.is_open() && view.diagnosis.is_none();
    // Whether an earlier post was taken is in doubt, and must not be forgotten by waiting.
    let first = first && !claimed.uncertain;
    first.then(|| clock::after(view.incident.opened_at, deps.first_delay))
}

/// What to edit. A reopened incident is told anew where an edit would ring nobody.
fn live_reference<'a>(
    route: &Route,
    view: &IncidentView,
    claimed: &'a Claimed,
) -> Option<&'a serde_json::Value> {
    let reopened = claimed.message.sent_version > 0 && view.incident.episode != claimed.message.episode;
    let anew = reopened && route.channel.capabilities().edits;
    claimed.message.reference.as_ref().filter(|_| !anew)
}

/// The moment for which people are still to be rung: recorded with the edit that shows it, and not over since.
fn owed_ring(view: &IncidentView, route: &Route, claimed: &Claimed) -> Option<String> {
    let owed = claimed.ring.clone()?;
    (!is_quiet(view, route) && need(view).as_ref() == Some(&owed)).then_some(owed)
}

/// Nobody is rung now; if the need lasts, the edit that says so later owes the ring.
fn is_quiet(view: &IncidentView, route: &Route) -> bool {
    let i = &view.incident;
    i.flapping || i.suppressed.is_some() || i.severity < route.min_severity
}

/// Rings once for the moment. That we post is durable before, that we did is after: a kill in between gives one duplicate.
#[expect(clippy::too_many_arguments, reason = "all of one delivery")]
async fn ring_for(
    deps: &Deps,
    route: &Route,
    bell: &dyn Bell,
    claimed: Claimed,
    letter: &Letter,
    reference: &serde_json::Value,
    moment: &str,
    now: Timestamp,
) -> store::Result<Outcome> {
    let mut tx = deps.store.write().await?;
    messages::posting(&mut tx, &claimed, letter.view.incident.version).await?;
    if claimed.uncertain {
        uncertain(&mut tx, &claimed).await?;
    }
    tx.commit().await?;
    let rung = tokio::select! {
        rung = tokio::time::timeout(CALL, bell.ring(letter, reference)) => rung,
        () = keep(deps, &claimed) => return Err(store::Error::LeaseLost),
    };
    let rung = match rung {
        Ok(rung) => rung,
        Err(_) => Err(SendError::Again(format!("no end after {} s", CALL.as_secs()))),
    };
    if let Err(e) = rung {
        return record(deps, route, claimed, letter, Err(e), now).await;
    }
    let (id, channel) = (claimed.message.incident_id.clone(), claimed.message.channel.clone());
    let mut tx = deps.store.write().await?;
    messages::rung(&mut tx, claimed, moment, now).await?;
    let us = Actor::aiops("notify");
    let text = Phrase::Rang { channel };
    store::timeline::add(&mut tx, &id, TimelineKind::Notified, text, Some(&us)).await?;
    tx.commit().await?;
    Ok(Outcome::Rung)
}

/// What a delivery leaves: the moments that people were rung for, and the one that owes a ring. A new message rings by itself.
fn rings(route: &Route, view: &IncidentView, claimed: &Claimed, how: How) -> (Vec<String>, Option<String>) {
    let mut rung = claimed.rung.clone();
    let Some(moment) = need(view).filter(|m| !rung.contains(m)) else { return (rung, None) };
    if how == How::Posted {
        rung.push(moment);
        return (rung, None);
    }
    let rings = route.channel.bell().is_some() && !is_quiet(view, route);
    (rung, rings.then_some(moment))
}

/// Renders, and makes durable what must be so before the provider is asked: the buttons' meaning, and that we are posting.
async fn prepare(
    deps: &Deps,
    route: &Route,
    claimed: &Claimed,
    view: IncidentView,
    posting: bool,
    now: Timestamp,
) -> store::Result<Letter> {
    let answer = route.channel.capabilities().answer;
    let document = document(&view, &deps.style, answer);
    let mut letter = Letter { view, document, buttons: BTreeMap::new(), tried: tried(claimed) };
    if !posting && answer != Answer::Buttons && !claimed.uncertain {
        return Ok(letter);
    }
    let mut tx = deps.store.write().await?;
    if posting {
        messages::posting(&mut tx, claimed, letter.view.incident.version).await?;
    }
    if answer == Answer::Buttons {
        for offer in &letter.document.offers {
            let wanted = button(deps, &letter.view, route.channel.kind(), offer.verb, now);
            letter.buttons.insert(offer.verb, store::buttons::issue(&mut tx, wanted, now).await?);
        }
    }
    if claimed.uncertain {
        uncertain(&mut tx, claimed).await?;
    }
    tx.commit().await?;
    Ok(letter)
}

fn button<'a>(
    deps: &Deps,
    view: &'a IncidentView,
    kind: ChannelKind,
    verb: Verb,
    now: Timestamp,
) -> Wanted<'a> {
    let answers = matches!(verb, Verb::Approve | Verb::Reject);
    let approval = view.pending().filter(|_| answers);
    Wanted {
        verb,
        incident_id: &view.incident.id,
        approval_id: approval.map(|a| a.id.as_str()),
        plan_hash: approval.map(|a| a.plan_hash.as_str()),
        channel: kind.as_str(),
        expires_at: approval.map_or(clock::after(now, deps.button_ttl), |a| a.expires_at),
    }
}

async fn uncertain(tx: &mut store::Tx, claimed: &Claimed) -> store::Result<()> {
    let m = &claimed.message;
    metrics::NOTIFY_OUTCOMES.with_label_values(&[m.channel.as_str(), Outcome::Uncertain.as_str()]).inc();
    let why = format!("{}: the service ended while it posted; the message may be there twice", m.channel);
    decisions::add(tx, Stage::Notify, About::incident(&m.incident_id), "posted again", "notify.outbox", &why)
        .await
}

/// Posts, or edits; an edit whose message is gone becomes a new post at once.
async fn call(
    channel: &dyn Channel,
    letter: &Letter,
    reference: Option<&serde_json::Value>,
) -> Result<Sent, SendError> {
    let told = async {
        match reference {
            None => channel.post(letter).await,
            Some(reference) => match channel.update(letter, reference).await {
                Err(SendError::Gone(why)) => {
                    tracing::info!(why, "the message is gone; posting it anew");
                    channel.post(letter).await
                }
                told => told,
            },
        }
    };
    match tokio::time::timeout(CALL, told).await {
        Ok(told) => told,
        Err(_) => Err(SendError::Again(format!("no end after {} s", CALL.as_secs()))),
    }
}

/// Renews the lease while it is ours; returns when it is not.
async fn keep(deps: &Deps, claimed: &Claimed) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let renewed = async {
            let mut tx = deps.store.write().await?;
            messages::hold(&mut tx, claimed, LEASE).await?;
            tx.commit().await
        };
        match renewed.await {
            Ok(()) => {}
            Err(store::Error::LeaseLost) => return,
            Err(e) => tracing::warn!(error = %e, "renewing a message's lease failed"),
        }
    }
}

async fn record(
    deps: &Deps,
    route: &Route,
    claimed: Claimed,
    letter: &Letter,
    result: Result<Sent, SendError>,
    now: Timestamp,
) -> store::Result<Outcome> {
    let overdue = now >= clock::after(claimed.due_since, deps.deadline);
    let version = letter.view.incident.version;
    let (why, wait) = match result {
        Ok(Sent { rest: Some(why), reference, .. }) if !overdue => {
            let next = clock::after(now, deps.backoff.wait(claimed.message.attempts + 1));
            tracing::warn!(why, "told in part; trying the rest again");
            let mut tx = deps.store.write().await?;
            messages::partly(&mut tx, claimed, &reference, &why, next).await?;
            tx.commit().await?;
            return Ok(Outcome::Retried);
        }
        Ok(Sent { rest: Some(why), .. }) => (why, None),
        Ok(sent) => return delivered(deps, route, claimed, letter, sent, now).await,
        Err(SendError::Slower { why, after }) => {
            deps.lanes.pause(route.channel.kind(), clock::after(now, after));
            (why, Some((after, Outcome::Paused)))
        }
        Err(SendError::Again(why)) => {
            (why, Some((deps.backoff.wait(claimed.message.attempts + 1), Outcome::Retried)))
        }
        Err(SendError::Refused(why) | SendError::Gone(why)) => (why, None),
    };
    match wait {
        Some((wait, outcome)) if !overdue => {
            tracing::warn!(why, wait_ms = wait.as_millis() as u64, "not delivered; trying again");
            let mut tx = deps.store.write().await?;
            messages::failed(&mut tx, claimed, &why, clock::after(now, wait)).await?;
            tx.commit().await?;
            Ok(outcome)
        }
        Some(_) => {
            let why = Phrase::NotBeforeDeadline { deadline: Seconds(deps.deadline.as_secs() as i64), why };
            dead(deps, claimed, version, why.into()).await
        }
        None => dead(deps, claimed, version, why.into()).await,
    }
}

async fn delivered(
    deps: &Deps,
    route: &Route,
    claimed: Claimed,
    letter: &Letter,
    sent: Sent,
    now: Timestamp,
) -> store::Result<Outcome> {
    let (id, channel) = (claimed.message.incident_id.clone(), claimed.message.channel.clone());
    let was_dead = letter.view.unreached.contains(&channel);
    let i = &letter.view.incident;
    let (rung, ring) = rings(route, &letter.view, &claimed, sent.how);
    let delivery = Delivery {
        rung,
        ring,
        version: i.version,
        episode: i.episode,
        shows_flapping: i.flapping,
        reference: sent.reference,
    };
    let mut tx = deps.store.write().await?;
    messages::delivered(&mut tx, claimed, &delivery, now).await?;
    if !letter.buttons.is_empty() {
        store::buttons::placed(&mut tx, &id, &channel, &sent.place).await?;
    }
    let us = Actor::aiops("notify");
    if sent.how == How::Posted {
        store::timeline::add(
            &mut tx,
            &id,
            TimelineKind::Notified,
            Phrase::Told { channel: channel.clone() },
            Some(&us),
        )
        .await?;
    }
    if let Some(refused) = &sent.refused {
        let text = Phrase::DidNotReach { channel: channel.clone(), refused: refused.clone() };
        store::timeline::add(&mut tx, &id, TimelineKind::NotifyFailed, text, Some(&us)).await?;
        metrics::NOTIFY_REFUSED.with_label_values(&[channel.as_str()]).inc();
        tracing::error!(refused, "some recipients refuse for good");
    }
    let cured = was_dead && messages::unreached(&mut tx).await? == 0;
    tx.commit().await?;
    if cured {
        alarm::clear(Alarm::MessageDead);
    }
    Ok(match sent.how {
        How::Posted => Outcome::Posted,
        How::Edited => Outcome::Edited,
        How::Unchanged => Outcome::Unchanged,
    })
}

/// The end of this obligation: counted, in the incident's story, an alarm of our own, and shown on the other channels.
async fn dead(deps: &Deps, claimed: Claimed, version: i64, why: Said) -> store::Result<Outcome> {
    let (id, channel) = (claimed.message.incident_id.clone(), claimed.message.channel.clone());
    let known = claimed.message.last_error.as_deref() == Some(why.as_str());
    tracing::error!(%why, "a message cannot be delivered; it goes to the dead letters");
    alarm::raise(Alarm::MessageDead, format!("{channel}: {why}"));
    let mut tx = deps.store.write().await?;
    if !known {
        // Before this message ends: the touch makes all of the incident's messages due, this one too.
        let text = Phrase::CouldNotBeTold { channel, why: why.clone() };
        let us = Actor::aiops("notify");
        store::timeline::add(&mut tx, &id, TimelineKind::NotifyFailed, text, Some(&us)).await?;
        store::incidents::touch(&mut tx, &id).await?;
    }
    let touched = version + i64::from(!known);
    messages::give_up(&mut tx, claimed, touched, MessageState::Dead, &why).await?;
    tx.commit().await?;
    Ok(Outcome::Dead)
}

async fn give_up(
    deps: &Deps,
    claimed: Claimed,
    version: i64,
    state: MessageState,
    why: &str,
    about: Option<(&str, &'static str)>,
) -> store::Result<Outcome> {
    let text = format!("{}: {why}", claimed.message.channel);
    let known = claimed.message.last_error.as_deref() == Some(why);
    let mut tx = deps.store.write().await?;
    messages::give_up(&mut tx, claimed, version, state, why).await?;
    if let (Some((id, clause)), false) = (about, known) {
        decisions::add(&mut tx, Stage::Notify, About::incident(id), "suppressed", clause, &text).await?;
    }
    tx.commit().await?;
    Ok(Outcome::Suppressed)
}
