//! An incident's facts → values of parameters. A value comes from where the playbook says, or is chosen within its type.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Match, Param, Playbook, Source, Value};
use crate::{
    config,
    model::{Alert, AlertState, Anomaly, Incident, Offer, OfferedParam, Said},
};

/// What is known of an incident, for matching and binding.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub incident: &'a Incident,
    pub alerts: &'a [Alert],
    pub anomalies: &'a [Anomaly],
}

/// Why there is no offer or no plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// `playbooks/restart.yaml params.service`.
    pub clause: String,
    /// A sentence for people.
    pub why: Said,
}

impl Match {
    /// The alerts that carry the match (all of them, if it asks for no label), or `None` if it does not hold.
    fn holds<'a>(&self, facts: &Facts<'a>) -> Option<Vec<&'a Alert>> {
        if !self.service.as_ref().is_none_or(|m| m.matches(&facts.incident.service)) {
            return None;
        }
        if !self.anomaly.is_empty() && !facts.anomalies.iter().any(|a| self.anomaly.contains(&a.kind)) {
            return None;
        }
        let fits = |a: &&Alert| {
            self.labels.iter().all(|(name, m)| m.matches(a.labels.get(name).map_or("", String::as_str)))
        };
        let fitting: Vec<&Alert> = facts.alerts.iter().filter(fits).collect();
        let firing: Vec<&Alert> = fitting.iter().copied().filter(|a| a.state == AlertState::Firing).collect();
        match (firing.is_empty(), fitting.is_empty() && !self.labels.is_empty()) {
            (false, _) => Some(firing),
            (true, false) => Some(fitting),
            (true, true) => None,
        }
    }
}

/// The alerts of the first match that holds.
pub(super) fn fits<'a>(playbook: &Playbook, facts: &Facts<'a>) -> Option<Vec<&'a Alert>> {
    playbook.matches.iter().find_map(|m| m.holds(facts))
}

/// The value that the playbook takes from somewhere; `Ok(None)` if it is free to choose.
fn bound(
    param: &Param,
    facts: Option<(&Facts<'_>, &[&Alert])>,
    policy: &config::Playbooks,
) -> Result<Option<Value>, String> {
    let text =
        match (&param.from, facts) {
            (None, _) => return Ok(None),
            (Some(Source::Setting(name)), _) => policy.values.get(name).cloned().ok_or_else(|| {
                format!("comes from the setting playbooks.values.{name}, which is not there")
            })?,
            // Started by hand, without an incident: the person says what it is.
            (Some(_), None) => return Ok(None),
            (Some(Source::Service), Some((facts, _))) => facts.incident.service.clone(),
            (Some(Source::Label(label)), Some((_, alerts))) => agreed(label, alerts)?,
        };
    param.accept(&Json::String(text)).map(Some)
}

/// The one value that the alerts have for a label.
fn agreed(label: &str, alerts: &[&Alert]) -> Result<String, String> {
    let values: BTreeSet<&String> = alerts.iter().filter_map(|a| a.labels.get(label)).collect();
    match values.len() {
        0 => Err(format!("comes from the label {label}, which no matching alert has")),
        1 => Ok(values.into_iter().next().cloned().unwrap_or_default()),
        n => Err(format!("comes from the label {label}, for which the alerts have {n} different values")),
    }
}

/// Values for every parameter: bound, chosen, or the default. Errors name the parameter.
pub(super) fn values(
    playbook: &Playbook,
    chosen: &BTreeMap<String, Json>,
    facts: Option<(&Facts<'_>, &[&Alert])>,
    policy: &config::Playbooks,
) -> Result<BTreeMap<String, Value>, (String, String)> {
    if let Some(name) = chosen.keys().find(|name| !playbook.params.contains_key(*name)) {
        let known = playbook.params.keys().cloned().collect::<Vec<_>>().join(", ");
        return Err((name.clone(), format!("is not a parameter; there is {known}")));
    }
    let mut out = BTreeMap::new();
    for (name, param) in &playbook.params {
        let fail = |why: String| (name.clone(), why);
        let value = match (bound(param, facts, policy).map_err(fail)?, chosen.get(name), &param.default) {
            (Some(bound), None, _) => bound,
            (Some(bound), Some(given), _) => match param.accept(given) {
                Ok(given) if given == bound => bound,
                _ => {
                    return Err(fail(format!(
                        "is taken from elsewhere ({:?}) and cannot be chosen",
                        bound.text()
                    )));
                }
            },
            (None, Some(given), _) => param.accept(given).map_err(fail)?,
            (None, None, Some(default)) => param.accept(&default.json()).map_err(fail)?,
            (None, None, None) => return Err(fail("is missing, and has no default".into())),
        };
        out.insert(name.clone(), value);
    }
    Ok(out)
}

/// The offer for an incident that the playbook fits. Errors name the parameter that has no valid value.
pub(super) fn offer(
    playbook: &Playbook,
    facts: &Facts<'_>,
    alerts: &[&Alert],
    policy: &config::Playbooks,
) -> Result<Offer, (String, String)> {
    let mut params = BTreeMap::new();
    let mut known = BTreeMap::new();
    for (name, param) in &playbook.params {
        let bound = bound(param, Some((facts, alerts)), policy).map_err(|why| (name.clone(), why))?;
        let default = param.default.as_ref().map(super::param::Scalar::json);
        if let Some(value) = bound.clone().or_else(|| default.as_ref().and_then(|d| param.accept(d).ok())) {
            known.insert(name.as_str(), value.text());
        }
        let bound = bound.map(|v| v.json());
        params.insert(name.clone(), OfferedParam { schema: param.value_schema(), bound, default });
    }
    let fill = |name: &str| known.get(name).cloned().unwrap_or_else(|| format!("<{name}>"));
    Ok(Offer {
        playbook: playbook.id.clone(),
        title: playbook.title.plain(fill),
        description: playbook.description.clone(),
        params,
        target: playbook.target.plain(fill),
        read_only: playbook.read_only,
    })
}
