//! Why a tier gave no answer that counts: words for people, a label for metrics, and whether the breaker should hear of it.

use crate::model::Phrase;

crate::model::words!(
    /// What became of asking one tier, as metrics count it.
    AttemptResult {
        Answered = "answered",
        Refused = "refused",
        TimedOut = "timed_out",
        RateLimited = "rate_limited",
        Unauthorised = "unauthorised",
        UnknownModel = "unknown_model",
        PromptTooLong = "prompt_too_long",
        ServerError = "server_error",
        Declined = "declined",
        Truncated = "truncated",
        Garbled = "garbled",
        SchemaInvalid = "schema_invalid",
        InventedEvidence = "invented_evidence",
        PlaybookNotOffered = "playbook_not_offered",
        ParamsNotOffered = "params_not_offered",
        CircuitOpen = "circuit_open",
        Busy = "busy",
        Budget = "budget",
    }
);

/// Why a provider's answer does not count.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot be reached: {0}")]
    Refused(String),
    #[error("rate limited: {0}")]
    RateLimited(String),
    #[error("refuses our key: {0}")]
    Unauthorised(String),
    #[error("does not have the model: {0}")]
    UnknownModel(String),
    #[error("the prompt is too long for the model: {0}")]
    PromptTooLong(String),
    #[error("answered {0}: {1}")]
    Server(u16, String),
    #[error("the model declined: {0}")]
    Declined(String),
    #[error("the answer was cut off at the token limit")]
    Truncated,
    #[error("the answer is not what the API promises: {0}")]
    Garbled(String),
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

/// Why a whole answer was not accepted. What the model made up is quoted and cut.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejection {
    #[error("the answer does not have the agreed form: {0}")]
    Schema(String),
    #[error("the answer cites {0}, which was not sent")]
    InventedEvidence(String),
    #[error("the answer wants the playbook {0}, which was not offered")]
    PlaybookNotOffered(String),
    #[error("the answer gives parameters that were not offered: {0}")]
    ParamsNotOffered(String),
}

impl Failure {
    /// True if it says that the tier is of no use now. A bad answer is a failure of the tier; a prompt that is too long, or a
    /// subject that a filter declines, says nothing about the next question.
    pub fn trips(&self) -> bool {
        !matches!(self, Self::PromptTooLong(_) | Self::Declined(_))
    }

    /// The same words, so that they can be said in Russian.
    pub fn said(self) -> Phrase {
        match self {
            Self::Refused(why) => Phrase::Unreachable { why },
            Self::RateLimited(why) => Phrase::RateLimited { why },
            Self::Unauthorised(why) => Phrase::RefusesOurKey { why },
            Self::UnknownModel(why) => Phrase::NoSuchModel { why },
            Self::PromptTooLong(why) => Phrase::PromptTooLong { why },
            Self::Server(status, said) => Phrase::AnsweredBadly { status: status.to_string(), said },
            Self::Declined(why) => Phrase::ModelDeclined { why },
            Self::Truncated => Phrase::CutOff {},
            Self::Garbled(why) => Phrase::Garbled { why },
            Self::Rejected(Rejection::Schema(why)) => Phrase::WrongForm { why },
            Self::Rejected(Rejection::InventedEvidence(cited)) => Phrase::InventedEvidence { cited },
            Self::Rejected(Rejection::PlaybookNotOffered(playbook)) => {
                Phrase::PlaybookNotOffered { playbook }
            }
            Self::Rejected(Rejection::ParamsNotOffered(why)) => Phrase::ParamsNotOffered { why },
        }
    }

    /// True if the server surely did no work for it, so that no tokens were spent.
    pub fn is_free(&self) -> bool {
        use Failure::{PromptTooLong, RateLimited, Refused, Unauthorised, UnknownModel};
        matches!(self, Refused(_) | RateLimited(_) | Unauthorised(_) | UnknownModel(_) | PromptTooLong(_))
    }

    pub fn result(&self) -> AttemptResult {
        match self {
            Self::Refused(_) => AttemptResult::Refused,
            Self::RateLimited(_) => AttemptResult::RateLimited,
            Self::Unauthorised(_) => AttemptResult::Unauthorised,
            Self::UnknownModel(_) => AttemptResult::UnknownModel,
            Self::PromptTooLong(_) => AttemptResult::PromptTooLong,
            Self::Server(..) => AttemptResult::ServerError,
            Self::Declined(_) => AttemptResult::Declined,
            Self::Truncated => AttemptResult::Truncated,
            Self::Garbled(_) => AttemptResult::Garbled,
            Self::Rejected(Rejection::Schema(_)) => AttemptResult::SchemaInvalid,
            Self::Rejected(Rejection::InventedEvidence(_)) => AttemptResult::InventedEvidence,
            Self::Rejected(Rejection::PlaybookNotOffered(_)) => AttemptResult::PlaybookNotOffered,
            Self::Rejected(Rejection::ParamsNotOffered(_)) => AttemptResult::ParamsNotOffered,
        }
    }
}
