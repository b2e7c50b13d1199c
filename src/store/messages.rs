//! The outbox: what we owe each channel about each incident.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{CHUNK, Error, Result, Tx, exec, row, sql};
use crate::model::{Message, MessageState};

#[derive(FromRow)]
struct Row {
    incident_id: String,
    channel: String,
    state: String,
    wanted_version: i64,
    sent_version: i64,
    episode: i64,
    reference: Option<String>,
    attempts: i64,
    next_at: i64,
    due_since: i64,
    fence: i64,
    posting: i64,
    shows_flapping: bool,
    unreached: bool,
    rung: String,
    ring: Option<String>,
    last_error: Option<String>,
    delivered_at: Option<i64>,
}

const COLUMNS: &str = "incident_id, channel, state, wanted_version, sent_version, episode, reference, attempts, next_at, \
    due_since, fence, posting, shows_flapping, unreached, rung, ring, last_error, delivered_at";

impl Row {
    fn model(self) -> Result<Message> {
        Ok(Message {
            state: row::word(&self.state)?,
            reference: row::from_json_opt(self.reference.as_deref())?,
            next_at: row::time(self.next_at),
            delivered_at: self.delivered_at.map(row::time),
            incident_id: self.incident_id,
            channel: self.channel,
            wanted_version: self.wanted_version,
            sent_version: self.sent_version,
            episode: self.episode,
            attempts: self.attempts,
            last_error: self.last_error,
            unreached: self.unreached,
        })
    }
}

/// A message that is ours to deliver until the lease ends. Consumed when its outcome is recorded.
#[derive(Debug)]
pub struct Claimed {
    pub message: Message,
    /// Since when the newest version has been owed.
    pub due_since: Timestamp,
    /// An earlier owner was posting it when it ended: the provider may have it already.
    pub uncertain: bool,
    /// What the provider shows says that the incident is flapping.
    pub shows_flapping: bool,
    /// The moments for which people were rung here already.
    pub rung: Vec<String>,
    /// The moment that the message shows and for which a ring is owed still.
    pub ring: Option<String>,
    fence: i64,
}

/// What the provider now has.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub version: i64,
    pub episode: i64,
    pub shows_flapping: bool,
    pub rung: Vec<String>,
    /// A ring is owed for this moment: it falls due with this delivery, in the same transaction.
    pub ring: Option<String>,
    pub reference: serde_json::Value,
}

/// Owes these channels a message about each of the incidents, due now. What is owed already stays as it is.
pub async fn owe(tx: &mut Tx, incidents: &[&str], channels: &[String], now: Timestamp) -> Result<()> {
    for channel in channels {
        for chunk in incidents.chunks(CHUNK) {
            sql!(tx, |c| async move {
                let mut q = sqlx::QueryBuilder::new(
                    "INSERT INTO messages (incident_id, channel, state, wanted_version, sent_version, episode, attempts, \
                     next_at, due_since, lease_until, fence) SELECT id, ",
                );
                q.push_bind(channel.as_str()).push(", 'due', version, 0, 0, 0, ");
                q.push_bind(row::micros(now)).push(", ").push_bind(row::micros(now));
                q.push(", 0, 0 FROM incidents WHERE id IN (");
                let mut list = q.separated(", ");
                for id in chunk {
                    list.push_bind(*id);
                }
                q.push(") ON CONFLICT (incident_id, channel) DO NOTHING");
                q.build().persistent(chunk.len() == 1).execute(c).await.map(|_| ())
            })?;
        }
    }
    tx.wake.messages = true;
    Ok(())
}

/// The incidents have newer versions: whatever is owed about them falls due. Dead ones get a new chance with it. Only a backoff
/// after a failure is kept: what waited for news has them now.
pub async fn fall_due(tx: &mut Tx, incidents: &[&str], now: Timestamp) -> Result<()> {
    let now = row::micros(now);
    for chunk in incidents.chunks(CHUNK) {
        sql!(tx, |c| async move {
            let mut q = sqlx::QueryBuilder::new(
                "UPDATE messages SET wanted_version = (SELECT version FROM incidents WHERE id = incident_id), \
                 next_at = CASE WHEN state = 'due' AND attempts > 0 AND next_at > ",
            );
            q.push_bind(now).push(" THEN next_at ELSE ").push_bind(now);
            q.push(" END, attempts = CASE WHEN state = 'due' THEN attempts ELSE 0 END, due_since = CASE WHEN state = 'due' THEN due_since ELSE ");
            q.push_bind(now).push(" END, state = 'due' WHERE incident_id IN (");
            let mut list = q.separated(", ");
            for id in chunk {
                list.push_bind(*id);
            }
            q.push(")");
            q.build().persistent(chunk.len() == 1).execute(c).await.map(|_| ())
        })?;
    }
    tx.wake.messages = true;
    Ok(())
}

