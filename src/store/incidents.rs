//! Incidents.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Page, Result, Tx, exec, exports, insert_all, page, row, rows_in, sql};
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
    title_said: Option<String>,
    resolved_by_said: Option<String>,
}

const COLUMNS: &str = "id, state, severity, title, service, started_at, opened_at, updated_at, last_signal_at, resolved_at, alert_count, \
    firing_count, version, episode, flapping, suppressed, acknowledged_by, resolved_by, title_said, resolved_by_said";

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
            title: row::said(self.title, self.title_said.as_deref()),
            service: self.service,
            alert_count: self.alert_count,
            firing_count: self.firing_count,
            version: self.version,
            episode: self.episode,
            flapping: self.flapping,
            suppressed: self.suppressed,
            resolved_by: self.resolved_by.map(|by| row::said(by, self.resolved_by_said.as_deref())),
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
    // Only the conditions that there are: an index serves no "unless the parameter is null".
    let rows: Vec<Row> = sql!(tx, |c| async move {
        let mut q = sqlx::QueryBuilder::new(format!("SELECT {COLUMNS} FROM incidents WHERE TRUE"));
        if filter.open_only || filter.state.is_some_and(|s| s != IncidentState::Resolved) {
            // As the index of the open ones says it.
            q.push(" AND state <> 'resolved'");
        }
        if let Some(state) = filter.state {
            q.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(severity) = filter.severity {
            q.push(" AND severity = ").push_bind(severity.as_str());
        }
        if let Some(service) = &filter.service {
            q.push(" AND service = ").push_bind(service.as_str());
        }
        if let Some(id) = cursor {
            q.push(" AND id < ").push_bind(id);
        }
        q.push(" ORDER BY id DESC LIMIT ").push_bind(limit + 1);
        q.build_query_as::<Row>().fetch_all(c).await
    })?;
    let items = rows.into_iter().map(Row::model).collect::<Result<Vec<_>>>()?;
    Ok(Page::of(items, limit, |i| i.id.clone()))
}

/// An incident that is being changed, with what only correlation keeps of it: when it was opened and resolved lately, oldest
/// first.
#[derive(Clone, Debug)]
pub struct Held {
    pub incident: Incident,
    pub flips: Vec<Timestamp>,
}

impl From<Incident> for Held {
    fn from(incident: Incident) -> Self {
        Self { incident, flips: Vec::new() }
    }
}

#[derive(FromRow)]
struct HeldRow {
    #[sqlx(flatten)]
    row: Row,
    flips: String,
}

impl HeldRow {
    fn held(self) -> Result<Held> {
        let micros: Vec<i64> = row::from_json(&self.flips)?;
        Ok(Held { incident: self.row.model()?, flips: micros.into_iter().map(row::time).collect() })
    }
}

/// Those with these ids; nobody else changes them until the end of the transaction.
pub async fn hold(tx: &mut Tx, ids: &[&str]) -> Result<Vec<Held>> {
    let (head, tail) = (held_from("id"), format!("ORDER BY id{}", tx.for_update()));
    rows_in!(tx, HeldRow, head.as_str(), ids, tail.as_str()).into_iter().map(HeldRow::held).collect()
}

/// Those of these services that are not resolved, held like [`hold`].
pub async fn hold_open_of(tx: &mut Tx, services: &[&str]) -> Result<Vec<Held>> {
    let (head, tail) =
        (held_from("service"), format!("AND state <> 'resolved' ORDER BY id{}", tx.for_update()));
    rows_in!(tx, HeldRow, head.as_str(), services, tail.as_str()).into_iter().map(HeldRow::held).collect()
}

/// Those of these services that were resolved since then, held like [`hold`].
pub async fn hold_resolved_of(tx: &mut Tx, services: &[&str], since: Timestamp) -> Result<Vec<Held>> {
    let tail = format!(
        "AND state = 'resolved' AND resolved_at >= {} ORDER BY id{}",
        row::micros(since),
        tx.for_update()
    );
    let head = held_from("service");
    rows_in!(tx, HeldRow, head.as_str(), services, tail.as_str()).into_iter().map(HeldRow::held).collect()
}

