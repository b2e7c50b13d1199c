//! What people pressed and wrote in chats, kept before it is acted on: a kill in between loses nothing, and the same event
//! counts once.

use jiff::Timestamp;
use sqlx::FromRow;

use super::{Error, Result, Tx, exec, row, sql};

/// An event that waits to be acted on.
#[derive(Clone, Debug, FromRow)]
pub struct ChatEvent {
    pub id: String,
    /// As the provider sent it: JSON.
    pub body: String,
}

/// Keeps it. False if it is there already: a replay.
pub async fn add(tx: &mut Tx, channel: &str, id: &str, body: &str, now: Timestamp) -> Result<bool> {
    let added = exec!(tx, |c| {
        sqlx::query(
        "INSERT INTO chat_events (id, channel, received_at, body) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING"
    )
    .bind(id)
    .bind(channel)
    .bind(row::micros(now))
    .bind(body)
    })?;
    Ok(added == 1)
}

/// Oldest first, a bounded number.
pub async fn waiting(tx: &mut Tx, channel: &str) -> Result<Vec<ChatEvent>> {
    Ok(sql!(tx, |c| {
        sqlx::query_as(
        "SELECT id, body FROM chat_events WHERE channel = $1 AND handled_at IS NULL ORDER BY received_at, id LIMIT 100"
    )
    .bind(channel)
    .fetch_all(c)
    })?)
}

/// It has been acted on; its text is forgotten, its id kept against replays. Fails if another replica has done so meanwhile:
/// then nothing that was done for it may be committed.
pub async fn handled(tx: &mut Tx, id: &str, now: Timestamp) -> Result<()> {
    let ended = exec!(tx, |c| sqlx::query(
        "UPDATE chat_events SET handled_at = $2, body = '' WHERE id = $1 AND handled_at IS NULL"
    )
    .bind(id)
    .bind(row::micros(now)))?;
    if ended == 1 { Ok(()) } else { Err(Error::LeaseLost) }
}
