//! The short message that rings: what is needed of whom; the rest stands in the message that it answers.

use super::{Block, Document, Keep, Line, Part, Style, Text};
use crate::{model::RunState, notify::view::IncidentView};

/// A person has come to be needed after the first message was told.
pub fn ring(view: &IncidentView, style: &Style) -> Document {
    let (i, t) = (&view.incident, style.texts);
    let run = view.run.as_ref();
    let by_human = run.is_some_and(|r| r.state == RunState::NeedsHuman);
    let asked = view.pending().filter(|_| !by_human);
    let needed = match asked {
        _ if by_human => t.subject_human,
        Some(_) => t.subject_approval,
        None => t.subject_failed,
    };
    let mut facts = Line::new();
    if !i.service.is_empty() {
        facts = facts.strong(Text::clipped(&i.service, 80)).plain(" · ");
    }
    let mut lines = vec![facts.code(format!("#{}", i.short_id()))];
    let (what, where_to_look) = match (asked, run) {
        (Some(approval), _) => (approval.plan.title.clone(), t.ring_approval),
        (None, Some(run)) => {
            (format!("{}: {}", run.plan.title, run.outcome.in_language(t.language)), t.ring_run)
        }
        (None, None) => (String::new(), t.ring_run),
    };
    if !what.is_empty() {
        lines.push(Line::new().plain(Text::clipped(what.trim_end_matches(": "), 300)));
    }
    lines.push(Line::new().plain(where_to_look));
    let headline = Line::new()
        .strong(format!("🔔 {needed}: "))
        .strong(Text::clipped(&i.title.in_language(t.language), 300));
    Document {
        severity: i.severity,
        subject: super::subject(view, style),
        blocks: vec![
            Block::new(Part::Headline, Keep::Always, vec![headline]),
            Block::new(Part::Facts, Keep::Always, lines),
        ],
        offers: Vec::new(),
    }
}
