//! Whose doing it is, where more than one may have done it.

use crate::model::case::Sym;

/// The end of an edge that has answered is to blame a little more often than the one that asked (3 : 2).
pub const CALLEE: f64 = 0.6;
/// An edge's vote on its ends is worth at most as much as 10 requests, and the prior 5.
pub const VOTES: f64 = 10.0;
pub const PRIOR: f64 = 5.0;

/// Seen in a trace by another detector: when, whose doing, how sure (nats).
pub struct Earlier {
    pub at: i64,
    pub service: Sym,
    pub nats: f64,
}
