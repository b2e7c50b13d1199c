//! How the service itself is.

use std::collections::BTreeMap;

use actix_web::{get, web};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    alarm, clock,
    http::{
        State,
        auth::{As, Viewer},
        problem::{ProblemDocument, Result},
    },
    notify, redact,
    store::{Tx, flags, inbox, incidents, jobs},
};

/// The service at a glance.
#[derive(Serialize, utoipa::ToSchema)]
struct Status {
    version: &'static str,
    /// `sqlite` or `postgresql`.
    store: &'static str,
    uptime_seconds: u64,
    /// Whether it could work as it should; else `not_ready` says why not.
    ready: bool,
    not_ready: Option<String>,
    /// Present while the kill switch holds: who pulled it, when and why.
    automation_stopped: Option<serde_json::Value>,
    open_incidents: i64,
    queues: Queues,
    /// Jobs that have failed again and again, the most stubborn first; at most ten.
    failing_jobs: Vec<jobs::Failing>,
    alarms: Vec<alarm::Active>,
    channels: Vec<notify::ChannelStatus>,
    /// What other parts of the program say of themselves: `breakers` …
    #[serde(flatten)]
    parts: BTreeMap<&'static str, serde_json::Value>,
}

/// What waits.
#[derive(Serialize, utoipa::ToSchema)]
struct Queues {
    /// Deliveries that wait to be made durable.
    commit: usize,
    /// Alerts and anomalies that are durable and wait for correlation.
    inbox: i64,
    inbox_age_seconds: u64,
    jobs: i64,
    /// How long the most overdue job has been.
    jobs_overdue_seconds: u64,
}

/// Version, queues, breakers, channels, alarms, the kill switch.
#[utoipa::path(tag = "status", security(("token" = ["viewer"])),
    responses((status = 200, body = Status), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/status")]
pub async fn status(state: web::Data<State>, _caller: As<Viewer>) -> Result<web::Json<Status>> {
    let deps = &state.deps;
    let now = clock::now();
    let since = |at: Option<Timestamp>| at.map_or(0, |at| clock::between(at, now).as_secs());
    let mut tx = deps.store.read().await?;
    let (inbox, oldest) = inbox::backlog(&deps.store).await?;
    let (jobs, next) = jobs::backlog(&mut tx, now).await?;
    let not_ready = (deps.ready)().err();
    Ok(web::Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        store: deps.store.engine_name(),
        uptime_seconds: clock::uptime().as_secs(),
        ready: not_ready.is_none(),
        not_ready,
        automation_stopped: flags::get(&mut tx, flags::STOPPED).await?,
        open_incidents: incidents::count_open(&mut tx).await?,
        queues: Queues {
            commit: deps.committer.waiting(),
            inbox,
            inbox_age_seconds: since(oldest),
            jobs,
            jobs_overdue_seconds: since(next),
        },
        failing_jobs: failing(&mut tx).await?,
        alarms: alarm::active(),
        channels: notify::status(&deps.outbox, &mut tx, now).await?,
        parts: deps.reports.iter().map(|(name, report)| (*name, report())).collect(),
    }))
}

/// So many failures are no bad luck.
const STUBBORN: i64 = 5;
const MOST_FAILING: i64 = 10;

/// What failed is told with secrets masked, as everywhere.
async fn failing(tx: &mut Tx) -> Result<Vec<jobs::Failing>> {
    let mut failing = jobs::failing(tx, STUBBORN, MOST_FAILING).await?;
    for job in &mut failing {
        job.last_error = redact::cut(&redact::mask(&job.last_error), 300).to_owned();
    }
    Ok(failing)
}
