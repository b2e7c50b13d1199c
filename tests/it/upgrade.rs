//! Two versions of the program on one database: what may run beside what, and who migrates.

use std::{
    path::Path,
    process::{Command, Output},
};

use aiops::store::{MigrateWhen, Store, standing};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::peers::{self, Postgres};

async fn runs(url: &str, statement: &str) {
    let mut c = PgConnection::connect(url).await.expect("connects");
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut c).await.expect("it is valid");
}

/// What a newer program leaves: this binary is the older one to it.
async fn is_ahead(url: &str, version: i64, oldest: i64) {
    let applied = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES ({version}, 'of a newer program', TRUE, '\\x00', 0); \
         INSERT INTO schema_versions (version, oldest) VALUES ({version}, {oldest})"
    );
    runs(url, &applied).await;
}

fn nowhere() -> &'static Path {
    Path::new("/nonexistent")
}

async fn refusal(url: &str, when: MigrateWhen) -> String {
    let opened = Store::open_when(url, nowhere(), when).await;
    format!("{:#}", opened.err().expect("it is refused"))
}

#[tokio::test]
async fn an_older_program_runs_beside_a_compatible_migration_and_refuses_another() {
    let url = Postgres::database().await;
    let store = Store::open(&url, nowhere()).await.expect("opens");
    let newest = *standing(&url, nowhere()).await.expect("reads").applied.last().expect("some are applied");
    is_ahead(&url, newest + 1, newest).await;
    drop(store.write().await.expect("what runs goes on"));
    for when in [MigrateWhen::AtStart, MigrateWhen::Explicit] {
        let beside = Store::open_when(&url, nowhere(), when).await.expect("it may run beside that one");
        drop(beside.write().await.expect("it works"));
    }
    is_ahead(&url, newest + 2, newest + 2).await;
    let why = refusal(&url, MigrateWhen::AtStart).await;
    assert!(why.contains(&format!("(migration {})", newest + 2)), "{why}");
    assert!(why.contains("newer than this program can live with"), "{why}");
}

#[tokio::test]
async fn with_explicit_migration_a_start_refuses_and_says_what_to_run() {
    let (url, dir) = (Postgres::database().await, peers::scratch("upgrade"));
    let config = dir.join("aiops.yaml");
    let text = format!(
        "listen: 127.0.0.1:0\ndata_dir: {}\nstore: {{url: '{url}', migrate: explicit}}\n",
        dir.join("data").display()
    );
    std::fs::write(&config, text).expect("writable");
    let aiops = |args: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aiops"));
        command.args(args).arg("--config").arg(&config).current_dir(&dir).output().expect("it was built")
    };
    let refused = aiops(&["serve"]);
    let why = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{why}");
    assert!(why.contains("store.migrate is explicit; run `aiops migrate`"), "{why}");

    let pending = aiops(&["migrate", "--check"]);
    let said = String::from_utf8_lossy(&pending.stdout);
    assert_eq!(pending.status.code(), Some(1), "{said}");
    assert!(said.starts_with("Pending:\n  0001 init\n"), "{said}");
    let applied = aiops(&["migrate"]);
    let said = String::from_utf8_lossy(&applied.stdout);
    assert!(applied.status.success() && said.starts_with("Applied:\n  0001 init\n"), "{said}");
    let again = aiops(&["migrate", "--check"]);
    assert!(again.status.success());
    assert_eq!(String::from_utf8_lossy(&again.stdout), "The schema is up to date.\n");
    Store::open_when(&url, nowhere(), MigrateWhen::Explicit).await.expect("now it starts");

    is_ahead(&url, 9_000, 9_000).await;
    let newer = aiops(&["migrate", "--check"]);
    let why = String::from_utf8_lossy(&newer.stderr);
    assert!(!newer.status.success() && why.contains("(migration 9000)"), "{why}");
}

#[tokio::test]
async fn replicas_that_start_together_migrate_once() {
    let url = Postgres::database().await;
    let opened = join_all((0..3).map(|_| Store::open(&url, nowhere()))).await;
    for store in opened {
        drop(store.expect("each finds the schema up to date").write().await.expect("it works"));
    }
    let now = standing(&url, nowhere()).await.expect("reads");
    assert!(now.pending.is_empty() && now.too_new.is_empty());
}

#[tokio::test]
async fn an_embedded_store_is_migrated_by_the_same_rules() {
    let dir = tempfile::tempdir().expect("a directory");
    let why = format!(
        "{:#}",
        Store::open_when("", dir.path(), MigrateWhen::Explicit).await.err().expect("it is new")
    );
    assert!(why.contains("run `aiops migrate`"), "{why}");
    Store::open("", dir.path()).await.expect("migrated").close().await;
    Store::open_when("", dir.path(), MigrateWhen::Explicit).await.expect("it is up to date").close().await;
    assert!(standing("", dir.path()).await.expect("reads").pending.is_empty());
}
