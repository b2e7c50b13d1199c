//! The playbooks that are loaded, together with the settings that bound them; replaced as one when they are read anew.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::Value as Json;

use super::{ApprovalMode, Facts, Finding, Level, Playbook, Refusal, bind, lint, parse, render};
use crate::{
    config::{self, Language, Settings},
    model::{Offer, Plan, Said},
};

/// Holds the current [`Catalog`]; cheap to ask.
#[derive(Debug)]
pub struct Registry(RwLock<Arc<Catalog>>);

/// One reading of the playbook directory.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub playbooks: BTreeMap<String, Loaded>,
    /// Everything that lint found, also about files that were not loaded.
    pub findings: Vec<Finding>,
    pub policy: config::Playbooks,
    pub language: Language,
}

/// A playbook without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub playbook: Playbook,
    pub file: String,
    /// Why the settings do not let it run.
    pub not_allowed: Option<String>,
}

impl Registry {
    /// Reads the directory. What is wrong is in the catalog's findings; it never fails as a whole.
    pub fn open(settings: &Settings) -> Self {
        Self(RwLock::new(Arc::new(Catalog::read(settings))))
    }
    /// Reads the directory anew with new settings; returns the findings. Runs under way keep their plans.
    pub fn reload(&self, settings: &Settings) -> Vec<Finding> {
        let next = Arc::new(Catalog::read(settings));
        let findings = next.findings.clone();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        findings
    }
    pub fn current(&self) -> Arc<Catalog> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Catalog {
    pub fn read(settings: &Settings) -> Self {
        let mut catalog = Self {
            playbooks: BTreeMap::new(),
            findings: Vec::new(),
            policy: settings.playbooks.clone(),
            language: settings.language,
        };
        match files(&settings.playbooks.dir) {
            Ok(paths) => paths.iter().for_each(|path| catalog.add_file(path)),
            Err(finding) => catalog.findings.push(*finding),
        }
        catalog.check_auto();
        catalog
    }

    fn add_file(&mut self, path: &Path) {
        let file = path.display().to_string();
        match read_private(path) {
            Ok(text) => self.add(&file, &text),
            Err(message) => self.findings.push(Finding::error(&file, (1, 1), "", message)),
        }
    }

    /// Parses, lints and adds one playbook.
    pub fn add(&mut self, file: &str, text: &str) {
        let playbook = match parse(file, text) {
            Ok(playbook) => playbook,
            Err(finding) => return self.findings.push(finding),
        };
        let mut findings = lint::lint(file, text, &playbook, &self.policy);
        if let Some(other) = self.playbooks.get(&playbook.id) {
            let message = format!("{:?} is the id of {} too; ids are unique", playbook.id, other.file);
            findings.insert(0, Finding::error(file, (1, 1), "id", message));
        }
        let usable = !findings.iter().any(|f| f.level == Level::Error);
        let not_allowed = findings.iter().find(|f| f.level == Level::NotAllowed).map(|f| f.message.clone());
        self.findings.extend(findings);
        if usable {
            let loaded = Loaded { file: file.to_owned(), not_allowed, playbook };
            self.playbooks.insert(loaded.playbook.id.clone(), loaded);
        }
    }

    /// Names in `playbooks.auto` that do nothing would look like a permission.
    fn check_auto(&mut self) {
        for id in &self.policy.auto {
            let (file, message) = match self.playbooks.get(id) {
                None => ("settings".to_owned(), format!("{id:?} is no loaded playbook")),
                Some(l) if l.playbook.approval != ApprovalMode::Auto => (
                    l.file.clone(),
                    format!("the settings' playbooks.auto names {id:?}, but it says `approval: required`"),
                ),
                Some(_) => continue,
            };
            let key = "playbooks.auto".to_owned();
            self.findings.push(Finding { level: Level::Advice, file, line: 1, column: 1, key, message });
        }
    }

    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|f| f.level == Level::Error)
    }

    /// True if the playbook and the settings both let it run without asking.
    pub fn is_auto(&self, id: &str) -> bool {
        self.policy.auto.iter().any(|a| a == id)
            && self.playbooks.get(id).is_some_and(|l| l.playbook.approval == ApprovalMode::Auto)
    }

    /// What can be offered for an incident; and, for those that fit but cannot be offered, why.
    pub fn offers(&self, facts: &Facts<'_>) -> (Vec<Offer>, Vec<Refusal>) {
        let (mut offers, mut refusals) = (Vec::new(), Vec::new());
        for loaded in self.playbooks.values() {
            let Some(alerts) = bind::fits(&loaded.playbook, facts) else { continue };
            let offer = match &loaded.not_allowed {
                Some(why) => Err(loaded.refusal("settings", why.clone())),
                None => bind::offer(&loaded.playbook, facts, &alerts, &self.policy).map_err(|(name, why)| {
                    loaded.refusal(&format!("params.{name}"), format!("{name} {why}"))
                }),
            };
            match offer {
                Ok(offer) => offers.push(offer),
                Err(refusal) => refusals.push(refusal),
            }
        }
        (offers, refusals)
    }

    /// The exact plan for chosen parameters. With facts, the playbook must fit the incident and takes its bound values from
    /// it; without, a person starts it by hand and says them.
    pub fn plan(
        &self,
        id: &str,
        chosen: &BTreeMap<String, Json>,
        facts: Option<&Facts<'_>>,
    ) -> Result<Plan, Refusal> {
        let loaded = self.playbooks.get(id).ok_or_else(|| Refusal {
            clause: "playbooks.dir".into(),
            why: format!("there is no playbook {id:?}").into(),
        })?;
        if let Some(why) = &loaded.not_allowed {
            return Err(loaded.refusal("settings", why.clone()));
        }
        let fit = match facts {
            None => None,
            Some(facts) => match bind::fits(&loaded.playbook, facts) {
                Some(alerts) => Some((facts, alerts)),
                None => return Err(loaded.refusal("match", format!("{id} does not fit this incident"))),
            },
        };
        let fit = fit.as_ref().map(|(facts, alerts)| (*facts, alerts.as_slice()));
        let values = bind::values(&loaded.playbook, chosen, fit, &self.policy)
            .map_err(|(name, why)| loaded.refusal(&format!("params.{name}"), format!("{name} {why}")))?;
        render::plan(&loaded.playbook, &values, &self.policy, self.language).map_err(|problems| {
            let first = problems.into_iter().next();
            let (key, why) = first.map_or_else(Default::default, |p| (p.key, p.message));
            loaded.refusal(&key, why)
        })
    }
}

impl Loaded {
    fn refusal(&self, key: &str, why: impl Into<Said>) -> Refusal {
        Refusal { clause: format!("{} {key}", self.file), why: why.into() }
    }
}

/// The playbook files, sorted by name. A directory that is not there holds none.
fn files(dir: &Path) -> Result<Vec<std::path::PathBuf>, Box<Finding>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            let message = format!("cannot be read: {e}");
            return Err(Box::new(Finding::error(&dir.display().to_string(), (1, 1), "", message)));
        }
    };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"));
    paths.sort();
    Ok(paths)
}

/// A file that anyone may change would let anyone run commands as us.
fn read_private(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?;
    if meta.permissions().mode() & 0o002 != 0 {
        return Err("anyone on this machine can change it; chmod o-w".into());
    }
    std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))
}
