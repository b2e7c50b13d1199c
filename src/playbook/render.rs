//! A playbook and its values → a plan. Collects everything that is wrong instead of stopping at the first.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{
    Action, Level, Playbook, Probe, Step, Template, Value, WaitFor, document::Request, promql,
    template::Part, url,
};
use crate::{
    config::{self, Language},
    model,
};

/// Something wrong at a key of the document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    pub level: Level,
    pub key: String,
    pub message: String,
}

/// Every parameter that the playbook names has a value in `values`.
pub(super) fn plan(
    playbook: &Playbook,
    values: &BTreeMap<String, Value>,
    policy: &config::Playbooks,
    language: Language,
) -> Result<model::Plan, Vec<Problem>> {
    let mut r = Renderer { values, policy, problems: Vec::new() };
    let title = match (&playbook.title_ru, language) {
        (Some(title), Language::Russian) => title,
        _ => &playbook.title,
    };
    let plan = model::Plan {
        playbook: playbook.id.clone(),
        title: r.text("title", title),
        params: values.iter().map(|(name, v)| (name.clone(), v.json())).collect(),
        target: r.text("target", &playbook.target),
        steps: r.steps("steps", &playbook.steps),
        verify: playbook.verify.as_ref().map(|v| r.verify(v)),
        rollback: r.steps("rollback", &playbook.rollback),
        guards: playbook.guards.clone(),
        on_failure: playbook.on_failure.as_ref().map_or_else(String::new, |t| r.text("on_failure", t)),
    };
    if r.problems.is_empty() { Ok(plan) } else { Err(r.problems) }
}

struct Renderer<'a> {
    values: &'a BTreeMap<String, Value>,
    policy: &'a config::Playbooks,
    problems: Vec<Problem>,
}

