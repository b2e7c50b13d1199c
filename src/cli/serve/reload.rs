//! SIGHUP: applies what can change while the service runs, and says what needs a restart. Wrong settings change nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{app::App, cli::Context, config::Settings, telemetry::Telemetry};

/// Sections (or keys) that take effect at once. The log filter is ours to apply, the others the app's.
const LIVE: [&str; 5] = ["log.filter", "playbooks", "correlate", "intake.sources", "http.allowed_hosts"];

/// Gives the settings that hold from now on.
pub(super) async fn reload(app: &App, telemetry: &Telemetry, context: &Context, old: Settings) -> Settings {
    let new = match context.settings() {
        Ok(loaded) => loaded.settings,
        Err(e) => {
            tracing::error!(problem = e.message, "the settings were not reloaded; the old ones hold");
            return old;
        }
    };
    if let Err(e) = telemetry.refilter(&new.log.filter) {
        tracing::error!(error = format!("{e:#}"), "the settings were not reloaded; the old ones hold");
        return old;
    }
    for finding in app.reload(&new) {
        tracing::warn!(%finding, "a playbook is not as it should be");
    }
    let changed = changed(&old, &new);
    let restart: Vec<&str> = changed.iter().filter(|k| !is_live(k)).map(String::as_str).collect();
    let applied: Vec<&str> = changed.iter().filter(|k| is_live(k)).map(String::as_str).collect();
    if !restart.is_empty() {
        tracing::warn!(keys = restart.join(", "), "these settings changed and need a restart");
    }
    tracing::info!(applied = applied.join(", "), "settings and playbooks were read anew");
    new
}

fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| key == *live || key.strip_prefix(live).is_some_and(|rest| rest.starts_with('.')))
}

/// The dotted keys whose values differ. Secrets do not show: a new one needs a restart in any case.
fn changed(old: &Settings, new: &Settings) -> BTreeSet<String> {
    let tree = |s: &Settings| serde_json::to_value(s).expect("settings serialise to JSON");
    let mut keys = BTreeSet::new();
    differ(&tree(old), &tree(new), String::new(), &mut keys);
    keys
}

fn differ(old: &Value, new: &Value, at: String, keys: &mut BTreeSet<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            for (key, value) in a {
                let dot = if at.is_empty() { "" } else { "." };
                differ(value, &b[key], format!("{at}{dot}{key}"), keys);
            }
        }
        (a, b) if a != b => {
            keys.insert(at);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_keys_are_named_and_sorted_by_whether_they_take_effect() {
        let old = Settings::default();
        let mut new = old.clone();
        new.listen = "127.0.0.1:1".into();
        new.log.filter = "debug".into();
        new.playbooks.auto = vec!["x".into()];
        let keys: Vec<String> = changed(&old, &new).into_iter().collect();
        assert_eq!(keys, ["listen", "log.filter", "playbooks.auto"]);
        assert_eq!(keys.iter().map(|k| is_live(k)).collect::<Vec<_>>(), [false, true, true]);
        assert!(!is_live("playbooks_of_old"));
    }
}
