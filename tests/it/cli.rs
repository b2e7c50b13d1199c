//! The command line as people and scripts meet it: the real binary, its exit statuses, its words.

mod running;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// The binary with no settings from the environment, and no data directory to find a token in.
fn aiops(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AIOPS_")) {
        command.env_remove(name);
    }
    command.args(args).current_dir(dir).stdin(Stdio::null());
    command
}

pub fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    finished(aiops(dir, args).output().expect("the binary was built"))
}

fn finished(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("it was not killed"), text(output.stdout), text(output.stderr))
}

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn help_shows_examples_and_every_exit_status() {
    let dir = empty();
    let (code, out, _) = run(dir.path(), &["--help"]);
    let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, 0);
    assert!(out.contains("aiops incident list"), "{out}");
    assert!(out.contains("Exit status: 0 done, 1 failed, 2 wrong usage, 69 server unavailable, 77 not allowed, 78 wrong settings."));
    for command in [
        "check",
        "incident list",
        "approve",
        "explain",
        "playbook run",
        "run settle",
        "run cancel",
        "token create",
        "automation stop",
    ] {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let (code, out, err) = run(dir.path(), &args);
        assert_eq!((code, err.as_str()), (0, ""), "{command}");
        assert!(out.contains("Usage: aiops "), "{out}");
    }
}

#[test]
fn completions_know_every_command() {
    let dir = empty();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(dir.path(), &["completions", shell]);
        assert_eq!(code, 0);
        assert!(out.contains("incident") && out.contains("automation"), "{shell}: {out}");
    }
}

#[test]
fn wrong_usage_is_2() {
    let dir = empty();
    let (code, _, err) = run(dir.path(), &["incident", "lst"]);
    assert_eq!(code, 2);
    assert!(err.contains("list"), "{err}");
    let (code, _, err) = run(dir.path(), &["incident", "show", "../x", "--server", "http://127.0.0.1:1"]);
    assert_eq!(code, 77, "no token comes first: {err}");
    let (code, _, err) = run(dir.path(), &["incident", "list", "--server", "127.0.0.1:8080"]);
    assert_eq!(code, 2);
    assert_eq!(
        err,
        "aiops: --server (or AIOPS_SERVER): \"127.0.0.1:8080\" is not a URL such as http://127.0.0.1:8080\n"
    );
}

#[test]
fn wrong_settings_are_78_with_file_line_and_key() {
    let dir = empty();
    std::fs::write(dir.path().join("aiops.yaml"), "correlate:\n  window: 0s\nlog:\n  filter: aiops=loud\n")
        .expect("written");
    let (code, out, err) = run(dir.path(), &["check", "--offline", "--config", "aiops.yaml"]);
    assert_eq!((code, out.as_str()), (78, ""));
    assert_eq!(
        err,
        "aiops: the settings are wrong:\n  \
         aiops.yaml:4: log.filter: \"aiops=loud\" is not a filter such as info, or aiops=debug,info\n  \
         aiops.yaml:2: correlate.window: must be longer than 0s\n"
    );
    let (code, _, err) = run(dir.path(), &["check", "--config", "nowhere.yaml"]);
    assert_eq!(code, 78);
    assert_eq!(
        err,
        "aiops: the settings are wrong:\n  nowhere.yaml: cannot be read: No such file or directory (os error 2)\n"
    );
}

#[test]
fn without_a_server_it_says_how_to_start_one() {
    let dir = empty();
    let mut command = aiops(dir.path(), &["incident", "list", "--server", "http://127.0.0.1:1"]);
    let (code, out, err) = finished(command.env("AIOPS_TOKEN", "x").output().expect("the binary was built"));
    assert_eq!((code, out.as_str()), (69, ""));
    assert_eq!(
        err,
        "aiops: no server at http://127.0.0.1:1: Connection refused (os error 111)\n  \
         Start it with `aiops serve`, or name another one with --server or AIOPS_SERVER.\n"
    );
}