/// Claims what is due of one channel: first what has never been told, then what has been owed longest.
pub async fn claim(
    tx: &mut Tx,
    channel: &str,
    now: Timestamp,
    lease: Duration,
    limit: i64,
) -> Result<Vec<Claimed>> {
    // Materialized: PostgreSQL may run a subquery that skips locked rows more than once, and then it gives more than its limit.
    // What ends later than a lease that begins now was written before the clock jumped back.
    let query = format!(
        "WITH due AS MATERIALIZED (SELECT incident_id FROM messages WHERE channel = $1 AND state = 'due' AND next_at <= $2 \
         AND (lease_until <= {at} OR lease_until > {at} + $3) \
         ORDER BY CASE WHEN sent_version = 0 THEN 0 ELSE 1 END, due_since LIMIT $4{}) \
         UPDATE messages SET lease_until = {at} + $3, fence = fence + 1 WHERE channel = $1 AND incident_id IN \
         (SELECT incident_id FROM due) RETURNING {COLUMNS}",
        tx.skip_locked(),
        at = tx.now(),
    );
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(channel)
        .bind(row::micros(now))
        .bind(row::length(lease))
        .bind(limit)
        .fetch_all(c))?;
    let mut claimed = Vec::with_capacity(rows.len());
    for r in rows {
        let (fence, due_since) = (r.fence, row::time(r.due_since));
        let (uncertain, shows_flapping) = (r.posting > 0, r.shows_flapping);
        let (rung, ring) = (row::from_json(&r.rung)?, r.ring.clone());
        let message = r.model()?;
        claimed.push(Claimed { message, due_since, uncertain, shows_flapping, rung, ring, fence });
    }
    claimed.sort_by_key(|c| c.due_since);
    Ok(claimed)
}

/// Keeps it ours for another `lease`. Fails if it is not ours any more: then nothing may be done about it.
pub async fn hold(tx: &mut Tx, claimed: &Claimed, lease: Duration) -> Result<()> {
    let statement = format!(
        "UPDATE messages SET lease_until = {} + $4 WHERE incident_id = $1 AND channel = $2 AND fence = $3",
        tx.now()
    );
    let changed = exec!(tx, |c| sqlx::query(AssertSqlSafe(statement))
        .bind(&claimed.message.incident_id)
        .bind(&claimed.message.channel)
        .bind(claimed.fence)
        .bind(row::length(lease)))?;
    held(changed)
}

/// About to post `version` as a new message. Recorded before the provider is asked, so that after a kill the next owner knows
/// that it may be there already.
pub async fn posting(tx: &mut Tx, claimed: &Claimed, version: i64) -> Result<()> {
    let changed = exec!(tx, |c| sqlx::query(
        "UPDATE messages SET posting = $4 WHERE incident_id = $1 AND channel = $2 AND fence = $3"
    )
    .bind(&claimed.message.incident_id)
    .bind(&claimed.message.channel)
    .bind(claimed.fence)
    .bind(version))?;
    held(changed)
}

/// The provider has it. Stays due if a newer version has come meanwhile.
pub async fn delivered(tx: &mut Tx, claimed: Claimed, delivery: &Delivery, now: Timestamp) -> Result<()> {
    let changed = exec!(tx, |c| {
        sqlx::query(
        "UPDATE messages SET sent_version = $4, episode = $5, reference = $6, attempts = 0, posting = 0, unreached = FALSE, \
         shows_flapping = $8, rung = $9, ring = $10, last_error = NULL, delivered_at = $7, lease_until = 0, next_at = $7, \
         due_since = $7, state = CASE WHEN wanted_version > $4 OR $11 THEN 'due' ELSE 'delivered' END \
         WHERE incident_id = $1 AND channel = $2 AND fence = $3"
    )
    .bind(&claimed.message.incident_id)
    .bind(&claimed.message.channel)
    .bind(claimed.fence)
    .bind(delivery.version)
    .bind(delivery.episode)
    .bind(row::to_json(&delivery.reference))
    .bind(row::micros(now))
    .bind(delivery.shows_flapping)
    .bind(row::to_json(&delivery.rung))
    .bind(&delivery.ring)
    .bind(delivery.ring.is_some())
    })?;
    tx.wake.messages = true;
    held(changed)
}

