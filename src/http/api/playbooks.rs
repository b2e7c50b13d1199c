//! Playbooks: what is loaded, what one would do, and starting one by hand.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, get, post, web};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::incidents;
use crate::{
    act::{self, DryRun},
    http::{
        State,
        auth::{As, Operator, Viewer},
        body,
        problem::{Problem, ProblemDocument, Result},
    },
    model::{Incident, Plan},
    playbook::{Catalog, Facts, Finding, Loaded},
    steer,
    store::{Tx, alerts, anomalies},
};

/// A playbook as it is loaded.
#[derive(Serialize, utoipa::ToSchema)]
struct Listed {
    id: String,
    file: String,
    /// With the names of parameters in it, as it is written.
    title: String,
    description: String,
    /// `required`, or `auto`.
    approval: String,
    /// The playbook and the settings both let it run without asking.
    runs_unasked: bool,
    read_only: bool,
    /// Why the settings do not let it run, if they do not.
    not_allowed: Option<String>,
    /// JSON Schema of each parameter.
    params: BTreeMap<String, Value>,
}

/// All playbooks, and what is wrong with files.
#[derive(Serialize, utoipa::ToSchema)]
struct Playbooks {
    items: Vec<Listed>,
    /// Always null: they are never paged.
    next: Option<String>,
    findings: Vec<Finding>,
}

impl Listed {
    fn new(catalog: &Catalog, loaded: &Loaded) -> Self {
        let playbook = &loaded.playbook;
        let schemas = playbook.params.iter().map(|(name, param)| (name.clone(), param.value_schema()));
        Self {
            id: playbook.id.clone(),
            file: loaded.file.clone(),
            title: playbook.title.source().to_owned(),
            description: playbook.description.clone(),
            approval: playbook.approval.to_string(),
            runs_unasked: catalog.is_auto(&playbook.id),
            read_only: playbook.read_only,
            not_allowed: loaded.not_allowed.clone(),
            params: schemas.collect(),
        }
    }
}

/// The playbooks that are loaded.
#[utoipa::path(tag = "playbooks", security(("token" = ["viewer"])),
    responses((status = 200, body = Playbooks), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[get("/api/v1/playbooks")]
pub async fn list(state: web::Data<State>, _caller: As<Viewer>) -> web::Json<Playbooks> {
    let catalog = state.deps.act.tools.registry.current();
    let items = catalog.playbooks.values().map(|loaded| Listed::new(&catalog, loaded)).collect();
    web::Json(Playbooks { items, next: None, findings: catalog.findings.clone() })
}

/// With what a playbook is to run.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Start {
    #[serde(default)]
    params: BTreeMap<String, Value>,
    /// The incident that it belongs to; parameters that are bound to it come from it.
    incident_id: Option<String>,
    /// Of the plan that a dry run showed: another plan is not meant. Absent: the plan as it is now.
    plan_hash: Option<String>,
}

/// Shows exactly what a playbook would do, what its guards say and what its probes answer now; does nothing.
#[utoipa::path(tag = "playbooks", params(("id" = String, Path)), request_body = Option<Start>, security(("token" = ["operator"])),
    responses((status = 200, body = DryRun), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/playbooks/{id}/dry-run")]
pub async fn dry_run(
    state: web::Data<State>,
    _caller: As<Operator>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<web::Json<DryRun>> {
    let start: Start = body::optional(&state, &request, payload).await?;
    let shown = act::dry_run(&state.deps.act, &id, &start.params, start.incident_id.as_deref()).await;
    Ok(web::Json(shown.map_err(|e| Problem::internal(&format!("{e:#}")))??))
}

/// A run that was started.
#[derive(Serialize, utoipa::ToSchema)]
struct Started {
    /// The run's id.
    id: String,
    plan: Plan,
    plan_hash: String,
}

/// Starts a playbook by hand; the caller is the one who allowed it. Guards and the kill switch hold for it too.
#[utoipa::path(tag = "playbooks", params(("id" = String, Path)), request_body = Option<Start>, security(("token" = ["operator"])),
    responses((status = 201, body = Started), (status = "default", body = ProblemDocument, content_type = "application/problem+json")))]
#[post("/api/v1/playbooks/{id}/run")]
pub async fn run(
    state: web::Data<State>,
    caller: As<Operator>,
    id: web::Path<String>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse> {
    let start: Start = body::optional(&state, &request, payload).await?;
    let catalog = state.deps.act.tools.registry.current();
    let mut tx = state.deps.store.write().await?;
    let incident = match &start.incident_id {
        Some(text) => Some(incidents::find(&mut tx, text).await?),
        None => None,
    };
    let plan = plan(&mut tx, &catalog, &id, &start.params, incident.as_ref()).await?;
    let plan_hash = plan.hash();
    let shown = start.plan_hash.as_deref().unwrap_or(&plan_hash);
    let incident_id = incident.as_ref().map(|i| i.id.as_str());
    let id = steer::run_by_hand(&mut tx, plan.clone(), incident_id, &caller.0, shown).await?;
    tx.commit().await?;
    Ok(HttpResponse::Created().json(Started { id, plan, plan_hash }))
}

async fn plan(
    tx: &mut Tx,
    catalog: &Catalog,
    id: &str,
    params: &BTreeMap<String, Value>,
    incident: Option<&Incident>,
) -> Result<Plan> {
    let Some(incident) = incident else { return Ok(catalog.plan(id, params, None)?) };
    let alerts = alerts::of(tx, &incident.id, alerts::LOOKED_AT).await?;
    let anomalies = anomalies::of(tx, &incident.id).await?;
    let facts = Facts { incident, alerts: &alerts, anomalies: &anomalies };
    Ok(catalog.plan(id, params, Some(&facts))?)
}
