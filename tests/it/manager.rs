//! What service managers and container engines need: to be told, and to be able to ask.

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use rustix::process::Signal;

use crate::peers::{Child, Ready, free_port, scratch};

fn aiops(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AIOPS_")) {
        command.env_remove(name);
    }
    command.args(args).env("AIOPS_DATA_DIR", dir.join("data")).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

#[tokio::test]
async fn a_service_manager_is_told_when_it_is_ready_that_it_lives_and_that_it_stops() {
    let dir = scratch("manager");
    let path = dir.join("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("a free name");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let heard = || {
        let mut buffer = [0; 256];
        let n = socket.recv(&mut buffer).expect("it says something");
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    let mut command = aiops(&dir, &["serve"]);
    let port = free_port();
    command.env("AIOPS_LISTEN", format!("127.0.0.1:{port}"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let child = Child::start(command, &dir.join("aiops.log"), Ready::Port(port)).await;
    assert_eq!(heard(), "READY=1");
    assert_eq!([heard(), heard()], ["WATCHDOG=1", "WATCHDOG=1"]);
    child.signal(Signal::TERM);
    loop {
        match heard().as_str() {
            "WATCHDOG=1" => {}
            said => return assert_eq!(said, "STOPPING=1"),
        }
    }
}

#[tokio::test]
async fn a_probe_tells_by_its_exit_status_and_finds_the_token_where_one_is_needed() {
    let dir = scratch("probe");
    let port = free_port();
    let config = dir.join("aiops.yaml");
    let settings = format!(
        "listen: 0.0.0.0:{port}\ndata_dir: {}\nintake: {{sources: {{alertmanager: {{bearer: [0123456789abcdef]}}}}}}\n",
        dir.join("data").display()
    );
    std::fs::write(&config, settings).expect("writable");
    let asked = async |with: &[(&str, &str)], args: &[&str]| {
        let mut command = aiops(&dir, args);
        command.arg("--config").arg(&config).envs(with.iter().copied());
        let output: Output = tokio::process::Command::from(command).output().await.expect("built");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(asked(&[], &["probe"]).await.0, Some(69), "nobody is there");
    let mut command = aiops(&dir, &["serve"]);
    command.arg("--config").arg(&config);
    let _child = Child::start(command, &dir.join("aiops.log"), Ready::Port(port)).await;
    assert_eq!(asked(&[], &["probe"]).await, (Some(0), "ok\n".to_owned()));
    assert_eq!(asked(&[], &["probe", "--live"]).await, (Some(0), "ok\n".to_owned()));
    assert_eq!(asked(&[("AIOPS_TOKEN", "0123456789abcdef")], &["probe"]).await.0, Some(77));
}
