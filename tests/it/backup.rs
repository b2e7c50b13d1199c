//! Backups of a store that is being written to, and what comes back from them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use aiops::{
    model::Actor,
    store::{
        Store, audit, backup,
        inbox::{self, Delivery, Prepared},
    },
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

use crate::{
    peers::{self, scratch},
    service::Service,
};

/// Runs `aiops ARGS` with the data directory `data`, and no settings but those of `env`.
async fn aiops(data: &Path, env: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AIOPS_")) {
        command.env_remove(name);
    }
    command.args(args).env("AIOPS_DATA_DIR", data).envs(env.iter().copied());
    tokio::process::Command::from(command).output().await.expect("the binary was built")
}

/// What it printed, of a run that must succeed.
async fn done(data: &Path, args: &[&str]) -> String {
    succeeded(aiops(data, &[], args).await)
}

fn succeeded(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What it complained about, of a run that must fail.
async fn refused(data: &Path, args: &[&str]) -> String {
    failed(aiops(data, &[], args).await)
}

fn failed(output: Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn alert(n: usize) -> Value {
    json!([{
        "labels": { "alertname": "Down", "service": format!("svc-{n}"), "severity": "critical" },
        "annotations": { "summary": format!("svc-{n} does not answer") },
    }])
}

/// Sends alerts, the first of them `from`, until told to stop; those that were acknowledged.
async fn send(service: &Service, from: usize, acknowledged: &Mutex<BTreeSet<usize>>, stop: &AtomicBool) {
    let mut n = from;
    while !stop.load(Ordering::Relaxed) {
        if service.try_post("/api/v2/alerts", &alert(n)).await == Some(200) {
            acknowledged.lock().expect("no panic before").insert(n);
        }
        n += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All items of a list, page by page.
async fn all(service: &Service, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut next = String::new();
    loop {
        let page = service.get(&format!("{path}?limit=1000{next}")).await;
        items.extend(page["items"].as_array().expect("a list").iter().cloned());
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => return items,
        }
    }
}

/// Service → incident, of all alerts.
async fn incidents(service: &Service) -> Vec<(String, String)> {
    let known = all(service, "/api/v1/alerts").await;
    let word = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let pairs = known.iter().map(|a| (word(&a["labels"]["service"]), word(&a["incident_id"])));
    pairs.filter(|(_, incident)| !incident.is_empty()).collect()
}

/// Waits until all of these have an incident.
async fn have_incidents(service: &Service, wanted: &BTreeSet<usize>) {
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    loop {
        let there: BTreeSet<String> = incidents(service).await.into_iter().map(|(name, _)| name).collect();
        let missing: Vec<_> = wanted.iter().filter(|n| !there.contains(&format!("svc-{n}"))).collect();
        if missing.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "no incident for {missing:?}\n{}", service.child.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The drill of docs/operations.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_an_online_backup_is_there_after_a_kill_and_a_restore() {
    let dir = scratch("backup");
    let mut service = Service::start_in(&dir, "notify: {stdout: {when: never}}\n").await;
    let data = dir.join("data");
    let archive = dir.join("backup.tar.gz");
    let acknowledged = Mutex::new(BTreeSet::new());
    let stop = AtomicBool::new(false);
    let known = || acknowledged.lock().expect("no panic before").clone();

    let ((before, first), ()) = tokio::join!(
        async {
            while known().len() < 30 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            service.post("/api/v1/automation/stop", &json!({ "reason": "a drill" })).await;
            have_incidents(&service, &known()).await;
            let (incidents, before) = (incidents(&service).await, known());
            let said = done(&data, &["backup", text(&archive)]).await;
            assert!(said.contains("the audit trail is whole"), "{said}");
            let after = known().len();
            while known().len() < after + 10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stop.store(true, Ordering::Relaxed);
            (before, incidents)
        },
        send(&service, 0, &acknowledged, &stop)
    );
    service.child.kill();
    assert!(known().len() > before.len(), "alerts came after the backup, too");
    let said = done(&data, &["backup", "verify", text(&archive)]).await;
    assert!(said.contains("is whole, made ") && said.contains("sqlite"), "{said}");

    let new = scratch("restored");
    let said = done(&new.join("data"), &["restore", text(&archive)]).await;
    assert!(said.contains("the audit trail is whole"), "{said}");
    assert!(said.contains("a new admin token is in"), "{said}");
    let service = Service::start_in(&new, "notify: {stdout: {when: never}}\n").await;
    have_incidents(&service, &before).await;
    let there: BTreeSet<_> = incidents(&service).await.into_iter().collect();
    let lost: Vec<_> = first.iter().filter(|pair| !there.contains(*pair)).collect();
    assert!(lost.is_empty(), "these incidents of before the backup are gone: {lost:?}");
    let trail = all(&service, "/api/v1/audit").await;
    assert!(trail.iter().any(|e| e["action"] == "automation.stop"), "{trail:#?}");
    let newest = 1_000_000;
    assert_eq!(service.try_post("/api/v2/alerts", &alert(newest)).await, Some(200));
    have_incidents(&service, &BTreeSet::from([newest])).await;
}

/// Rows are applied and trimmed while the two files are copied one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_acknowledged_before_a_snapshot_is_in_its_inbox_or_applied_in_its_state() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open("", dir.path()).await.expect("opened");
    let acknowledged = AtomicI64::new(0);
    let stop = AtomicBool::new(false);
    // These share a row.
    let group: Vec<Prepared> = (0..512).map(|_| Prepared::new(&Delivery::Alerts(Vec::new()))).collect();
    let sender = async {
        while !stop.load(Ordering::Relaxed) {
            inbox::append(&store, &group).await.expect("appended");
            acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    };
    let applier = async {
        while !stop.load(Ordering::Relaxed) {
            match inbox::take(&store, 10_000).await.expect("taken") {
                Some((tx, _)) => tx.commit().await.expect("committed"),
                None => tokio::task::yield_now().await,
            }
        }
    };
    let checker = async {
        let mut trimmed_to = 0;
        for _ in 0..20 {
            let before = acknowledged.load(Ordering::SeqCst);
            let copies = tempfile::tempdir().expect("a temporary directory");
            backup::snapshot(dir.path(), copies.path()).await.expect("copied");
            let (first, applied, kept) = read(copies.path(), before).await;
            assert_eq!(
                kept,
                (before - applied).max(0),
                "acknowledged {before}, applied {applied}, kept {kept}"
            );
            trimmed_to = first.max(trimmed_to);
            // Not faster than rows come in.
            while acknowledged.load(Ordering::SeqCst) < before + 60 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
        trimmed_to
    };
    let ((), (), trimmed_to) = tokio::join!(sender, applier, checker);
    assert!(trimmed_to > 1, "rows were trimmed between the snapshots");
    store.close().await;
}

/// Of copies: the first row of the inbox, the last applied one, and how many up to `before` wait.
async fn read(dir: &Path, before: i64) -> (i64, i64, i64) {
    let open = async |name: &str| {
        SqliteConnectOptions::new().filename(dir.join(name)).read_only(true).connect().await
    };
    let mut state = open("aiops.db").await.expect("opened");
    let applied: i64 =
        sqlx::query_scalar("SELECT id FROM inbox_applied").fetch_one(&mut state).await.expect("marked");
    let mut inbox = open("inbox.db").await.expect("opened");
    let (first, kept): (i64, i64) = sqlx::query_as(
        "SELECT COALESCE(MIN(id), 1), COUNT(*) FILTER (WHERE id > $1 AND id <= $2) FROM inbox",
    )
    .bind(applied)
    .bind(before)
    .fetch_one(&mut inbox)
    .await
    .expect("read");
    (first, applied, kept)
}

/// A data directory with a few audit rows, and a backup of it.
async fn kept() -> (PathBuf, PathBuf, PathBuf) {
    let dir = scratch("backup");
    let data = dir.join("data");
    std::fs::create_dir(&data).expect("writable");
    let store = Store::open("", &data).await.expect("opened");
    fill(&store).await;
    store.close().await;
    let archive = dir.join("backup.tar.gz");
    done(&data, &["backup", text(&archive)]).await;
    (dir, data, archive)
}

async fn fill(store: &Store) {
    let mut tx = store.write().await.expect("writable");
    for n in 0..50 {
        let detail = json!({ "n": n, "why": "x".repeat(200) });
        audit::add(&mut tx, &Actor::token("ann"), "approve", "approval:1", &detail).await.expect("added");
    }
    tx.commit().await.expect("committed");
}

#[tokio::test]
async fn an_archive_that_is_not_whole_is_refused_and_nothing_is_restored() {
    let (dir, _, archive) = kept().await;
    let whole = std::fs::read(&archive).expect("a backup");
    let data = dir.join("new");
    let check = async |bytes: &[u8], words: &str| {
        let broken = dir.join("broken.tar.gz");
        std::fs::write(&broken, bytes).expect("writable");
        for args in [["backup", "verify", text(&broken)].as_slice(), &["restore", text(&broken)]] {
            let said = refused(&data, args).await;
            assert!(
                said.contains("broken.tar.gz is no whole backup: ") && said.contains(words),
                "{words}: {said}"
            );
        }
        let left: Vec<_> =
            std::fs::read_dir(&data).expect("made").map(|e| e.expect("read").file_name()).collect();
        assert_eq!(left, ["aiops.lock"]);
    };
    check(&[], "").await;
    check(b"not an archive at all", "does not begin as an archive does").await;
    for part in [100, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
        check(&whole[..part], "").await;
    }
    // One bit at many places: whatever it hits, something notices. A few bits mean nothing to who unpacks it.
    let mut noticed = 0;
    for at in (20..whole.len()).step_by(whole.len() / 40) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        if unzipped(&changed) != unzipped(&whole) {
            check(&changed, "").await;
            noticed += 1;
        }
    }
    assert!(noticed > 30, "{noticed}");
}

/// All that can be unpacked, and whether it came to its proper end.
fn unzipped(archive: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let whole = std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(archive), &mut out).is_ok();
    (out, whole)
}

#[tokio::test]
async fn a_store_in_use_or_already_there_is_not_overwritten() {
    let (dir, data, archive) = kept().await;
    let said = refused(&data, &["restore", text(&archive)]).await;
    assert!(said.contains("holds a store already (inbox.db") && said.contains("--force"), "{said}");
    let said = refused(&data, &["backup", text(&archive)]).await;
    assert!(said.contains("is there already; name another file"), "{said}");
    let said = refused(&dir.join("nothing"), &["backup", text(&dir.join("b.tar.gz"))]).await;
    assert!(said.contains("is not there: data_dir must name the directory of `aiops serve`"), "{said}");

    let said = done(&data, &["restore", "--force", text(&archive)]).await;
    assert!(said.contains("the old store is in"), "{said}");
    let mut there = std::fs::read_dir(&data).expect("there").map(|e| e.expect("read").path());
    let aside = there.find(|p| text(p).contains("replaced-")).expect("moved aside");
    assert!(aside.join("aiops.db").is_file() && aside.join("inbox.db").is_file());

    let service = Service::start_in(&scratch("running"), "").await;
    let said = refused(&service.dir.join("data"), &["restore", "--force", text(&archive)]).await;
    assert!(said.contains("is in use by another aiops"), "{said}");
}

#[tokio::test]
async fn a_directory_gets_a_file_named_by_the_time_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, data, _) = kept().await;
    let shelf = dir.join("shelf");
    std::fs::create_dir(&shelf).expect("writable");
    let said = done(&data, &["backup", "--json", text(&shelf)]).await;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["manifest"]["contents"]["rows"]["audit"], 50);
    let files: Vec<_> = std::fs::read_dir(&shelf).expect("there").map(|e| e.expect("read").path()).collect();
    assert_eq!(files, [PathBuf::from(said["file"].as_str().expect("a path"))], "nothing else is left");
    assert_eq!(std::fs::metadata(&files[0]).expect("there").permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_broken_audit_chain_is_backed_up_and_said() {
    let (dir, data, _) = kept().await;
    let store = Store::open("", &data).await.expect("opened");
    let mut tx = store.write().await.expect("writable");
    aiops::store::testing::execute(&mut tx, "UPDATE audit SET action = 'reject' WHERE seq = 7").await;
    tx.commit().await.expect("committed");
    store.close().await;
    let archive = dir.join("tampered.tar.gz");
    let said = refused(&data, &["backup", text(&archive)]).await;
    assert!(
        said.contains("the backup is made, but of this store the audit trail was changed at or before row 7"),
        "{said}"
    );
    let said = done(&data, &["backup", "verify", text(&archive)]).await;
    assert!(said.contains("the audit trail was changed at or before row 7"), "{said}");
}

#[tokio::test]
async fn postgresql_is_dumped_and_restored_into_an_empty_database() {
    let dir = scratch("backup");
    let (data, archive) = (dir.join("data"), dir.join("backup.tar.gz"));
    let (full, empty) = (peers::Postgres::database().await, peers::Postgres::database().await);
    let store = Store::open(&full, &data).await.expect("opened");
    fill(&store).await;
    inbox::append(&store, &[Prepared::new(&Delivery::Alerts(Vec::new()))]).await.expect("appended");
    store.close().await;
    let at = |url: &str, args: &[&str]| {
        let (url, args, data) =
            (url.to_owned(), args.iter().map(|a| a.to_string()).collect::<Vec<_>>(), data.clone());
        async move {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            aiops(&data, &[("AIOPS_STORE_URL", &url)], &args).await
        }
    };
    succeeded(at(&full, &["backup", text(&archive)]).await);
    let said = done(&data, &["backup", "verify", text(&archive)]).await;
    assert!(said.contains("postgresql") && said.contains("alerts that wait to take effect: 1"), "{said}");
    let said = failed(at(&full, &["restore", text(&archive)]).await);
    assert!(said.contains("tables already; make an empty one"), "{said}");
    let said = refused(&data, &["restore", text(&archive)]).await;
    assert!(said.contains("is a backup of PostgreSQL"), "{said}");

    succeeded(at(&empty, &["restore", text(&archive)]).await);
    let store = Store::open(&empty, &data).await.expect("opened");
    let rows = audit::verify(&mut store.read().await.expect("readable")).await.expect("whole");
    assert_eq!(rows, 50);
    let (_, waiting) = inbox::take(&store, 10).await.expect("taken").expect("it waits");
    assert_eq!(waiting.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn without_pg_dump_the_refusal_is_the_command_to_run() {
    let dir = scratch("backup");
    let url = peers::Postgres::database().await;
    Store::open(&url, &dir).await.expect("opened").close().await;
    let archive = dir.join("backup.tar.gz");
    let env = [("AIOPS_STORE_URL", url.as_str()), ("PATH", "/nonexistent")];
    let said = failed(aiops(&dir, &env, &["backup", text(&archive)]).await);
    assert!(said.contains("`pg_dump` is not installed here (Debian package postgresql-client)"), "{said}");
    assert!(said.contains("pg_dump --format=custom"), "{said}");
    assert!(!archive.exists());
}
