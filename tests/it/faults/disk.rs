//! A disk without room.

use std::{fs, io::Write, path::PathBuf, time::Instant};

use super::{PATIENCE, alarms, all_have_incidents, send, send_until_taken};
use crate::{peers, service::Service};

/// Mounts a small disk of its own for the data directory, and becomes the program.
const ON_A_SMALL_DISK: &str = r#"mkdir "$0" && mount -t tmpfs -o size=12m,mode=700 tmpfs "$0" && exec "$@""#;

#[tokio::test]
async fn disk_full_is_503_and_recovers_by_itself() {
    let dir = peers::scratch("disk");
    let data = dir.join("data").display().to_string();
    let before = ["unshare", "--mount", "--map-root-user", "sh", "-c", ON_A_SMALL_DISK, &data];
    // The admin token is on that disk, too: a probe needs none on loopback.
    let mut service = Service::start_under(&dir, "", &before, &[]).await;
    service.data = PathBuf::from(format!("/proc/{}/root{data}", service.child.id()));

    let mut taken = vec!["before".to_owned()];
    send_until_taken(&service, "before").await;
    all_have_incidents(&service, &taken).await;

    let filler = service.data.join("filler");
    fill(&filler);
    // What a file has already is written over until it is used up.
    let deadline = Instant::now() + PATIENCE;
    for n in 0.. {
        let name = format!("full-{n}");
        match send(&service, &name).await {
            Some(200) => taken.push(name),
            Some(503) => break,
            other => panic!("{other:?} is neither taken nor come again\n{}", service.child.log()),
        }
        assert!(Instant::now() < deadline, "the disk is never full");
        fill(&filler);
    }
    service
        .until(PATIENCE, "/api/v1/status", "the alarm", |status| {
            alarms(status).contains(&"store_failing").then_some(())
        })
        .await;

    fs::remove_file(&filler).expect("it is there");
    send_until_taken(&service, "after").await;
    taken.push("after".into());
    all_have_incidents(&service, &taken).await;
    service
        .until(PATIENCE, "/api/v1/status", "the end of the alarm", |status| {
            (!alarms(status).contains(&"store_failing")).then_some(())
        })
        .await;
}

/// Takes all the room that is left.
fn fill(filler: &std::path::Path) {
    let mut file = fs::File::options().create(true).append(true).open(filler).expect("it can be made");
    for size in [1 << 20, 4096, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}