impl Renderer<'_> {
    fn value(&self, name: &str) -> Value {
        // Lint reports unknown names, and a plan is only made of a playbook without errors.
        self.values.get(name).cloned().unwrap_or_else(|| Value::Text(String::new()))
    }
    fn problem(&mut self, level: Level, key: &str, message: impl Into<String>) {
        self.problems.push(Problem { level, key: key.to_owned(), message: message.into() });
    }
    fn take<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.problem(Level::Error, key, message)).ok()
    }
    fn text(&self, _key: &str, template: &Template) -> String {
        template.plain(|name| self.value(name).text())
    }

    fn steps(&mut self, list: &str, steps: &[Step]) -> Vec<model::PlanStep> {
        let mut out = Vec::with_capacity(steps.len());
        for (i, step) in steps.iter().enumerate() {
            let key = format!("{list}[{i}].run");
            let action = self.action(&key, &step.run);
            out.extend(action.map(|action| model::PlanStep {
                id: step.id.clone(),
                action,
                timeout: step.timeout,
                idempotent: step.idempotent,
                retries: step.retries,
            }));
        }
        out
    }

    fn action(&mut self, key: &str, action: &Action) -> Option<model::Action> {
        Some(match action {
            Action::Command(argv) => {
                model::Action::Command { argv: self.argv(&format!("{key}.command"), argv)? }
            }
            Action::Http(request) => self.http(&format!("{key}.http"), request)?,
            Action::Prometheus(q) => model::Action::Prometheus {
                query: self.query(&format!("{key}.prometheus"), &q.query)?,
                expect: q.expect.clone(),
            },
            Action::Wait(wait) => model::Action::Wait { duration: self.wait(&format!("{key}.wait"), wait)? },
            Action::Notify(text) => model::Action::Notify { text: self.text(key, text) },
        })
    }

    /// One template element gives exactly one argument, and a value never makes it an option.
    fn argv(&mut self, key: &str, argv: &[Template]) -> Option<Vec<String>> {
        let Some((program, arguments)) = argv.split_first() else {
            self.problem(
                Level::Error,
                key,
                "needs at least the executable, as in [systemctl, status, nginx]",
            );
            return None;
        };
        let first = format!("{key}[0]");
        if !program.is_literal() {
            self.problem(Level::Error, &first, "the executable may not be a parameter; write its name");
            return None;
        }
        let Some(path) = self.policy.executable(program.source()).and_then(|p| p.to_str()) else {
            let message = format!(
                "{} is not in the settings' playbooks.executables; add its absolute path there to allow it",
                program.source()
            );
            self.problem(Level::NotAllowed, &first, message);
            return None;
        };
        let mut out = vec![path.to_owned()];
        for (i, template) in arguments.iter().enumerate() {
            let text = self.text(key, template);
            if matches!(template.parts().first(), Some(Part::Name(_)))
                && (text.starts_with('-') || text.is_empty())
            {
                let message =
                    format!("{text:?} would be read as an option, or as nothing, and not as a value");
                self.problem(Level::Error, &format!("{key}[{}]", i + 1), message);
                return None;
            }
            out.push(text);
        }
        Some(out)
    }

    fn http(&mut self, key: &str, request: &Request) -> Option<model::Action> {
        let url = self.url(&format!("{key}.url"), &request.url)?;
        let mut headers = BTreeMap::new();
        for (name, template) in &request.headers {
            let at = format!("{key}.headers.{name}");
            let text = self.text(&at, template);
            match header_problem(name, &text) {
                Some(message) => self.problem(Level::Error, &at, message),
                None => _ = headers.insert(name.clone(), text),
            }
        }
        let body = match &request.body {
            Some(body) => Some(self.body(&format!("{key}.body"), body)?),
            None => None,
        };
        let method = request.method.as_str().to_owned();
        Some(model::Action::Http { method, url, headers, body, expect: request.expect.clone() })
    }

    fn url(&mut self, key: &str, template: &Template) -> Option<String> {
        let url = url::fill(template, |name| self.value(name));
        let url = self.take(key, url)?;
        if self.policy.http_host(&url).is_none() {
            let host = url.host_str().unwrap_or_default();
            let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
            let message = format!(
                "{host}{port} is not in the settings' playbooks.http_hosts; add it there to allow it"
            );
            self.problem(Level::NotAllowed, key, message);
            return None;
        }
        Some(url.into())
    }

    fn query(&mut self, key: &str, template: &Template) -> Option<String> {
        let query = promql::fill(template, |name| self.value(name));
        self.take(&format!("{key}.query"), query)
    }

    fn body(&mut self, key: &str, body: &Json) -> Option<Json> {
        Some(match body {
            Json::String(text) => {
                let template = Template::parse(text);
                let template = self.take(key, template)?;
                match template.only_name() {
                    Some(name) => self.value(name).json(),
                    None => Json::String(self.text(key, &template)),
                }
            }
            Json::Array(items) => Json::Array(
                items.iter().enumerate().filter_map(|(i, v)| self.body(&format!("{key}[{i}]"), v)).collect(),
            ),
            Json::Object(map) => {
                let mut out = serde_json::Map::new();
                for (name, v) in map {
                    let at = format!("{key}.{name}");
                    if name.contains("{{") {
                        self.problem(Level::Error, &at, "a parameter may be a value here, never a key");
                    } else if let Some(v) = self.body(&at, v) {
                        out.insert(name.clone(), v);
                    }
                }
                Json::Object(out)
            }
            other => other.clone(),
        })
    }

    fn wait(&mut self, key: &str, wait: &WaitFor) -> Option<std::time::Duration> {
        let parsed = match wait.0.only_name().map(|name| (name, self.value(name))) {
            Some((_, Value::Duration(d))) => Ok(d),
            Some((name, _)) => Err(format!("{{{{ {name} }}}} must be of type duration")),
            None => humantime::parse_duration(wait.0.source()).map_err(|_| {
                format!("{:?} is not a duration such as 10s, nor one {{{{ name }}}}", wait.0.source())
            }),
        };
        self.take(key, parsed)
    }

    fn verify(&mut self, verify: &super::Verify) -> model::Verify {
        let mut probes = Vec::new();
        for (i, probe) in verify.probes.iter().enumerate() {
            let key = format!("verify.probes[{i}]");
            let rendered = match probe {
                Probe::Prometheus(q) => self
                    .query(&format!("{key}.prometheus"), &q.query)
                    .map(|query| model::Probe::Prometheus { query, expect: q.expect.clone() }),
                Probe::Http(r) => self
                    .url(&format!("{key}.http.url"), &r.url)
                    .map(|url| model::Probe::Http { url, expect: r.expect.clone() }),
                Probe::Command(argv) => {
                    self.argv(&format!("{key}.command"), argv).map(|argv| model::Probe::Command { argv })
                }
            };
            probes.extend(rendered);
        }
        model::Verify { probes, within: verify.within, hold: verify.hold, every: verify.every }
    }
}

fn header_problem(name: &str, text: &str) -> Option<String> {
    const OURS: [&str; 7] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "authorization",
        "cookie",
        "proxy-authorization",
    ];
    if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        return Some(format!(
            "{name} is not set in a playbook; credentials belong in the settings' playbooks.http_auth"
        ));
    }
    let valid = reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
        && reqwest::header::HeaderValue::from_str(text).is_ok();
    (!valid).then(|| format!("{name:?} is not a header, or {text:?} not a value for one"))
}
