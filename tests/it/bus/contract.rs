//! docs/streams.md, as somebody else would use it; and the doors that a Redis can have.

use std::{process::Command, sync::Arc, time::Duration};

use aiops::{
    bus::{self, Record, Start},
    config::{self, Detect},
    intake::stream,
};
use tokio_util::sync::CancellationToken;

use super::{Running, eventually, one_partition, over, sample, take};
use crate::peers::{self, finish, scratch, script};

/// The code blocks of one language in docs/streams.md, spoken to this Redis instead.
fn examples(language: &str, redis: &peers::Redis) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/streams.md");
    let text = std::fs::read_to_string(path).expect("it is there");
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    let code = blocks.map(|rest| rest.split("```").next().expect("it ends").to_owned());
    code.map(|code| code.replace("redis://127.0.0.1:6379", &redis.url)).collect()
}

/// Reads the ingest stream until dropped.
struct Spreading(CancellationToken);

impl Spreading {
    fn start(redis: &aiops::bus::Redis) -> Self {
        let deps =
            stream::Deps { redis: redis.clone(), settings: Detect::default(), logs: Default::default() };
        let stop = CancellationToken::new();
        tokio::spawn(stream::run(deps, "me".into(), stop.clone()));
        Self(stop)
    }
}

impl Drop for Spreading {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[tokio::test]
async fn the_documented_producers_are_understood() {
    let redis = peers::Redis::start().await;
    let bus = over(&redis, &one_partition(), |_| {});
    let running = Running::new(Arc::new(bus.clone()), None);
    let _spreading = Spreading::start(&bus);
    for (program, flag, language) in [("/usr/bin/python3", "-c", "python"), ("sh", "-c", "sh")] {
        let examples = examples(language, &redis);
        assert_eq!(examples.len(), 1, "one example in {language}");
        let mut command = Command::new(program);
        command.arg(flag).arg(&examples[0]);
        finish(command).await;
    }
    let mut consumer = running.bus.consumer(Start::of(0));
    let (records, _) = take(&mut *consumer, 3).await;
    let told: Vec<&str> = records
        .iter()
        .map(|record| match record {
            Record::Log(log) => log.message.as_str(),
            Record::Sample(sample) => sample.name.as_str(),
            Record::Span(span) => span.operation.as_str(),
            Record::Gap(_) => "gap",
        })
        .collect();
    assert_eq!(told, ["connection refused to 10.0.0.7:5432", "latency_seconds", "disk of checkout is full"]);
    eventually("they are taken off", async || redis.run::<u64>("XLEN aiops:ingest").await == 0).await;
}

#[tokio::test]
async fn entries_that_cannot_be_used_are_set_aside_with_the_reason() {
    let redis = peers::Redis::start().await;
    let bus = over(&redis, &one_partition(), |_| {});
    let running = Running::new(Arc::new(bus.clone()), None);
    for (field, value) in
        [("log", "nonsense"), ("log", "{}"), ("hello", "world"), ("metric", r#"{"name":"up"}"#)]
    {
        redis.run::<String>(&format!("XADD aiops:ingest * {field} {value}")).await;
    }
    redis.run::<String>(r#"XADD aiops:ingest * log [{"msg":"one"},{"no":1},{"msg":"two"}]"#).await;
    let _spreading = Spreading::start(&bus);
    let mut consumer = running.bus.consumer(Start::of(0));
    assert_eq!(take(&mut *consumer, 2).await.0.len(), 2, "the good ones of an entry are taken");
    eventually("the others are set aside", async || redis.run::<u64>("XLEN aiops:dead").await == 4).await;
    let dead: redis::streams::StreamRangeReply = redis.run("XRANGE aiops:dead - +").await;
    let reasons: Vec<String> = dead.ids.iter().map(|entry| entry.get("reason").expect("a reason")).collect();
    assert!(reasons[0].contains("expected a JSON array"), "{reasons:?}");
    assert!(reasons[1].contains("no message"), "{reasons:?}");
    assert!(reasons[2].contains("no field `log` or `metric`"), "{reasons:?}");
    assert_eq!(dead.ids[2].get::<String>("data").as_deref(), Some("hello=world\n"));
}

/// The group is there, and one entry went all the way.
async fn spread_one(redis: &peers::Redis, bus: &bus::Redis, consumer: &mut dyn bus::Consumer) {
    let _spreading = Spreading::start(bus);
    redis.run::<String>(r#"XADD aiops:ingest * log {"msg":"first"}"#).await;
    let (_, mark) = take(consumer, 1).await;
    consumer.saved(&mark.expect("a place")).await;
    eventually("it is taken off", async || redis.run::<u64>("XLEN aiops:ingest").await == 0).await;
}

#[tokio::test]
async fn an_entry_stays_until_it_is_on_its_partition() {
    let redis = peers::Redis::start().await;
    let bus = over(&redis, &one_partition(), |_| {});
    let running = Running::new(Arc::new(bus.clone()), None);
    // Nothing can be added to a partition that is something else.
    redis.run::<()>("SET aiops:{0}:telemetry x").await;
    redis.run::<String>(r#"XADD aiops:ingest * log {"msg":"hello"}"#).await;
    let _spreading = Spreading::start(&bus);
    eventually("it cannot be sent", async || {
        let status = running.bus.status();
        status.buffered == 1 && status.error.is_some()
    })
    .await;
    assert_eq!(redis.run::<u64>("XLEN aiops:ingest").await, 1, "who is killed now loses nothing");
    redis.run::<u64>("DEL aiops:{0}:telemetry").await;
    let mut consumer = running.bus.consumer(Start::of(0));
    assert_eq!(take(&mut *consumer, 1).await.0.len(), 1);
    eventually("it is taken off", async || redis.run::<u64>("XLEN aiops:ingest").await == 0).await;
}

#[tokio::test]
async fn producers_that_fill_redis_do_not_stop_it_for_good() {
    let redis = peers::Redis::start().await;
    let bus = over(&redis, &one_partition(), |_| {});
    let running = Running::new(Arc::new(bus.clone()), None);
    let mut consumer = running.bus.consumer(Start::of(0));
    spread_one(&redis, &bus, &mut *consumer).await;
    let info: String = redis.run("INFO memory").await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a number");
    let most = used.trim().parse::<u64>().expect("a number") + (6 << 20);
    redis.run::<()>(&format!("CONFIG SET maxmemory {most}")).await;
    let line = format!(r#"{{"msg":"{}"}}"#, "x".repeat(8000));
    let mut client = peers::Redis::on(redis.port).client().await;
    let mut added = 0;
    let mut add = redis::cmd("XADD");
    add.arg("aiops:ingest").arg("*").arg("log").arg(line);
    while add.query_async::<String>(&mut client).await.is_ok() {
        added += 1;
    }
    assert!(added > 100, "{added}");
    let _spreading = Spreading::start(&bus);
    let mut taken = 0;
    while taken < added {
        let (records, mark) = take(&mut *consumer, 1).await;
        consumer.saved(&mark.expect("a place")).await;
        taken += records.len();
    }
    eventually("all are taken off", async || redis.run::<u64>("XLEN aiops:ingest").await == 0).await;
}

#[tokio::test]
async fn tls_and_a_password_are_used_and_what_is_wrong_is_said() {
    let dir = scratch("redis-tls");
    let mut certificate = script("smtp.sh");
    certificate.arg("certificate").arg(&dir);
    finish(certificate).await;
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let port = peers::free_port();
    let redis = peers::Redis::start_with(&[
        "--requirepass",
        "geheim",
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        cert.to_str().expect("UTF-8"),
        "--tls-key-file",
        key.to_str().expect("UTF-8"),
        "--tls-ca-cert-file",
        cert.to_str().expect("UTF-8"),
        "--tls-auth-clients",
        "no",
        "--maxmemory-policy",
        "allkeys-lru",
    ])
    .await;
    let settings = config::Redis {
        url: format!("rediss://localhost:{port}"),
        password: config::Secret::new("geheim"),
        ca_file: cert,
        timeout: Duration::from_secs(2),
        ..config::Redis::default()
    };
    let bus = bus::Redis::new(&settings, &one_partition()).expect("right settings");
    let running = Running::new(Arc::new(bus), None);
    assert_eq!(running.bus.publish(vec![sample(1.0)]).await.taken, 1);
    let mut consumer = running.bus.consumer(Start::of(0));
    assert_eq!(take(&mut *consumer, 1).await.0.len(), 1);
    let reached = bus::reach(&settings).await.expect("it answers");
    assert!(reached.problems[0].contains("maxmemory-policy is allkeys-lru"), "{reached:?}");
    assert!(reached.notes[0].contains("appendonly"), "{reached:?}");
    let wrong = config::Redis { password: config::Secret::new("falsch"), ..settings.clone() };
    let refused = bus::reach(&wrong).await.expect_err("a wrong password");
    assert!(!refused.contains("falsch"), "{refused}");
    let stranger = config::Redis { ca_file: Default::default(), ..settings };
    bus::reach(&stranger).await.expect_err("nobody vouches for this certificate");
    drop(redis);
}
