//! What two replays of one recording have in common, and what not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use super::happened::{Action, Happened, How, Signal, Story};
use crate::{
    clock,
    model::{Plan, Severity, Stage},
    notify::channels::paper::{Loudness, Moment, Note},
};

/// Everything that is not the same; nothing of what is.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    pub incidents: Vec<IncidentChange>,
    pub messages: Vec<MessageChange>,
    pub actions: Vec<ActionChange>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.incidents.is_empty() && self.messages.is_empty() && self.actions.is_empty()
    }
}

crate::model::words!(
    /// What became of incidents that share signals.
    IncidentNews {
        New = "new",
        Gone = "gone",
        Merged = "merged",
        Split = "split",
        /// Several before, several after, their signals dealt anew.
        Regrouped = "regrouped",
        /// One before, one after, not the same.
        Changed = "changed",
    }
);

/// An incident, as far as it takes to find it again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Named {
    pub opened_at: Timestamp,
    pub service: String,
    pub severity: Severity,
    pub title: String,
    pub signals: usize,
}

/// Incidents that are not as they were.
#[derive(Debug, PartialEq, Serialize)]
pub struct IncidentChange {
    pub news: IncidentNews,
    pub before: Vec<Named>,
    pub after: Vec<Named>,
    /// Of one that changed: what, from what, to what.
    pub changes: Vec<String>,
    pub clause: String,
    pub why: String,
}

/// A message that rings in one replay only.
#[derive(Debug, PartialEq, Serialize)]
pub struct MessageChange {
    /// True: the changed configuration sends it, and the present one does not.
    pub new: bool,
    pub at: Timestamp,
    pub channel: String,
    pub moment: Moment,
    pub severity: Severity,
    pub subject: String,
    pub clause: String,
    pub why: String,
}

/// An action that only one replay has, that comes about in another way, or that does something else.
#[derive(Debug, PartialEq, Serialize)]
pub struct ActionChange {
    pub before: Option<Action>,
    pub after: Option<Action>,
    /// Of one that both have: the parts of its plan that are not the same.
    pub parts: Vec<&'static str>,
}

/// Incidents of both replays that have to do with each other.
#[derive(Default)]
struct Group<'a> {
    before: Vec<&'a Story>,
    after: Vec<&'a Story>,
}

/// Compares two replays of the same recording.
pub fn difference(before: &Happened, after: &Happened) -> Difference {
    let mut difference = Difference::default();
    let notes = (by_incident(&before.notes), by_incident(&after.notes));
    for group in groups(before, after) {
        let change = incident_change(&group, before, after);
        messages(&group, change.as_ref(), &notes, &mut difference.messages);
        actions(&group, &mut difference.actions);
        difference.incidents.extend(change);
    }
    difference.messages.sort_by(|a, b| (a.at, &a.channel).cmp(&(b.at, &b.channel)));
    difference
}

/// Groups incidents that share a signal, or, sharing none, were of one service at one time.
fn groups<'a>(before: &'a Happened, after: &'a Happened) -> Vec<Group<'a>> {
    let count = before.stories.len();
    let all: Vec<&Story> = before.stories.iter().chain(&after.stories).collect();
    let mut roots: Vec<usize> = (0..all.len()).collect();
    let mut first: HashMap<&Signal, usize> = HashMap::new();
    for (i, story) in all.iter().enumerate() {
        for signal in &story.signals {
            let other = *first.entry(signal).or_insert(i);
            join(&mut roots, i, other);
        }
    }
    let mut sizes = vec![0_usize; all.len()];
    (0..all.len()).for_each(|i| sizes[root(&mut roots, i)] += 1);
    let mut lonely: Vec<usize> = (0..all.len()).filter(|i| sizes[*i] == 1 && roots[*i] == *i).collect();
    let mut twins = lonely.split_off(lonely.partition_point(|i| *i < count));
    for i in lonely {
        if let Some(at) = twins.iter().position(|twin| meet(all[i], all[*twin])) {
            join(&mut roots, i, twins.remove(at));
        }
    }
    let mut grouped: BTreeMap<usize, Group<'a>> = BTreeMap::new();
    for (i, story) in all.iter().enumerate() {
        let group = grouped.entry(root(&mut roots, i)).or_default();
        if i < count { group.before.push(story) } else { group.after.push(story) }
    }
    let mut groups: Vec<Group<'a>> = grouped.into_values().collect();
    groups.sort_by_key(|g| g.before.iter().chain(&g.after).map(|s| s.incident.opened_at).min());
    groups
}

fn root(roots: &mut [usize], i: usize) -> usize {
    let mut at = i;
    while roots[at] != at {
        roots[at] = roots[roots[at]];
        at = roots[at];
    }
    at
}

