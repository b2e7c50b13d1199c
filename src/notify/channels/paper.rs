//! Stands in for a channel where nobody is to be told: writes down what the channel would have told, by the channel's own
//! rules, and has nothing to send it with.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Bell, Capabilities, Channel, ChannelKind, How, Letter, SendError, Sent, milestones, milestones::Told,
    pagerduty, slack, telegram,
};
use crate::{
    clock,
    config::Settings,
    model::Severity,
    notify::{render::Answer, view::IncidentView},
};

crate::model::words!(
    /// How it reaches people.
    Loudness {
        /// A new message, or a page: somebody's phone may ring.
        Rings = "rings",
        /// A change of what they have.
        Silent = "silent",
    }
);

crate::model::words!(
    /// What it is about.
    Moment {
        Opened = "opened",
        Reopened = "reopened",
        Approval = "approval",
        NeedsHuman = "needs_human",
        Failed = "failed",
        Resolved = "resolved",
    }
);

/// One message that would have been sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Note {
    pub at: Timestamp,
    pub channel: ChannelKind,
    pub incident_id: String,
    pub loudness: Loudness,
    pub moment: Moment,
    pub severity: Severity,
    /// As the message's first line has it.
    pub subject: String,
}

/// All that would have been sent, in order.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<Note>>>);

impl Notes {
    pub fn take(&self) -> Vec<Note> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// When a channel says something anew.
#[derive(Clone, Copy, PartialEq)]
enum Tells {
    /// Edits what it posted, and rings when a person comes to be needed.
    Edits,
    /// Posts each milestone.
    Milestones,
    /// Opens and closes an alert elsewhere.
    States,
    /// Prints every version.
    Versions,
}

pub(super) struct Paper {
    kind: ChannelKind,
    tells: Tells,
    capabilities: Capabilities,
    notes: Notes,
}

impl Paper {
    pub(super) fn new(kind: ChannelKind, settings: &Settings, notes: Notes) -> Self {
        let n = &settings.notify;
        let (tells, limits): (_, &'static [_]) = match kind {
            ChannelKind::Telegram if n.telegram.chat_id < 0 => (Tells::Edits, telegram::GROUP),
            ChannelKind::Telegram => (Tells::Edits, telegram::PRIVATE),
            ChannelKind::Slack if n.slack.token.is_empty() => (Tells::Milestones, slack::LIMITS),
            ChannelKind::Slack => (Tells::Edits, slack::LIMITS),
            ChannelKind::PagerDuty => (Tells::States, &[]),
            ChannelKind::Email => (Tells::Milestones, &[]),
            ChannelKind::Stdout => (Tells::Versions, &[]),
        };
        let edits = tells == Tells::Edits;
        let capabilities = Capabilities { edits, answer: Answer::Commands, limits, parallel: 1 };
        Self { kind, tells, capabilities, notes }
    }

    fn note(&self, letter: &Letter, loudness: Loudness) {
        let view = &letter.view;
        let note = Note {
            at: clock::now(),
            channel: self.kind,
            incident_id: view.incident.id.clone(),
            loudness,
            moment: moment(view),
            severity: view.incident.severity,
            subject: letter.document.subject.as_str().to_owned(),
        };
        self.notes.0.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    fn tell(&self, letter: &Letter, known: Option<&Value>) -> Sent {
        let sent = |how, reference| Sent::new(how, reference, "");
        match self.tells {
            Tells::Edits | Tells::Versions => {
                let (how, loudness) = match known {
                    None => (How::Posted, Loudness::Rings),
                    Some(_) => (How::Edited, Loudness::Silent),
                };
                self.note(letter, loudness);
                sent(how, json!({}))
            }
            Tells::Milestones => {
                let mut told =
                    known.and_then(|known| Told::deserialize(&known["told"]).ok()).unwrap_or_default();
                let Some(milestone) = told.next(&letter.view) else {
                    return sent(How::Unchanged, json!({ "told": told }));
                };
                self.note(letter, Loudness::Rings);
                told.add(&milestone, &letter.view);
                sent(How::Posted, json!({ "told": told }))
            }
            Tells::States => self.bring(letter, known.and_then(|known| State::deserialize(known).ok())),
        }
    }

    fn bring(&self, letter: &Letter, has: Option<State>) -> Sent {
        use pagerduty::Action;
        let summary = letter.document.subject.as_str().to_owned();
        let mut last = has.as_ref().map_or(Action::None, |state| state.action);
        let news = has.as_ref().is_none_or(|state| state.summary != summary);
        let actions = pagerduty::actions(last, letter.view.incident.state, news);
        let how = match (actions.is_empty(), has.is_some()) {
            (true, _) => How::Unchanged,
            (false, true) => How::Edited,
            (false, false) => How::Posted,
        };
        for action in actions {
            // It pages for what was not open there; a trigger of what is changes its words.
            let pages = action == Action::Trigger && matches!(last, Action::None | Action::Resolve);
            self.note(letter, if pages { Loudness::Rings } else { Loudness::Silent });
            last = action;
        }
        let state = State { action: last, summary };
        Sent::new(how, serde_json::to_value(state).expect("two strings"), "")
    }
}

/// What the alert elsewhere is known to show.
#[derive(Serialize, Deserialize)]
struct State {
    action: pagerduty::Action,
    summary: String,
}

fn moment(view: &IncidentView) -> Moment {
    let need = milestones::need(view).unwrap_or_default();
    match need.split_once('.').map_or("", |(kind, _)| kind) {
        _ if !view.incident.is_open() => Moment::Resolved,
        "human" => Moment::NeedsHuman,
        "approval" => Moment::Approval,
        "failed" => Moment::Failed,
        _ if view.incident.episode > 1 => Moment::Reopened,
        _ => Moment::Opened,
    }
}

#[async_trait]
impl Channel for Paper {
    fn kind(&self) -> ChannelKind {
        self.kind
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        Ok(self.tell(letter, None))
    }

    async fn update(&self, letter: &Letter, reference: &Value) -> Result<Sent, SendError> {
        Ok(self.tell(letter, Some(reference)))
    }

    async fn check(&self) -> Result<String, String> {
        Ok("writes down what it would tell".into())
    }

    fn bell(&self) -> Option<&dyn Bell> {
        (self.tells == Tells::Edits).then_some(self)
    }
}

#[async_trait]
impl Bell for Paper {
    async fn ring(&self, letter: &Letter, _reference: &Value) -> Result<(), SendError> {
        self.note(letter, Loudness::Rings);
        Ok(())
    }
}
