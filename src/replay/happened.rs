//! What happened in a replay: the incidents with the signals that made them, what people would have been told, and what would
//! have been done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;

use super::recording::Counts;
use crate::{
    model::{Decision, Incident, Plan, Severity, Stage},
    notify::channels::paper::{Loudness, Note},
    store::{Store, anomalies, approvals, decisions, incidents, runs},
};

/// All of one replay.
pub struct Happened {
    pub counts: Counts,
    /// When the first record arrived, and the last.
    pub from: Timestamp,
    pub to: Timestamp,
    /// In the order of opening.
    pub stories: Vec<Story>,
    pub notes: Vec<Note>,
    /// How many anomalies began, and how many of them came to no incident.
    pub anomalies: (u64, u64),
    /// Where each signal went, and why.
    pub placed: BTreeMap<Signal, Placed>,
    /// Watches of the settings whose samples the recording does not hold.
    pub unrecorded: Vec<String>,
}

/// One incident.
pub struct Story {
    pub incident: Incident,
    pub signals: BTreeSet<Signal>,
    pub actions: Vec<Action>,
    /// What was decided about the incident itself and told of it, without its signals.
    pub decisions: Vec<Decision>,
}

/// One alert that began to fire, or one anomaly: the same in every replay of a recording.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal {
    /// A fingerprint, or the key of an anomaly.
    pub key: String,
    /// When the alert arrived; when the anomaly began.
    pub at: Timestamp,
}

/// Which incident a signal came to.
#[derive(Clone, Debug)]
pub struct Placed {
    pub incident: Option<String>,
    pub clause: String,
    pub why: String,
}

crate::model::words!(
    /// What comes of a plan.
    How {
        Asks = "asks",
        Runs = "runs",
        Refused = "refused",
    }
);

/// One action that would have been proposed or done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Action {
    pub at: Timestamp,
    pub how: How,
    /// Empty where something was refused before it was a plan.
    pub playbook: String,
    pub target: String,
    pub title: String,
    pub clause: String,
    pub why: String,
    /// What exactly would be done; none where something was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    pub anomalies: u64,
    pub anomalies_in_no_incident: u64,
    pub incidents: usize,
    pub by_severity: BTreeMap<Severity, usize>,
    /// Messages that ring, and changes of messages that people have, by channel.
    pub messages: BTreeMap<String, usize>,
    pub edits: BTreeMap<String, usize>,
    pub actions: BTreeMap<How, usize>,
}

impl Action {
    fn of(plan: Plan, how: How, at: Timestamp, (clause, why): (String, String)) -> Self {
        let (playbook, target, title) = (plan.playbook.clone(), plan.target.clone(), plan.title.clone());
        Self { at, how, playbook, target, title, clause, why, plan: Some(plan) }
    }
}

impl Happened {
    pub fn totals(&self) -> Totals {
        let (anomalies, anomalies_in_no_incident) = self.anomalies;
        let incidents = self.stories.len();
        let mut t = Totals { anomalies, anomalies_in_no_incident, incidents, ..Totals::default() };
        for story in &self.stories {
            *t.by_severity.entry(story.incident.severity).or_default() += 1;
            for action in &story.actions {
                *t.actions.entry(action.how).or_default() += 1;
            }
        }
        for note in &self.notes {
            let sum = if note.loudness == Loudness::Rings { &mut t.messages } else { &mut t.edits };
            *sum.entry(note.channel.to_string()).or_default() += 1;
        }
        t
    }
}

const PAGE: i64 = 10_000;

/// Reads it from the replay's store.
pub(super) async fn read(
    store: &Store,
    notes: Vec<Note>,
    counts: Counts,
    (from, to): (Timestamp, Timestamp),
) -> anyhow::Result<Happened> {
    let mut tx = store.read().await?;
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let page = incidents::list(&mut tx, &Default::default(), 200, cursor.as_deref()).await?;
        all.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    all.sort_by(|a, b| (a.opened_at, &a.id).cmp(&(b.opened_at, &b.id)));
    let mut stories = Vec::with_capacity(all.len());
    let mut found = HashSet::new();
    for incident in all {
        let mut story =
            Story { signals: BTreeSet::new(), actions: Vec::new(), decisions: Vec::new(), incident };
        for anomaly in anomalies::of(&mut tx, &story.incident.id).await? {
            story.signals.insert(Signal { key: anomaly.key, at: anomaly.started_at });
        }
        found.extend(story.signals.iter().map(|s| s.key.clone()));
        stories.push(story);
    }
    let at: HashMap<String, usize> =
        stories.iter().enumerate().map(|(i, s)| (s.incident.id.clone(), i)).collect();
    let mut placed = BTreeMap::new();
    let mut row = 0;
    loop {
        let page = decisions::after(&mut tx, row, PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        row = *last;
        for (_, decision) in page {
            let story = decision.incident_id.as_ref().and_then(|id| at.get(id)).map(|i| &mut stories[*i]);
            place(decision, story, &found, &mut placed);
        }
    }
    for story in &mut stories {
        story.actions = actions(&mut tx, story).await?;
    }
    let anomalies = anomalies::count(&mut tx).await?;
    Ok(Happened { counts, from, to, stories, notes, anomalies, placed, unrecorded: Vec::new() })
}

/// Puts a decision where it belongs.
fn place(
    decision: Decision,
    story: Option<&mut Story>,
    anomalies: &HashSet<String>,
    placed: &mut BTreeMap<Signal, Placed>,
) {
    let Some(key) = decision.fingerprint.clone() else {
        if let Some(story) = story {
            story.decisions.push(decision);
        }
        return;
    };
    let Decision { at, outcome, clause, why, incident_id, .. } = decision;
    let signal = Signal { key, at };
    if let Some(story) = story
        && ["opened", "attached", "reopened"].contains(&outcome.as_str())
        && !anomalies.contains(&signal.key)
    {
        story.signals.insert(signal.clone());
    }
    // Of an anomaly: what was decided when it was found, not when an incident adopted it.
    placed.entry(signal).or_insert(Placed { incident: incident_id, clause, why });
}

async fn actions(tx: &mut crate::store::Tx, story: &Story) -> anyhow::Result<Vec<Action>> {
    let id = &story.incident.id;
    let decided = |outcome: &str, at: Timestamp| {
        let of = |d: &&Decision| d.stage == Stage::Decide && d.outcome == outcome && d.at == at;
        story.decisions.iter().find(of).map(|d| (d.clause.clone(), d.why.clone())).unwrap_or_default()
    };
    let mut all = Vec::new();
    for a in approvals::of(tx, id).await? {
        all.push(Action::of(a.plan, How::Asks, a.requested_at, decided("asked", a.requested_at)));
    }
    for run in runs::of(tx, id).await? {
        all.push(Action::of(run.plan, How::Runs, run.started_at, decided("act", run.started_at)));
    }
    let mut told = HashSet::new();
    for d in story.decisions.iter().filter(|d| d.stage == Stage::Decide && d.outcome == "refused") {
        // The same refusal comes with each diagnosis.
        if told.insert((&d.clause, &d.why)) {
            all.push(Action {
                at: d.at,
                how: How::Refused,
                playbook: String::new(),
                target: story.incident.service.clone(),
                title: d.why.clone(),
                clause: d.clause.clone(),
                why: d.why.clone(),
                plan: None,
            });
        }
    }
    all.sort_by(|a, b| (a.at, a.how, &a.title).cmp(&(b.at, b.how, &b.title)));
    Ok(all)
}
