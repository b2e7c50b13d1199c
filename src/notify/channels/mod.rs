//! The channels: one file each, one row each in `TABLE`. A channel turns a document into its own markup and talks to its
//! provider; the outbox decides what is told when.

mod email;
mod milestones;
mod pagerduty;
pub mod paper;
mod slack;
mod stdout;
mod telegram;

pub use milestones::need;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;

use super::{
    render::{Answer, Document},
    view::IncidentView,
};
use crate::{
    config::{Settings, StdoutWhen},
    model::{Severity, Verb},
};

crate::model::words!(
    /// What a channel talks to; also its name.
    ChannelKind {
        Stdout = "stdout",
        Telegram = "telegram",
        Slack = "slack",
        PagerDuty = "pagerduty",
        Email = "email",
    }
);

/// A kind of channel: when it is configured, how bad an incident must be, how it is built.
struct Entry {
    kind: ChannelKind,
    is_on: fn(&Settings) -> bool,
    min_severity: fn(&Settings) -> Severity,
    build: fn(&Settings) -> anyhow::Result<Arc<dyn Channel>>,
}

const TABLE: &[Entry] = &[
    Entry {
        kind: ChannelKind::Telegram,
        is_on: |s| s.notify.telegram.is_on(),
        min_severity: |s| s.notify.telegram.min_severity,
        build: |s| Ok(Arc::new(telegram::Telegram::new(&s.notify.telegram))),
    },
    Entry {
        kind: ChannelKind::Slack,
        is_on: |s| s.notify.slack.is_on(),
        min_severity: |s| s.notify.slack.min_severity,
        build: |s| Ok(slack::build(&s.notify.slack)),
    },
    Entry {
        kind: ChannelKind::PagerDuty,
        is_on: |s| s.notify.pagerduty.is_on(),
        min_severity: |s| s.notify.pagerduty.min_severity,
        build: |s| Ok(Arc::new(pagerduty::PagerDuty::new(&s.notify.pagerduty, &s.public_url))),
    },
    Entry {
        kind: ChannelKind::Email,
        is_on: |s| s.notify.email.is_on(),
        min_severity: |s| s.notify.email.min_severity,
        build: |s| Ok(Arc::new(email::Email::new(&s.notify.email)?)),
    },
    Entry {
        kind: ChannelKind::Stdout,
        is_on: stdout_is_on,
        min_severity: |s| s.notify.stdout.min_severity,
        build: |_| Ok(Arc::new(stdout::Stdout)),
    },
];

fn stdout_is_on(settings: &Settings) -> bool {
    let n = &settings.notify;
    let others = n.telegram.is_on() || n.slack.is_on() || n.pagerduty.is_on() || n.email.is_on();
    match n.stdout.when {
        StdoutWhen::Never => false,
        StdoutWhen::Alone => !others,
        StdoutWhen::Always => true,
    }
}

/// The kinds that the settings turn on.
pub fn configured(settings: &Settings) -> Vec<ChannelKind> {
    TABLE.iter().filter(|e| (e.is_on)(settings)).map(|e| e.kind).collect()
}

/// A channel with what the settings say about it.
#[derive(Clone)]
pub struct Route {
    pub channel: Arc<dyn Channel>,
    /// Incidents below this are not told here.
    pub min_severity: Severity,
}

/// The channels that the settings turn on.
pub fn build(settings: &Settings) -> anyhow::Result<Vec<Route>> {
    let on = TABLE.iter().filter(|e| (e.is_on)(settings));
    on.map(|e| Ok(Route { channel: (e.build)(settings)?, min_severity: (e.min_severity)(settings) }))
        .collect()
}

/// In the place of each channel that the settings turn on, one that writes down what it would tell, and can do nothing else.
pub fn on_paper(settings: &Settings) -> (Vec<Route>, paper::Notes) {
    let notes = paper::Notes::default();
    let on = TABLE.iter().filter(|e| (e.is_on)(settings));
    let routes = on.map(|e| {
        let channel = Arc::new(paper::Paper::new(e.kind, settings, notes.clone()));
        Route { channel, min_severity: (e.min_severity)(settings) }
    });
    (routes.collect(), notes)
}

/// What a channel can do, and how fast it may be used.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// A message can be changed after it was posted. A reopened incident then gets a new one, because an edit rings nobody.
    pub edits: bool,
    pub answer: Answer,
    /// At most so many calls in so long; all of them hold.
    pub limits: &'static [(usize, Duration)],
    /// At most so many calls at a time. A kill leaves as many in doubt, and what is in doubt is told again: more than one only
    /// where the provider knows what it has had.
    pub parallel: usize,
}

/// What is to be delivered: the document, and what channels with a form of their own need beside it.
#[derive(Clone, Debug)]
pub struct Letter {
    pub view: IncidentView,
    pub document: Document,
    /// Ids for the document's offers, where the channel has buttons.
    pub buttons: BTreeMap<Verb, String>,
    /// A try before this one may have been taken, though we never heard so: we were killed, or the answer was lost.
    pub tried: bool,
}

/// What a provider has taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// What the channel needs to change the message later; kept by the outbox.
    pub reference: Value,
    /// The chat or channel that shows it: its buttons work only there.
    pub place: String,
    pub how: How,
    /// What is owed still and worth another try (some recipients of a mail).
    pub rest: Option<String>,
    /// What was refused for good although the rest was delivered.
    pub refused: Option<String>,
}

crate::model::words!(
    /// What came of one try to deliver.
    How {
        Posted = "posted",
        Edited = "edited",
        /// The provider has it already, or it is nothing that this channel tells.
        Unchanged = "unchanged",
    }
);

impl Sent {
    pub fn new(how: How, reference: Value, place: impl Into<String>) -> Self {
        Self { reference, place: place.into(), how, rest: None, refused: None }
    }
}

/// Why a provider has not taken it. Texts carry no secrets.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SendError {
    /// Worth another try.
    #[error("{0}")]
    Again(String),
    /// Too fast: nothing to this place before the delay is over.
    #[error("{why} (asked to wait {after:?})")]
    Slower { why: String, after: Duration },
    /// Will never work like this.
    #[error("{0}")]
    Refused(String),
    /// The message that was to be changed is gone or closed: post it anew.
    #[error("{0}")]
    Gone(String),
}

/// One way to reach people. Calls end by themselves within a minute and a half.
#[async_trait]
pub trait Channel: Send + Sync {
    fn kind(&self) -> ChannelKind;
    fn capabilities(&self) -> Capabilities;
    /// Tells it for the first time.
    async fn post(&self, letter: &Letter) -> Result<Sent, SendError>;
    /// Changes what was told, by the reference that an earlier call gave.
    async fn update(&self, letter: &Letter, reference: &Value) -> Result<Sent, SendError>;
    /// Reaches the provider without telling anybody; what it found, or what is wrong.
    async fn check(&self) -> Result<String, String>;
    /// How to ring people about a message that they have, where an edit rings nobody.
    fn bell(&self) -> Option<&dyn Bell> {
        None
    }
}

/// Rings: a short new message beside the one that is edited.
#[async_trait]
pub trait Bell: Send + Sync {
    /// Posts the letter as an answer to the message.
    async fn ring(&self, letter: &Letter, reference: &Value) -> Result<(), SendError>;
}
