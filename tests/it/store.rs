//! The store's promises, on both engines.

use std::time::{Duration, Instant};

use aiops::{
    clock, config,
    model::{Actor, JobKind, NewJob, Role},
    store::{Error, Store, audit, flags, inbox, jobs, leases, retention, tokens},
};

use sqlx::Connection;

use crate::{peers, stores::on_both_stores};

const LEASE: Duration = Duration::from_secs(30);

fn job(subject: &str) -> NewJob {
    NewJob { kind: JobKind::Diagnose, subject: subject.into(), run_at: clock::now() }
}

on_both_stores! {
    async fn a_job_is_claimed_by_one_owner_and_done_once(store: Store) {
        let mut tx = store.write().await.expect("begins");
        jobs::enqueue(&mut tx, &job("a")).await.expect("enqueued");
        jobs::enqueue(&mut tx, &job("a")).await.expect("the same job");
        tx.commit().await.expect("commits");

        let mut tx = store.write().await.expect("begins");
        let mut first = jobs::claim(&mut tx, "one", clock::now(), LEASE, 10).await.expect("claims");
        let second = jobs::claim(&mut tx, "two", clock::now(), LEASE, 10).await.expect("claims");
        tx.commit().await.expect("commits");
        assert_eq!((first.len(), second.len()), (1, 0));

        let mut tx = store.write().await.expect("begins");
        jobs::finish(&mut tx, first.remove(0)).await.expect("ours");
        tx.commit().await.expect("commits");
        let mut tx = store.read().await.expect("begins");
        assert_eq!(jobs::backlog(&mut tx, clock::now()).await.expect("reads").0, 0);
    }

    async fn a_late_owner_cannot_finish_what_another_took_over(store: Store) {
        let mut tx = store.write().await.expect("begins");
        jobs::enqueue(&mut tx, &job("a")).await.expect("enqueued");
        let late = jobs::claim(&mut tx, "late", clock::now(), LEASE, 1).await.expect("claims").remove(0);
        assert!(jobs::claim(&mut tx, "other", clock::now(), LEASE, 1).await.expect("claims").is_empty());
        aiops::store::testing::end_leases(&mut tx).await;
        let taken = jobs::claim(&mut tx, "other", clock::now(), LEASE, 1).await.expect("claims").remove(0);
        assert_eq!(taken.attempt, 2);
        assert!(matches!(jobs::hold(&mut tx, &late, LEASE).await, Err(Error::LeaseLost)));
        assert!(matches!(jobs::finish(&mut tx, late).await, Err(Error::LeaseLost)));
        jobs::finish(&mut tx, taken).await.expect("the new owner's");
    }

    async fn a_job_enqueued_while_it_is_done_is_done_again(store: Store) {
        let mut tx = store.write().await.expect("begins");
        jobs::enqueue(&mut tx, &job("a")).await.expect("enqueued");
        let claimed = jobs::claim(&mut tx, "one", clock::now(), LEASE, 1).await.expect("claims").remove(0);
        jobs::enqueue(&mut tx, &job("a")).await.expect("news meanwhile");
        jobs::finish(&mut tx, claimed).await.expect("ours");
        let again = jobs::claim(&mut tx, "one", clock::now(), LEASE, 1).await.expect("claims");
        assert_eq!(again.len(), 1, "the news is not lost");
    }

    async fn a_failed_job_comes_back_when_it_said(store: Store) {
        let mut tx = store.write().await.expect("begins");
        jobs::enqueue(&mut tx, &job("a")).await.expect("enqueued");
        let claimed = jobs::claim(&mut tx, "one", clock::now(), LEASE, 1).await.expect("claims").remove(0);
        let later = clock::after(clock::now(), Duration::from_secs(60));
        jobs::retry(&mut tx, claimed, "no answer", later).await.expect("ours");
        assert!(jobs::claim(&mut tx, "one", clock::now(), LEASE, 1).await.expect("claims").is_empty());
        assert_eq!(jobs::claim(&mut tx, "one", later, LEASE, 1).await.expect("claims")[0].attempt, 2);
    }

    async fn what_is_not_committed_is_not_there(store: Store) {
        let mut tx = store.write().await.expect("begins");
        flags::set(&mut tx, "k", &serde_json::json!(1)).await.expect("set");
        drop(tx);
        let mut tx = store.read().await.expect("begins");
        assert_eq!(flags::get(&mut tx, "k").await.expect("reads"), None);
    }

    async fn a_lease_has_one_owner_until_it_ends_or_is_given_back(store: Store) {
        let mut tx = store.write().await.expect("begins");
        let first = leases::acquire(&mut tx, "poll", "one", LEASE).await.expect("asks").expect("free");
        assert_eq!(leases::acquire(&mut tx, "poll", "two", LEASE).await.expect("asks"), None);
        let busy = leases::busy_for(&mut tx, "poll", "two", LEASE).await.expect("asks");
        assert!(busy > LEASE / 2 && busy <= LEASE, "{busy:?}");
        assert_eq!(leases::busy_for(&mut tx, "poll", "one", LEASE).await.expect("asks"), Duration::ZERO);
        assert_eq!(leases::acquire(&mut tx, "poll", "one", LEASE).await.expect("renews"), Some(first.clone()));
        leases::hold(&mut tx, &first).await.expect("ours");
        leases::release(&mut tx, &first).await.expect("releases");
        assert!(matches!(leases::hold(&mut tx, &first).await, Err(Error::LeaseLost)), "given back is given back");
        let second = leases::acquire(&mut tx, "poll", "two", LEASE).await.expect("asks").expect("free");
        assert!(second.fence > first.fence, "a new owner has a higher fencing number");
        leases::release(&mut tx, &first).await.expect("nothing of its own to release");
        leases::hold(&mut tx, &second).await.expect("the new owner's");
    }

    async fn a_paused_owner_that_wakes_up_cannot_write(store: Store) {
        let mut tx = store.write().await.expect("begins");
        let paused = leases::acquire(&mut tx, "poll", "paused", Duration::ZERO).await.expect("asks").expect("free");
        tx.commit().await.expect("commits");
        let mut tx = store.write().await.expect("begins");
        leases::hold(&mut tx, &paused).await.expect("its time is over, and nobody has taken it");
        leases::acquire(&mut tx, "poll", "next", LEASE).await.expect("asks").expect("its time is over");
        tx.commit().await.expect("commits");
        let mut tx = store.write().await.expect("begins");
        flags::set(&mut tx, "offset", &serde_json::json!(1)).await.expect("set");
        assert!(matches!(leases::hold(&mut tx, &paused).await, Err(Error::LeaseLost)));
    }

    async fn a_lease_from_before_a_clock_jumped_back_does_not_last(store: Store) {
        let mut tx = store.write().await.expect("begins");
        leases::acquire(&mut tx, "poll", "fast", LEASE).await.expect("asks").expect("free");
        leases::attend(&mut tx, "fast", LEASE).await.expect("lives");
        assert_eq!(leases::members(&mut tx).await.expect("reads"), ["fast"]);
        aiops::store::testing::execute(&mut tx, "UPDATE leases SET until = until + 86400000000").await;
        assert_eq!(leases::busy_for(&mut tx, "poll", "two", LEASE).await.expect("asks"), Duration::ZERO);
        assert!(leases::acquire(&mut tx, "poll", "two", LEASE).await.expect("asks").is_some());
        assert!(leases::members(&mut tx).await.expect("reads").is_empty());
    }

    async fn members_are_those_who_live(store: Store) {
        let mut tx = store.write().await.expect("begins");
        for (owner, lease) in [("b", LEASE), ("a", LEASE), ("dead", Duration::ZERO)] {
            leases::attend(&mut tx, owner, lease).await.expect("lives");
        }
        assert_eq!(leases::members(&mut tx).await.expect("reads"), ["a", "b"]);
        aiops::store::testing::execute(&mut tx, "UPDATE leases SET until = 1 WHERE owner = 'dead'").await;
        leases::leave(&mut tx, "b").await.expect("leaves");
        assert_eq!(leases::members(&mut tx).await.expect("reads"), ["a"]);
        let left = "SELECT COUNT(*) FROM leases";
        assert_eq!(aiops::store::testing::count(&mut tx, left).await, 1, "who ended long ago is forgotten");
    }

    async fn a_changed_audit_row_is_found(store: Store) {
        let mut tx = store.write().await.expect("begins");
        for n in 0..3 {
            let detail = serde_json::json!({ "n": n });
            audit::add(&mut tx, &Actor::token("ann"), "approve", "approval:1", &detail).await.expect("added");
        }
        assert_eq!(audit::verify(&mut tx).await.expect("whole"), 3);
        tx.commit().await.expect("commits");
        let mut tx = store.write().await.expect("begins");
        aiops::store::testing::execute(&mut tx, "UPDATE audit SET action = 'reject' WHERE seq = 2").await;
        let e = audit::verify(&mut tx).await.expect_err("the row was changed");
        assert!(e.to_string().contains("row 2"), "{e}");
    }

    async fn a_token_is_found_by_its_secret_until_it_is_revoked(store: Store) {
        let secret = aiops::ids::secret();
        let mut tx = store.write().await.expect("begins");
        tokens::insert(&mut tx, "ci", Role::Viewer, &secret).await.expect("inserted");
        assert_eq!(tokens::find(&mut tx, &secret).await.expect("reads").map(|t| t.role), Some(Role::Viewer));
        assert_eq!(tokens::find(&mut tx, "guess").await.expect("reads"), None);
        assert!(tokens::revoke(&mut tx, "ci").await.expect("revokes"));
        assert_eq!(tokens::find(&mut tx, &secret).await.expect("reads"), None);
        assert!(!tokens::revoke(&mut tx, "ci").await.expect("no more to revoke"));
    }

    async fn an_unreadable_inbox_row_is_set_aside_and_the_rest_goes_on(store: Store) {
        let good = inbox::Prepared::new(&inbox::Delivery::Alerts(Vec::new()));
        let bad = aiops::store::testing::unreadable_delivery();
        inbox::append(&store, &[bad.clone(), good, bad.clone()]).await.expect("appended");
        let (tx, taken) = inbox::take(&store, 10).await.expect("takes").expect("something waits");
        assert_eq!(taken.len(), 1);
        tx.commit().await.expect("commits");
        inbox::append(&store, &[bad]).await.expect("appended");
        let (tx, taken) = inbox::take(&store, 10).await.expect("takes").expect("something waits");
        assert!(taken.is_empty());
        tx.commit().await.expect("commits");
        assert_eq!(inbox::backlog(&store).await.expect("reads"), (0, None));
        let mut tx = store.read().await.expect("begins");
        assert_eq!(aiops::store::testing::count(&mut tx, "SELECT COUNT(*) FROM inbox_dead").await, 2, "one for each row");
    }

    async fn what_was_taken_and_not_committed_is_taken_again(store: Store) {
        let delivery = inbox::Prepared::new(&inbox::Delivery::Alerts(Vec::new()));
        inbox::append(&store, &vec![delivery; 3]).await.expect("appended");
        let (tx, taken) = inbox::take(&store, 10).await.expect("takes").expect("something waits");
        assert_eq!(taken.len(), 3);
        drop(tx);
        assert_eq!(inbox::backlog(&store).await.expect("reads").0, 3);
        let (tx, taken) = inbox::take(&store, 10).await.expect("takes").expect("they wait still");
        assert_eq!(taken.len(), 3);
        tx.commit().await.expect("commits");
        assert!(inbox::take(&store, 10).await.expect("takes").is_none());
    }

    async fn a_batch_is_bounded_by_the_alerts_that_it_brings(store: Store) {
        let event = crate::correlate::firing("Down", "checkout", clock::now());
        let big = inbox::Prepared::new(&inbox::Delivery::Alerts(vec![event; 50]));
        for _ in 0..5 {
            inbox::append(&store, std::slice::from_ref(&big)).await.expect("appended");
        }
        for expected in [2, 2, 1] {
            let (tx, taken) = inbox::take(&store, 60).await.expect("takes").expect("something waits");
            assert_eq!(taken.len(), expected);
            tx.commit().await.expect("commits");
        }
    }

    async fn retention_keeps_what_is_young(store: Store) {
        let mut tx = store.write().await.expect("begins");
        audit::add(&mut tx, &Actor::token("ann"), "ack", "incident:1", &serde_json::json!({})).await.expect("added");
        let ages = config::Retention::default();
        assert_eq!(retention::sweep(&mut tx, &ages, clock::now()).await.expect("sweeps"), 0);
        let far = clock::after(clock::now(), ages.audit + LEASE);
        assert_eq!(retention::sweep(&mut tx, &ages, far).await.expect("sweeps"), 1);
    }
}

