//! Playbooks and prompts, as the service would load them.

use super::finding::Findings;
use crate::{
    config::Settings,
    diagnose::Prompts,
    playbook::{Catalog, Level},
};

pub fn check(settings: &Settings, findings: &mut Findings) {
    prompts(settings, findings);
    let catalog = Catalog::read(settings);
    let dir = settings.playbooks.dir.display().to_string();
    if catalog.playbooks.is_empty() && catalog.findings.is_empty() {
        findings.advice(&dir, "holds no playbooks: incidents are diagnosed, and nothing is proposed");
    }
    for loaded in catalog.playbooks.values().filter(|l| l.not_allowed.is_none()) {
        findings.ok(&loaded.file, format!("playbook {}", loaded.playbook.id));
    }
    for f in &catalog.findings {
        let at = format!("{}:{}:{}", f.file, f.line, f.column);
        let separator = if f.key.is_empty() { "" } else { ": " };
        let message = format!("{}{separator}{}", f.key, f.message);
        match f.level {
            Level::Error => findings.error(at, message),
            Level::NotAllowed | Level::Advice => findings.advice(at, message),
        }
    }
}

fn prompts(settings: &Settings, findings: &mut Findings) {
    let dir = &settings.diagnose.prompts;
    match Prompts::load(dir) {
        Ok(_) if dir.is_dir() => findings.ok(dir.display().to_string(), "prompts render"),
        Ok(_) => findings.ok(dir.display().to_string(), "not there; the built-in prompts are used"),
        Err(problems) => problems.into_iter().for_each(|p| findings.error("diagnose.prompts", p)),
    }
}
