//! State in SQL: one set of queries for SQLite and PostgreSQL, one file for each aggregate, functions over a transaction.

pub mod alerts;
pub mod anomalies;
pub mod approvals;
pub mod audit;
pub mod backup;
pub mod buttons;
pub mod calls;
pub mod changes;
pub mod chat_events;
pub mod damage;
mod db;
pub mod decisions;
pub mod diagnoses;
mod durable;
pub mod evidence;
pub mod exports;
pub mod flags;
pub mod inbox;
mod inbox_file;
pub mod incidents;
mod inline;
pub mod jobs;
pub mod leases;
pub mod messages;
mod migrate;
pub mod page;
pub mod partitions;
mod readers;
pub mod retention;
mod row;
pub mod runs;
pub mod set_back;
pub mod silences;
#[doc(hidden)]
pub mod testing;
pub mod timeline;
pub mod tokens;
mod writer;

pub(crate) use db::restrict;
pub use db::{Error, Result, Store, Tx, Wake, standing};
pub use migrate::{MigrateWhen, Standing};
pub use page::Page;

/// Runs one query on whichever engine the transaction is of: `sql!(tx, |c| sqlx::query("…").bind(x).execute(c))`.
macro_rules! sql {
    ($tx:expr, |$c:ident| $query:expr) => {
        match &mut $tx.engine {
            crate::store::db::Engine::Lite(crate::store::db::Lite::Read(t)) => {
                let $c = &mut **t;
                $query.await
            }
            crate::store::db::Engine::Lite(crate::store::db::Lite::ReadFew(t)) => {
                let $c = &mut **t;
                $query.await
            }
            crate::store::db::Engine::Lite(crate::store::db::Lite::Write(t)) => {
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
            crate::store::db::Engine::Lite(crate::store::db::Lite::Read(t)) => {
                let $c = &mut **t;
                $query.execute($c).await.map(|r| r.rows_affected())
            }
            crate::store::db::Engine::Lite(crate::store::db::Lite::ReadFew(t)) => {
                let $c = &mut **t;
                $query.execute($c).await.map(|r| r.rows_affected())
            }
            crate::store::db::Engine::Lite(crate::store::db::Lite::Write(t)) => {
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
/// The rows of `head IN (values) tail`, the values in chunks: `rows_in!(tx, Row, "SELECT … WHERE id", ids, "ORDER BY id")`.
macro_rules! rows_in {
    ($tx:expr, $row:ty, $head:expr, $values:expr, $tail:expr) => {{
        let (head, tail): (&str, &str) = ($head, $tail);
        let mut rows: Vec<$row> = Vec::new();
        for chunk in $values.chunks(crate::store::CHUNK) {
            rows.extend(crate::store::sql!($tx, |c| async move {
                let mut q = sqlx::QueryBuilder::new(head);
                q.push(" IN (");
                let mut list = q.separated(", ");
                for value in chunk {
                    list.push_bind(value.as_ref() as &str);
                }
                q.push(") ").push(tail);
                // A statement for one or two is the same each time.
                q.build_query_as::<$row>().persistent(chunk.len() <= 2).fetch_all(c).await
            })?);
        }
        rows
    }};
}
/// Runs `head VALUES (…), (…) tail` for all rows, in chunks: `insert_all!(tx, "INSERT INTO t (a, b)", rows, |row, x| { … }, "")`.
macro_rules! insert_all {
    ($tx:expr, $head:expr, $rows:expr, |$row:ident, $item:ident| $bind:expr, $tail:expr) => {
        let (head, tail): (&str, &str) = ($head, $tail);
        for (chunk, keep) in $tx.chunks(&$rows[..]) {
            crate::store::sql!($tx, |c| async move {
                let mut q = sqlx::QueryBuilder::new(head);
                q.push(" ");
                q.push_values(chunk, |mut $row, $item| {
                    $bind;
                });
                q.push(" ").push(tail);
                q.build().persistent(keep).execute(c).await.map(|_| ())
            })?;
        }
    };
}
pub(crate) use {exec, insert_all, rows_in, sql};

/// Rows in one statement at most: so many of the widest table stay below the engines' limits on parameters (SQLite: 32,766).
const CHUNK: usize = 500;