/// Applied rows are deleted late, and their numbers are never given again.
#[tokio::test]
async fn an_inbox_file_that_was_lost_or_trimmed_takes_new_deliveries() {
    let dir = tempfile::tempdir().expect("a directory");
    let one = || [inbox::Prepared::new(&inbox::Delivery::Alerts(Vec::new()))];
    for lost in [false, true, true] {
        let store = Store::open("", dir.path()).await.expect("opens");
        for _ in 0..2 {
            inbox::append(&store, &one()).await.expect("appended");
            let (tx, taken) = inbox::take(&store, 10).await.expect("takes").expect("something waits");
            assert_eq!(taken.len(), 1);
            tx.commit().await.expect("commits");
        }
        store.close().await;
        for name in ["inbox.db", "inbox.db-wal", "inbox.db-shm"].iter().filter(|_| lost) {
            let _ = std::fs::remove_file(dir.path().join(name));
        }
    }
}

/// Numbers are given before commits: a delivery may become visible after a later one was taken.
#[tokio::test]
async fn a_delivery_that_commits_after_a_later_one_is_not_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = crate::peers::Postgres::database().await;
    let store = Store::open(&url, dir.path()).await.expect("opens");
    let mut slow = store.write().await.expect("begins");
    let statement = "INSERT INTO inbox (kind, received_at, body) VALUES ('alerts', 0, '{\"alerts\":[]}')";
    aiops::store::testing::execute(&mut slow, statement).await;
    let one = [inbox::Prepared::new(&inbox::Delivery::Alerts(Vec::new()))];
    inbox::append(&store, &one).await.expect("appended");
    let (tx, taken) = inbox::take(&store, 10).await.expect("takes").expect("the later one is there");
    assert_eq!(taken.len(), 1);
    slow.commit().await.expect("commits");
    tx.commit().await.expect("commits");
    let (_, taken) = inbox::take(&store, 10).await.expect("takes").expect("the earlier one is there");
    assert_eq!(taken.len(), 1);
}

