//! What is wrong with a playbook beyond its form; every finding says where it is and what would be right.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::Serialize;

use super::{
    Action, ApprovalMode, Param, ParamType, Playbook, Probe, Source, Step, Template, Value,
    locate::Places,
    param::Scalar,
    render::{self, Problem},
    template,
};
use crate::config::{self, Language};

crate::model::words!(
    /// How bad a finding is.
    Level {
        /// The playbook is not loaded.
        Error = "error",
        /// It is loaded, but the settings do not allow what it does: it is never offered.
        NotAllowed = "not allowed",
        /// It works; it could be better.
        Advice = "advice",
    }
);

/// One thing to know about a playbook file.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Finding {
    pub level: Level,
    pub file: String,
    pub line: u64,
    pub column: u64,
    /// `steps[1].run.command[0]`; empty for a syntax error.
    pub key: String,
    pub message: String,
}

impl Finding {
    pub(super) fn error(file: &str, (line, column): (u64, u64), key: &str, message: String) -> Self {
        Self { level: Level::Error, file: file.into(), line, column, key: key.into(), message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { level, file, line, column, key, message } = self;
        let separator = if key.is_empty() { "" } else { ": " };
        write!(f, "{file}:{line}:{column}: {level}: {key}{separator}{message}")
    }
}

/// All findings about one parsed playbook, in the order of the file.
pub(super) fn lint(file: &str, text: &str, playbook: &Playbook, policy: &config::Playbooks) -> Vec<Finding> {
    let mut l = Lint { policy, problems: Vec::new() };
    l.head(playbook);
    l.params(playbook);
    l.steps(playbook);
    l.verify(playbook);
    l.rollback(playbook);
    l.duration(playbook);
    if !l.problems.iter().any(|p| p.level == Level::Error) {
        l.render(playbook);
    }
    let places = Places::of(text);
    let mut findings: Vec<Finding> = l
        .problems
        .into_iter()
        .map(|Problem { level, key, message }| {
            let (line, column) = places.as_ref().map_or((1, 1), |p| p.find(&key));
            Finding { level, file: file.into(), line, column, key, message }
        })
        .collect();
    findings.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
    findings
}

struct Lint<'a> {
    policy: &'a config::Playbooks,
    problems: Vec<Problem>,
}

