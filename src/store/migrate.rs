//! Schema migrations: one text for both engines; and which program may run beside which schema.
//!
//! A rolling upgrade has two versions of the program on one database. The new one migrates it; the old one runs on, and may
//! even be started again, as long as the migrations that it does not know say that they are compatible with it.

use std::{borrow::Cow, collections::BTreeSet};

use sqlx::{
    AssertSqlSafe, PgConnection, SqlSafeStr, SqliteConnection, SqlitePool,
    migrate::{Migrate, Migration, MigrationType, Migrator},
};

/// Version, name, text. Append only: a released one is never edited. Versions may have gaps.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "init", include_str!("migrations/0001_init.sql")),
    (2, "buttons", include_str!("migrations/0002_buttons.sql")),
    (3, "rings", include_str!("migrations/0003_rings.sql")),
    (4, "silences", include_str!("migrations/0004_silences.sql")),
    (5, "said", include_str!("migrations/0005_said.sql")),
    (6, "batches", include_str!("migrations/0006_batches.sql")),
    (7, "partitions", include_str!("migrations/0007_partitions.sql")),
    (8, "exports", include_str!("migrations/0008_exports.sql")),
    (9, "schema_versions", include_str!("migrations/0009_schema_versions.sql")),
    (10, "overload", include_str!("migrations/0010_overload.sql")),
    (11, "indexes", include_str!("migrations/0011_indexes.sql")),
    (12, "calls", include_str!("migrations/0012_calls.sql")),
];

/// The newest version that this program knows.
pub(super) fn newest() -> i64 {
    MIGRATIONS.iter().map(|(version, ..)| *version).max().expect("there are migrations")
}

/// From here on, migrations say in the database which programs may run beside them.
const VERSIONED_SINCE: i64 = 9;

/// Migrations after [`VERSIONED_SINCE`] that an older program can live with: version, and the newest migration that such a
/// program must know at least. Only what adds (tables, columns with a default, indexes) belongs here.
const COMPATIBLE: &[(i64, i64)] = &[(10, 9), (11, 9), (12, 9)];

/// When the schema is brought up to date.
pub use crate::config::MigrateWhen;

/// What a database has, against what this program knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Applied migrations, in their order.
    pub applied: Vec<i64>,
    /// Known and not applied: version and name.
    pub pending: Vec<(i64, &'static str)>,
    /// Applied by a newer program that says that this one may run beside it.
    pub tolerated: Vec<i64>,
    /// Applied by a newer program; this one is too old for it.
    pub too_new: Vec<i64>,
}

impl Standing {
    /// `applied`: versions with the oldest program that each of them says it can live with.
    fn of(known: &[(i64, &'static str, &str)], applied: &[(i64, Option<i64>)]) -> Self {
        let ours: BTreeSet<i64> = known.iter().map(|(version, ..)| *version).collect();
        let newest = ours.last().copied().unwrap_or(0);
        let is_applied = |version: i64| applied.iter().any(|(v, _)| *v == version);
        let strange = || applied.iter().filter(|(version, _)| !ours.contains(version));
        let may_run = |oldest: &Option<i64>| oldest.is_some_and(|oldest| oldest <= newest);
        Self {
            applied: applied.iter().map(|(version, _)| *version).collect(),
            pending: known.iter().filter(|(v, ..)| !is_applied(*v)).map(|(v, name, _)| (*v, *name)).collect(),
            tolerated: strange().filter(|(_, oldest)| may_run(oldest)).map(|(v, _)| *v).collect(),
            too_new: strange().filter(|(_, oldest)| !may_run(oldest)).map(|(v, _)| *v).collect(),
        }
    }

    /// Of a database that is not there yet.
    pub(super) fn of_nothing() -> Self {
        Self::of(MIGRATIONS, &[])
    }

    /// Fails with what to do if this program may not run on the database, or must not change it.
    pub fn check(&self, when: MigrateWhen) -> anyhow::Result<()> {
        let numbers = |all: &[i64]| all.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        anyhow::ensure!(
            self.too_new.is_empty(),
            "the schema of the database is newer than this program can live with (migration {}); start a program of the \
             version that migrated it, or a newer one",
            numbers(&self.too_new)
        );
        let pending: Vec<i64> = self.pending.iter().map(|(version, _)| *version).collect();
        anyhow::ensure!(
            pending.is_empty() || when == MigrateWhen::AtStart,
            "the schema of the database is older than this program (pending: migration {}), and store.migrate is explicit; \
             run `aiops migrate` with the same settings first",
            numbers(&pending)
        );
        if !self.tolerated.is_empty() {
            tracing::warn!(
                migrations = numbers(&self.tolerated),
                "the database was migrated by a newer version, which can live with this one; finish the upgrade"
            );
        }
        Ok(())
    }
}

pub(super) async fn sqlite(pool: &SqlitePool, when: MigrateWhen) -> anyhow::Result<()> {
    let mut c = pool.acquire().await?;
    let standing = standing_sqlite(&mut c).await?;
    standing.check(when)?;
    if !standing.pending.is_empty() {
        drop(c);
        migrator(MIGRATIONS, for_sqlite).run(pool).await?;
    }
    Ok(())
}

fn for_sqlite(sql: &str) -> String {
    sql.replace("BIGSERIAL PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT")
}

pub(super) async fn standing_sqlite(c: &mut SqliteConnection) -> anyhow::Result<Standing> {
    let has = |table: &'static str| {
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = $1")
            .bind(table)
    };
    let has_any = has("_sqlx_migrations").fetch_one(&mut *c).await? > 0;
    let has_versions = has("schema_versions").fetch_one(&mut *c).await? > 0;
    let mut applied = Vec::new();
    if has_any {
        applied = sqlx::query_as(applied_query(has_versions)).fetch_all(&mut *c).await?;
    }
    Ok(Standing::of(MIGRATIONS, &applied))
}

/// On a connection of its own, without the limits that others have: a migration may take long.
pub(super) async fn postgres(c: &mut PgConnection, when: MigrateWhen) -> anyhow::Result<()> {
    // Replicas that start together: one migrates, the others find it done.
    c.lock().await?;
    let outcome = postgres_locked(c, when).await;
    c.unlock().await?;
    outcome
}

async fn postgres_locked(c: &mut PgConnection, when: MigrateWhen) -> anyhow::Result<()> {
    let standing = standing_postgres(c).await?;
    standing.check(when)?;
    if !standing.pending.is_empty() {
        let mut migrator = migrator(MIGRATIONS, str::to_owned);
        migrator.set_locking(false);
        // What `run` calls. On a borrowed connection the compiler finds `run` "not general enough" to be sent to another thread.
        migrator.run_direct(None, c, false).await?;
    }
    Ok(())
}

pub(super) async fn standing_postgres(c: &mut PgConnection) -> anyhow::Result<Standing> {
    let has =
        |table: &'static str| sqlx::query_scalar::<_, bool>("SELECT to_regclass($1) IS NOT NULL").bind(table);
    let has_any = has("_sqlx_migrations").fetch_one(&mut *c).await?;
    let has_versions = has("schema_versions").fetch_one(&mut *c).await?;
    let mut applied = Vec::new();
    if has_any {
        applied = sqlx::query_as(applied_query(has_versions)).fetch_all(&mut *c).await?;
    }
    Ok(Standing::of(MIGRATIONS, &applied))
}

fn applied_query(has_versions: bool) -> &'static str {
    if has_versions {
        "SELECT m.version, v.oldest FROM _sqlx_migrations m LEFT JOIN schema_versions v ON v.version = m.version \
         ORDER BY m.version"
    } else {
        "SELECT version, CAST(NULL AS BIGINT) FROM _sqlx_migrations ORDER BY version"
    }
}