#[test]
fn without_a_token_it_says_where_it_was_looked_for() {
    let dir = empty();
    let (code, _, err) = run(dir.path(), &["incident", "list", "--server", "http://127.0.0.1:1"]);
    assert_eq!(code, 77);
    assert!(err.starts_with("aiops: no token: data/admin.token cannot be read: No such file"), "{err}");
}

#[test]
fn check_finds_open_doors_on_disk() {
    use std::os::unix::fs::PermissionsExt;
    let dir = empty();
    let set = |name: &str, mode: u32| {
        std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).expect("set");
    };
    std::fs::create_dir_all(dir.path().join("data")).expect("made");
    std::fs::write(dir.path().join("data/admin.token"), "x").expect("written");
    std::fs::write(dir.path().join("aiops.yaml"), "prometheus:\n  auth: {bearer: 0123456789abcdef}\n")
        .expect("written");
    for (name, mode) in [("data", 0o755), ("data/admin.token", 0o644), ("aiops.yaml", 0o644)] {
        set(name, mode);
    }
    let (code, out, _) = run(dir.path(), &["check", "--offline", "--config", "aiops.yaml"]);
    assert_eq!(code, 1, "{out}");
    for expected in [
        "holds secrets (prometheus.auth.bearer) and can be read by others (0644); chmod 600, or put them into files: {file: PATH}",
        "is open to others (0755); chmod 700 data",
        "can be read by others (0644); chmod 600, and revoke the token if others have read it",
        "3 wrong",
    ] {
        assert!(out.contains(expected), "{expected} is missing in\n{out}");
    }
    for (name, mode) in [("data", 0o700), ("data/admin.token", 0o600), ("aiops.yaml", 0o600)] {
        set(name, mode);
    }
    let (code, out, _) = run(dir.path(), &["check", "--offline", "--config", "aiops.yaml", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &found["errors"]), (0, &serde_json::json!(0)), "{out}");
}

#[test]
fn lint_names_file_line_and_what_would_be_right() {
    let dir = empty();
    std::fs::write(
        dir.path().join("bad.yaml"),
        "id: Bad Id\ntitle: x\ndescription: x\nmatch: []\ntarget: t\nsteps: []\n",
    )
    .expect("written");
    let (code, out, _) = run(dir.path(), &["playbook", "lint", "bad.yaml"]);
    assert_eq!(code, 1);
    assert!(out.starts_with("bad.yaml:1:"), "{out}");
    let repository = concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks");
    let (code, out, _) = run(dir.path(), &["playbook", "lint", repository]);
    assert_eq!(code, 0, "{out}");
}

/// Every setting stands in `config/aiops.yaml`, with its default.
#[test]
fn the_reference_names_every_setting_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/aiops.yaml");
    let text = std::fs::read_to_string(path).expect("the reference");
    let written: serde_json::Value =
        serde_yaml::from_str_with_options(&text, aiops::config::yaml_options()).expect("YAML");
    let loaded = aiops::config::load(Some(Path::new(path)), []).expect("valid settings").settings;
    let (loaded, default) = (json(&loaded), json(&aiops::config::Settings::default()));
    let mut wrong = Vec::new();
    compare("", &default, &loaded, Some(&written), &mut wrong);
    assert!(wrong.is_empty(), "config/aiops.yaml:\n{}", wrong.join("\n"));
}

fn json(settings: &aiops::config::Settings) -> serde_json::Value {
    serde_json::to_value(settings).expect("settings serialise")
}

fn compare(
    at: &str,
    default: &serde_json::Value,
    loaded: &serde_json::Value,
    written: Option<&serde_json::Value>,
    wrong: &mut Vec<String>,
) {
    match (default.as_object(), written) {
        (_, None) => wrong.push(format!("{at} is missing; its default is {default}")),
        (Some(map), Some(written)) if !map.is_empty() => {
            for (key, value) in map {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                compare(&at, value, &loaded[key], written.get(key), wrong);
            }
        }
        _ if loaded != default => wrong.push(format!("{at} is {loaded}; its default is {default}")),
        _ => {}
    }
}
