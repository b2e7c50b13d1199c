//! PostgreSQL restarts, refuses, is read-only, slow, out of connections, fails over: senders hear 503 and come again, nothing that
//! was acknowledged is lost or doubled, and all goes on by itself.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    fakes::telegram::{TOKEN, Telegram},
    peers::{self, Postgres},
    service::Service,
};

const CHAT: i64 = -100_500;
const WITHIN: Duration = Duration::from_secs(120);

/// A service on a PostgreSQL of its own, a sender that keeps a ledger, and a channel.
struct House {
    postgres: Postgres,
    telegram: Telegram,
    service: Service,
    /// As the test reaches the service's database.
    url: String,
    next: usize,
    /// Names of services whose alert was acknowledged.
    ledger: Vec<String>,
}

impl House {
    async fn new() -> Self {
        let postgres = Postgres::start().await;
        let url = postgres.create_database().await;
        Self::on(postgres, url.clone(), &url).await
    }

    /// `url` is the test's own way, `through` the service's.
    async fn on(postgres: Postgres, url: String, through: &str) -> Self {
        let telegram = Telegram::start(&[CHAT]);
        let settings = format!(
            "store: {{url: '{through}'}}\nintake: {{commit_timeout: 2s}}\nnotify:\n  first_delay: 200ms\n  \
             telegram: {{token: '{TOKEN}', api: '{}', chat_id: {CHAT}, allowed_users: [7]}}\n",
            telegram.url()
        );
        let service = Service::start_in(&peers::scratch("faults"), &settings).await;
        Self { postgres, telegram, service, url, next: 0, ledger: Vec::new() }
    }

    /// Sends one alert of a service of its own, once; whether it was acknowledged. Anything but 200 is 503 and says when to
    /// come again.
    async fn sends(&mut self) -> bool {
        let service = format!("svc-{}", self.next);
        self.next += 1;
        self.sends_of(&service).await
    }

    async fn sends_of(&mut self, service: &str) -> bool {
        let request = peers::http().post(format!("{}/api/v1/webhooks/alertmanager", self.service.url));
        let answer = request.bearer_auth(self.service.token()).json(&payload(service)).send().await;
        let answer = answer.expect("the service itself answers, whatever happens to its store");
        let again = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
        match answer.status().as_u16() {
            200 => {
                self.ledger.push(service.to_owned());
                true
            }
            503 => {
                let seconds: u32 = again.expect("it says when to come again").parse().expect("a number");
                assert!((1..=60).contains(&seconds));
                false
            }
            other => panic!("a sender heard {other}: {}", answer.text().await.unwrap_or_default()),
        }
    }