fn migrator(all: &[(i64, &'static str, &str)], dialect: impl Fn(&str) -> String) -> Migrator {
    let migrations = all.iter().map(|(version, name, sql)| {
        let sql = AssertSqlSafe(dialect(&with_version(*version, sql))).into_sql_str();
        Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    // What a newer program has applied was looked at before.
    migrator.set_ignore_missing(true);
    migrator
}

/// The text with the row that says who may run beside it, in one transaction with it.
fn with_version(version: i64, sql: &str) -> String {
    if version <= VERSIONED_SINCE {
        return sql.to_owned();
    }
    let oldest = COMPATIBLE.iter().find(|(v, _)| *v == version).map_or(version, |(_, oldest)| *oldest);
    format!("{sql}\nINSERT INTO schema_versions (version, oldest) VALUES ({version}, {oldest});\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn memory() -> SqlitePool {
        let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
        options.connect("sqlite::memory:").await.expect("opens")
    }

    #[tokio::test]
    async fn a_gap_may_be_filled_later() {
        let pool = memory().await;
        let all =
            [(1, "a", "CREATE TABLE a (x)"), (2, "b", "CREATE TABLE b (x)"), (4, "d", "CREATE TABLE d (x)")];
        migrator(&[all[0], all[2]], str::to_owned).run(&pool).await.expect("with a gap");
        migrator(&all, str::to_owned).run(&pool).await.expect("filled");
        sqlx::query("SELECT * FROM b, d").fetch_all(&pool).await.expect("both are there");
    }

    #[test]
    fn a_program_runs_beside_what_can_live_with_it_and_refuses_the_rest() {
        let known = [(1, "a", ""), (9, "i", "")];
        let standing = Standing::of(&known, &[(1, None), (9, None), (10, Some(9))]);
        assert_eq!((standing.tolerated.as_slice(), standing.too_new.as_slice()), (&[10][..], &[][..]));
        standing.check(MigrateWhen::Explicit).expect("it may run");
        let standing = Standing::of(&known, &[(1, None), (9, None), (10, Some(9)), (11, Some(11))]);
        let refusal = standing.check(MigrateWhen::AtStart).expect_err("too new").to_string();
        assert!(
            refusal.contains("(migration 11)") && refusal.contains("newer than this program"),
            "{refusal}"
        );
        let unsaid = Standing::of(&known, &[(1, None), (9, None), (12, None)]);
        assert_eq!(unsaid.too_new, [12], "what says nothing cannot be lived with");
        let old = Standing::of(&known, &[(1, None)]);
        old.check(MigrateWhen::AtStart).expect("it migrates");
        let refusal = old.check(MigrateWhen::Explicit).expect_err("nobody migrates").to_string();
        assert!(refusal.contains("pending: migration 9") && refusal.contains("`aiops migrate`"), "{refusal}");
    }

    #[tokio::test]
    async fn every_later_migration_says_who_may_run_beside_it() {
        let pool = memory().await;
        migrator(MIGRATIONS, for_sqlite).run(&pool).await.expect("migrates");
        let said: Vec<(i64,)> = sqlx::query_as("SELECT version FROM schema_versions ORDER BY version")
            .fetch_all(&pool)
            .await
            .expect("read");
        let later: Vec<(i64,)> =
            MIGRATIONS.iter().filter(|(v, ..)| *v > VERSIONED_SINCE).map(|(v, ..)| (*v,)).collect();
        assert_eq!(said, later);
        for (version, oldest) in COMPATIBLE {
            assert!(oldest < version && MIGRATIONS.iter().any(|(v, ..)| v == version), "{version}");
        }
    }
}