/// People were rung for the moment; what the message shows is as before. Stays due if that is no longer the newest version.
pub async fn rung(tx: &mut Tx, mut claimed: Claimed, moment: &str, now: Timestamp) -> Result<()> {
    claimed.rung.push(moment.to_owned());
    let changed = exec!(tx, |c| {
        sqlx::query(
        "UPDATE messages SET rung = $4, ring = NULL, attempts = 0, posting = 0, unreached = FALSE, last_error = NULL, \
         lease_until = 0, next_at = $5, due_since = $5, \
         state = CASE WHEN wanted_version > sent_version THEN 'due' ELSE 'delivered' END \
         WHERE incident_id = $1 AND channel = $2 AND fence = $3"
    )
    .bind(&claimed.message.incident_id)
    .bind(&claimed.message.channel)
    .bind(claimed.fence)
    .bind(row::to_json(&claimed.rung))
    .bind(row::micros(now))
    })?;
    tx.wake.messages = true;
    held(changed)
}

/// Some of it was delivered, the rest is owed still: keeps what the channel knows; again at `next_at`.
pub async fn partly(
    tx: &mut Tx,
    claimed: Claimed,
    reference: &serde_json::Value,
    error: &str,
    next_at: Timestamp,
) -> Result<()> {
    let changed = exec!(tx, |c| {
        sqlx::query(
        "UPDATE messages SET attempts = attempts + 1, posting = 0, reference = $4, last_error = $5, next_at = $6, \
         lease_until = 0 WHERE incident_id = $1 AND channel = $2 AND fence = $3"
    )
    .bind(&claimed.message.incident_id)
    .bind(&claimed.message.channel)
    .bind(claimed.fence)
    .bind(row::to_json(reference))
    .bind(error)
    .bind(row::micros(next_at))
    })?;
    held(changed)
}

/// It did not work; again at `next_at`.
pub async fn failed(tx: &mut Tx, claimed: Claimed, error: &str, next_at: Timestamp) -> Result<()> {
    let changed = exec!(tx, |c| {
        sqlx::query(
        "UPDATE messages SET attempts = attempts + 1, posting = 0, last_error = $4, next_at = $5, lease_until = 0 \
         WHERE incident_id = $1 AND channel = $2 AND fence = $3"
    )
    .bind(&claimed.message.incident_id)
    .bind(&claimed.message.channel)
    .bind(claimed.fence)
    .bind(error)
    .bind(row::micros(next_at))
    })?;
    held(changed)
}

/// Not now, and through nobody's fault: tries are not counted.
pub async fn postpone(tx: &mut Tx, claimed: Claimed, next_at: Timestamp) -> Result<()> {
    let changed = exec!(tx, |c| {
        sqlx::query(
        "UPDATE messages SET next_at = $4, posting = 0, lease_until = 0 WHERE incident_id = $1 AND channel = $2 AND fence = $3"
    )
    .bind(&claimed.message.incident_id)
    .bind(&claimed.message.channel)
    .bind(claimed.fence)
    .bind(row::micros(next_at))
    })?;
    held(changed)
}

/// Ends it as [`MessageState::Suppressed`] or [`MessageState::Dead`] with the reason, until the incident changes again (or
/// stays due, if it has changed since `version` was looked at).
pub async fn give_up(
    tx: &mut Tx,
    claimed: Claimed,
    version: i64,
    state: MessageState,
    reason: &str,
) -> Result<()> {
    let changed = exec!(tx, |c| {
        sqlx::query(
        "UPDATE messages SET posting = CASE WHEN $7 THEN 0 ELSE posting END, ring = NULL, last_error = $5, lease_until = 0, \
         unreached = $7, \
         state = CASE WHEN wanted_version > $6 THEN 'due' ELSE $4 END \
         WHERE incident_id = $1 AND channel = $2 AND fence = $3"
    )
    .bind(&claimed.message.incident_id)
    .bind(&claimed.message.channel)
    .bind(claimed.fence)
    .bind(state.as_str())
    .bind(reason)
    .bind(version)
    .bind(state == MessageState::Dead)
    })?;
    held(changed)
}

fn held(changed: u64) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(Error::LeaseLost) }
}

