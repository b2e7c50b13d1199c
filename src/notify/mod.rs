//! Tells people: takes what is owed from the outbox, renders the incident as it is now, posts or edits, and records what
//! became of it.

pub mod channels;
mod lanes;
mod outbox;
pub mod render;
mod status;
pub mod view;

pub use channels::{Capabilities, Channel, ChannelKind, Letter, SendError, Sent};
pub use outbox::{Deps, deliver_due, next_due, run};
pub use status::{ChannelStatus, status};

use crate::config::Settings;

/// The names of the configured channels: what a new incident owes.
pub fn channel_names(settings: &Settings) -> Vec<String> {
    channels::configured(settings).into_iter().map(|kind| kind.as_str().to_owned()).collect()
}
