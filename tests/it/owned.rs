//! What must have one owner among the replicas has one, and the next one soon after.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use aiops::{
    owned::Keeper,
    store::{Error, Store, flags, leases, leases::Lease},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::peers::Postgres;

/// Generous: the machine may be busy.
const WITHIN: Duration = Duration::from_secs(60);

/// Which owner works under which name now, in all replicas of a test.
#[derive(Clone, Default)]
struct Working(Arc<Mutex<BTreeMap<String, Vec<Lease>>>>);

impl Working {
    async fn work(self, lease: Lease, cancel: CancellationToken) {
        let here = || self.0.lock().expect("nothing panics under it");
        here().entry(lease.name.clone()).or_default().push(lease.clone());
        let _gone = Gone(self.clone(), lease.clone());
        cancel.cancelled().await;
    }
    fn now(&self) -> BTreeMap<String, Vec<Lease>> {
        let mut now = self.0.lock().expect("nothing panics under it").clone();
        now.retain(|_, owners| !owners.is_empty());
        now
    }
    /// Owner → names that it works for.
    fn shares(&self) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for lease in self.now().into_values().flatten() {
            *shares.entry(lease.owner).or_default() += 1;
        }
        shares
    }
}

struct Gone(Working, Lease);

impl Drop for Gone {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().expect("nothing panics under it");
        all.entry(self.1.name.clone()).or_default().retain(|l| *l != self.1);
    }
}