fn join(roots: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(roots, a), root(roots, b));
    roots[a.max(b)] = a.min(b);
}

fn meet(a: &Story, b: &Story) -> bool {
    let end = |s: &Story| s.incident.resolved_at.unwrap_or(Timestamp::MAX);
    a.incident.service == b.incident.service
        && a.incident.started_at <= end(b)
        && b.incident.started_at <= end(a)
}

fn named(stories: &[&Story]) -> Vec<Named> {
    let name = |s: &&Story| Named {
        opened_at: s.incident.opened_at,
        service: s.incident.service.clone(),
        severity: s.incident.severity,
        title: s.incident.title.to_string(),
        signals: s.signals.len(),
    };
    stories.iter().map(name).collect()
}

fn incident_change(group: &Group<'_>, before: &Happened, after: &Happened) -> Option<IncidentChange> {
    let news = match (group.before.len(), group.after.len()) {
        (0, _) => IncidentNews::New,
        (_, 0) => IncidentNews::Gone,
        (1, 1) => IncidentNews::Changed,
        (_, 1) => IncidentNews::Merged,
        (1, _) => IncidentNews::Split,
        _ => IncidentNews::Regrouped,
    };
    let changes = match (news, &group.before[..], &group.after[..]) {
        (IncidentNews::Changed, [a], [b]) => changes(a, b),
        _ => Vec::new(),
    };
    if news == IncidentNews::Changed && changes.is_empty() {
        return None;
    }
    let (clause, why) = why(group, before, after);
    Some(IncidentChange {
        news,
        before: named(&group.before),
        after: named(&group.after),
        changes,
        clause,
        why,
    })
}

/// What one incident is in one replay and not in the other.
fn changes(a: &Story, b: &Story) -> Vec<String> {
    let (x, y) = (&a.incident, &b.incident);
    let mut out = Vec::new();
    let mut differ = |what: &str, before: String, after: String| {
        if before != after {
            out.push(format!("{what} {before} → {after}"));
        }
    };
    differ("severity", x.severity.to_string(), y.severity.to_string());
    differ("service", x.service.clone(), y.service.clone());
    differ("title", x.title.to_string(), y.title.to_string());
    differ("opened", time(x.opened_at), time(y.opened_at));
    let end = |at: Option<Timestamp>| at.map_or("open to the end".into(), time);
    differ("resolved", end(x.resolved_at), end(y.resolved_at));
    differ("episodes", x.episode.to_string(), y.episode.to_string());
    differ("flapping", x.flapping.to_string(), y.flapping.to_string());
    let held = |reason: &Option<String>| reason.clone().unwrap_or_else(|| "no".into());
    differ("held back", held(&x.suppressed), held(&y.suppressed));
    let only = |a: &Story, b: &Story| a.signals.difference(&b.signals).count();
    let (gone, new) = (only(a, b), only(b, a));
    if gone + new > 0 {
        out.push(format!("signals {} → {} ({gone} gone, {new} new)", a.signals.len(), b.signals.len()));
    }
    out
}

/// `2026-10-03 02:11:05 UTC`.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// The decision at which the replays part: about the first signal of the group that another clause placed, else about the first
/// that was placed elsewhere.
fn why(group: &Group<'_>, before: &Happened, after: &Happened) -> (String, String) {
    let all = group.before.iter().chain(&group.after).flat_map(|s| &s.signals);
    let signals: BTreeSet<(Timestamp, &Signal)> = all.map(|s| (s.at, s)).collect();
    let decided: Vec<_> = signals.iter().map(|(_, s)| (placed(before, s), placed(after, s))).collect();
    let by_another_clause = decided.iter().find_map(|pair| match pair {
        (Some(a), Some(b)) => (a.clause != b.clause).then(|| (b.clause.clone(), b.why.clone())),
        (Some(_), None) => Some(("detect".into(), "a signal of it is not found any more".into())),
        (None, Some(b)) => Some((b.clause.clone(), b.why.clone())),
        (None, None) => None,
    });
    let elsewhere = || {
        decided.iter().find_map(|pair| match pair {
            (Some(a), Some(b)) => (a.why != b.why).then(|| (b.clause.clone(), b.why.clone())),
            _ => None,
        })
    };
    let held = || {
        let held =
            |s: &&Story| s.incident.held_back().map(|(clause, why)| (clause.to_owned(), why.to_owned()));
        group.after.iter().find_map(held)
    };
    by_another_clause.or_else(held).or_else(elsewhere).unwrap_or_default()
}

/// What was decided of a signal; of an anomaly at the time when it was found, which is a little later than its beginning.
fn placed<'a>(happened: &'a Happened, signal: &Signal) -> Option<&'a super::happened::Placed> {
    happened.placed.get(signal).or_else(|| {
        let until = Signal { at: clock::after(signal.at, FOUND_WITHIN), ..signal.clone() };
        happened.placed.range(signal.clone()..=until).next().map(|(_, placed)| placed)
    })
}

