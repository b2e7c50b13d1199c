//! What waits follows a wall clock that was set back.

use std::time::Duration;

use jiff::Timestamp;

use super::{Result, Tx, exec, row};

/// The clock was set back by `by` to `now`: what was due, or is to end, in what is now the future is due that much earlier, or
/// it would wait for so much longer than it was meant to. What began since the clock was set may be due too early: jobs look
/// again before they act, and a question that closes too early is safe. Named leases see it by themselves.
pub async fn follow(tx: &mut Tx, by: Duration, now: Timestamp) -> Result<()> {
    let (by, now) = (i64::try_from(by.as_micros()).unwrap_or(i64::MAX), row::micros(now));
    for statement in [
        "UPDATE jobs SET run_at = run_at - $1 WHERE run_at > $2",
        "UPDATE jobs SET lease_until = lease_until - $1 WHERE lease_until > $2",
        "UPDATE messages SET next_at = next_at - $1 WHERE next_at > $2",
        "UPDATE messages SET due_since = due_since - $1 WHERE due_since > $2",
        "UPDATE messages SET lease_until = lease_until - $1 WHERE lease_until > $2",
        "UPDATE approvals SET expires_at = expires_at - $1 WHERE expires_at > $2",
        "UPDATE buttons SET expires_at = expires_at - $1 WHERE expires_at > $2",
    ] {
        exec!(tx, |c| sqlx::query(statement).bind(by).bind(now))?;
    }
    (tx.wake.jobs, tx.wake.messages) = (true, true);
    Ok(())
}
