//! Plain data that the stages share. No I/O, no clock, no randomness.

mod actor;
mod alert;
mod anomaly;
mod button;
mod calls;
pub mod case;
mod change;
mod decision;
mod diagnosis;
mod evidence;
mod incident;
mod job;
mod language;
mod matcher;
mod message;
mod offer;
mod phrase;
mod plan;
mod run;
mod said;
mod severity;
mod silence;
mod telemetry;

pub use actor::{Actor, Role};
pub use alert::{Alert, AlertEvent, AlertState, Labels, fingerprint};
pub use anomaly::{Anomaly, AnomalyEvent, AnomalyKind};
pub use button::{Button, Verb};
pub use calls::{Called, Calls};
pub use change::Change;
pub use decision::{Decision, Stage};
pub use diagnosis::{Attempt, Claim, Diagnosis, Missing, Suggestion, Tier};
pub use evidence::{Evidence, EvidenceKind};
pub use incident::{Incident, IncidentState, TimelineEntry, TimelineKind, short_id};
pub use job::{Job, JobKind, NewJob};
pub use language::Language;
pub use matcher::{Matcher, Matchers, all_match};
pub use message::{Message, MessageState};
pub use offer::{Offer, OfferedParam};
pub use phrase::{Facts, Lead, Listed, Per, Phrase, Seconds, SeriesCount, Short, Span, Times, Values};
pub use plan::{Action, Approval, ApprovalState, Expect, Guards, Plan, PlanStep, Probe, Rate, Verify};
pub use run::{Phase, Run, RunState, StepRecord, StepState};
pub use said::Said;
pub use severity::Severity;
pub use silence::Silence;
pub use telemetry::{
    Coverage, Gap, LogLevel, LogRecord, RecentTelemetry, Sample, SeriesSummary, Span as TraceSpan, Telemetry,
    TemplateActivity,
};

pub(crate) use alert::hex;

/// SHA-256 in 64 lower-case hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// Makes an enum with a fixed lower-case word for each variant: the same word in SQL, JSON, metric labels and messages.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize, utoipa::ToSchema, schemars::JsonSchema)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $word)] $variant),+ }
        impl $name {
            /// Every variant, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            /// The word that stands for it in SQL, JSON and metric labels.
            pub fn as_str(self) -> &'static str { match self { $($name::$variant => $word),+ } }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.as_str()) }
        }
        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(s: &str) -> std::result::Result<Self, String> {
                match s {
                    $($word => Ok($name::$variant),)+
                    _ => Err(format!("{s:?} is none of {}", [$($word),+].join(", "))),
                }
            }
        }
    };
}
pub(crate) use words;
