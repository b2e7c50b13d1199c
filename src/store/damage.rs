//! A database file that is damaged is not worked with: it is refused at the start, with what to do about it.

use std::path::Path;

use sqlx::SqlitePool;

/// Larger files are not read whole at the start, which must stay quick; `aiops doctor` reads them.
pub const READ_WHOLE: u64 = 32 << 20;

/// SQLite's own numbers: the file is malformed, or is no database.
const CORRUPT: i32 = 11;
const NOT_A_DATABASE: i32 = 26;

/// Why the file cannot be worked with, if its pages do not hold together.
pub async fn look(file: impl sqlx::Executor<'_, Database = sqlx::Sqlite>) -> sqlx::Result<Option<String>> {
    let found: Result<String, sqlx::Error> =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(file).await;
    match found {
        Ok(text) if text == "ok" => Ok(None),
        Ok(text) => Ok(Some(text.trim_start_matches("*** in database main ***").trim().to_owned())),
        Err(e) if is_damage(&e) => Ok(Some(e.to_string())),
        Err(e) => Err(e),
    }
}

/// Fails with what to do if the file is damaged and not too large to be read now.
pub(super) async fn refuse(pool: &SqlitePool, path: &Path) -> anyhow::Result<()> {
    if std::fs::metadata(path).is_ok_and(|m| m.len() > READ_WHOLE) {
        return Ok(());
    }
    match look(pool).await? {
        None => Ok(()),
        Some(why) => Err(refusal(path, &why)),
    }
}

/// What to tell when opening failed: for damage what to do, else the error as it is.
pub(super) fn or_refusal(path: &Path, error: sqlx::Error) -> anyhow::Error {
    if is_damage(&error) { refusal(path, &error.to_string()) } else { error.into() }
}

pub fn is_damage(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(e) = error else { return false };
    let code = e.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0) & 0xff;
    matches!(code, CORRUPT | NOT_A_DATABASE)
}

fn refusal(path: &Path, why: &str) -> anyhow::Error {
    let inbox = path.file_name().is_some_and(|name| name == "inbox.db");
    let else_lost = match inbox {
        true => "only what was acknowledged and not yet worked on is lost",
        false => "all incidents, their history and every pending approval are lost",
    };
    anyhow::anyhow!(
        "{} is damaged ({why}); nothing was changed. Copy data_dir away, look at the disk, and restore the last backup (`aiops restore`); \
         or move this file and its -wal and -shm away to begin anew: then {else_lost}",
        path.display()
    )
}
