//! The blocks that say what broke, since when, and where it stands.

use super::{Block, Keep, Line, Part, Style, Text, Texts, fill, when};
use crate::{
    clock,
    model::{AlertState, IncidentState, Severity},
    notify::view::{IncidentView, SAID_ELSEWHERE},
};

const ALERTS_SHOWN: usize = 5;
const TIMELINE_SHOWN: usize = 5;

pub(super) fn headline(view: &IncidentView, style: &Style) -> Block {
    let i = &view.incident;
    let sign = match (i.state, i.severity) {
        (IncidentState::Resolved, _) => "✅",
        (IncidentState::Acknowledged, _) => "👀",
        (_, Severity::Critical) => "🔴",
        (_, Severity::Warning) => "🟠",
        (_, Severity::Info) => "🔵",
    };
    let word = standing_word(view, style.texts);
    let asks = super::asks(view, style.texts).map(|a| format!("{a}: ")).unwrap_or_default();
    let line = Line::new()
        .strong(format!("{sign} {word} {asks}"))
        .strong(Text::clipped(&i.title.in_language(style.texts.language), 300));
    Block::new(Part::Headline, Keep::Always, vec![line])
}

/// `RESOLVED`, or how bad it is.
pub(super) fn standing_word(view: &IncidentView, t: &Texts) -> &'static str {
    match (view.incident.state, view.incident.severity) {
        (IncidentState::Resolved, _) => t.resolved,
        (_, Severity::Critical) => t.critical,
        (_, Severity::Warning) => t.warning,
        (_, Severity::Info) => t.info,
    }
}

pub(super) fn facts(view: &IncidentView, style: &Style) -> Block {
    let (i, t) = (&view.incident, style.texts);
    let count = if i.is_open() {
        t.count(&t.firing, i.firing_count)
    } else {
        t.count(&t.alerts_total, i.alert_count)
    };
    let since = fill(t.since, &[&when::date(i.started_at, style)]);
    let mut line = Line::new();
    if !i.service.is_empty() {
        line = line.strong(Text::clipped(&i.service, 80)).plain(" · ");
    }
    line = line.plain(format!("{since} · "));
    if i.alert_count > 0 {
        line = line.plain(format!("{count} · "));
    }
    Block::new(Part::Facts, Keep::Always, vec![line.code(format!("#{}", i.short_id()))])
}

pub(super) fn standing(view: &IncidentView, style: &Style) -> Option<Block> {
    let (i, t) = (&view.incident, style.texts);
    let mut lines = Vec::new();
    if let (Some(at), false) = (i.resolved_at, i.is_open()) {
        let lasted = when::duration(clock::between(i.started_at, at), t);
        let mut line = Line::new().plain(fill(t.resolved_at, &[&when::clock(at, style), &lasted]));
        if let Some(by) = &i.resolved_by {
            line = line
                .plain(" · ")
                .plain(Text::clipped(&fill(t.resolved_by, &[&by.in_language(t.language)]), 120));
        }
        lines.push(line);
    } else if let (Some(by), IncidentState::Acknowledged) = (&i.acknowledged_by, i.state) {
        lines.push(Line::new().plain(Text::clipped(&fill(t.acknowledged_by, &[&by.to_string()]), 160)));
    }
    if i.flapping {
        lines.push(Line::new().plain(t.flapping));
    }
    (!lines.is_empty()).then(|| Block::new(Part::Standing, Keep::Always, lines))
}

pub(super) fn alerts(view: &IncidentView, style: &Style) -> Option<Block> {
    if !view.incident.is_open() || view.alerts.is_empty() {
        return None;
    }
    let t = style.texts;
    let mut sorted: Vec<_> = view.alerts.iter().collect();
    sorted.sort_by_key(|a| (a.state != AlertState::Firing, a.starts_at));
    let mut lines: Vec<Line> = sorted.iter().take(ALERTS_SHOWN).map(|a| alert_line(a, style)).collect();
    let more = sorted.len().saturating_sub(ALERTS_SHOWN) as i64;
    if more > 0 {
        lines.push(Line::item().plain(t.count(&t.more_alerts, more)));
    }
    Some(Block::new(Part::Alerts, Keep::Alerts, lines).titled(t.what_broke))
}

fn alert_line(alert: &crate::model::Alert, style: &Style) -> Line {
    let mut line = Line::item().strong(Text::clipped(alert.name(), 80));
    if alert.title() != alert.name() {
        line = line.plain(": ").plain(Text::clipped(alert.title(), 200));
    }
    if let Some(instance) = alert.labels.get("instance") {
        line = line.plain(" · ").code(Text::clipped(instance, 80));
    }
    match (alert.state, alert.ends_at) {
        (AlertState::Resolved, Some(at)) => {
            line.plain(format!(" ({})", fill(style.texts.ended, &[&when::clock(at, style)])))
        }
        _ => line,
    }
}

pub(super) fn undelivered(view: &IncidentView, style: &Style) -> Option<Block> {
    let said = fill(style.texts.undelivered, &[&view.unreached.join(", ")]);
    let line = Line::new().plain("⚠️ ").plain(Text::clipped(&said, 200));
    (!view.unreached.is_empty()).then(|| Block::new(Part::Standing, Keep::Always, vec![line]))
}

pub(super) fn timeline(view: &IncidentView, style: &Style) -> Option<Block> {
    let told: Vec<_> = view.timeline.iter().filter(|e| !SAID_ELSEWHERE.contains(&e.kind)).collect();
    let tail = &told[told.len().saturating_sub(TIMELINE_SHOWN)..];
    if tail.is_empty() {
        return None;
    }
    let line = |e: &&crate::model::TimelineEntry| {
        Line::item()
            .code(when::clock_seconds(e.at, style))
            .plain(" ")
            .plain(Text::clipped(&e.text.in_language(style.texts.language), 160))
    };
    Some(
        Block::new(Part::Timeline, Keep::Timeline, tail.iter().map(line).collect())
            .titled(style.texts.timeline),
    )
}

pub(super) fn link(view: &IncidentView, style: &Style) -> Option<Block> {
    let url = format!("{}/incidents/{}", style.public_url, view.incident.id);
    let line = Line::new().link(style.texts.open_in_browser, url);
    (!style.public_url.is_empty()).then(|| Block::new(Part::Link, Keep::Link, vec![line]))
}
