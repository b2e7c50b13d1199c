//! Makes a recording of what a store knows: alerts with the times at which they arrived and ended, anomalies, changes, silences
//! and the kept log lines.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    files::Files,
    recording::{Counts, Kind, Silence},
};
use crate::{
    clock,
    model::{Alert, AlertState, AnomalyEvent, Phrase, Stage, TimelineKind},
    search,
    store::{Store, Tx, alerts, anomalies, changes, decisions, silences, timeline},
};

/// Writes what the store knows of a time; how much it was.
///
/// `kept_logs` is the directory in which the service keeps log lines, if it does.
pub async fn record(
    store: &Store,
    kept_logs: Option<&Path>,
    (from, until): (Timestamp, Timestamp),
    files: &mut Files,
) -> anyhow::Result<Counts> {
    let mut tx = store.read().await?;
    let signals = Signals::read(&mut tx, until).await?;
    let alerts = write(files, Kind::Alerts, &signals.alert_rows(from, until))?;
    let anomalies = write(files, Kind::Anomalies, &anomaly_rows(&mut tx, &signals, from, until).await?)?;
    let changes = write(files, Kind::Changes, &change_rows(&mut tx, from, until).await?)?;
    let silences = write(files, Kind::Silences, &silence_rows(&mut tx, from, until).await?)?;
    let mut counts = Counts { alerts, anomalies, changes, silences, ..Counts::default() };
    drop(tx);
    if let Some(dir) = kept_logs.filter(|dir| dir.join(search::KEPT_FILE).is_file()) {
        let mut file = files.add(Kind::Logs)?;
        search::each_kept(dir, from, until, |line| file.log(&line)).await?;
        counts.log_lines = file.end()?;
    }
    Ok(counts)
}

fn write(files: &mut Files, kind: Kind, rows: &[Value]) -> anyhow::Result<u64> {
    let mut file = files.add(kind)?;
    rows.iter().try_for_each(|row| file.add(row))?;
    file.end()
}

/// What the decisions and the stories of incidents say of when signals came and went.
struct Signals {
    alerts: HashMap<String, Alert>,
    episodes: Vec<Episode>,
    /// When each anomaly was found, by key, in order.
    found: HashMap<String, Vec<Timestamp>>,
}

/// From an alert's firing to its end.
struct Episode {
    fingerprint: String,
    incident: String,
    began: Timestamp,
    ended: Option<Timestamp>,
}

const PAGE: i64 = 10_000;

