//! Playbooks, as the service would load them.

use super::finding::Findings;
use crate::{
    config::Settings,
    playbook::{Catalog, Level},
};

pub fn check(settings: &Settings, findings: &mut Findings) {
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
