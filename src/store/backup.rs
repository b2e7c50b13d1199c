//! Snapshots of the embedded store that belong together, and what a store holds: for backups, and for checking one.

use std::{collections::BTreeMap, path::Path, str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use sqlx::{
    AssertSqlSafe, ConnectOptions, PgPool, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use super::{
    Error, Result, Store, Tx, audit,
    db::{LiteInbox, Pools},
    migrate,
    readers::Readers,
    sql,
    writer::Writer,
};

/// The embedded store's files, in the order in which they must be copied: see [`snapshot`].
pub const FILES: [&str; 2] = ["inbox.db", "aiops.db"];

/// Tables that people would miss.
const COUNTED: [&str; 9] =
    ["incidents", "alerts", "anomalies", "runs", "approvals", "messages", "silences", "tokens", "audit"];

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// Version of the newest migration.
    pub schema: i64,
    /// Table → rows.
    pub rows: BTreeMap<String, i64>,
    /// Alerts and anomalies that were acknowledged and have not taken effect yet; they do so after the next start.
    pub waiting: i64,
    /// What is wrong with the audit trail's chain, if something is.
    pub audit_problem: Option<String>,
}

/// The version of the newest migration that this program knows.
pub fn newest_schema() -> i64 {
    migrate::newest()
}

/// Copies the files of `data_dir` into `into`, whoever is writing to them.
///
/// The inbox first. A row that was acknowledged before is then either in this copy, or it had been trimmed because the state held
/// its effects, and the state that is copied later holds them too. The other way round, rows could be applied and trimmed in
/// between, and would be in neither copy. Rows that both copies hold are known by the state's own mark, and take effect once.
pub async fn snapshot(data_dir: &Path, into: &Path) -> anyhow::Result<()> {
    for name in FILES {
        let (from, to) = (data_dir.join(name), into.join(name));
        copy(&from, &to).await.with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

/// A consistent copy by SQLite itself: what was committed when it began, without its log, readers and writers going on.
async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let target = to.to_str().context("the path must be UTF-8")?;
    let mut source =
        SqliteConnectOptions::new().filename(from).busy_timeout(Duration::from_secs(30)).connect().await?;
    sqlx::query("VACUUM INTO $1").bind(target).execute(&mut source).await?;
    sqlx::Connection::close(source).await?;
    Ok(())
}

/// Opens copies of [`FILES`] in `dir` as they are, for reading; fails if SQLite finds them damaged.
pub async fn open_copies(dir: &Path) -> anyhow::Result<Store> {
    let [inbox_name, state_name] = FILES;
    let (inbox, state) = (whole(&dir.join(inbox_name)).await?, whole(&dir.join(state_name)).await?);
    let applied: i64 = sqlx::query_scalar("SELECT id FROM inbox_applied").fetch_one(&state).await?;
    let inbox = LiteInbox {
        write: Writer::none(),
        read: inbox,
        read_few: Readers::new(dir.join(inbox_name)),
        applied: Arc::new(applied.into()),
        trimmed: Arc::new(applied.into()),
    };
    let path = dir.join(state_name);
    Ok(Store::over(Pools::Lite { write: Writer::none(), read: state, read_few: Readers::new(path), inbox }))
}

async fn whole(path: &Path) -> anyhow::Result<SqlitePool> {
    let checking = || format!("checking {}", path.display());
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let pool =
        SqlitePoolOptions::new().max_connections(1).connect_with(options).await.with_context(checking)?;
    let said: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(5)").fetch_all(&pool).await.with_context(checking)?;
    ensure!(said == ["ok"], "{} is damaged: {}", path.display(), said.join("; "));
    Ok(pool)
}

/// Opens PostgreSQL as it is: nothing is migrated or made.
pub async fn open_postgres(url: &str) -> anyhow::Result<Store> {
    let options = PgConnectOptions::from_str(url)
        .map_err(|e| anyhow::anyhow!("store.url is not a PostgreSQL URL: {e}"))?
        .application_name("aiops-backup");
    let place = format!("{}:{}", options.get_host(), options.get_port());
    let pool: PgPool = PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(10))
        .connect_with(options)
        .await
        .with_context(|| format!("connecting to PostgreSQL at {place}"))?;
    Ok(Store::over(Pools::Postgres(pool)))
}

/// Names the snapshot that this transaction reads, so that `pg_dump --snapshot` reads the same while it lasts.
pub async fn export_snapshot(tx: &mut Tx) -> Result<String> {
    Ok(sql!(tx, |c| sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(c))?)
}

/// How many tables the database has: none where something may be restored into.
pub async fn tables(tx: &mut Tx) -> Result<i64> {
    Ok(sql!(tx, |c| sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = current_schema()"
    )
    .fetch_one(c))?)
}

/// Counts, and walks the audit trail, in one snapshot.
pub async fn contents(store: &Store, tx: &mut Tx) -> Result<Contents> {
    let schema: Option<i64> =
        sql!(tx, |c| sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(c))?;
    let schema = schema.ok_or_else(|| Error::Damaged("no migration was ever applied to it".into()))?;
    let mut rows = BTreeMap::new();
    for table in COUNTED {
        let query = AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
        let count: i64 = sql!(tx, |c| sqlx::query_scalar(query).fetch_one(c))?;
        rows.insert(table.to_owned(), count);
    }
    let waiting: i64 = match &store.pools {
        Pools::Lite { inbox, .. } => {
            let applied: i64 = sql!(tx, |c| sqlx::query_scalar("SELECT id FROM inbox_applied").fetch_one(c))?;
            sqlx::query_scalar("SELECT COALESCE(SUM(items), 0) FROM inbox WHERE id > $1")
                .bind(applied)
                .fetch_one(&inbox.read)
                .await?
        }
        Pools::Postgres(_) => {
            sql!(tx, |c| sqlx::query_scalar("SELECT COALESCE(SUM(items), 0)::BIGINT FROM inbox")
                .fetch_one(c))?
        }
    };
    let audit_problem = match audit::verify(tx).await {
        Ok(_) => None,
        Err(Error::Damaged(problem)) => Some(problem),
        Err(e) => return Err(e),
    };
    Ok(Contents { schema, rows, waiting, audit_problem })
}
