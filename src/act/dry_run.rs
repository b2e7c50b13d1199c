//! Shows exactly what a playbook would do, and does nothing: the plan, its hash, what the guards say, what the probes answer now.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Deps;
use crate::{
    clock, ids,
    model::{Phrase, Plan, PlanStep, Probe},
    playbook::{Facts, Refusal},
    steer::{self, GuardResult},
    steps,
    store::{alerts, anomalies, incidents},
};

/// What `aiops playbook run --dry-run` prints.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct DryRun {
    pub plan: Plan,
    /// What an approval, or a start by hand, is bound to.
    pub plan_hash: String,
    pub steps: Vec<DryStep>,
    pub rollback: Vec<DryStep>,
    pub guards: Vec<GuardResult>,
    /// What would be asked afterwards. Read-only questions are answered as of now.
    pub probes: Vec<DryStep>,
}

/// One line of it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct DryStep {
    /// The step's id; the position for a probe.
    pub id: String,
    /// The arguments, the URL or the query, as they would go out.
    pub does: String,
    /// How a probe is answered now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

/// Renders a plan, for an incident or without one. The inner error says why there is none.
pub async fn dry_run(
    deps: &Deps,
    playbook: &str,
    params: &BTreeMap<String, serde_json::Value>,
    incident_id: Option<&str>,
) -> anyhow::Result<Result<DryRun, Refusal>> {
    let catalog = deps.tools.registry.current();
    let mut tx = deps.store.read().await?;
    let plan = match incident_id {
        None => catalog.plan(playbook, params, None),
        Some(id) => {
            let found = match incidents::get(&mut tx, id).await? {
                Some(incident) => Some(incident),
                None => incidents::by_short_id(&mut tx, id).await?,
            };
            let Some(incident) = found else {
                let why = Phrase::NoIncident { id: id.to_owned() }.into();
                return Ok(Err(Refusal { clause: "incident".into(), why }));
            };
            let alerts = alerts::of(&mut tx, &incident.id, alerts::LOOKED_AT).await?;
            let anomalies = anomalies::of(&mut tx, &incident.id).await?;
            let facts = Facts { incident: &incident, alerts: &alerts, anomalies: &anomalies };
            catalog.plan(playbook, params, Some(&facts))
        }
    };
    let plan = match plan {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let guards = steer::guards(&mut tx, &plan).await?;
    drop(tx);
    let probes = ask_probes(deps, &plan).await;
    let list = |steps: &[PlanStep]| steps.iter().map(dry).collect();
    Ok(Ok(DryRun {
        plan_hash: plan.hash(),
        steps: list(&plan.steps),
        rollback: list(&plan.rollback),
        guards,
        probes,
        plan,
    }))
}

fn dry(step: &PlanStep) -> DryStep {
    DryStep { id: step.id.clone(), does: steps::describe(&step.action), now: None }
}

/// Commands are not run, not even those that claim to change nothing.
async fn ask_probes(deps: &Deps, plan: &Plan) -> Vec<DryStep> {
    let context = steps::Context {
        run_id: format!("dry-{}", ids::opaque()),
        incident_id: None,
        started_at: clock::now(),
        timeout: Duration::from_secs(5),
    };
    let never = CancellationToken::new();
    let mut out = Vec::new();
    for (i, probe) in plan.verify.iter().flat_map(|v| &v.probes).enumerate() {
        let now = match probe {
            Probe::Command { .. } => None,
            _ => {
                let answer = steps::ask(&deps.tools, probe, &context, &never).await;
                Some(format!("{}: {}", answer.ended, answer.output))
            }
        };
        out.push(DryStep { id: i.to_string(), does: steps::describe_probe(probe), now });
    }
    out
}
