//! The settings file, the data directory and the admin token: who can read them.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use serde_json::Value;

use super::finding::Findings;
use crate::config::{Loaded, Settings};

/// Keys whose values are secrets, in any section.
const SECRET_KEYS: [&str; 8] =
    ["token", "bearer", "password", "key", "api_key", "signing_secret", "routing_key", "webhook"];

pub fn settings(loaded: &Loaded, findings: &mut Findings) {
    let Some(file) = &loaded.file else {
        return findings.ok("settings", format!("no file, the defaults hold{}", from_environment(loaded)));
    };
    let at = file.display().to_string();
    match (mode(file), inline_secrets(file)) {
        (Some(mode), secrets) if mode & 0o044 != 0 && !secrets.is_empty() => findings.error(
            at,
            format!(
                "holds secrets ({}) and can be read by others ({mode:04o}); chmod 600, or put them into files: {{file: PATH}}",
                secrets.join(", ")
            ),
        ),
        (Some(mode), _) if mode & 0o022 != 0 => {
            findings.error(at, format!("can be changed by others ({mode:04o}); chmod go-w"));
        }
        _ => findings.ok(at, format!("valid{}", from_environment(loaded))),
    }
}

fn from_environment(loaded: &Loaded) -> String {
    match loaded.env.len() {
        0 => String::new(),
        _ => format!("; from the environment: {}", loaded.env.join(", ")),
    }
}

/// The dotted keys of secrets that stand in the file itself.
fn inline_secrets(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let tree: Value =
        serde_yaml::from_str_with_options(&text, crate::config::yaml_options()).unwrap_or_default();
    let mut found = Vec::new();
    collect(&tree, "", &mut found);
    found
}

fn collect(value: &Value, at: &str, found: &mut Vec<String>) {
    let dot = if at.is_empty() { "" } else { "." };
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let at = format!("{at}{dot}{key}");
                let database = at == "store.url";
                match inner {
                    Value::String(text)
                        if (SECRET_KEYS.contains(&key.as_str()) || database) && !text.is_empty() =>
                    {
                        found.push(at);
                    }
                    Value::Array(items) if key == "bearer" && items.iter().any(Value::is_string) => {
                        found.push(at)
                    }
                    inner => collect(inner, &at, found),
                }
            }
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| collect(v, &format!("{at}[{i}]"), found));
        }
        _ => {}
    }
}

pub fn data(settings: &Settings, findings: &mut Findings) {
    let dir = &settings.data_dir;
    let at = dir.display().to_string();
    let Ok(meta) = std::fs::metadata(dir) else {
        return findings.ok(at, "not there yet; the first start makes it");
    };
    let mode = meta.permissions().mode() & 0o7777;
    if !meta.is_dir() {
        return findings.error(at, "is not a directory; data_dir must be one");
    }
    if mode & 0o077 != 0 {
        findings.error(&at, format!("is open to others ({mode:04o}); chmod 700 {at}"));
    } else if meta.uid() != rustix::process::geteuid().as_raw() && !rustix::process::geteuid().is_root() {
        findings.error(&at, format!("belongs to user {}, and you are somebody else", meta.uid()));
    } else {
        findings.ok(&at, "yours alone");
    }
    let token = dir.join("admin.token");
    match mode_of_file(&token) {
        None => findings.ok(token.display().to_string(), "not there; the first start makes it"),
        Some(mode) if mode & 0o077 != 0 => findings.error(
            token.display().to_string(),
            format!(
                "can be read by others ({mode:04o}); chmod 600, and revoke the token if others have read it"
            ),
        ),
        Some(_) => findings.ok(token.display().to_string(), "yours alone"),
    }
}

fn mode(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|m| m.permissions().mode() & 0o7777)
}

fn mode_of_file(path: &Path) -> Option<u32> {
    path.is_file().then(|| mode(path)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_the_file_are_found_and_those_in_files_are_not() {
        let tree = serde_json::json!({
            "notify": { "telegram": { "token": "123:abc" }, "slack": { "webhook": { "file": "/run/x" } } },
            "store": { "url": "postgres://u:p@h/db" },
            "correlate": { "service_labels": ["key"] },
        });
        let mut found = Vec::new();
        collect(&tree, "", &mut found);
        assert_eq!(found, ["notify.telegram.token", "store.url"]);
    }
}