impl Lint<'_> {
    fn say(&mut self, level: Level, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { level, key: key.into(), message: message.into() });
    }
    fn error(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.say(Level::Error, key, message);
    }

    fn head(&mut self, p: &Playbook) {
        if !is_id(&p.id) {
            self.error(
                "id",
                format!("{:?} must be lower-case letters, digits and -, beginning with a letter", p.id),
            );
        }
        if p.matches.is_empty() {
            self.say(
                Level::Advice,
                "match",
                "is empty: it is never offered, and only runs when somebody starts it",
            );
        }
        for (i, m) in p.matches.iter().enumerate() {
            if m.labels.is_empty() && m.service.is_none() && m.anomaly.is_empty() {
                self.error(
                    format!("match[{i}]"),
                    "asks for nothing and would fit every incident; name labels, service or anomaly",
                );
            }
        }
        if p.approval == ApprovalMode::Auto && !p.read_only && p.guards.rate.is_none() {
            self.say(
                Level::Advice,
                "approval",
                "runs without being asked, and changes things; give it guards.rate",
            );
        }
        if p.guards.max_targets == Some(0) {
            self.error("guards.max_targets", "must be at least 1");
        }
        if p.guards.rate.as_ref().is_some_and(|r| r.count == 0 || r.per.is_zero()) {
            self.error("guards.rate", "must allow at least 1 run in a time longer than 0s");
        }
    }

    fn params(&mut self, p: &Playbook) {
        let used = used_names(p);
        for (key, names) in &used {
            for name in names.iter().filter(|n| !p.params.contains_key(**n)) {
                let known = p.params.keys().cloned().collect::<Vec<_>>().join(", ");
                let known =
                    if known.is_empty() { "there are none".into() } else { format!("there is {known}") };
                self.error(key, format!("{{{{ {name} }}}} is not a parameter; {known}"));
            }
        }
        for (name, param) in &p.params {
            let at = format!("params.{name}");
            if !template::is_name(name) {
                self.error(
                    &at,
                    "a parameter's name is lower-case letters, digits and _, beginning with a letter",
                );
            }
            if !used.iter().any(|(_, names)| names.contains(&name.as_str())) {
                self.say(Level::Advice, &at, "is used nowhere");
            }
            self.param(&at, param);
        }
    }

    fn param(&mut self, at: &str, param: &Param) {
        let text = param.kind == ParamType::Text;
        for (set, field) in [
            (param.pattern.is_some(), "pattern"),
            (!param.options.is_empty(), "enum"),
            (param.max_length.is_some(), "max_length"),
        ] {
            if set && !text {
                self.error(
                    format!("{at}.{field}"),
                    format!("is for type string; this is of type {}", param.kind),
                );
            }
        }
        for (bound, field) in [(&param.min, "min"), (&param.max, "max")] {
            let fits = match (param.kind, bound) {
                (_, None) | (ParamType::Integer, Some(Scalar::Integer(_))) => true,
                (ParamType::Duration, Some(Scalar::Text(t))) => humantime::parse_duration(t).is_ok(),
                _ => false,
            };
            if !fits {
                let right = "is for type integer (a whole number) or duration (such as 30s)";
                self.error(format!("{at}.{field}"), right);
            }
        }
        if let Some(default) = &param.default
            && let Err(why) = param.accept(&default.json())
        {
            self.error(format!("{at}.default"), why);
        }
        match (param.kind, &param.from) {
            (ParamType::Url, Some(Source::Setting(_))) => {}
            (ParamType::Url, _) => {
                self.error(at, "a url comes from the settings only; write `from: setting NAME`");
            }
            (_, Some(Source::Label(_) | Source::Service)) if text && param.options.is_empty() => {
                self.loose(at, param)
            }
            _ => {}
        }
        if let Some(Source::Setting(name)) = &param.from {
            match self.policy.values.get(name).map(|v| param.accept(&serde_json::Value::String(v.clone()))) {
                Some(Ok(_)) => {}
                Some(Err(why)) => {
                    self.say(Level::NotAllowed, at, format!("the setting playbooks.values.{name} {why}"))
                }
                None => {
                    let message = format!(
                        "the setting playbooks.values.{name} is not there; set it to use this playbook"
                    );
                    self.say(Level::NotAllowed, at, message);
                }
            }
        }
    }

    /// A pattern that lets through what nobody would call a name.
    fn loose(&mut self, at: &str, param: &Param) {
        let hostile = ["--force", "a; b", "$(a)", "../a", "a b"];
        let admits = |v: &&&str| param.pattern.is_some() && param.accept(&serde_json::json!(v)).is_ok();
        if let Some(value) = hostile.iter().find(admits) {
            let message = format!(
                "admits {value:?}, and the value comes from outside; narrow it, as in [a-z0-9-]{{1,63}}"
            );
            self.say(Level::Advice, format!("{at}.pattern"), message);
        }
    }

    fn steps(&mut self, p: &Playbook) {
        if p.steps.is_empty() {
            self.error("steps", "must hold at least one step");
        }
        let mut seen = BTreeSet::new();
        for (list, steps) in [("steps", &p.steps), ("rollback", &p.rollback)] {
            for (i, step) in steps.iter().enumerate() {
                let at = format!("{list}[{i}]");
                if !is_id(&step.id) {
                    let message = format!(
                        "{:?} must be lower-case letters, digits and -, beginning with a letter",
                        step.id
                    );
                    self.error(format!("{at}.id"), message);
                } else if !seen.insert(step.id.as_str()) {
                    self.error(format!("{at}.id"), format!("{:?} is the id of an earlier step", step.id));
                }
                if step.timeout.is_zero() {
                    self.error(format!("{at}.timeout"), "must be longer than 0s");
                }
                if step.retries > 0 && !step.idempotent && changes(&step.run) {
                    self.error(
                        format!("{at}.retries"),
                        "would do the step again although half of it may be done; add `idempotent: true` if that is harmless",
                    );
                }
                if step.retries > 10 {
                    self.error(format!("{at}.retries"), "must be at most 10");
                }
            }
        }
    }

    fn verify(&mut self, p: &Playbook) {
        let Some(v) = &p.verify else {
            if !p.read_only {
                self.error(
                    "verify",
                    "is missing: without it nobody knows whether it helped; add it, or `read_only: true`",
                );
            }
            return;
        };
        if v.probes.is_empty() {
            self.error("verify.probes", "must hold at least one probe");
        }
        if v.every < Duration::from_millis(100) {
            self.error("verify.every", "must be at least 100ms");
        }
        if v.hold + v.every > v.within {
            let message = format!(
                "{} is over before the probes can have held for {}, asked every {}",
                humantime::format_duration(v.within),
                humantime::format_duration(v.hold),
                humantime::format_duration(v.every)
            );
            self.error("verify.within", message);
        }
    }

    fn rollback(&mut self, p: &Playbook) {
        if !p.rollback.is_empty() && (p.read_only || !p.steps.iter().any(|s| changes(&s.run))) {
            self.error("rollback", "is never reached in a useful way: no step changes anything");
        }
        if p.read_only && p.steps.iter().any(|s| matches!(&s.run, Action::Http(r) if !r.method.is_safe())) {
            self.error("read_only", "is not true: a step sends a request that is neither GET nor HEAD");
        }
        if !p.read_only && p.rollback.is_empty() && p.on_failure.is_none() {
            self.say(
                Level::Advice,
                "on_failure",
                "is missing, and there is no rollback; say what a human should do when it did not help",
            );
        }
    }

    fn duration(&mut self, p: &Playbook) {
        let total: Duration = p.steps.iter().chain(&p.rollback).map(longest).sum();
        let total = total + p.verify.as_ref().map_or(Duration::ZERO, |v| v.within);
        if total > self.policy.max_duration {
            let message = format!(
                "timeouts and retries add up to {}, more than the settings' playbooks.max_duration of {}",
                humantime::format_duration(total),
                humantime::format_duration(self.policy.max_duration)
            );
            self.error("steps", message);
        }
    }

    /// Fills it with sample values: what can go wrong whatever the values are shows here.
    fn render(&mut self, p: &Playbook) {
        let values: BTreeMap<String, Value> =
            p.params.iter().map(|(name, param)| (name.clone(), sample(param, self.policy))).collect();
        let urls: BTreeSet<&str> = p
            .params
            .iter()
            .filter(|(_, param)| param.kind == ParamType::Url)
            .map(|(name, _)| name.as_str())
            .collect();
        if let Err(problems) = render::plan(p, &values, self.policy, Language::English) {
            // A URL from a missing setting is said once, where the parameter is.
            let said = |p: &Problem| p.message.contains(SAMPLE_HOST) && !urls.is_empty();
            self.problems.extend(problems.into_iter().filter(|p| !said(p)));
        }
    }
}

