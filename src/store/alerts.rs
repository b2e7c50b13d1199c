//! Alerts: the last event that counted for each fingerprint.

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, FromRow};

use super::{Error, Page, Result, Tx, insert_all, page, row, rows_in, sql};
use crate::model::{Alert, AlertState};

#[derive(FromRow)]
struct Row {
    fingerprint: String,
    source: String,
    labels: String,
    annotations: String,
    state: String,
    starts_at: i64,
    ends_at: Option<i64>,
    expires_at: Option<i64>,
    generator_url: String,
    incident_id: Option<String>,
    last_seen_at: i64,
}

const COLUMNS: &str = "fingerprint, source, labels, annotations, state, starts_at, ends_at, expires_at, generator_url, \
    incident_id, last_seen_at";

impl Row {
    fn model(self) -> Result<Alert> {
        Ok(Alert {
            labels: row::from_json(&self.labels)?,
            annotations: row::from_json(&self.annotations)?,
            state: row::word(&self.state)?,
            starts_at: row::time(self.starts_at),
            ends_at: self.ends_at.map(row::time),
            expires_at: self.expires_at.map(row::time),
            last_seen_at: row::time(self.last_seen_at),
            fingerprint: self.fingerprint,
            source: self.source,
            generator_url: self.generator_url,
            incident_id: self.incident_id,
        })
    }
}

/// Which alerts to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<AlertState>,
    pub incident_id: Option<String>,
    pub source: Option<String>,
}

pub async fn get(tx: &mut Tx, fingerprint: &str) -> Result<Option<Alert>> {
    let query = format!("SELECT {COLUMNS} FROM alerts WHERE fingerprint = $1");
    let row: Option<Row> =
        sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(fingerprint).fetch_optional(c))?;
    row.map(Row::model).transpose()
}

/// Those of these fingerprints that are known.
pub async fn by_fingerprint(tx: &mut Tx, fingerprints: &[&str]) -> Result<Vec<Alert>> {
    let head = format!("SELECT {COLUMNS} FROM alerts WHERE fingerprint");
    rows_in!(tx, Row, head.as_str(), fingerprints, "").into_iter().map(Row::model).collect()
}

/// Of a flood that became one incident, so many alerts are looked at: what they say is said by then.
pub const LOOKED_AT: i64 = 200;

