//! One batch of events in memory: what they touch is read at once, changed here, and written at once.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use jiff::Timestamp;

use super::Outcome;
use crate::{
    clock,
    config::Correlate,
    model::{
        Alert, AlertEvent, AlertState, Anomaly, AnomalyEvent, Calls, Decision, Incident, Phrase, Said,
        Silence, Stage, TimelineKind,
    },
    steer,
    store::{
        Result, Tx, alerts, anomalies,
        decisions::{self, About},
        inbox::Delivery,
        incidents::{self, Held},
        messages, silences, timeline,
    },
};

/// What all events of a batch work on. The same settings, silences and time hold for all of them.
pub(super) struct Batch<'a> {
    pub set: &'a Correlate,
    pub channels: &'a [String],
    /// Those that hold now.
    pub silences: Vec<Silence>,
    pub now: Timestamp,
    pub out: Outcome,
    neighbours: HashMap<String, Vec<String>>,
    alerts: HashMap<String, KnownAlert>,
    incidents: HashMap<String, HeldIncident>,
    /// Ids of the incidents above, by service.
    by_service: HashMap<String, Vec<String>>,
    anomalies: HashMap<String, HeldAnomaly>,
    /// Ids of the anomalies above, by service.
    anomalies_by_service: HashMap<String, Vec<String>>,
    decisions: Vec<Decision>,
    timeline: Vec<timeline::Line>,
}

struct KnownAlert {
    alert: Alert,
    news: AlertNews,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AlertNews {
    None,
    Seen,
    Changed,
}

struct HeldIncident {
    held: Held,
    changed: bool,
    /// People should see what changed.
    touched: bool,
    /// Opened or reopened: the channels are owed a message.
    owed: bool,
    /// Resolved: nobody needs to answer its questions any more.
    resolved: bool,
}

struct HeldAnomaly {
    anomaly: Anomaly,
    changed: bool,
}

impl<'a> Batch<'a> {
    /// Reads what these deliveries may touch, and keeps others from changing the incidents among it.
    pub(super) async fn load(
        tx: &mut Tx,
        set: &'a Correlate,
        calls: &Calls,
        channels: &'a [String],
        deliveries: &[Delivery],
    ) -> Result<Self> {
        let mut batch = Self::empty(tx, set, channels).await?;
        let (mut events, mut found) = (Vec::new(), Vec::new());
        for delivery in deliveries {
            match delivery {
                Delivery::Alerts(alerts) => events.extend(alerts),
                Delivery::Anomaly(anomaly) => found.push(&**anomaly),
            }
        }
        batch.load_alerts(tx, &events).await?;
        let moving = batch.moving(&events);
        batch.load_incidents(tx, calls, &moving, &found).await?;
        batch.load_anomalies(tx, &moving, &found).await?;
        Ok(batch)
    }

    /// What a look at one incident needs.
    pub(super) async fn of_incident(
        tx: &mut Tx,
        set: &'a Correlate,
        channels: &'a [String],
        id: &str,
    ) -> Result<Self> {
        let mut batch = Self::empty(tx, set, channels).await?;
        batch.hold(incidents::hold(tx, &[id]).await?);
        Ok(batch)
    }

    async fn empty(tx: &mut Tx, set: &'a Correlate, channels: &'a [String]) -> Result<Self> {
        let now = clock::now();
        Ok(Self {
            set,
            channels,
            silences: silences::active(tx, now).await?,
            now,
            out: Outcome::default(),
            neighbours: HashMap::new(),
            alerts: HashMap::new(),
            incidents: HashMap::new(),
            by_service: HashMap::new(),
            anomalies: HashMap::new(),
            anomalies_by_service: HashMap::new(),
            decisions: Vec::new(),
            timeline: Vec::new(),
        })
    }

    async fn load_alerts(&mut self, tx: &mut Tx, events: &[&AlertEvent]) -> Result<()> {
        let distinct: HashSet<&str> = events.iter().map(|e| e.fingerprint.as_str()).collect();
        let distinct: Vec<&str> = distinct.into_iter().collect();
        let known = alerts::by_fingerprint(tx, &distinct).await?;
        self.alerts = known
            .into_iter()
            .map(|alert| (alert.fingerprint.clone(), KnownAlert { alert, news: AlertNews::None }))
            .collect();
        Ok(())
    }

