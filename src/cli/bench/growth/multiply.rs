//! The embedded store's files, seen from outside: waits for what the server does in them, and copies rows while it is down.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use tokio::time::Instant;

pub struct Files {
    state: PathBuf,
    inbox: PathBuf,
    /// Those incidents that others are copies of, with all that belonged to them before anything else happened to them.
    originals: PathBuf,
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);

impl Files {
    /// Of the server whose private directory that is.
    pub fn new(dir: &Path) -> Self {
        Self {
            state: dir.join("data/aiops.db"),
            inbox: dir.join("data/inbox.db"),
            originals: dir.join("originals.db"),
        }
    }

    /// Waits until every delivery that was acknowledged so far has taken effect.
    pub async fn correlated(&self, patience: Duration) -> anyhow::Result<()> {
        let last: Option<i64> = number(&self.inbox, "SELECT MAX(id) FROM inbox").await?;
        let Some(last) = last else { return Ok(()) };
        self.until("SELECT id FROM inbox_applied", last, patience).await
    }

    /// Waits until so many incidents have a diagnosis.
    pub async fn diagnosed(&self, incidents: u64, patience: Duration) -> anyhow::Result<()> {
        self.until("SELECT COUNT(DISTINCT incident_id) FROM diagnoses", incidents as i64, patience).await
    }

    async fn until(&self, query: &str, least: i64, patience: Duration) -> anyhow::Result<()> {
        let mut connection = open(&self.state).read_only(true).connect().await?;
        let end = Instant::now() + patience;
        loop {
            let now: Option<i64> =
                sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut connection).await?;
            if now.is_some_and(|now| now >= least) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("after {patience:?} {query:?} is {now:?}, not {least}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub fn megabytes(&self) -> f64 {
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |m| m.len());
        ((size(&self.state) + size(&self.inbox)) as f64 / 1e6).round()
    }

    /// From now on the incidents that are there are the originals. The server must be down.
    pub async fn remember_originals(&self) -> anyhow::Result<()> {
        let mut connection = self.with_originals().await?;
        sqlx::query(
            "CREATE TABLE o.originals AS SELECT id, ROW_NUMBER() OVER (ORDER BY id) AS n FROM main.incidents",
        )
        .execute(&mut connection)
        .await?;
        for table in tables(&mut connection).await? {
            let names: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info($1)")
                .bind(&table)
                .fetch_all(&mut connection)
                .await?;
            if names.iter().any(|name| name == incident_column(&table)) {
                let keep = format!("CREATE TABLE o.{table} AS SELECT * FROM main.{table}");
                sqlx::query(AssertSqlSafe(keep)).execute(&mut connection).await?;
            }
        }
        Ok(connection.close().await?)
    }

    async fn with_originals(&self) -> anyhow::Result<SqliteConnection> {
        let opened = open(&self.state)
            .create_if_missing(true)
            .connect()
            .await
            .context("opening the stopped server's file");
        let mut connection = opened?;
        let file = self.originals.to_string_lossy().into_owned();
        sqlx::query("ATTACH $1 AS o").bind(file).execute(&mut connection).await?;
        Ok(connection)
    }

    /// Copies all incidents that are originals, with all that belongs to them, as the copies number `from..to`. The server must
    /// be down.
    pub async fn multiply(&self, from: u64, to: u64) -> anyhow::Result<()> {
        if from >= to {
            return Ok(());
        }
        let mut connection = self.with_originals().await?;
        let tables = tables(&mut connection).await?;
        // Keys come in no order, so the pages of all indexes are wanted again and again: two gigabytes of them stay. Without a
        // log each is written once.
        let fast = "PRAGMA synchronous = OFF; PRAGMA cache_size = -2000000; PRAGMA journal_mode = OFF";
        sqlx::raw_sql(fast).execute(&mut connection).await?;
        let mut copied = 0;
        for table in tables {
            let Some(statement) = statement(&mut connection, &table).await? else { continue };
            let mut at = from;
            while at < to {
                let next = (at + 500).min(to);
                let done = sqlx::query(AssertSqlSafe(statement.clone()))
                    .bind(at as i64)
                    .bind(next as i64)
                    .execute(&mut connection)
                    .await
                    .with_context(|| format!("copying {table}"))?;
                copied += done.rows_affected();
                at = next;
            }
        }
        ensure!(copied > 0, "there is no incident to copy");
        sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

fn open(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(30))
}

async fn tables(connection: &mut SqliteConnection) -> sqlx::Result<Vec<String>> {
    let all = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    sqlx::query_scalar(all).fetch_all(connection).await
}

/// Where a table says which incident a row belongs to, if it belongs to any.
fn incident_column(table: &str) -> &'static str {
    if table == "incidents" { "id" } else { "incident_id" }
}

async fn number(path: &Path, query: &'static str) -> anyhow::Result<Option<i64>> {
    let mut connection = open(path).read_only(true).connect().await?;
    Ok(sqlx::query_scalar(query).fetch_one(&mut connection).await?)
}

/// What copies a table's rows of the originals as copies `$1..$2`: incidents get ids of a time long ago, other keys end in the
/// copy's number, and times lie that many times 25 s further back. None for a table that holds nothing of incidents.
async fn statement(connection: &mut SqliteConnection, table: &str) -> anyhow::Result<Option<String>> {
    let info =
        sqlx::query(AssertSqlSafe(format!("PRAGMA main.table_info({table})"))).fetch_all(connection).await?;
    let incident = incident_column(table);
    let (mut names, mut values, mut is_of_incidents) = (Vec::new(), Vec::new(), false);
    for column in &info {
        let name: String = column.try_get("name")?;
        let (kind, key): (String, i64) = (column.try_get("type")?, column.try_get("pk")?);
        let value = match (name.as_str(), kind.as_str(), key) {
            (name, _, _) if name == incident => {
                is_of_incidents = true;
                "printf('01000000-%04x-7000-8000-%012d', o.n, n.i)".to_owned()
            }
            // The database numbers these itself.
            (_, "INTEGER", 1..) => continue,
            (name, "TEXT", 1..) if !["channel", "kind"].contains(&name) => format!("t.{name} || '-' || n.i"),
            (name, "BIGINT", 0) if name.ends_with("_at") => format!("t.{name} - n.i * 25000000"),
            (name, _, _) => format!("t.{name}"),
        };
        names.push(name);
        values.push(value);
    }
    let (names, values) = (names.join(", "), values.join(", "));
    Ok(is_of_incidents.then(|| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT $1 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $2) \
             INSERT INTO main.{table} ({names}) SELECT {values} \
             FROM o.{table} AS t JOIN o.originals AS o ON o.id = t.{incident} JOIN n"
        )
    }))
}