/// Alerts of an incident, the firing ones first, then by age: the first `most`.
pub async fn of(tx: &mut Tx, incident_id: &str, most: i64) -> Result<Vec<Alert>> {
    let query = format!(
        "SELECT {COLUMNS} FROM alerts WHERE incident_id = $1 ORDER BY state, starts_at, fingerprint LIMIT $2"
    );
    let rows: Vec<Row> =
        sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(incident_id).bind(most).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// Most recently started first; the cursor is `micros:fingerprint`.
pub async fn list(tx: &mut Tx, filter: &Filter, limit: i64, cursor: Option<&str>) -> Result<Page<Alert>> {
    let limit = page::clamp(limit);
    let (at, after) = match cursor {
        Some(text) => {
            let bad = || Error::Damaged(format!("{text:?} is not a cursor of this list"));
            let (at, fingerprint) = text.split_once(':').ok_or_else(bad)?;
            (Some(at.parse::<i64>().map_err(|_| bad())?), fingerprint)
        }
        None => (None, ""),
    };
    let rows: Vec<Row> = sql!(tx, |c| async move {
        let mut q = sqlx::QueryBuilder::new(format!("SELECT {COLUMNS} FROM alerts WHERE TRUE"));
        if let Some(state) = filter.state {
            q.push(" AND state = ").push_bind(state.as_str());
        }
        if let Some(incident) = &filter.incident_id {
            q.push(" AND incident_id = ").push_bind(incident.as_str());
        }
        if let Some(source) = &filter.source {
            q.push(" AND source = ").push_bind(source.as_str());
        }
        if let Some(at) = at {
            q.push(" AND starts_at <= ").push_bind(at);
            q.push(" AND (starts_at < ").push_bind(at);
            q.push(" OR fingerprint > ").push_bind(after).push(")");
        }
        q.push(" ORDER BY starts_at DESC, fingerprint LIMIT ").push_bind(limit + 1);
        q.build_query_as::<Row>().fetch_all(c).await
    })?;
    let items = rows.into_iter().map(Row::model).collect::<Result<Vec<_>>>()?;
    Ok(Page::of(items, limit, |a| format!("{}:{}", row::micros(a.starts_at), a.fingerprint)))
}

/// Inserts them, or replaces what is known of their fingerprints. None may come twice.
pub async fn save(tx: &mut Tx, alerts: &[&Alert]) -> Result<()> {
    let head = format!("INSERT INTO alerts ({COLUMNS})");
    insert_all!(
        tx,
        head.as_str(),
        alerts,
        |row, a| row
            .push_bind(a.fingerprint.as_str())
            .push_bind(a.source.as_str())
            .push_bind(row::to_json(&a.labels))
            .push_bind(row::to_json(&a.annotations))
            .push_bind(a.state.as_str())
            .push_bind(row::micros(a.starts_at))
            .push_bind(a.ends_at.map(row::micros))
            .push_bind(a.expires_at.map(row::micros))
            .push_bind(a.generator_url.as_str())
            .push_bind(a.incident_id.as_deref())
            .push_bind(row::micros(a.last_seen_at)),
        "ON CONFLICT (fingerprint) DO UPDATE SET source = excluded.source, labels = excluded.labels, \
         annotations = excluded.annotations, state = excluded.state, starts_at = excluded.starts_at, \
         ends_at = excluded.ends_at, expires_at = excluded.expires_at, generator_url = excluded.generator_url, \
         incident_id = excluded.incident_id, last_seen_at = excluded.last_seen_at"
    );
    Ok(())
}

/// Repeats: nothing but the times changes. Each by its fingerprint, with the time until which its sender promised to repeat it.
/// No fingerprint may come twice.
pub async fn seen(tx: &mut Tx, repeats: &[(&str, Option<Timestamp>)], at: Timestamp) -> Result<()> {
    for (chunk, keep) in tx.chunks(repeats) {
        sql!(tx, |c| async move {
            let mut q = sqlx::QueryBuilder::new("WITH seen (fingerprint, expires_at) AS (");
            q.push_values(chunk, |mut row, (fingerprint, expires)| {
                row.push_bind(*fingerprint).push_bind(expires.map(super::row::micros));
            });
            q.push(") UPDATE alerts SET last_seen_at = ").push_bind(row::micros(at));
            q.push(", expires_at = seen.expires_at FROM seen WHERE alerts.fingerprint = seen.fingerprint");
            q.build().persistent(keep).execute(c).await.map(|_| ())
        })?;
    }
    Ok(())
}

/// Firing alerts whose sender promised to repeat them by now and did not.
pub async fn expired(tx: &mut Tx, now: Timestamp) -> Result<Vec<Alert>> {
    let query = format!(
        "SELECT {COLUMNS} FROM alerts WHERE state = 'firing' AND expires_at < $1 ORDER BY expires_at LIMIT 1000"
    );
    let rows: Vec<Row> =
        sql!(tx, |c| sqlx::query_as(AssertSqlSafe(query)).bind(row::micros(now)).fetch_all(c))?;
    rows.into_iter().map(Row::model).collect()
}

/// Firing alerts that came from these sources, for the reconciler.
pub async fn firing_from(tx: &mut Tx, sources: &[&str]) -> Result<Vec<Alert>> {
    let head = format!("SELECT {COLUMNS} FROM alerts WHERE state = 'firing' AND source");
    let rows = rows_in!(tx, Row, head.as_str(), sources, "ORDER BY fingerprint LIMIT 100000");
    rows.into_iter().map(Row::model).collect()
}