    /// The events of those alerts of which not every event repeats what is known: only they touch an incident.
    fn moving<'e>(&self, events: &[&'e AlertEvent]) -> Vec<&'e AlertEvent> {
        let repeats = |e: &AlertEvent| {
            e.state == AlertState::Firing
                && self.alert(&e.fingerprint).is_some_and(|known| known.state == AlertState::Firing)
        };
        let moved: HashSet<&str> =
            events.iter().filter(|e| !repeats(e)).map(|e| e.fingerprint.as_str()).collect();
        events.iter().filter(|e| moved.contains(e.fingerprint.as_str())).copied().collect()
    }

    async fn load_incidents(
        &mut self,
        tx: &mut Tx,
        calls: &Calls,
        moving: &[&AlertEvent],
        found: &[&AnomalyEvent],
    ) -> Result<()> {
        let named: HashSet<&str> =
            moving.iter().filter_map(|e| self.alert(&e.fingerprint)?.incident_id.as_deref()).collect();
        let named: Vec<&str> = named.into_iter().collect();
        let mut held = incidents::hold(tx, &named).await?;

        let firing = moving.iter().filter(|e| e.state == AlertState::Firing);
        let services: HashSet<String> = firing
            .map(|e| self.set.service_of(&e.labels))
            .chain(found.iter().map(|a| a.service.clone()))
            .collect();
        self.neighbours = self.set.neighbours_of(&services);
        for (service, learned) in calls.neighbours_of(&services, self.now) {
            let known = self.neighbours.entry(service).or_default();
            let fresh: Vec<String> = learned.into_iter().filter(|n| !known.contains(n)).collect();
            known.extend(fresh);
        }
        let around: HashSet<&str> =
            services.iter().chain(self.neighbours.values().flatten()).map(String::as_str).collect();
        let around: Vec<&str> = around.into_iter().collect();
        held.extend(incidents::hold_open_of(tx, &around).await?);
        let services: Vec<&str> = services.iter().map(String::as_str).collect();
        let since = clock::before(self.now, self.set.window);
        held.extend(incidents::hold_resolved_of(tx, &services, since).await?);
        self.hold(held);
        Ok(())
    }

    fn hold(&mut self, held: Vec<Held>) {
        for held in held {
            self.put(held, false);
        }
    }

    async fn load_anomalies(
        &mut self,
        tx: &mut Tx,
        moving: &[&AlertEvent],
        found: &[&AnomalyEvent],
    ) -> Result<()> {
        let mut all = Vec::new();
        if !found.is_empty() {
            let keys: HashSet<&str> = found.iter().map(|a| a.key.as_str()).collect();
            let keys: Vec<&str> = keys.into_iter().collect();
            all = anomalies::open_by_key(tx, &keys).await?;
            let earliest = found.iter().map(|a| a.started_at).min().unwrap_or(self.now);
            all.extend(anomalies::over_by_key(tx, &keys, earliest).await?);
            let theirs: HashSet<&str> = all.iter().filter_map(|a| a.incident_id.as_deref()).collect();
            let theirs: Vec<&str> = theirs.into_iter().collect();
            let (beside, held) =
                (anomalies::lasting(tx, &theirs).await?, incidents::hold(tx, &theirs).await?);
            all.extend(beside);
            self.hold(held);
        }
        let firing = moving.iter().filter(|e| e.state == AlertState::Firing);
        let begun = firing.map(|e| e.starts_at).chain(found.iter().map(|a| a.started_at)).min();
        if let Some(earliest) = begun {
            all.extend(anomalies::loose_since(tx, clock::before(earliest, self.set.window)).await?);
        }
        for anomaly in all {
            self.put_anomaly(HeldAnomaly { anomaly, changed: false });
        }
        Ok(())
    }

    // Alerts

    pub(super) fn alert(&self, fingerprint: &str) -> Option<&Alert> {
        self.alerts.get(fingerprint).map(|known| &known.alert)
    }

    pub(super) fn save_alert(&mut self, alert: Alert) {
        self.alerts.insert(alert.fingerprint.clone(), KnownAlert { alert, news: AlertNews::Changed });
    }

    /// A repeat: nothing but the times changes.
    pub(super) fn seen(&mut self, fingerprint: &str, expires_at: Option<Timestamp>) {
        let now = self.now;
        if let Some(known) = self.alerts.get_mut(fingerprint) {
            known.alert.last_seen_at = now;
            known.alert.expires_at = expires_at.or(known.alert.expires_at);
            if known.news == AlertNews::None {
                known.news = AlertNews::Seen;
            }
        }
    }

    // Incidents

    pub(super) fn incident(&self, id: &str) -> Option<&Incident> {
        self.incidents.get(id).map(|i| &i.held.incident)
    }

    /// Those of a service that the batch holds, open ones and lately resolved ones.
    pub(super) fn incidents_of(&self, service: &str) -> impl Iterator<Item = &Incident> {
        self.by_service
            .get(service)
            .into_iter()
            .flatten()
            .filter_map(|id| self.incident(id))
            .filter(move |i| i.service == service)
    }

    pub(super) fn neighbours(&self, service: &str) -> &[String] {
        self.neighbours.get(service).map_or(&[], Vec::as_slice)
    }

    /// A new one.
    pub(super) fn add_incident(&mut self, incident: Incident) {
        let flips = vec![self.now];
        self.put(Held { incident, flips }, true);
    }

    fn put(&mut self, held: Held, new: bool) {
        let (id, service) = (held.incident.id.clone(), held.incident.service.clone());
        if self.incidents.contains_key(&id) {
            return;
        }
        self.by_service.entry(service).or_default().push(id.clone());
        let held = HeldIncident { held, changed: new, touched: false, owed: new, resolved: false };
        self.incidents.insert(id, held);
    }

    /// Changes one that the batch holds.
    pub(super) fn change(&mut self, id: &str, change: impl FnOnce(&mut Incident)) {
        let Some(i) = self.incidents.get_mut(id) else { return };
        let before = i.held.incident.service.clone();
        change(&mut i.held.incident);
        i.changed = true;
        let service = &i.held.incident.service;
        if *service != before {
            self.by_service.entry(service.clone()).or_default().push(id.to_owned());
        }
    }

    /// People should see what changed: the version grows, and what is owed about it falls due.
    pub(super) fn touch(&mut self, id: &str) {
        if let Some(i) = self.incidents.get_mut(id) {
            i.touched = true;
        }
    }

    /// The channels are owed a message about it.
    pub(super) fn owe(&mut self, id: &str) {
        if let Some(i) = self.incidents.get_mut(id) {
            i.owed = true;
        }
    }

    /// Its questions need no answer any more.
    pub(super) fn supersede_questions(&mut self, id: &str) {
        if let Some(i) = self.incidents.get_mut(id) {
            i.resolved = true;
        }
    }

    /// When it was opened and resolved lately, now included.
    pub(super) fn flip(&mut self, id: &str) -> &[Timestamp] {
        let now = self.now;
        let Some(i) = self.incidents.get_mut(id) else { return &[] };
        i.held.flips.push(now);
        i.changed = true;
        &i.held.flips
    }

    pub(super) fn last_flip(&self, id: &str) -> Option<Timestamp> {
        self.incidents.get(id)?.held.flips.last().copied()
    }

    // Anomalies

    /// Those of a service that the batch holds.
    pub(super) fn anomalies_of(&self, service: &str) -> impl Iterator<Item = &Anomaly> {
        let ids = self.anomalies_by_service.get(service).into_iter().flatten();
        ids.filter_map(|id| self.anomalies.get(id)).map(|a| &a.anomaly)
    }

    /// True if one that belongs to the incident is not over.
    pub(super) fn has_lasting_anomaly(&self, incident: &str) -> bool {
        let mut all = self.anomalies.values().map(|a| &a.anomaly);
        all.any(|a| a.incident_id.as_deref() == Some(incident) && a.ended_at.is_none())
    }

    pub(super) fn save_anomaly(&mut self, anomaly: Anomaly) {
        self.put_anomaly(HeldAnomaly { anomaly, changed: true });
    }

    /// What was changed is not overwritten by what was read.
    fn put_anomaly(&mut self, held: HeldAnomaly) {
        let (id, service) = (held.anomaly.id.clone(), held.anomaly.service.clone());
        match self.anomalies.entry(id.clone()) {
            Entry::Vacant(free) => {
                free.insert(held);
                self.anomalies_by_service.entry(service).or_default().push(id);
            }
            Entry::Occupied(mut known) if held.changed => {
                known.insert(held);
            }
            Entry::Occupied(_) => {}
        }
    }

    // The record

    pub(super) fn decide(&mut self, about: About<'_>, outcome: &str, clause: &str, why: impl Into<String>) {
        self.decisions.push(Decision {
            at: self.now,
            stage: Stage::Correlate,
            fingerprint: about.fingerprint.map(str::to_owned),
            incident_id: about.incident_id.map(str::to_owned),
            outcome: outcome.to_owned(),
            clause: clause.to_owned(),
            why: why.into(),
        });
    }

    pub(super) fn tell(&mut self, incident: &str, kind: TimelineKind, text: impl Into<Said>) {
        self.timeline.push(timeline::Line {
            incident_id: incident.to_owned(),
            at: self.now,
            kind,
            text: text.into(),
            actor: None,
        });
    }

    /// Writes everything that changed.
    pub(super) async fn write(mut self, tx: &mut Tx) -> Result<Outcome> {
        let now = self.now;
        for i in self.incidents.values_mut().filter(|i| i.touched) {
            i.held.incident.version += 1;
            i.held.incident.updated_at = now;
            i.changed = true;
        }
        let ids = |wanted: fn(&HeldIncident) -> bool| {
            // In one order everywhere, so that replicas never wait for each other in a circle.
            let chosen: BTreeMap<&str, &HeldIncident> =
                self.incidents.iter().filter(|(_, i)| wanted(i)).map(|(id, i)| (id.as_str(), i)).collect();
            chosen
        };
        let changed: Vec<&Held> = ids(|i| i.changed).into_values().map(|i| &i.held).collect();
        if !changed.is_empty() {
            incidents::save_held(tx, &changed).await?;
        }
        let owed: Vec<&str> = ids(|i| i.owed).into_keys().collect();
        if !owed.is_empty() {
            messages::owe(tx, &owed, self.channels, now).await?;
        }
        let touched: Vec<&str> = ids(|i| i.touched).into_keys().collect();
        if !touched.is_empty() {
            messages::fall_due(tx, &touched, now).await?;
        }
        for id in ids(|i| i.resolved).into_keys() {
            steer::supersede_questions(tx, id, &Phrase::IncidentResolved {}.into()).await?;
        }
        self.write_alerts(tx).await?;
        let anomalies: Vec<&Anomaly> =
            self.anomalies.values().filter(|a| a.changed).map(|a| &a.anomaly).collect();
        anomalies::save(tx, &anomalies).await?;
        decisions::add_all(tx, &self.decisions).await?;
        if !self.timeline.is_empty() {
            timeline::add_all(tx, &self.timeline).await?;
        }
        Ok(self.out)
    }

    async fn write_alerts(&self, tx: &mut Tx) -> Result<()> {
        let with = |news| self.alerts.values().filter(move |a| a.news == news).map(|a| &a.alert);
        let changed: Vec<&Alert> = with(AlertNews::Changed).collect();
        alerts::save(tx, &changed).await?;
        let seen: Vec<(&str, Option<Timestamp>)> =
            with(AlertNews::Seen).map(|alert| (alert.fingerprint.as_str(), alert.expires_at)).collect();
        alerts::seen(tx, &seen, self.now).await?;
        Ok(())
    }
}
