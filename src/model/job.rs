//! A job: the next piece of work, written in the transaction that made it necessary.

use jiff::Timestamp;

super::words!(
    /// Each kind is one stage's entry; `pipeline` maps them.
    JobKind {
        /// Gather evidence and apply the rules tier; the subject is an incident.
        Diagnose = "diagnose",
        /// Ask the LLM chain to improve the diagnosis; the subject is an incident.
        Enhance = "enhance",
        /// Act, ask or refuse; the subject is an incident.
        Decide = "decide",
        /// Carry out a run, or go on with it; the subject is a run.
        Run = "run",
        /// Ask the world whether a run helped; the subject is a run.
        Verify = "verify",
        /// An approval's time is up; the subject is an approval.
        ExpireApproval = "expire_approval",
        /// A flapping incident may have calmed down; the subject is an incident.
        Settle = "settle",
    }
);

/// What to do, about what, and not before when.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    pub kind: JobKind,
    pub subject: String,
    pub run_at: Timestamp,
}

/// A claimed job: ours until the lease ends. Consumed when it is finished or given back; the fencing number makes a late
/// owner's writes fail.
#[derive(Debug)]
pub struct Job {
    pub id: String,
    pub kind: JobKind,
    pub subject: String,
    pub attempt: i64,
    pub fence: i64,
    /// How often it had been enqueued when it was claimed; if it has grown since, it is done once more.
    pub generation: i64,
}
