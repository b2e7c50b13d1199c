//! Files that are not what was written.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{all_have_incidents, send_until_taken};
use crate::{peers, service::Service};

/// A data directory with something in it, of a service that has ended.
async fn used() -> (PathBuf, PathBuf) {
    let dir = peers::scratch("damage");
    let mut service = Service::start_in(&dir, "").await;
    for n in 0..20 {
        send_until_taken(&service, &format!("service-{n}")).await;
    }
    all_have_incidents(&service, &["service-19".to_owned()]).await;
    service.child.stop();
    (dir.join("aiops.yaml"), dir.join("data"))
}

/// What a start that fails says.
fn refusal(config: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
    let output = command.arg("serve").arg("--config").arg(config).output().expect("it can be run");
    assert!(!output.status.success(), "it has started");
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn overwrite(file: &Path, from: u64, bytes: usize) {
    let file = fs::File::options().write(true).open(file).expect("it is there");
    file.write_all_at(&vec![0x5a; bytes], from).expect("it can be written");
}

#[tokio::test]
async fn a_damaged_database_is_refused_at_the_start_with_what_to_do() {
    let (config, data) = used().await;
    let state = data.join("aiops.db");
    let whole = fs::read(&state).expect("it is there");
    for (from, bytes) in [(0, 100), (8192, whole.len() - 16384)] {
        fs::write(&state, &whole).expect("writable");
        overwrite(&state, from, bytes);
        let damaged = fs::read(&state).expect("it is there");
        let said = refusal(&config);
        for part in [
            "aiops.db is damaged",
            "restore the last backup",
            "move this file",
            "all incidents, their history",
        ] {
            assert!(said.contains(part), "{part:?} is not in {said}");
        }
        assert!(fs::read(&state).expect("it is there") == damaged, "nothing was changed");
    }
    fs::write(&state, &whole).expect("writable");
    overwrite(&data.join("inbox.db"), 0, 100);
    let said = refusal(&config);
    assert!(said.contains("inbox.db is damaged") && said.contains("only what was acknowledged"), "{said}");
}
