//! Turns what we know about an incident into a message without markup: what broke, since when, why we think so, what we
//! propose, what to press. Hands a [`Document`] to the channels.

mod cause;
mod document;
mod html;
mod remedy;
mod ring;
mod situation;
#[cfg(test)]
mod snapshots;
mod text;
mod texts;
mod when;

pub use document::{Block, Document, Keep, Line, Offer, Part, Span};
pub use html::{Html, plain};
pub use ring::ring;
pub use text::Text;
pub use texts::{Texts, fill};

use super::view::IncidentView;
use crate::model::{ApprovalState, IncidentState, RunState, Verb};

/// How messages are written.
#[derive(Clone)]
pub struct Style {
    pub texts: &'static Texts,
    pub zone: jiff::tz::TimeZone,
    /// Links start with it; empty: no links.
    pub public_url: String,
}

/// How the reader can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// By buttons under the message.
    Buttons,
    /// By the command line.
    Commands,
}

impl Style {
    /// By the settings; they are checked, so an unknown zone (there is none then) would be UTC.
    pub fn of(settings: &crate::config::Settings) -> Self {
        Self {
            texts: Texts::of(settings.language),
            zone: jiff::tz::TimeZone::get(&settings.notify.timezone).unwrap_or(jiff::tz::TimeZone::UTC),
            public_url: settings.public_url.trim_end_matches('/').to_owned(),
        }
    }
}

/// The whole message, as long as it gets; channels shorten it with [`Document::fit`].
pub fn document(view: &IncidentView, style: &Style, answer: Answer) -> Document {
    let mut blocks = vec![situation::headline(view, style), situation::facts(view, style)];
    blocks.extend(situation::standing(view, style));
    blocks.extend(situation::alerts(view, style));
    blocks.extend(cause::diagnosis(view, style));
    blocks.extend(cause::missing(view, style));
    blocks.extend(remedy::answered(view, style));
    blocks.extend(remedy::run(view, style));
    blocks.extend(remedy::proposal(view, style, answer));
    blocks.extend(remedy::press(view, style));
    blocks.extend(situation::undelivered(view, style));
    blocks.extend(situation::timeline(view, style));
    blocks.extend(situation::link(view, style));
    Document {
        severity: view.incident.severity,
        subject: subject(view, style),
        blocks,
        offers: offers(view, style),
    }
}

/// One line for a phone's lock screen: how bad, where, what; and what is asked of the reader.
fn subject(view: &IncidentView, style: &Style) -> Text {
    let t = style.texts;
    let i = &view.incident;
    let asks = asks(view, t).map(|a| format!("{a}: ")).unwrap_or_default();
    let service = if i.service.is_empty() { String::new() } else { format!("{}: ", i.service) };
    let title = i.title.in_language(t.language);
    Text::clipped(&format!("[{}] {asks}{service}{title}", situation::standing_word(view, t)), 200)
}

/// What is asked of the reader, if anything.
fn asks(view: &IncidentView, t: &Texts) -> Option<&'static str> {
    match (view.pending(), view.run.as_ref().map(|r| r.state)) {
        _ if !view.incident.is_open() => None,
        (_, Some(RunState::NeedsHuman)) => Some(t.subject_human),
        (Some(_), _) => Some(t.subject_approval),
        (_, Some(RunState::Failed)) => Some(t.subject_failed),
        _ => None,
    }
}

fn offers(view: &IncidentView, style: &Style) -> Vec<Offer> {
    let t = style.texts;
    let offer = |verb, label: &str, needs| Offer { verb, label: label.into(), needs };
    let mut offers = Vec::new();
    if view.pending().is_some() {
        offers.push(offer(Verb::Approve, t.approve, Some(Part::Proposal)));
        offers.push(offer(Verb::Reject, t.reject, None));
    }
    if view.incident.state == IncidentState::Open {
        offers.push(offer(Verb::Ack, t.ack, None));
    }
    if view.incident.is_open() {
        offers.push(offer(Verb::Resolve, t.resolve, None));
    }
    offers
}

impl IncidentView {
    /// The question that waits for an answer, while the incident is open.
    pub fn pending(&self) -> Option<&crate::model::Approval> {
        let waits =
            |a: &&crate::model::Approval| a.state == ApprovalState::Pending && self.incident.is_open();
        self.approval.as_ref().filter(waits)
    }
}
