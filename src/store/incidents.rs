//! Incidents.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Page, Result, Tx, exec, page, row, sql};
use crate::model::{Incident, IncidentState, Severity};

#[derive(FromRow)]
struct Row {
    id: String,
    state: String,
    severity: String,
    title: String,
    service: String,
    started_at: i64,
    opened_at: i64,
    updated_at: i64,
    last_signal_at: i64,
    resolved_at: Option<i64>,
    alert_count: i64,
    firing_count: i64,
    version: i64,
    episode: i64,
    flapping: bool,
    suppressed: Option<String>,
    acknowledged_by: Option<String>,
    resolved_by: Option<String>,
}

const COLUMNS: &str = "id, state, severity, title, service, started_at, opened_at, updated_at, last_signal_at, resolved_at, alert_count, \
    firing_count, version, episode, flapping, suppressed, acknowledged_by, resolved_by";

impl Row {
    fn model(self) -> Result<Incident> {
        Ok(Incident {
            state: row::word(&self.state)?,
            severity: row::word(&self.severity)?,
            started_at: row::time(self.started_at),
            opened_at: row::time(self.opened_at),
            updated_at: row::time(self.updated_at),
            last_signal_at: row::time(self.last_signal_at),
            resolved_at: self.resolved_at.map(row::time),
            acknowledged_by: row::from_json_opt(self.acknowledged_by.as_deref())?,
            id: self.id,
            title: self.title,
            service: self.service,
            alert_count: self.alert_count,
            firing_count: self.firing_count,
            version: self.version,
            episode: self.episode,
            flapping: self.flapping,
            suppressed: self.suppressed,
            resolved_by: self.resolved_by,
        })
    }
}

/// Which incidents to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<IncidentState>,
    pub severity: Option<Severity>,
    pub service: Option<String>,
    /// Only those not resolved.
    pub open_only: bool,
}

pub async fn get(tx: &mut Tx, id: &str) -> Result<Option<Incident>> {
    find(tx, id, "").await
}

/// Reads an incident and keeps others from changing it until the end of the transaction.
pub async fn lock(tx: &mut Tx, id: &str) -> Result<Option<Incident>> {
    let suffix = tx.for_update();
    find(tx, id, suffix).await
}

async fn find(tx: &mut Tx, id: &str, suffix: &str) -> Result<Option<Incident>> {
    let query = format!("SELECT {COLUMNS} FROM incidents WHERE id = $1{suffix}");
    let row: Option<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(id).fetch_optional(c))?;
    row.map(Row::model).transpose()
}

/// Finds by the whole id or by a unique ending of at least four characters (what messages show); `None` if it fits none or
/// several.
pub async fn by_short_id(tx: &mut Tx, text: &str) -> Result<Option<Incident>> {
    if text.len() < 4 || !text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Ok(None);
    }
    let query = format!("SELECT {COLUMNS} FROM incidents WHERE id LIKE $1 ORDER BY id DESC LIMIT 2");
    let pattern = format!("%{}", text.to_ascii_lowercase());
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(pattern).fetch_all(c))?;
    match <[Row; 1]>::try_from(rows) {
        Ok([row]) => row.model().map(Some),
        Err(_) => Ok(None),
    }
}

/// Newest first.
pub async fn list(tx: &mut Tx, filter: &Filter, limit: i64, cursor: Option<&str>) -> Result<Page<Incident>> {
    let limit = page::clamp(limit);
    let query = format!(
        "SELECT {COLUMNS} FROM incidents WHERE (CAST($1 AS TEXT) IS NULL OR state = $1) \
         AND (CAST($2 AS TEXT) IS NULL OR severity = $2) AND (CAST($3 AS TEXT) IS NULL OR service = $3) \
         AND (NOT $4 OR state <> 'resolved') AND (CAST($5 AS TEXT) IS NULL OR id < $5) ORDER BY id DESC LIMIT $6"
    );
    let rows: Vec<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(filter.state.map(IncidentState::as_str))
        .bind(filter.severity.map(Severity::as_str))
        .bind(filter.service.as_deref())
        .bind(filter.open_only)
        .bind(cursor)
        .bind(limit + 1)
        .fetch_all(c))?;
    let items = rows.into_iter().map(Row::model).collect::<Result<Vec<_>>>()?;
    Ok(Page::of(items, limit, |i| i.id.clone()))
}

/// Those of these services that are not resolved, the most recently changed first.
pub async fn open_of(tx: &mut Tx, services: &[String]) -> Result<Vec<Incident>> {
    let rows: Vec<Row> = sql!(tx, |c| async move {
        let mut q = sqlx::QueryBuilder::new(format!("SELECT {COLUMNS} FROM incidents WHERE service IN ("));
        let mut list = q.separated(", ");
        for service in services {
            list.push_bind(service.as_str());
        }
        q.push(") AND state <> 'resolved' ORDER BY updated_at DESC LIMIT 100");
        q.build_query_as().persistent(false).fetch_all(c).await
    })?;
    rows.into_iter().map(Row::model).collect()
}

