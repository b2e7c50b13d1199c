//! State in SQL: one set of queries for SQLite and PostgreSQL, one file for each aggregate, functions over a transaction.

pub mod alerts;
pub mod anomalies;
pub mod approvals;
pub mod audit;
pub mod buttons;
pub mod changes;
pub mod chat_events;
mod db;
pub mod decisions;
pub mod diagnoses;
pub mod evidence;
pub mod flags;
pub mod inbox;
pub mod incidents;
pub mod jobs;
pub mod leases;
pub mod messages;
mod migrate;
pub mod page;
pub mod retention;
mod row;
pub mod runs;
pub mod silences;
#[doc(hidden)]
pub mod testing;
pub mod timeline;
pub mod tokens;

pub use db::{Error, Result, Store, Tx, Wake};
pub use page::Page;

/// Runs one query on whichever engine the transaction is of: `sql!(tx, |c| sqlx::query("…").bind(x).execute(c))`.
macro_rules! sql {
    ($tx:expr, |$c:ident| $query:expr) => {
        match &mut $tx.engine {
            crate::store::db::Engine::Lite(t) => {
                let $c = &mut **t;
                $query.await
            }
            crate::store::db::Engine::Postgres(t) => {
                let $c = &mut **t;
                $query.await
            }
        }
    };
}
/// The number of rows that a statement changed.
macro_rules! exec {
    ($tx:expr, |$c:ident| $query:expr) => {
        match &mut $tx.engine {
            crate::store::db::Engine::Lite(t) => {
                let $c = &mut **t;
                $query.execute($c).await.map(|r| r.rows_affected())
            }
            crate::store::db::Engine::Postgres(t) => {
                let $c = &mut **t;
                $query.execute($c).await.map(|r| r.rows_affected())
            }
        }
    };
}
pub(crate) use {exec, sql};
