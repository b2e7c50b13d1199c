//! Reads the settings: defaults < file < environment, and says exactly where something is wrong.

use std::{collections::BTreeMap, fmt, path::Path};

use serde_json::Value;

use super::{Check, Problem, Secret, Settings};

/// Environment variables that are not settings: they choose the file, or belong to the command line and the tests.
const NOT_SETTINGS: [&str; 5] =
    ["AIOPS_CONFIG", "AIOPS_SERVER", "AIOPS_TOKEN", "AIOPS_TOKEN_FILE", "AIOPS_REAL_CACHE"];

/// Variables that Kubernetes sets in every pod beside a Service that is called aiops; they say
/// nothing about us.
fn from_kubernetes(name: &str) -> bool {
    let rest = name.strip_prefix("AIOPS_").unwrap_or("");
    rest == "PORT" || ["PORT_", "SERVICE_HOST", "SERVICE_PORT"].iter().any(|start| rest.starts_with(start))
}

/// Settings with the names of what they came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    /// The file, if one was read.
    pub file: Option<std::path::PathBuf>,
    /// The environment variables that were applied.
    pub env: Vec<String>,
}

/// Everything that is wrong, each with its place. Exit status 78 (`EX_CONFIG`).
#[derive(Debug)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}
impl std::error::Error for ConfigError {}

/// Loads and checks. `env` is usually [`std::env::vars`].
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    load_and_check(file, env, |_, _| true)
}

/// Like [`load`], for whoever reaches nobody: secrets that are in files are not read, and need not be there.
pub fn load_without_secrets(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    Secret::unread(|| load_and_check(file, env, |tree, problem| !is_in_a_file(tree, &problem.key)))
}

/// Whether the setting names the file of a secret.
fn is_in_a_file(tree: &Value, key: &str) -> bool {
    key.split('.').try_fold(tree, |at, part| at.get(part)).is_some_and(|value| value.get("file").is_some())
}

fn load_and_check(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    counts: impl Fn(&Value, &Problem) -> bool,
) -> Result<Loaded, ConfigError> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| ConfigError(vec![format!("{}: cannot be read: {e}", path.display())]))?,
        None => String::new(),
    };
    let name = file.map_or_else(String::new, |p| p.display().to_string());
    let mut tree =
        if text.trim().is_empty() { Value::Object(Default::default()) } else { parse(&name, &text)? };
    let applied = overlay_environment(&mut tree, env)?;
    let settings: Settings =
        serde_json::from_value(tree.clone()).map_err(|e| ConfigError(vec![e.to_string()]))?;
    let mut problems = Vec::new();
    settings.check("", &mut problems);
    problems.retain(|problem| counts(&tree, problem));
    if problems.is_empty() {
        let env = applied.into_values().collect();
        return Ok(Loaded { settings, file: file.map(Path::to_owned), env });
    }
    Err(ConfigError(problems.iter().map(|p| place(p, &name, &text, &applied)).collect()))
}

/// Types the file on its own first: only then is the line known.
fn parse(name: &str, text: &str) -> Result<Value, ConfigError> {
    let options = crate::config::yaml_options();
    let typed = serde_yaml::from_str_with_options::<Settings>(text, options.clone());
    let tree = typed.and_then(|_| serde_yaml::from_str_with_options::<Value>(text, options));
    tree.map_err(|e| {
        let ((line, column), message) = super::yaml_error(&e);
        let key = key_at(text, line as usize);
        ConfigError(vec![format!("{name}:{line}:{column}: {key}{message}")])
    })
}

/// Applies `AIOPS_…` variables; returns which key came from which variable.
fn overlay_environment(
    tree: &mut Value,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let defaults = serde_json::to_value(Settings::default()).expect("settings serialise to JSON");
    let mut leaves = BTreeMap::new();
    collect_leaves(&defaults, &mut Vec::new(), &mut leaves);
    let mut applied = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, text) in env {
        if !name.starts_with("AIOPS_") || NOT_SETTINGS.contains(&name.as_str()) || from_kubernetes(&name) {
            continue;
        }
        let (path, value) = match (leaves.get(&name), name.strip_suffix("_FILE").and_then(|n| leaves.get(n)))
        {
            (Some((path, default)), _) => (path, typed(default, &text)),
            (None, Some((path, Value::String(_)))) => (path, serde_json::json!({ "file": text })),
            _ => {
                problems.push(format!("environment: {name} is not a setting; {}", nearest(&name, &leaves)));
                continue;
            }
        };
        let mut next = tree.clone();
        set(&mut next, path, value);
        match serde_json::from_value::<Settings>(next.clone()) {
            Ok(_) => *tree = next,
            Err(e) => problems.push(format!("environment: {name} ({}): {e}", path.join("."))),
        }
        applied.insert(path.join("."), name);
    }
    if problems.is_empty() { Ok(applied) } else { Err(ConfigError(problems)) }
}