fn held_from(column: &str) -> String {
    format!("SELECT {COLUMNS}, flips FROM incidents WHERE {column}")
}

/// Inserts them, or writes everything that is known of them. None may come twice. The newest 64 flips are kept.
pub async fn save_held(tx: &mut Tx, all: &[&Held]) -> Result<()> {
    let head = format!("INSERT INTO incidents ({COLUMNS}, flips)");
    insert_all!(
        tx,
        head.as_str(),
        all,
        |row, h| {
            let i = &h.incident;
            let newest = &h.flips[h.flips.len().saturating_sub(64)..];
            row.push_bind(i.id.as_str())
                .push_bind(i.state.as_str())
                .push_bind(i.severity.as_str())
                .push_bind(i.title.as_str())
                .push_bind(i.service.as_str())
                .push_bind(row::micros(i.started_at))
                .push_bind(row::micros(i.opened_at))
                .push_bind(row::micros(i.updated_at))
                .push_bind(row::micros(i.last_signal_at))
                .push_bind(i.resolved_at.map(row::micros))
                .push_bind(i.alert_count)
                .push_bind(i.firing_count)
                .push_bind(i.version)
                .push_bind(i.episode)
                .push_bind(i.flapping)
                .push_bind(i.suppressed.as_deref())
                .push_bind(i.acknowledged_by.as_ref().map(row::to_json))
                .push_bind(i.resolved_by.as_deref())
                .push_bind(row::phrase(&i.title))
                .push_bind(i.resolved_by.as_ref().and_then(row::phrase))
                .push_bind(row::to_json(&newest.iter().map(|t| row::micros(*t)).collect::<Vec<_>>()))
        },
        "ON CONFLICT (id) DO UPDATE SET state = excluded.state, severity = excluded.severity, title = excluded.title, \
         service = excluded.service, started_at = excluded.started_at, updated_at = excluded.updated_at, \
         last_signal_at = excluded.last_signal_at, resolved_at = excluded.resolved_at, \
         alert_count = excluded.alert_count, firing_count = excluded.firing_count, version = excluded.version, \
         episode = excluded.episode, flapping = excluded.flapping, suppressed = excluded.suppressed, \
         acknowledged_by = excluded.acknowledged_by, resolved_by = excluded.resolved_by, \
         title_said = excluded.title_said, resolved_by_said = excluded.resolved_by_said, flips = excluded.flips"
    );
    tx.wake.timeline = true;
    let ids: Vec<&str> = all.iter().map(|h| h.incident.id.as_str()).collect();
    exports::note(tx, exports::Kind::Incident, &ids).await
}

/// Writes what people may change of one that is there.
pub async fn save(tx: &mut Tx, i: &Incident) -> Result<()> {
    exec!(tx, |c| {
        sqlx::query(
        "UPDATE incidents SET state = $2, resolved_at = $3, acknowledged_by = $4, resolved_by = $5, resolved_by_said = $6 WHERE id = $1"
    )
    .bind(&i.id)
    .bind(i.state.as_str())
    .bind(i.resolved_at.map(row::micros))
    .bind(i.acknowledged_by.as_ref().map(row::to_json))
    .bind(i.resolved_by.as_deref())
    .bind(i.resolved_by.as_ref().and_then(row::phrase))
    })?;
    tx.wake.timeline = true;
    exports::note(tx, exports::Kind::Incident, &[&i.id]).await
}

/// Something changed that people should see: the version grows, and every message about it falls due.
pub async fn touch(tx: &mut Tx, id: &str) -> Result<()> {
    let now = crate::clock::now();
    exec!(tx, |c| sqlx::query("UPDATE incidents SET version = version + 1, updated_at = $2 WHERE id = $1")
        .bind(id)
        .bind(row::micros(now)))?;
    tx.wake.timeline = true;
    exports::note(tx, exports::Kind::Incident, &[id]).await?;
    super::messages::fall_due(tx, &[id], now).await
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
