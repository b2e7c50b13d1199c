//! For tests that must damage what is stored, or look where no query of the program looks.

use super::{Tx, exec, sql};

/// Runs one statement.
pub async fn execute(tx: &mut Tx, statement: &'static str) {
    exec!(tx, |c| sqlx::query(statement)).expect("a test's own statement is valid");
}

/// The number that a `SELECT COUNT(*) …` gives.
pub async fn count(tx: &mut Tx, query: &'static str) -> i64 {
    sql!(tx, |c| sqlx::query_scalar(query).fetch_one(c)).expect("a test's own query is valid")
}