const FOUND_WITHIN: std::time::Duration = std::time::Duration::from_secs(3600);

type Notes<'a> = HashMap<&'a str, Vec<&'a Note>>;

fn by_incident(notes: &[Note]) -> Notes<'_> {
    let mut by: Notes<'_> = HashMap::new();
    for note in notes.iter().filter(|n| n.loudness == Loudness::Rings) {
        by.entry(&note.incident_id).or_default().push(note);
    }
    by
}

fn messages(
    group: &Group<'_>,
    change: Option<&IncidentChange>,
    notes: &(Notes<'_>, Notes<'_>),
    out: &mut Vec<MessageChange>,
) {
    type Key = (String, Moment);
    let of = |stories: &[&Story], notes: &Notes<'_>| {
        let mut all: BTreeMap<Key, Vec<Note>> = BTreeMap::new();
        for note in stories.iter().filter_map(|s| notes.get(s.incident.id.as_str())).flatten() {
            all.entry((note.channel.to_string(), note.moment)).or_default().push((*note).clone());
        }
        all.values_mut().for_each(|notes| notes.sort_by_key(|n| n.at));
        all
    };
    let (before, after) = (of(&group.before, &notes.0), of(&group.after, &notes.1));
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    let none = Vec::new();
    for key in keys {
        let (a, b) = (before.get(key).unwrap_or(&none), after.get(key).unwrap_or(&none));
        let (more, new, others) =
            if a.len() > b.len() { (a, false, &group.after) } else { (b, true, &group.before) };
        for note in more.iter().skip(a.len().min(b.len())) {
            let (clause, why) = why_not(others, note, change);
            out.push(MessageChange {
                new,
                at: note.at,
                channel: key.0.clone(),
                moment: key.1,
                severity: note.severity,
                subject: note.subject.clone(),
                clause,
                why,
            });
        }
    }
}

/// Why the other replay does not send it.
fn why_not(others: &[&Story], note: &Note, change: Option<&IncidentChange>) -> (String, String) {
    let channel = format!("{}: ", note.channel);
    let suppressed = others.iter().flat_map(|s| &s.decisions).find(|d| {
        d.outcome == "suppressed"
            && (d.stage == Stage::Correlate || (d.stage == Stage::Notify && d.why.starts_with(&channel)))
    });
    if let Some(d) = suppressed {
        return (d.clause.clone(), d.why.clone());
    }
    match change {
        Some(change) => (change.clause.clone(), format!("its incident: {}", change.news)),
        None => Default::default(),
    }
}

fn actions(group: &Group<'_>, out: &mut Vec<ActionChange>) {
    type Key<'a> = (&'a str, &'a str, &'a str);
    fn of<'a>(stories: &[&'a Story]) -> BTreeMap<Key<'a>, Vec<&'a Action>> {
        let mut all: BTreeMap<Key<'a>, Vec<&Action>> = BTreeMap::new();
        for action in stories.iter().flat_map(|s| &s.actions) {
            let title = if action.how == How::Refused { action.title.as_str() } else { "" };
            all.entry((&action.playbook, &action.target, title)).or_default().push(action);
        }
        all
    }
    let (before, after) = (of(&group.before), of(&group.after));
    let keys: BTreeSet<&Key<'_>> = before.keys().chain(after.keys()).collect();
    let none = Vec::new();
    for key in keys {
        let (a, b) = (before.get(key).unwrap_or(&none), after.get(key).unwrap_or(&none));
        for i in 0..a.len().max(b.len()) {
            let (a, b) = (a.get(i), b.get(i));
            let parts = match (a.and_then(|a| a.plan.as_ref()), b.and_then(|b| b.plan.as_ref())) {
                (Some(a), Some(b)) => parts(a, b),
                _ => Vec::new(),
            };
            if a.map(|a| a.how) != b.map(|b| b.how) || !parts.is_empty() {
                let (before, after) = (a.map(|a| (*a).clone()), b.map(|b| (*b).clone()));
                out.push(ActionChange { before, after, parts });
            }
        }
    }
}

/// What two plans of one playbook for one target differ in.
fn parts(a: &Plan, b: &Plan) -> Vec<&'static str> {
    let all = [
        ("title", a.title != b.title),
        ("parameters", a.params != b.params),
        ("steps", a.steps != b.steps),
        ("verification", a.verify != b.verify),
        ("rollback", a.rollback != b.rollback),
        ("guards", a.guards != b.guards),
        ("advice on failure", a.on_failure != b.on_failure),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect()
}
