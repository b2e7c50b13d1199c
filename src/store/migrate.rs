//! Schema migrations: one text for both engines.

use std::borrow::Cow;

use sqlx::{
    AssertSqlSafe, PgPool, SqlSafeStr, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
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
];

/// The newest version that this program knows.
pub(super) fn newest() -> i64 {
    MIGRATIONS.iter().map(|(version, ..)| *version).max().expect("there are migrations")
}

pub(super) async fn sqlite(pool: &SqlitePool) -> Result<(), MigrateError> {
    migrator(MIGRATIONS, |sql| sql.replace("BIGSERIAL PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"))
        .run(pool)
        .await
}

pub(super) async fn postgres(pool: &PgPool) -> Result<(), MigrateError> {
    migrator(MIGRATIONS, str::to_owned).run(pool).await
}

fn migrator(all: &[(i64, &'static str, &str)], dialect: impl Fn(&str) -> String) -> Migrator {
    let migrations = all.iter().map(|(version, name, sql)| {
        let sql = AssertSqlSafe(dialect(sql)).into_sql_str();
        Migration::new(*version, Cow::Borrowed(*name), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gap_may_be_filled_later() {
        let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
        let pool = options.connect("sqlite::memory:").await.expect("opens");
        let all =
            [(1, "a", "CREATE TABLE a (x)"), (2, "b", "CREATE TABLE b (x)"), (4, "d", "CREATE TABLE d (x)")];
        migrator(&[all[0], all[2]], str::to_owned).run(&pool).await.expect("with a gap");
        migrator(&all, str::to_owned).run(&pool).await.expect("filled");
        sqlx::query("SELECT * FROM b, d").fetch_all(&pool).await.expect("both are there");
    }
}
