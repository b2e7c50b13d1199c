//! PagerDuty, Events API v2: one alert for each incident, triggered, acknowledged and resolved with it.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Capabilities, Channel, ChannelKind, How, Letter, SendError, Sent};
use crate::{
    config, http_client,
    model::{IncidentState, Severity, sha256_hex},
    notify::render::{Answer, Text, plain},
};

const MAX_BYTES: usize = 512_000;
const MAX_SUMMARY: usize = 1024;

/// One service of one PagerDuty account.
pub struct PagerDuty {
    http: reqwest::Client,
    settings: config::PagerDuty,
    public_url: String,
}

/// What the newest event asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// Nothing yet: it was over before anybody was paged.
    None,
    Trigger,
    Acknowledge,
    Resolve,
}

/// What PagerDuty has, so that nothing is sent twice that says the same.
#[derive(Serialize, Deserialize)]
struct Reference {
    dedup_key: String,
    action: Action,
    summary: String,
}

impl PagerDuty {
    pub fn new(settings: &config::PagerDuty, public_url: &str) -> Self {
        let public_url = public_url.trim_end_matches('/').to_owned();
        Self { http: http_client::new(), settings: settings.clone(), public_url }
    }

    /// Brings PagerDuty from what it has to what is so, in order.
    async fn bring(&self, letter: &Letter, has: Option<Reference>) -> Result<Sent, SendError> {
        let summary = Text::clipped(letter.document.subject.as_str(), MAX_SUMMARY).as_str().to_owned();
        let last = match &has {
            Some(reference) => reference.action,
            // It may have been paged before we were killed, and nobody else would ever take that page back. To resolve what is
            // not there changes nothing.
            None if letter.tried && letter.view.incident.state == IncidentState::Resolved => Action::Trigger,
            None => Action::None,
        };
        let news = has.as_ref().is_none_or(|r| r.summary != summary);
        let key = dedup_key(&letter.view.incident.id);
        let actions = actions(last, letter.view.incident.state, news);
        for action in &actions {
            self.enqueue(&self.event(letter, *action, &key, &summary)).await?;
        }
        let how = match (actions.is_empty(), has.is_some()) {
            (true, _) => How::Unchanged,
            (false, true) => How::Edited,
            (false, false) => How::Posted,
        };
        let action = actions.last().copied().unwrap_or(last);
        let reference = Reference { dedup_key: key, action, summary };
        Ok(Sent::new(how, serde_json::to_value(reference).expect("strings"), ""))
    }

    fn event(&self, letter: &Letter, action: Action, key: &str, summary: &str) -> Value {
        let i = &letter.view.incident;
        let mut event = json!({
            "routing_key": self.settings.routing_key.expose(),
            "event_action": action,
            "dedup_key": key,
        });
        if action != Action::Trigger {
            return event;
        }
        event["payload"] = json!({
            "summary": summary,
            "source": if i.service.is_empty() { "aiops" } else { &i.service },
            "severity": match i.severity {
                Severity::Critical => "critical",
                Severity::Warning => "warning",
                Severity::Info => "info",
            },
            "timestamp": i.started_at.to_string(),
            "custom_details": { "incident": i.id, "text": plain(&letter.document.blocks) },
        });
        event["client"] = "aiops".into();
        if !self.public_url.is_empty() {
            let url = format!("{}/incidents/{}", self.public_url, i.id);
            event["links"] = json!([{ "href": url, "text": "aiops" }]);
            event["client_url"] = url.into();
        }
        if event.to_string().len() > MAX_BYTES {
            event["payload"].as_object_mut().expect("built as an object").remove("custom_details");
        }
        event
    }

    async fn enqueue(&self, event: &Value) -> Result<(), SendError> {
        let url = format!("{}/v2/enqueue", self.settings.api.trim_end_matches('/'));
        let request = self.http.post(url).timeout(self.settings.timeout).json(event);
        let answer = request.send().await.map_err(|e| {
            SendError::Again(format!("PagerDuty could not be reached: {}", http_client::reason(e)))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let after = http_client::retry_after(&answer);
        let body = answer.text().await.unwrap_or_default();
        let why = format!("PagerDuty answered {status}: {}", Text::clipped(&body, 300).as_str());
        Err(match status.as_u16() {
            429 => SendError::Slower { why, after: after.unwrap_or(Duration::from_secs(10)) },
            500.. => SendError::Again(why),
            _ => SendError::Refused(why),
        })
    }
}

/// Identifies the incident over all its events; a repeat is harmless.
fn dedup_key(incident_id: &str) -> String {
    sha256_hex(incident_id.as_bytes())
}

/// What to send, in order, if `last` was sent and the incident now stands at `state`.
pub(super) fn actions(last: Action, state: IncidentState, news: bool) -> Vec<Action> {
    use Action::*;
    match (state, last) {
        (IncidentState::Resolved, Trigger | Acknowledge) => vec![Resolve],
        (IncidentState::Resolved, _) => vec![],
        (IncidentState::Open, Trigger) if !news => vec![],
        (IncidentState::Open, _) => vec![Trigger],
        (IncidentState::Acknowledged, Acknowledge) => vec![],
        (IncidentState::Acknowledged, Trigger) => vec![Acknowledge],
        (IncidentState::Acknowledged, _) => vec![Trigger, Acknowledge],
    }
}

#[async_trait]
impl Channel for PagerDuty {
    fn kind(&self) -> ChannelKind {
        ChannelKind::PagerDuty
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { edits: false, answer: Answer::Commands, limits: &[], parallel: 32 }
    }

    async fn post(&self, letter: &Letter) -> Result<Sent, SendError> {
        self.bring(letter, None).await
    }

    async fn update(&self, letter: &Letter, reference: &Value) -> Result<Sent, SendError> {
        self.bring(letter, Reference::deserialize(reference).ok()).await
    }

    /// Any answer will do: an event would page somebody.
    async fn check(&self) -> Result<String, String> {
        let answer = self.http.get(&self.settings.api).timeout(self.settings.timeout).send().await;
        match answer {
            Ok(a) if a.status().as_u16() < 500 => {
                Ok("reachable; the routing key is proved only by an event".into())
            }
            Ok(a) => Err(format!("PagerDuty answered {}", a.status())),
            Err(e) => Err(format!("PagerDuty could not be reached: {}", http_client::reason(e))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pagerduty_is_told_each_change_of_state_once() {
        use Action::*;
        use IncidentState::*;
        assert_eq!(actions(None, Open, true), [Trigger]);
        assert_eq!(actions(Trigger, Open, false), []);
        assert_eq!(actions(Trigger, Open, true), [Trigger], "what is shown there has changed");
        assert_eq!(actions(Trigger, Acknowledged, true), [Acknowledge]);
        assert_eq!(actions(None, Acknowledged, true), [Trigger, Acknowledge]);
        assert_eq!(actions(Acknowledge, Resolved, true), [Resolve]);
        assert_eq!(actions(Resolve, Resolved, true), []);
        assert_eq!(actions(None, Resolved, true), [], "nobody is told that nothing was");
        assert_eq!(actions(Resolve, Open, true), [Trigger]);
    }
}
