//! The blocks that say why we think so, and what we could not see.

use std::{collections::BTreeSet, time::Duration};

use super::{Block, Keep, Line, Part, Style, Text, fill, when};
use crate::{
    model::{Claim, Diagnosis, Tier},
    notify::view::IncidentView,
};

const CLAIMS_SHOWN: usize = 5;
const FACTS_PER_CLAIM: usize = 3;

pub(super) fn diagnosis(view: &IncidentView, style: &Style) -> Option<Block> {
    let t = style.texts;
    let Some(d) = &view.diagnosis else {
        let line = Line::new().plain(t.no_diagnosis);
        return view.incident.is_open().then(|| Block::new(Part::Diagnosis, Keep::Details, vec![line]));
    };
    let summary = || Line::new().plain(Text::clipped(&d.summary.in_language(t.language), 500));
    let block = |keep, lines| Block::new(Part::Diagnosis, keep, lines).titled(t.why);
    let short = block(Keep::Diagnosis, vec![summary(), maker(d, style)]);
    if !view.incident.is_open() {
        return Some(short);
    }
    let mut lines = vec![summary()];
    let mut told = BTreeSet::new();
    for claim in d.claims.iter().take(CLAIMS_SHOWN) {
        lines.extend(claim_lines(claim, view, style, &mut told));
    }
    lines.push(maker(d, style));
    if d.tier != Tier::Rules {
        lines.push(Line::new().plain(t.unchecked));
    }
    Some(block(Keep::Details, lines).or(short))
}

/// The claim, and under it the facts that it cites; a fact that was told already is only named.
fn claim_lines<'a>(
    claim: &'a Claim,
    view: &IncidentView,
    style: &Style,
    told: &mut BTreeSet<&'a str>,
) -> Vec<Line> {
    let (again, new): (Vec<&str>, Vec<&str>) =
        claim.evidence.iter().map(String::as_str).partition(|id| told.contains(id));
    let mut line = Line::item().plain(Text::clipped(&claim.text.in_language(style.texts.language), 300));
    if !again.is_empty() {
        line = line.plain(" ").plain(Text::clipped(&format!("({})", again.join(", ")), 60));
    }
    let mut lines = vec![line];
    for id in new.iter().take(FACTS_PER_CLAIM) {
        told.insert(id);
        let summary = view
            .evidence
            .iter()
            .find(|e| e.id == **id)
            .map_or_else(String::new, |e| e.summary.in_language(style.texts.language));
        let line = Line::sub_item().code(Text::clipped(id, 8)).plain(" ");
        lines.push(line.plain(Text::clipped(&summary, 200)));
    }
    let more = new.len().saturating_sub(FACTS_PER_CLAIM) as i64;
    if more > 0 {
        lines.push(Line::sub_item().plain(style.texts.count(&style.texts.more_facts, more)));
    }
    lines
}

/// Who says so, how long it took, what it cost.
fn maker(d: &Diagnosis, style: &Style) -> Line {
    let t = style.texts;
    let took = when::duration(Duration::from_millis(d.latency_ms), t);
    let said = match d.tier {
        Tier::Rules => fill(t.by_rules, &[&took]),
        Tier::Local => fill(t.by_local, &[&d.model, &took]),
        Tier::Cloud => fill(t.by_cloud, &[&d.model, &took, &format!("{:.4}", d.cost_usd)]),
    };
    Line::new().plain(Text::clipped(&said, 200))
}

pub(super) fn missing(view: &IncidentView, style: &Style) -> Option<Block> {
    let missing = &view.diagnosis.as_ref()?.missing;
    if missing.is_empty() || !view.incident.is_open() {
        return None;
    }
    let line = |m: &crate::model::Missing| {
        Line::item()
            .strong(Text::clipped(&m.source, 60))
            .plain(": ")
            .plain(Text::clipped(&m.reason.in_language(style.texts.language), 160))
    };
    let lines = missing.iter().take(8).map(line).collect();
    Some(Block::new(Part::Missing, Keep::Missing, lines).titled(style.texts.missing))
}
