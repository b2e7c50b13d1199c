//! The settings of the demo's service: the defaults, with what the demo's own little world needs.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};

use super::{Args, phone::Phone, supervisor::Supervisor};
use crate::config::{Check, HttpAuth, Secret, Settings, StdoutWhen};

const PLAYBOOK: &str = include_str!("../../../playbooks/restart-by-http.yaml");
/// How long the detectors learn before anything counts as unusual; the default is made for days, not for half a minute.
pub const WARM_UP: Duration = Duration::from_secs(8);

/// `dir` takes the store and the playbook.
pub fn of(args: &Args, dir: &Path, supervisor: &Supervisor, phone: &Phone) -> anyhow::Result<Settings> {
    let mut s = Settings {
        listen: "127.0.0.1:0".into(),
        data_dir: dir.join("data"),
        language: args.lang,
        ..Settings::default()
    };
    s.detect.warm_up = WARM_UP;
    s.playbooks.dir = dir.join("playbooks");
    std::fs::create_dir(&s.playbooks.dir).context("making the demo's playbook directory")?;
    std::fs::write(s.playbooks.dir.join("restart-by-http.yaml"), PLAYBOOK)
        .context("writing the demo's playbook")?;
    let host = supervisor.url.trim_start_matches("http://").to_owned();
    s.playbooks.http_hosts = vec![host.clone()];
    s.playbooks.values.insert("supervisor_url".into(), supervisor.url.clone());
    let auth = HttpAuth { bearer: supervisor.token.clone(), ..HttpAuth::default() };
    s.playbooks.http_auth.insert(host, auth);
    s.notify.stdout.when = StdoutWhen::Never;
    s.notify.slack.webhook = Secret::new(&phone.webhook);
    model(args, &mut s);
    let mut problems = Vec::new();
    s.check("", &mut problems);
    let wrong = problems.iter().map(|p| format!("{}: {}", p.key, p.message)).collect::<Vec<_>>();
    ensure!(wrong.is_empty(), "the demo's settings are wrong: {}", wrong.join("; "));
    Ok(s)
}

fn model(args: &Args, s: &mut Settings) {
    if let Some(url) = &args.ollama {
        s.llm.ollama.url = url.trim_end_matches('/').to_owned();
        s.llm.ollama.model = args.model.clone().unwrap_or_else(|| "llama3.2".into());
    }
    if let Some(url) = &args.openai {
        s.llm.openai.url = url.trim_end_matches('/').to_owned();
        s.llm.openai.model = args.model.clone().unwrap_or_else(|| "gpt-5-mini".into());
        s.llm.openai.key = Secret::new(std::env::var("OPENAI_API_KEY").unwrap_or_default());
    }
}
