//! For tests that must damage what is stored, or look where no query of the program looks.

use super::{Store, Tx, db::Pools, exec, inbox::Prepared, sql};

/// Runs one statement.
pub async fn execute(tx: &mut Tx, statement: &'static str) {
    exec!(tx, |c| sqlx::query(statement)).expect("a test's own statement is valid");
}

/// The number that a `SELECT COUNT(*) …` gives.
pub async fn count(tx: &mut Tx, query: &'static str) -> i64 {
    sql!(tx, |c| sqlx::query_scalar(query).fetch_one(c)).expect("a test's own query is valid")
}

/// As after the time of all claimed jobs and messages.
pub async fn end_leases(tx: &mut Tx) {
    execute(tx, "UPDATE jobs SET lease_until = 0").await;
    execute(tx, "UPDATE messages SET lease_until = 0").await;
}

/// A delivery that nobody can read.
pub fn unreadable_delivery() -> Prepared {
    Prepared::unreadable()
}

/// Keeps everybody from appending to the inbox file until dropped.
pub async fn hold_inbox(store: &Store) -> impl Send + use<> {
    let Pools::Lite { inbox, .. } = &store.pools else {
        panic!("only the embedded profile has an inbox file")
    };
    inbox.write.begin(false).await.expect("the one writer")
}
