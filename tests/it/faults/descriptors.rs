//! Connections that take every open file there is.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{PATIENCE, all_have_incidents, send, send_until_taken};
use crate::{peers, service::Service};

#[tokio::test]
async fn file_descriptors_exhausted_is_survived_and_alerts_come_through() {
    let dir = peers::scratch("descriptors");
    let yaml = "http: {header_timeout: 3s}\n";
    let service = Service::start_under(&dir, yaml, &["prlimit", "--nofile=96:96"], &[]).await;
    send_until_taken(&service, "before").await;
    let process = service.child.id();

    let address = service.url.trim_start_matches("http://").to_owned();
    let hold = || (0..200).filter_map(|_| TcpStream::connect(&address).ok()).collect::<Vec<_>>();
    let held = hold();
    assert!(held.len() > 96, "the system takes them, whatever the program does");
    let deadline = Instant::now() + PATIENCE;
    while open_files(process) < 90 {
        assert!(Instant::now() < deadline, "{} files are open", open_files(process));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Those who say nothing are closed in time, and make room while they still hold on to their end.
    let mut answers = Vec::new();
    while !answers.contains(&200) {
        assert!(Instant::now() < deadline, "{answers:?}\n{}", service.child.log());
        answers.extend(send(&service, "meanwhile").await);
    }
    assert!(answers.iter().all(|status| [200, 503].contains(status)), "{answers:?}");
    drop(held);

    send_until_taken(&service, "after").await;
    all_have_incidents(&service, &["before", "meanwhile", "after"].map(String::from)).await;
    assert_eq!(service.child.id(), process);
    assert!(open_files(process) < 90);
}

fn open_files(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}