impl Signals {
    async fn read(tx: &mut Tx, until: Timestamp) -> anyhow::Result<Self> {
        let mut came = Vec::new();
        let mut row = 0;
        loop {
            let page = decisions::after(tx, row, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            row = *last;
            came.extend(page.into_iter().filter_map(|(_, d)| match (d.stage, d.fingerprint) {
                (Stage::Correlate, Some(key)) if d.at <= until => {
                    let joined = ["opened", "attached", "reopened"].contains(&d.outcome.as_str());
                    Some((d.at, key, d.incident_id.filter(|_| joined)))
                }
                _ => None,
            }));
        }
        let keys: HashSet<&str> = came.iter().map(|(_, key, _)| key.as_str()).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        let known = alerts::by_fingerprint(tx, &keys).await?;
        let alerts: HashMap<String, Alert> = known.into_iter().map(|a| (a.fingerprint.clone(), a)).collect();
        let mut found: HashMap<String, Vec<Timestamp>> = HashMap::new();
        let mut begun = Vec::new();
        for (at, key, incident) in came {
            match (alerts.contains_key(&key), incident) {
                (true, Some(incident)) => begun.push((at, key, incident)),
                (true, None) => {}
                (false, _) => found.entry(key).or_default().push(at),
            }
        }
        let ends = ends(tx, until).await?;
        Ok(Self { episodes: episodes(&alerts, begun, ends), alerts, found })
    }

    /// A line for each beginning and each end, in the order of arrival. What fired already at `from` fires at once.
    fn alert_rows(&self, from: Timestamp, until: Timestamp) -> Vec<Value> {
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (i, e) in self.episodes.iter().enumerate() {
            last.insert(&e.fingerprint, i);
        }
        let mut rows: Vec<(Timestamp, usize, Value)> = Vec::new();
        for (i, e) in self.episodes.iter().enumerate() {
            if e.began > until || e.ended.is_some_and(|at| at < from) {
                continue;
            }
            let Some(alert) = self.alerts.get(&e.fingerprint) else { continue };
            // Of earlier episodes only the arrival is known.
            let is_last = last.get(e.fingerprint.as_str()) == Some(&i);
            let starts = if is_last { alert.starts_at.min(e.began) } else { e.began };
            let mut row = json!({
                "at": e.began.max(from),
                "source": alert.source,
                "fingerprint": alert.fingerprint,
                "status": AlertState::Firing,
                "labels": alert.labels,
                "annotations": alert.annotations,
                "startsAt": starts,
                "generatorURL": alert.generator_url,
            });
            rows.push((e.began.max(from), i, row.clone()));
            if let Some(ended) = e.ended.filter(|at| *at <= until) {
                let ends = if is_last { alert.ends_at.unwrap_or(ended).min(ended) } else { ended };
                row["at"] = ended.to_string().into();
                row["status"] = AlertState::Resolved.as_str().into();
                row["endsAt"] = ends.max(starts).to_string().into();
                rows.push((ended.max(from), i, row));
            }
        }
        rows.sort_by_key(|(at, i, _)| (*at, *i));
        rows.into_iter().map(|(.., row)| row).collect()
    }

    fn found_at(&self, key: &str, started: Timestamp) -> Timestamp {
        let found = self.found.get(key).into_iter().flatten().find(|at| **at >= started);
        found.copied().unwrap_or(started)
    }
}

/// An alert's end, as the story of its incident has it: when, of which incident, the alert's name and title.
type End = (Timestamp, String, String, String);

async fn ends(tx: &mut Tx, until: Timestamp) -> anyhow::Result<Vec<End>> {
    let mut all = Vec::new();
    let mut seq = 0;
    loop {
        let page = timeline::since(tx, seq, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        seq = last.seq;
        for line in page.into_iter().filter(|l| l.kind == TimelineKind::AlertResolved && l.at <= until) {
            if let Some(Phrase::AlertResolved { name, title }) = line.text.phrase() {
                all.push((line.at, line.incident_id, name.clone(), title.to_string()));
            }
        }
    }
}

/// Gives each end to the episode that it ends: of its incident and name, the one with its title, else the oldest.
fn episodes(
    alerts: &HashMap<String, Alert>,
    begun: Vec<(Timestamp, String, String)>,
    ends: Vec<End>,
) -> Vec<Episode> {
    let mut all: Vec<Episode> = Vec::new();
    let mut open: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut by_alert: HashMap<String, usize> = HashMap::new();
    let mut ends = ends.into_iter().peekable();
    let close = |all: &mut Vec<Episode>, open: &mut BTreeMap<String, Vec<usize>>, end: End| {
        let (at, incident, name, title) = end;
        let Some(waiting) = open.get_mut(&incident) else { return };
        let fits = |i: &usize| alerts[&all[*i].fingerprint].name() == name;
        let titled = |i: &usize| fits(i) && alerts[&all[*i].fingerprint].title() == title;
        let place = waiting.iter().position(titled).or_else(|| waiting.iter().position(fits));
        if let Some(place) = place {
            all[waiting.remove(place)].ended = Some(at);
        }
    };
    for (at, fingerprint, incident) in begun {
        // What began in the same moment began before anything of it ended.
        while let Some(end) = ends.next_if(|(ended, ..)| *ended < at) {
            close(&mut all, &mut open, end);
        }
        if let Some(i) = by_alert.insert(fingerprint.clone(), all.len()) {
            let before = &mut all[i];
            if before.ended.is_none() {
                // It began anew: it had ended, whatever its story says.
                before.ended = Some(at);
                open.entry(before.incident.clone()).or_default().retain(|open| *open != i);
            }
        }
        open.entry(incident.clone()).or_default().push(all.len());
        all.push(Episode { fingerprint, incident, began: at, ended: None });
    }
    for end in ends {
        close(&mut all, &mut open, end);
    }
    // An alert that is known to have ended, and whose story does not say so: the incident had been closed by hand before.
    for e in all.iter_mut().filter(|e| e.ended.is_none()) {
        let alert = &alerts[&e.fingerprint];
        if alert.state == AlertState::Resolved {
            e.ended = alert.ends_at.map(|at| at.max(e.began));
        }
    }
    all
}

async fn anomaly_rows(
    tx: &mut Tx,
    signals: &Signals,
    from: Timestamp,
    until: Timestamp,
) -> anyhow::Result<Vec<Value>> {
    let mut rows: Vec<(Timestamp, Value)> = Vec::new();
    for anomaly in anomalies::between(tx, from, until).await? {
        let at = signals.found_at(&anomaly.key, anomaly.started_at);
        let mut event = AnomalyEvent::from(anomaly);
        event.ended_at = event.ended_at.filter(|ended| *ended <= until);
        let mut row = serde_json::to_value(&event)?;
        row["at"] = at.to_string().into();
        rows.push((at, row));
    }
    rows.sort_by_key(|(at, _)| *at);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

async fn change_rows(tx: &mut Tx, from: Timestamp, until: Timestamp) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut to) = (BTreeMap::new(), until);
    loop {
        let page = changes::between(tx, from, to).await?;
        let known = all.len();
        let earliest = page.last().map(|c| c.at);
        all.extend(page.into_iter().map(|c| ((c.at, c.id.clone()), c)));
        match earliest {
            Some(at) if all.len() > known => to = at,
            _ => break,
        }
    }
    all.values().map(|c| Ok(serde_json::to_value(c)?)).collect()
}

async fn silence_rows(tx: &mut Tx, from: Timestamp, until: Timestamp) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut cursor): (Vec<Silence>, Option<String>) = Default::default();
    loop {
        let page = silences::list(tx, Some(from), 1000, cursor.as_deref()).await?;
        let held = page.items.into_iter().filter(|s| s.created_at <= until);
        all.extend(held.map(|s| Silence {
            at: s.created_at.max(clock::from_micros(from.as_microsecond())),
            until: s.until,
            matches: s.matches,
            reason: s.reason,
        }));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    all.sort_by_key(|s| s.at);
    all.iter().map(|s| Ok(serde_json::to_value(s)?)).collect()
}
