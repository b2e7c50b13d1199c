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

use crate::store;

/// Why it was not done. The text is safe to show.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// 404.
    #[error("there is no {0}")]
    NotFound(String),
    /// 409: it stands differently than the caller thinks: answered already, resolved already.
    #[error("{0}")]
    Conflict(String),
    /// 409: a rule forbids it; the clause names the rule.
    #[error("{why}")]
    Refused { clause: String, why: String },
    #[error(transparent)]
    Store(#[from] store::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    fn refused(clause: &str, why: impl Into<String>) -> Self {
        Self::Refused { clause: clause.to_owned(), why: why.into() }
    }
}