/// A client that hangs up drops its request at whatever `await` it is.
#[tokio::test]
async fn a_dropped_request_leaves_no_connection_within_a_transaction() {
    let url = peers::Postgres::database().await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&url, dir.path()).await.expect("PostgreSQL opens");
    let mut observer = sqlx::PgConnection::connect(&url).await.expect("connects");
    let mut left_open = async || {
        let count = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
                     AND application_name = 'aiops' AND state LIKE 'idle in transaction%'";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&mut observer).await.expect("answers")
    };
    let held = store.write().await.expect("begins");
    assert_eq!(left_open().await, 1, "it sees a transaction that is open");
    drop(held);
    // Dropped after so many polls: before it has a connection, while it waits for the answer to BEGIN, after that.
    for polls in 0..12 {
        {
            let mut write = std::pin::pin!(store.write());
            let mut read = std::pin::pin!(store.read());
            for _ in 0..polls {
                let written = futures_util::poll!(write.as_mut()).is_ready();
                if written || futures_util::poll!(read.as_mut()).is_ready() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let end = Instant::now() + Duration::from_secs(20);
        while left_open().await > 0 {
            assert!(Instant::now() < end, "a connection went back to the pool within a transaction");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    store.write().await.expect("begins").commit().await.expect("commits");
}

/// The answer to a commit can be lost with the commit done: what is remembered of the position is behind it then.
#[tokio::test]
async fn a_position_that_is_remembered_wrongly_does_not_stop_the_inbox() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open("", dir.path()).await.expect("opens");
    let delivery = inbox::Prepared::new(&inbox::Delivery::Alerts(Vec::new()));
    for delivery in [delivery.clone(), inbox::Prepared::new(&one_alert())] {
        inbox::append(&store, &[delivery]).await.expect("appended");
    }
    let mut tx = store.write().await.expect("begins");
    aiops::store::testing::execute(&mut tx, "UPDATE inbox_applied SET id = 2").await;
    tx.commit().await.expect("commits");
    inbox::append(&store, &[delivery]).await.expect("appended");
    assert!(inbox::take(&store, 1).await.expect("takes").is_none(), "these were applied");
    let (_, taken) = inbox::take(&store, 1).await.expect("takes").expect("the third waits");
    assert_eq!(taken.len(), 1);
}

fn one_alert() -> inbox::Delivery {
    inbox::Delivery::Alerts(vec![crate::correlate::firing("Down", "checkout", clock::now())])
}