const SAMPLE_HOST: &str = "sample.invalid";

fn sample(param: &Param, policy: &config::Playbooks) -> Value {
    if let Some(default) = &param.default
        && let Ok(value) = param.accept(&default.json())
    {
        return value;
    }
    match (param.kind, &param.from) {
        (ParamType::Url, Some(Source::Setting(name))) => policy
            .values
            .get(name)
            .and_then(|v| super::url::base(v).ok())
            .map_or_else(|| Value::Url(format!("http://{SAMPLE_HOST}")), Value::Url),
        (ParamType::Url, _) => Value::Url(format!("http://{SAMPLE_HOST}")),
        (ParamType::Text, _) => {
            Value::Text(param.options.first().cloned().unwrap_or_else(|| "sample".into()))
        }
        (ParamType::Integer, _) => Value::Integer(1),
        (ParamType::Boolean, _) => Value::Boolean(true),
        (ParamType::Duration, _) => Value::Duration(Duration::from_secs(1)),
    }
}

fn is_id(id: &str) -> bool {
    id.len() <= 64
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// True if the step may leave the world different.
fn changes(action: &Action) -> bool {
    match action {
        Action::Command(_) => true,
        Action::Http(r) => !r.method.is_safe(),
        Action::Prometheus(_) | Action::Wait(_) | Action::Notify(_) => false,
    }
}

/// How long a step may take with all its tries.
fn longest(step: &Step) -> Duration {
    let one = match &step.run {
        Action::Wait(w) => humantime::parse_duration(w.0.source()).unwrap_or(step.timeout),
        _ => step.timeout,
    };
    one.saturating_mul(step.retries.min(10) + 1)
}

/// Every key that holds templates, with the parameters named there.
fn used_names(p: &Playbook) -> Vec<(String, Vec<&str>)> {
    let mut out = vec![("title".to_owned(), names(&p.title)), ("target".to_owned(), names(&p.target))];
    out.extend(p.title_ru.iter().map(|t| ("title_ru".to_owned(), names(t))));
    out.extend(p.on_failure.iter().map(|t| ("on_failure".to_owned(), names(t))));
    for (list, steps) in [("steps", &p.steps), ("rollback", &p.rollback)] {
        for (i, step) in steps.iter().enumerate() {
            action_names(&format!("{list}[{i}].run"), &step.run, &mut out);
        }
    }
    for (i, probe) in p.verify.iter().flat_map(|v| &v.probes).enumerate() {
        let at = format!("verify.probes[{i}]");
        match probe {
            Probe::Prometheus(q) => out.push((format!("{at}.prometheus.query"), names(&q.query))),
            Probe::Http(r) => out.push((format!("{at}.http.url"), names(&r.url))),
            Probe::Command(argv) => argv_names(&format!("{at}.command"), argv, &mut out),
        }
    }
    out
}

fn action_names<'a>(at: &str, action: &'a Action, out: &mut Vec<(String, Vec<&'a str>)>) {
    match action {
        Action::Command(argv) => argv_names(&format!("{at}.command"), argv, out),
        Action::Http(r) => {
            out.push((format!("{at}.http.url"), names(&r.url)));
            out.extend(r.headers.iter().map(|(name, t)| (format!("{at}.http.headers.{name}"), names(t))));
            if let Some(body) = &r.body {
                body_names(&format!("{at}.http.body"), body, out);
            }
        }
        Action::Prometheus(q) => out.push((format!("{at}.prometheus.query"), names(&q.query))),
        Action::Wait(w) => out.push((format!("{at}.wait"), names(&w.0))),
        Action::Notify(t) => out.push((format!("{at}.notify"), names(t))),
    }
}

fn argv_names<'a>(at: &str, argv: &'a [Template], out: &mut Vec<(String, Vec<&'a str>)>) {
    out.extend(argv.iter().enumerate().map(|(i, t)| (format!("{at}[{i}]"), names(t))));
}

fn body_names<'a>(at: &str, body: &'a serde_json::Value, out: &mut Vec<(String, Vec<&'a str>)>) {
    match body {
        serde_json::Value::String(text) => out.push((at.to_owned(), raw_names(text))),
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| body_names(&format!("{at}[{i}]"), v, out));
        }
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(k, v)| body_names(&format!("{at}.{k}"), v, out))
        }
        _ => {}
    }
}

fn names(template: &Template) -> Vec<&str> {
    template.names().collect()
}

/// The names in a body's text, which is parsed only when it is filled in.
fn raw_names(text: &str) -> Vec<&str> {
    if Template::parse(text).is_err() {
        return Vec::new();
    }
    text.split("{{").skip(1).filter_map(|s| s.split_once("}}")).map(|(name, _)| name.trim()).collect()
}
