//! Schema migrations: one text for both engines.

use std::borrow::Cow;

use sqlx::{
    AssertSqlSafe, PgPool, SqlSafeStr, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
};

/// Version, name, text. Append only: a released one is never edited.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "init", include_str!("migrations/0001_init.sql")),
    (2, "buttons", include_str!("migrations/0002_buttons.sql")),
];

pub(super) async fn sqlite(pool: &SqlitePool) -> Result<(), MigrateError> {
    migrator(|sql| sql.replace("BIGSERIAL PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT")).run(pool).await
}

pub(super) async fn postgres(pool: &PgPool) -> Result<(), MigrateError> {
    migrator(str::to_owned).run(pool).await
}

fn migrator(dialect: impl Fn(&str) -> String) -> Migrator {
    let migrations = MIGRATIONS.iter().map(|(version, name, sql)| {
        let sql = AssertSqlSafe(dialect(sql)).into_sql_str();
        Migration::new(*version, Cow::Borrowed(name), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}
