//! What people do to incidents, approvals and runs, from whichever side they come: API, command line, Telegram, Slack. Every
//! act is one transaction with its audit row; the caller has authenticated the actor and checked the role.
//!
//! Each function comes over an open transaction, so that a caller can commit it together with what it owes itself (a chat's
//! read position). After an error the transaction must be dropped.

mod answer;
mod cancel;
mod incident;
mod settle;
mod silence;
mod start;
mod switch;
mod watch;

pub use answer::{approve, reject, run_by_hand};
pub use cancel::{cancel_run, is_cancelled};
pub use incident::{acknowledge, find, resolve, supersede_questions};
pub use settle::{Answer, settle_step};
pub use silence::{expire_silence, silence};
pub use start::{GuardResult, guards, start};
pub use switch::{is_stopped, start_automation, stop_automation};
pub use watch::{Stop, StopReason};

use crate::{
    model::{Language, Phrase, Said},
    store,
};

/// Why it was not done. The text is safe to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 404.
    #[error("{0}")]
    NotFound(Said),
    /// 409: it stands differently than the caller thinks: answered already, resolved already.
    #[error("{0}")]
    Conflict(Said),
    /// 409: a rule forbids it; the clause names the rule.
    #[error("{why}")]
    Refused { clause: String, why: Said },
    #[error(transparent)]
    Store(#[from] store::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// In the reader's language; what the store says is for the logs.
    pub fn in_language(&self, language: Language) -> String {
        match self {
            Self::NotFound(why) | Self::Conflict(why) | Self::Refused { why, .. } => {
                why.in_language(language)
            }
            Self::Store(error) => error.to_string(),
        }
    }
    fn not_found(what: Phrase) -> Self {
        Self::NotFound(what.into())
    }
    fn conflict(why: Phrase) -> Self {
        Self::Conflict(why.into())
    }
    fn refused(clause: &str, why: impl Into<Said>) -> Self {
        Self::Refused { clause: clause.to_owned(), why: why.into() }
    }
}
