//! The files under deploy/ that nothing else runs.

use std::{path::PathBuf, process::Command};

/// The unit as it is, but for where the binary lies.
fn unit() -> (tempfile::TempDir, PathBuf) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/systemd/aiops.service");
    let text = std::fs::read_to_string(path).expect("readable");
    let installed = "/usr/local/bin/aiops";
    assert!(text.contains(installed));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("aiops.service");
    std::fs::write(&file, text.replace(installed, env!("CARGO_BIN_EXE_aiops"))).expect("writable");
    (dir, file)
}

fn systemd_analyze(args: &[&str], file: &PathBuf) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(args).arg(file).output();
    let output = output.expect("the Debian package systemd is installed: tests/deps.sh does it");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).expect("UTF-8"))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let (_dir, file) = unit();
    assert_eq!(systemd_analyze(&["verify", "--man=no"], &file), (true, String::new()));
}

#[test]
fn the_unit_is_locked_in() {
    let (_dir, file) = unit();
    // Exposure 1.5 of 10, given in tenths: only a part that was opened again makes it more.
    let (locked, said) =
        systemd_analyze(&["security", "--offline=true", "--no-pager", "--threshold=15"], &file);
    assert!(locked, "{said}");
    assert!(said.contains("Overall exposure level for aiops.service: "), "{said}");
}

#[test]
fn the_kubernetes_manifests_keep_to_the_schemas_and_fit_together() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kubernetes.sh");
    let output = Command::new(script).output().expect("starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("resources fit together"), "{said}");
}

/// Settings that are mounted into containers, and where their secrets are expected.
const SETTINGS: [(&str, &str); 3] = [
    ("deploy/compose/aiops.yaml", "/run/secrets/"),
    ("deploy/compose/aiops.full.yaml", "/run/secrets/"),
    ("deploy/kubernetes/aiops.yaml", "/etc/aiops/secrets/"),
];

#[test]
fn the_settings_for_containers_are_valid_with_the_secrets_that_are_made_for_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let secrets = dir.path().join("secrets");
    let made = Command::new("sh")
        .arg(root.join("deploy/compose/secrets.sh"))
        .env("AIOPS_SECRETS", &secrets)
        .status();
    assert!(made.expect("a shell").success());
    // The same things under the names that a Secret of Kubernetes has.
    for name in ["intake_token", "database_url", "redis_password"] {
        std::fs::copy(secrets.join(name), secrets.join(name.replace('_', "-"))).expect("made");
    }
    for (file, mounted) in SETTINGS {
        let text = std::fs::read_to_string(root.join(file)).expect("readable");
        assert!(text.contains(mounted), "{file}");
        let here = dir.path().join("aiops.yaml");
        std::fs::write(&here, text.replace(mounted, &format!("{}/", secrets.display()))).expect("writable");
        let output = Command::new(env!("CARGO_BIN_EXE_aiops"))
            .args(["check", "--offline", "--config"])
            .arg(&here)
            .env("AIOPS_DATA_DIR", dir.path().join("data"))
            .current_dir(root)
            .output()
            .expect("the binary was built");
        assert!(
            output.status.success(),
            "{file}: {}",
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat())
        );
    }
}
