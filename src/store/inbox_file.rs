//! The file of the embedded profile's inbox.

use sqlx::SqlitePool;

/// Makes the file ready: its table, and row numbers that go on where the state stands, also if the file is new and the state is not.
pub(super) async fn prepare(file: &SqlitePool, applied: i64) -> sqlx::Result<()> {
    let mut tx = file.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS inbox (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, \
         received_at BIGINT NOT NULL, items BIGINT NOT NULL, body TEXT NOT NULL)",
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM inbox WHERE id <= $1").bind(applied).execute(&mut *tx).await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'inbox'")
        .fetch_optional(&mut *tx)
        .await?;
    let statement = match last {
        None => "INSERT INTO sqlite_sequence (name, seq) VALUES ('inbox', $1)",
        Some(_) => "UPDATE sqlite_sequence SET seq = MAX(seq, $1) WHERE name = 'inbox'",
    };
    sqlx::query(statement).bind(applied).execute(&mut *tx).await?;
    tx.commit().await
}