/// A replica that can be stopped in order, or vanish.
struct Replica {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Replica {
    fn polls(store: &Store, owner: &str, working: &Working) -> Self {
        let (keeper, working, stop) =
            (Keeper::new(store.clone(), owner), working.clone(), CancellationToken::new());
        let cancel = stop.clone();
        let task = tokio::spawn(async move {
            keeper.run("poll", cancel, |lease, cancel| working.clone().work(lease, cancel)).await;
        });
        Self { stop, task }
    }
    fn shares(store: &Store, owner: &str, names: usize, working: &Working) -> Self {
        let (keeper, working, stop) =
            (Keeper::new(store.clone(), owner), working.clone(), CancellationToken::new());
        let (cancel, names): (_, Vec<String>) =
            (stop.clone(), (0..names).map(|n| format!("part.{n}")).collect());
        let task = tokio::spawn(async move {
            keeper.share(&names, cancel, |lease, cancel| working.clone().work(lease, cancel)).await;
        });
        Self { stop, task }
    }
    async fn stops(self) {
        self.stop.cancel();
        self.task.await.expect("it ends in order");
    }
    /// As after `kill -9`: nothing is given back.
    async fn vanishes(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < WITHIN, "not within {WITHIN:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

async fn store() -> Store {
    let url = Postgres::database().await;
    Store::open(&url, std::path::Path::new("/nonexistent")).await.expect("PostgreSQL opens")
}

fn owner_of(working: &Working, name: &str) -> Option<String> {
    working.now().get(name).map(|leases| {
        assert_eq!(leases.len(), 1, "one owner at a time: {leases:?}");
        leases[0].owner.clone()
    })
}

#[tokio::test]
async fn a_name_has_one_owner_and_the_next_one_when_it_stops_or_vanishes() {
    let (store, working) = (store().await, Working::default());
    let one = Replica::polls(&store, "one", &working);
    until("somebody works", || owner_of(&working, "poll").as_deref() == Some("one")).await;
    let two = Replica::polls(&store, "two", &working);
    let three = Replica::polls(&store, "three", &working);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(owner_of(&working, "poll").as_deref(), Some("one"), "it renews its lease");
    one.stops().await;
    let took = until("another follows", || owner_of(&working, "poll").is_some_and(|o| o != "one")).await;
    println!("after an orderly end the next owner worked in {took:?}");
    let (dying, living) =
        if owner_of(&working, "poll").as_deref() == Some("two") { (two, three) } else { (three, two) };
    let dead = owner_of(&working, "poll").expect("somebody works");
    dying.vanishes().await;
    let took = until("another follows", || owner_of(&working, "poll").is_some_and(|o| o != dead)).await;
    println!("after a death the next owner worked in {took:?}");
    living.stops().await;
}

#[tokio::test]
async fn work_ends_when_somebody_else_has_taken_its_name() {
    let (store, working) = (store().await, Working::default());
    let one = Replica::polls(&store, "one", &working);
    until("somebody works", || owner_of(&working, "poll").is_some()).await;
    let mine = working.now()["poll"][0].clone();
    // What another replica does after this one was paused for long.
    let mut tx = store.write().await.expect("begins");
    aiops::store::testing::execute(&mut tx, "UPDATE leases SET until = 0 WHERE name = 'poll'").await;
    let theirs = leases::acquire(&mut tx, "poll", "two", Duration::from_secs(10)).await.expect("asks");
    assert!(theirs.is_some());
    tx.commit().await.expect("commits");
    let mut tx = store.write().await.expect("begins");
    flags::set(&mut tx, "offset", &1.into()).await.expect("set");
    assert!(matches!(leases::hold(&mut tx, &mine).await, Err(Error::LeaseLost)), "its write fails at once");
    drop(tx);
    until("the work ends", || owner_of(&working, "poll").is_none()).await;
    until("it comes back after the other", || owner_of(&working, "poll").is_some()).await;
    assert!(working.now()["poll"][0].fence > mine.fence);
    one.stops().await;
}

#[tokio::test]
async fn work_ends_when_the_lease_cannot_be_renewed_in_time() {
    let mut postgres = Postgres::start().await;
    let url = postgres.create_database().await;
    let store = Store::open(&url, std::path::Path::new("/nonexistent")).await.expect("PostgreSQL opens");
    let working = Working::default();
    let one = Replica::polls(&store, "one", &working);
    let shared = Replica::shares(&store, "one", 3, &working);
    until("all work", || working.now().len() == 4).await;
    postgres.child.stop();
    until("all work ends", || working.now().is_empty()).await;
    postgres.child.restart().await;
    until("all work again", || working.now().len() == 4).await;
    one.stops().await;
    shared.stops().await;
}

#[tokio::test]
async fn shares_are_fair_and_follow_those_who_come_and_go() {
    let (store, working) = (store().await, Working::default());
    let one = Replica::shares(&store, "one", 5, &working);
    let has = |expected: &[(&str, usize)]| {
        let expected: BTreeMap<String, usize> = expected.iter().map(|(o, n)| ((*o).to_owned(), *n)).collect();
        working.shares() == expected
    };
    until("one has all", || has(&[("one", 5)])).await;
    let two = Replica::shares(&store, "two", 5, &working);
    let took = until("both have a share", || has(&[("one", 3), ("two", 2)])).await;
    println!("a newcomer had its share in {took:?}");
    let three = Replica::shares(&store, "three", 5, &working);
    until("all have a share", || working.shares().len() == 3 && working.shares().values().all(|n| *n <= 2))
        .await;
    until("nothing is left out", || working.now().len() == 5).await;
    two.vanishes().await;
    let took =
        until("the rest is taken over", || working.now().len() == 5 && !working.shares().contains_key("two"))
            .await;
    println!("after a death its share had owners in {took:?}");
    three.stops().await;
    until("one has all again", || has(&[("one", 5)])).await;
    one.stops().await;
    assert!(working.now().is_empty());
    let mut tx = store.read().await.expect("begins");
    assert!(leases::members(&mut tx).await.expect("reads").is_empty());
}

/// `clock_timestamp()` of a schema that is searched first: the database's clock, in the test's hands.
#[tokio::test]
async fn leases_go_by_the_clock_of_the_database() {
    let url = Postgres::database().await;
    let store = Store::open(&url, std::path::Path::new("/nonexistent")).await.expect("PostgreSQL opens");
    let lease = Duration::from_secs(30);
    let mut tx = store.write().await.expect("begins");
    for statement in [
        "CREATE SCHEMA fake",
        "CREATE FUNCTION fake.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS \
         $$ SELECT pg_catalog.clock_timestamp() + interval '1 hour' $$",
        "SET LOCAL search_path = fake, public, pg_catalog",
    ] {
        aiops::store::testing::execute(&mut tx, statement).await;
    }
    leases::acquire(&mut tx, "poll", "one", lease).await.expect("asks").expect("free");
    assert_eq!(
        leases::acquire(&mut tx, "poll", "two", lease).await.expect("asks"),
        None,
        "by the same clock"
    );
    aiops::store::testing::execute(&mut tx, "SET LOCAL search_path = public").await;
    aiops::store::testing::execute(&mut tx, "UPDATE leases SET until = until - 3600000000").await;
    assert_eq!(leases::acquire(&mut tx, "poll", "two", lease).await.expect("asks"), None, "for 30 s");
    aiops::store::testing::execute(&mut tx, "SET LOCAL search_path = fake, public, pg_catalog").await;
    assert!(leases::acquire(&mut tx, "poll", "two", lease).await.expect("asks").is_some(), "an hour later");
}