/// Environment name → path and default of every setting that is not a section.
fn collect_leaves(value: &Value, path: &mut Vec<String>, out: &mut BTreeMap<String, (Vec<String>, Value)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, inner) in map {
                path.push(key.clone());
                collect_leaves(inner, path, out);
                path.pop();
            }
        }
        leaf => {
            let name = format!("AIOPS_{}", path.join("_").to_uppercase());
            out.insert(name, (path.clone(), leaf.clone()));
        }
    }
}

/// Reads a variable's text as what the default is: a list also as comma-separated words.
fn typed(default: &Value, text: &str) -> Value {
    let json = || serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    match default {
        Value::String(_) => Value::String(text.to_owned()),
        Value::Array(_) if !text.trim_start().starts_with('[') => text
            .split(',')
            .map(str::trim)
            .filter(|w| !w.is_empty())
            .map(|w| w.parse::<i64>().map_or_else(|_| w.into(), Value::from))
            .collect(),
        _ => json(),
    }
}

fn set(tree: &mut Value, path: &[String], value: Value) {
    let (last, sections) = path.split_last().expect("every setting has a name");
    let mut at = tree;
    for section in sections {
        if !at.is_object() {
            *at = Value::Object(Default::default());
        }
        at = at.as_object_mut().expect("made an object above").entry(section.clone()).or_insert(Value::Null);
    }
    if !at.is_object() {
        *at = Value::Object(Default::default());
    }
    at.as_object_mut().expect("made an object above").insert(last.clone(), value);
}

/// Suggests the setting that shares the longest beginning.
fn nearest(name: &str, leaves: &BTreeMap<String, (Vec<String>, Value)>) -> String {
    let shared = |other: &str| name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let best = leaves.keys().max_by_key(|k| (shared(k), std::cmp::Reverse(k.len())));
    best.map_or_else(String::new, |b| format!("did you mean {b}?"))
}

fn place(problem: &Problem, file: &str, text: &str, applied: &BTreeMap<String, String>) -> String {
    let Problem { key, message } = problem;
    match (variable_of(applied, key), line_of(text, key)) {
        (Some(name), _) => format!("environment: {name} ({key}): {message}"),
        (None, Some(line)) => format!("{file}:{line}: {key}: {message}"),
        (None, None) if file.is_empty() => format!("settings: {key}: {message}"),
        (None, None) => format!("{file}: {key}: {message}"),
    }
}

/// The variable that gave a key, or the map or list that it is in: a variable gives those as a whole.
fn variable_of<'a>(applied: &'a BTreeMap<String, String>, key: &str) -> Option<&'a String> {
    let ends = key.char_indices().filter(|(_, c)| matches!(c, '.' | '[')).map(|(at, _)| at);
    ends.chain([key.len()]).filter_map(|end| applied.get(&key[..end])).next_back()
}

/// The line (from 1) on which a dotted key stands, or the deepest of its sections that is there.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let wanted: Vec<&str> = key.split(['.', '[']).filter(|k| !k.ends_with(']')).collect();
    let mut depth = 0;
    let mut indents = vec![];
    let mut found = None;
    for (i, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if indents.last().is_some_and(|last| indent <= *last) && depth > 0 {
            break;
        }
        if let Some((word, _)) = trimmed.split_once(':')
            && wanted.get(depth) == Some(&word.trim_matches(['"', '\'']))
        {
            found = Some(i + 1);
            indents.push(indent);
            depth += 1;
            if depth == wanted.len() {
                break;
            }
        }
    }
    found
}

