//! Buttons under messages: what each one means, where it was shown, and that it works once.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Result, Tx, exec, row, sql};
use crate::model::{Actor, Button, Verb};

#[derive(FromRow)]
struct Row {
    id: String,
    verb: String,
    incident_id: String,
    approval_id: Option<String>,
    plan_hash: Option<String>,
    channel: String,
    place: String,
    expires_at: i64,
    used_at: Option<i64>,
    used_by: Option<String>,
}

const COLUMNS: &str =
    "id, verb, incident_id, approval_id, plan_hash, channel, place, expires_at, used_at, used_by";

impl Row {
    fn model(self) -> Result<Button> {
        Ok(Button {
            verb: row::word(&self.verb)?,
            expires_at: row::time(self.expires_at),
            used_at: self.used_at.map(row::time),
            used_by: row::from_json_opt(self.used_by.as_deref())?,
            id: self.id,
            incident_id: self.incident_id,
            approval_id: self.approval_id,
            plan_hash: self.plan_hash,
            channel: self.channel,
            place: self.place,
        })
    }
}

/// What a button is to do.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub verb: Verb,
    pub incident_id: &'a str,
    pub approval_id: Option<&'a str>,
    /// Of the plan that is shown beside it.
    pub plan_hash: Option<&'a str>,
    pub channel: &'a str,
    pub expires_at: Timestamp,
}

/// The id of an unused button that does this in this channel, made if there is none that is still valid at `now`: an edit
/// keeps the buttons that people already see.
pub async fn issue(tx: &mut Tx, wanted: Wanted<'_>, now: Timestamp) -> Result<String> {
    let found: Option<String> = sql!(tx, |c| {
        sqlx::query_scalar(
        "SELECT id FROM buttons WHERE incident_id = $1 AND channel = $2 AND verb = $3 AND used_at IS NULL \
         AND COALESCE(approval_id, '') = $4 AND expires_at > $5 ORDER BY expires_at DESC LIMIT 1"
    )
    .bind(wanted.incident_id)
    .bind(wanted.channel)
    .bind(wanted.verb.as_str())
    .bind(wanted.approval_id.unwrap_or_default())
    .bind(row::micros(now))
    .fetch_optional(c)
    })?;
    if let Some(id) = found {
        return Ok(id);
    }
    let id = crate::ids::opaque();
    exec!(tx, |c| sqlx::query(
        "INSERT INTO buttons (id, verb, incident_id, approval_id, plan_hash, channel, place, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, '', $7)"
    )
    .bind(&id)
    .bind(wanted.verb.as_str())
    .bind(wanted.incident_id)
    .bind(wanted.approval_id)
    .bind(wanted.plan_hash)
    .bind(wanted.channel)
    .bind(row::micros(wanted.expires_at)))?;
    Ok(id)
}

/// The message with these buttons now stands in `place`: from here on they work only there.
pub async fn placed(tx: &mut Tx, incident_id: &str, channel: &str, place: &str) -> Result<()> {
    exec!(tx, |c| sqlx::query(
        "UPDATE buttons SET place = $3 WHERE incident_id = $1 AND channel = $2 AND used_at IS NULL"
    )
    .bind(incident_id)
    .bind(channel)
    .bind(place))?;
    Ok(())
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Button>> {
    let query = format!("SELECT {COLUMNS} FROM buttons WHERE id = $1");
    let found: Option<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(id).fetch_optional(c))?;
    found.map(Row::model).transpose()
}

/// Uses it up. False if somebody was first.
pub async fn take(tx: &mut Tx, id: &str, by: &Actor, now: Timestamp) -> Result<bool> {
    let changed = exec!(tx, |c| sqlx::query(
        "UPDATE buttons SET used_at = $2, used_by = $3 WHERE id = $1 AND used_at IS NULL"
    )
    .bind(id)
    .bind(row::micros(now))
    .bind(row::to_json(by)))?;
    Ok(changed == 1)
}