/// By channel name.
pub async fn of(tx: &mut Tx, incident_id: &str) -> Result<Vec<Message>> {
    let query = format!("SELECT {COLUMNS} FROM messages WHERE incident_id = $1 ORDER BY channel");
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(incident_id).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// When the next one of a channel is to be tried, by our own clock: the first that nobody has claimed, or if all are under way,
/// when the first lease ends. `None` if nothing is owed.
pub async fn next_due(tx: &mut Tx, channel: &str) -> Result<Option<Timestamp>> {
    let free = format!(
        "SELECT next_at FROM messages WHERE channel = $1 AND state = 'due' AND lease_until <= {} ORDER BY next_at LIMIT 1",
        tx.now()
    );
    let at: Option<i64> =
        sql!(tx, |c| sqlx::query_scalar(AssertSqlSafe(free)).bind(channel).fetch_optional(c))?;
    if let Some(at) = at {
        return Ok(Some(row::time(at)));
    }
    let leased = format!(
        "SELECT MIN(lease_until - {} + $2) FROM messages WHERE channel = $1 AND state = 'due'",
        tx.now()
    );
    let at: Option<i64> = sql!(tx, |c| sqlx::query_scalar(AssertSqlSafe(leased))
        .bind(channel)
        .bind(row::micros(crate::clock::now()))
        .fetch_one(c))?;
    Ok(at.map(row::time))
}

/// What is owed to channels that no longer exist is held back with that as its reason; how many there were.
pub async fn retire(tx: &mut Tx, channels: &[String]) -> Result<u64> {
    let kept = row::to_json(channels);
    let names: Vec<String> =
        sql!(tx, |c| sqlx::query_scalar("SELECT DISTINCT channel FROM messages WHERE state = 'due'")
            .fetch_all(c))?;
    let mut retired = 0;
    for gone in names.iter().filter(|n| !channels.contains(n)) {
        retired += exec!(tx, |c| {
            sqlx::query(
            "UPDATE messages SET state = 'suppressed', last_error = $2 WHERE channel = $1 AND state = 'due'"
        )
        .bind(gone)
        .bind(format!("the channel is not configured any more; configured: {kept}"))
        })?;
    }
    Ok(retired)
}

/// How many ended for good without success and have not succeeded since.
pub async fn unreached(tx: &mut Tx) -> Result<i64> {
    Ok(sql!(tx, |c| sqlx::query_scalar("SELECT COUNT(*) FROM messages WHERE unreached").fetch_one(c))?)
}

/// What is owed to one channel, in sum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Owed {
    /// The newest delivery.
    pub delivered_at: Option<Timestamp>,
    /// How many are due, and since when the oldest of them has been.
    pub waiting: i64,
    pub due_since: Option<Timestamp>,
    /// As [`unreached`], of this channel alone.
    pub unreached: i64,
    /// Of the message tried last among those that failed and have not been delivered since.
    pub last_error: Option<String>,
}

#[derive(FromRow)]
struct Sum {
    channel: String,
    delivered_at: Option<i64>,
    waiting: i64,
    due_since: Option<i64>,
    unreached: i64,
}

/// Every channel that anything was ever owed to, by its name.
pub async fn by_channel(tx: &mut Tx) -> Result<BTreeMap<String, Owed>> {
    let sums: Vec<Sum> = sql!(tx, |c| {
        sqlx::query_as(
        "SELECT channel, MAX(delivered_at) AS delivered_at, COUNT(CASE WHEN state = 'due' THEN 1 END) AS waiting, \
         MIN(CASE WHEN state = 'due' THEN due_since END) AS due_since, COUNT(CASE WHEN unreached THEN 1 END) AS unreached \
         FROM messages GROUP BY channel"
    )
    .fetch_all(c)
    })?;
    let mut all = BTreeMap::new();
    for Sum { channel, delivered_at, waiting, due_since, unreached } in sums {
        // What is suppressed keeps the reason for that in the same column: it is no error.
        let last_error: Option<String> = sql!(tx, |c| {
            sqlx::query_scalar(
            "SELECT last_error FROM messages WHERE channel = $1 AND last_error IS NOT NULL AND state <> 'suppressed' \
             AND (attempts > 0 OR unreached) ORDER BY next_at DESC LIMIT 1"
        )
        .bind(&channel)
        .fetch_optional(c)
        })?;
        let (delivered_at, due_since) = (delivered_at.map(row::time), due_since.map(row::time));
        all.insert(channel, Owed { delivered_at, waiting, due_since, unreached, last_error });
    }
    Ok(all)
}