/// The key that a line of YAML begins with, as `key: `.
fn key_at(text: &str, line: usize) -> String {
    let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
    match line.trim_start_matches("- ").split_once(':') {
        Some((key, _)) if !key.is_empty() && !key.starts_with('#') => format!("{}: ", key.trim()),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(yaml: &str, env: &[(&str, &str)]) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("aiops.yaml");
        std::fs::write(&path, yaml).expect("written");
        let env: Vec<_> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load(Some(&path), env).map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
    }

    #[test]
    fn environment_wins_over_file_and_file_over_default() {
        let l = from(
            "listen: 127.0.0.1:1\ncorrelate:\n  window: 1m\n",
            &[("AIOPS_LISTEN", "127.0.0.1:0"), ("AIOPS_CORRELATE_SERVICE_LABELS", "svc, app")],
        )
        .expect("valid");
        assert_eq!(l.settings.listen, "127.0.0.1:0");
        assert_eq!(l.settings.correlate.window.as_secs(), 60);
        assert_eq!(l.settings.correlate.service_labels, ["svc", "app"]);
        assert_eq!(l.settings.data_dir.to_str(), Some("data"));
    }

    #[test]
    fn an_unknown_key_names_file_line_and_what_is_expected() {
        let e = from("listen: 127.0.0.1:1\ncorrelate:\n  windou: 1m\n", &[]).unwrap_err();
        assert!(e.starts_with("aiops.yaml:3:3: windou: unknown field `windou`, expected one of"), "{e}");
        assert!(e.contains("window"), "{e}");
    }

    #[test]
    fn a_bad_value_names_file_line_and_key() {
        let e = from("correlate:\n  flap_count: many\n", &[]).unwrap_err();
        assert!(e.starts_with("aiops.yaml:2:"), "{e}");
        assert!(e.contains("flap_count"), "{e}");
        let e = from("correlate:\n  window: 0s\n", &[]).unwrap_err();
        assert_eq!(e, "aiops.yaml:2: correlate.window: must be longer than 0s");
    }

    #[test]
    fn an_unknown_or_bad_variable_is_named() {
        let e = from("", &[("AIOPS_LISTEM", "x")]).unwrap_err();
        assert_eq!(e, "environment: AIOPS_LISTEM is not a setting; did you mean AIOPS_LISTEN?");
        let e = from("", &[("AIOPS_CORRELATE_FLAP_COUNT", "many")]).unwrap_err();
        assert!(e.starts_with("environment: AIOPS_CORRELATE_FLAP_COUNT (correlate.flap_count): "), "{e}");
    }

    #[test]
    fn a_problem_within_a_map_or_list_names_the_variable_that_gave_it() {
        let queries = r#"{"errors": "rate(http_errors_total[5m])"}"#;
        let e = from("", &[("AIOPS_DIAGNOSE_PROMETHEUS_QUERIES", queries)]).unwrap_err();
        let place = "environment: AIOPS_DIAGNOSE_PROMETHEUS_QUERIES (diagnose.prometheus.queries.errors): must contain";
        assert!(e.starts_with(place), "{e}");
        let e = from("alertmanager:\n  urls: []\n", &[("AIOPS_ALERTMANAGER_URLS", "http://ok, nonsense")])
            .unwrap_err();
        assert!(e.starts_with("environment: AIOPS_ALERTMANAGER_URLS (alertmanager.urls[1]): "), "{e}");
        let e = from("", &[("AIOPS_DIAGNOSE_MASK", "fine, (")]).unwrap_err();
        assert!(e.starts_with("environment: AIOPS_DIAGNOSE_MASK (diagnose.mask[1]): "), "{e}");
    }

    #[test]
    fn what_kubernetes_says_of_a_service_called_aiops_is_no_setting() {
        let service = [
            ("AIOPS_SERVICE_HOST", "10.0.0.1"),
            ("AIOPS_SERVICE_PORT", "8080"),
            ("AIOPS_SERVICE_PORT_HTTP", "8080"),
            ("AIOPS_PORT", "tcp://10.0.0.1:8080"),
            ("AIOPS_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ];
        let loaded = from("", &service).expect("valid");
        assert_eq!(loaded.env, [] as [String; 0]);
        let settings = serde_json::to_value(Settings::default()).expect("settings serialise");
        let mut leaves = BTreeMap::new();
        collect_leaves(&settings, &mut Vec::new(), &mut leaves);
        let hidden: Vec<_> = leaves.keys().filter(|name| from_kubernetes(name)).collect();
        assert_eq!(hidden, [] as [&String; 0], "no setting may have such a name");
    }

    #[test]
    fn a_secret_comes_from_a_file_too_and_is_never_printed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("url");
        std::fs::write(&path, "postgres://u:hunter2@h/db\n").expect("written");
        let l = from("", &[("AIOPS_STORE_URL_FILE", path.to_str().expect("UTF-8"))]).expect("valid");
        assert_eq!(l.settings.store.url.expose(), "postgres://u:hunter2@h/db");
        assert!(!format!("{:?}", l.settings).contains("hunter2"));
        let yaml = format!("store:\n  url: {{file: {}}}\n", path.display());
        assert_eq!(from(&yaml, &[]).expect("valid").settings.store.url.expose(), "postgres://u:hunter2@h/db");
        let e = from("store:\n  url: {file: /nowhere}\n", &[]).unwrap_err();
        assert!(e.contains("/nowhere"), "{e}");
    }
}
