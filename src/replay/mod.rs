//! The time machine: sends recorded signals through detect → correlate → diagnose → decide → notify, with the code of the live
//! service, on a clock of its own, and says what two configurations make of them.
//!
//! A replay has nothing to reach the world with: no HTTP client, no model, no steps, channels of paper, a store that is thrown
//! away. What cannot be known from a recording is listed in [`NOT_REPLAYED`].

mod difference;
mod files;
mod happened;
mod record;
mod recording;
mod world;

pub use difference::{
    ActionChange, Difference, IncidentChange, IncidentNews, MessageChange, Named, difference, time,
};
pub use files::{Files, Lines};
pub use happened::{Action, Happened, How, Story, Totals};
pub use record::record;
pub use recording::{Counts, Kind, Recording, Silence};
pub use world::replay;

/// What a replay does not know, for whoever reads its result.
pub const NOT_REPLAYED: [&str; 4] = [
    "answers of people (approvals, acknowledgements, incidents closed by hand): every question waits until it expires",
    "effects of actions: a run that would have started counts as started, changes nothing, and the signals come as recorded",
    "language models, and what diagnoses ask of Prometheus and of log searches: causes are concluded by rules, from the recording alone",
    "what came over roads that the recording does not hold, and what was learned before it begins",
];