    /// As Alertmanager does it: again and again until it is taken.
    async fn delivers(&mut self) -> Duration {
        let service = format!("svc-{}", self.next);
        self.next += 1;
        let begun = Instant::now();
        while !self.sends_of(&service).await {
            assert!(begun.elapsed() < WITHIN, "it does not come back\n{}", self.service.child.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        begun.elapsed()
    }

    async fn is_refused(&mut self) {
        let begun = Instant::now();
        while self.sends().await {
            assert!(begun.elapsed() < WITHIN, "it takes what it cannot keep");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("connects")
    }

    async fn runs(&self, statement: &str) {
        let mut c = self.connection().await;
        // One by one: some must not be in a transaction with another.
        for one in statement.split("; ") {
            sqlx::raw_sql(AssertSqlSafe(one.to_owned())).execute(&mut c).await.expect("it is valid");
        }
    }

    /// Every acknowledged alert has one incident and was told of once, without a restart of the service.
    async fn nothing_is_lost_or_doubled(&self) {
        let begun = Instant::now();
        loop {
            let told = self.told();
            let missing: Vec<&String> = self.ledger.iter().filter(|s| !told.contains_key(*s)).collect();
            if missing.is_empty() {
                break;
            }
            assert!(
                begun.elapsed() < WITHIN,
                "acknowledged, and nobody was told: {missing:?}\n{}",
                self.service.child.log()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut c = self.connection().await;
        let incidents: Vec<(String, i64)> = sqlx::query_as(
            "SELECT service, COUNT(*) FROM incidents WHERE service LIKE 'svc-%' GROUP BY service",
        )
        .fetch_all(&mut c)
        .await
        .expect("answers");
        let incidents: BTreeMap<String, i64> = incidents.into_iter().collect();
        for service in &self.ledger {
            assert_eq!(incidents.get(service), Some(&1), "{service}: one incident");
        }
        let told = self.told();
        let doubled: usize = told.values().map(|n| n - 1).sum();
        // One message may be at the provider when its answer cannot be kept.
        assert!(doubled <= 1, "{told:?}");
    }

    /// Service → messages about it.
    fn told(&self) -> BTreeMap<String, usize> {
        let mut told = BTreeMap::new();
        for message in self.telegram.messages() {
            let name = message
                .text
                .split(|c: char| !(c.is_alphanumeric() || c == '-'))
                .find(|w| w.starts_with("svc-"));
            // The service may have an alarm of its own to tell of.
            if let Some(name) = name {
                *told.entry(name.to_owned()).or_default() += 1;
            }
        }
        told
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_postgresql_loses_and_doubles_nothing() {
    let mut house = House::new().await;
    for _ in 0..5 {
        house.delivers().await;
    }
    // A fast shutdown; the default one would wait for the service to hang up.
    house.postgres.child.signal(Signal::INT);
    while PgConnection::connect(&house.url).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.postgres.child.restart().await;
    let took = house.delivers().await;
    println!("taken again {took:?} after the restart");
    for _ in 0..5 {
        house.delivers().await;
    }
    house.nothing_is_lost_or_doubled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgresql_refuses_connections_senders_hear_503_until_it_is_back() {
    let mut house = House::new().await;
    house.delivers().await;
    house.postgres.child.kill();
    for _ in 0..3 {
        assert!(!house.sends().await, "nothing can be kept");
    }
    house.postgres.child.restart().await;
    let took = house.delivers().await;
    println!("taken again {took:?} after it was back");
    house.nothing_is_lost_or_doubled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgresql_is_read_only_senders_hear_503_until_it_is_not() {
    let mut house = House::new().await;
    house.delivers().await;
    house.runs("ALTER SYSTEM SET default_transaction_read_only = on").await;
    house.runs("SELECT pg_reload_conf()").await;
    house.is_refused().await;
    assert!(!house.sends().await);
    let page = house.service.get("/api/v1/incidents").await;
    let items = page["items"].as_array().expect("a list");
    assert!(items.iter().any(|i| i["service"] == "svc-0"), "what is there can be read: {page:#}");
    house
        .runs("SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only")
        .await;
    house.runs("SELECT pg_reload_conf()").await;
    let took = house.delivers().await;
    println!("taken again {took:?} after it could be written");
    house.nothing_is_lost_or_doubled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgresql_is_slow_senders_hear_503_and_what_they_repeat_counts_once() {
    let mut house = House::new().await;
    house.delivers().await;
    let mut slow = house.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE inbox IN ACCESS EXCLUSIVE MODE")
        .execute(&mut slow)
        .await
        .expect("locked");
    assert!(!house.sends_of("svc-slow").await, "it is not durable in time");
    assert!(!house.sends_of("svc-slow").await);
    sqlx::raw_sql("COMMIT").execute(&mut slow).await.expect("unlocked");
    let begun = Instant::now();
    while !house.sends_of("svc-slow").await {
        assert!(begun.elapsed() < WITHIN);
    }
    house.nothing_is_lost_or_doubled().await;
    assert_eq!(house.told()["svc-slow"], 1, "the late ones were repeats");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgresql_is_out_of_connections_senders_hear_503_until_there_are_some() {
    let mut house = House::new().await;
    house.delivers().await;
    // Everything that the server has, the service's own ones included.
    let mut taken = Vec::new();
    loop {
        match PgConnection::connect(&house.url).await {
            Ok(c) => taken.push(c),
            Err(_) => {
                let own = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'aiops'";
                let ended: i64 =
                    sqlx::query_scalar(own).fetch_one(&mut taken[0]).await.expect("it is connected");
                if ended == 0 {
                    break;
                }
            }
        }
    }
    assert!(taken.len() > 150, "{} connections", taken.len());
    house.is_refused().await;
    drop(taken);
    let took = house.delivers().await;
    println!("taken again {took:?} after there were connections");
    house.nothing_is_lost_or_doubled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_to_a_synchronous_standby_loses_and_doubles_nothing() {
    let postgres = Postgres::start().await;
    let url = postgres.create_database().await;
    let standby = postgres.standby().await;
    let (proxy, name) = (Proxy::to(postgres.port).await, url.rsplit('/').next().expect("a name").to_owned());
    let through = format!("postgres://aiops@127.0.0.1:{}/{name}", proxy.port);
    let mut house = House::on(postgres, url, &through).await;
    for _ in 0..5 {
        house.delivers().await;
    }
    // First the address leads to the standby while it is one: nothing can be kept there.
    proxy.point_at(standby.port);
    for _ in 0..2 {
        assert!(!house.sends().await, "a standby keeps nothing");
    }
    // The primary is gone for good, and was not asked.
    house.postgres.child.signal(Signal::KILL);
    house.url = format!("postgres://aiops@127.0.0.1:{}/{name}", standby.port);
    house.runs("SELECT pg_promote()").await;
    let took = house.delivers().await;
    println!("taken again {took:?} after the promotion");
    for _ in 0..5 {
        house.delivers().await;
    }
    house.nothing_is_lost_or_doubled().await;
}

/// One address before several servers, as a load balancer is. Re-pointed, it ends the connections to the old one.
struct Proxy {
    port: u16,
    to: Arc<AtomicU16>,
    open: Arc<Mutex<JoinSet<()>>>,
}

impl Proxy {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", peers::free_port())).await.expect("it is free");
        let proxy = Self {
            port: listener.local_addr().expect("it is bound").port(),
            to: Arc::new(AtomicU16::new(port)),
            open: Arc::default(),
        };
        let (to, open) = (proxy.to.clone(), proxy.open.clone());
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let port = to.load(Ordering::SeqCst);
                open.lock().expect("nothing panics under it").spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut from, &mut server).await;
                    }
                });
            }
        });
        proxy
    }

    fn point_at(&self, port: u16) {
        self.to.store(port, Ordering::SeqCst);
        self.open.lock().expect("nothing panics under it").abort_all();
    }
}

fn payload(service: &str) -> Value {
    json!({
        "receiver": "aiops", "status": "firing", "version": "4", "groupKey": "{}", "truncatedAlerts": 0,
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am.example",
        "alerts": [{
            "status": "firing",
            "labels": { "alertname": "Down", "service": service, "severity": "critical" },
            "annotations": { "summary": format!("{service} is down") },
            "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "generatorURL": ""
        }]
    })
}