/// The one of this service that was resolved last, if that was after `since`; locked like [`lock`].
pub async fn resolved_since(tx: &mut Tx, service: &str, since: Timestamp) -> Result<Option<Incident>> {
    let query = format!(
        "SELECT {COLUMNS} FROM incidents WHERE service = $1 AND state = 'resolved' AND resolved_at >= $2 \
         ORDER BY resolved_at DESC LIMIT 1{}",
        tx.for_update()
    );
    let row: Option<Row> = sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query))
        .bind(service)
        .bind(row::micros(since))
        .fetch_optional(c))?;
    row.map(Row::model).transpose()
}

pub async fn insert(tx: &mut Tx, i: &Incident) -> Result<()> {
    let query = format!(
        "INSERT INTO incidents ({COLUMNS}, flips) VALUES \
         ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, '[]')"
    );
    exec!(tx, |c| bind(sqlx::query(AssertSqlSafe(query)), i)).map(|_| tx.wake.timeline = true)?;
    Ok(())
}

/// Writes everything but the flips.
pub async fn save(tx: &mut Tx, i: &Incident) -> Result<()> {
    exec!(tx, |c| bind(
        sqlx::query(
            "UPDATE incidents SET state = $2, severity = $3, title = $4, service = $5, started_at = $6, opened_at = $7, \
             updated_at = $8, last_signal_at = $9, resolved_at = $10, alert_count = $11, firing_count = $12, version = $13, \
             episode = $14, flapping = $15, suppressed = $16, acknowledged_by = $17, resolved_by = $18 WHERE id = $1"
        ),
        i
    ))?;
    tx.wake.timeline = true;
    Ok(())
}

/// Binds the columns in the order of [`COLUMNS`].
fn bind<'q, D>(
    q: sqlx::query::Query<'q, D, <D as sqlx::Database>::Arguments>,
    i: &'q Incident,
) -> sqlx::query::Query<'q, D, <D as sqlx::Database>::Arguments>
where
    D: sqlx::Database,
    &'q str: sqlx::Encode<'q, D> + sqlx::Type<D>,
    String: sqlx::Encode<'q, D> + sqlx::Type<D>,
    Option<String>: sqlx::Encode<'q, D> + sqlx::Type<D>,
    Option<&'q str>: sqlx::Encode<'q, D> + sqlx::Type<D>,
    Option<i64>: sqlx::Encode<'q, D> + sqlx::Type<D>,
    i64: sqlx::Encode<'q, D> + sqlx::Type<D>,
    bool: sqlx::Encode<'q, D> + sqlx::Type<D>,
{
    q.bind(i.id.as_str())
        .bind(i.state.as_str())
        .bind(i.severity.as_str())
        .bind(i.title.as_str())
        .bind(i.service.as_str())
        .bind(row::micros(i.started_at))
        .bind(row::micros(i.opened_at))
        .bind(row::micros(i.updated_at))
        .bind(row::micros(i.last_signal_at))
        .bind(i.resolved_at.map(row::micros))
        .bind(i.alert_count)
        .bind(i.firing_count)
        .bind(i.version)
        .bind(i.episode)
        .bind(i.flapping)
        .bind(i.suppressed.as_deref())
        .bind(i.acknowledged_by.as_ref().map(row::to_json))
        .bind(i.resolved_by.as_deref())
}

/// Something changed that people should see: the version grows, and every message about it falls due.
pub async fn touch(tx: &mut Tx, id: &str) -> Result<()> {
    let now = crate::clock::now();
    exec!(tx, |c| sqlx::query("UPDATE incidents SET version = version + 1, updated_at = $2 WHERE id = $1")
        .bind(id)
        .bind(row::micros(now)))?;
    tx.wake.timeline = true;
    super::messages::fall_due(tx, id, now).await
}

/// When it was opened and resolved lately, oldest first, for the detection of flapping.
pub async fn flips(tx: &mut Tx, id: &str) -> Result<Vec<Timestamp>> {
    let text: Option<String> = sql!(tx, |c| sqlx::query_scalar("SELECT flips FROM incidents WHERE id = $1")
        .bind(id)
        .fetch_optional(c))?;
    let micros: Vec<i64> = row::from_json(text.as_deref().unwrap_or("[]"))?;
    Ok(micros.into_iter().map(row::time).collect())
}

/// Keeps the newest 64.
pub async fn set_flips(tx: &mut Tx, id: &str, flips: &[Timestamp]) -> Result<()> {
    let newest: Vec<i64> =
        flips.iter().skip(flips.len().saturating_sub(64)).map(|t| row::micros(*t)).collect();
    exec!(tx, |c| sqlx::query("UPDATE incidents SET flips = $2 WHERE id = $1")
        .bind(id)
        .bind(row::to_json(&newest)))?;
    Ok(())
}

/// Ids of those that are open and whose messages are held back by a silence or a maintenance window.
pub async fn suppressed(tx: &mut Tx) -> Result<Vec<String>> {
    Ok(sql!(tx, |c| sqlx::query_scalar(
        "SELECT id FROM incidents WHERE state <> 'resolved' AND suppressed IS NOT NULL ORDER BY id"
    )
    .fetch_all(c))?)
}

/// How many are not resolved.
pub async fn count_open(tx: &mut Tx) -> Result<i64> {
    Ok(sql!(tx, |c| sqlx::query_scalar("SELECT COUNT(*) FROM incidents WHERE state <> 'resolved'")
        .fetch_one(c))?)
}
