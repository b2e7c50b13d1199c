//! What may happen to Redis, its streams and their readers.

use std::{sync::Arc, time::Duration};

use aiops::{
    bus::{Consumer, Mark, Record, Start},
    config,
};
use rustix::process::Signal;

use super::{Running, eventually, log, next, one_partition, over, sample, take};
use crate::peers::{self, script};

const STREAM: &str = "aiops:{0}:telemetry";

async fn running(redis: &peers::Redis) -> Running {
    Running::new(
        Arc::new(over(redis, &one_partition(), |redis| redis.timeout = Duration::from_secs(1))),
        None,
    )
}

fn start(fence: i64, mark: Option<Mark>) -> Start {
    Start { fence, mark, owner: format!("reader {fence}"), era: "e".into(), partition: 0 }
}

/// The numbers of samples, and what was said to be missing between them.
async fn numbers(consumer: &mut dyn Consumer, until: f64) -> (Vec<f64>, Vec<String>) {
    let (mut values, mut gaps) = (Vec::new(), Vec::new());
    while values.last() != Some(&until) {
        let delivery = next(consumer).await;
        for record in delivery.records.iter() {
            match record {
                Record::Sample(sample) => values.push(sample.value),
                Record::Gap(gap) => gaps.extend(gap.reason.as_ref().map(|r| r.to_string())),
                Record::Log(_) | Record::Span(_) => {}
            }
        }
        if let Some(mark) = delivery.mark.clone() {
            consumer.judged(delivery);
            consumer.saved(&mark).await;
        } else {
            consumer.judged(delivery);
        }
    }
    (values, gaps)
}

/// What is said next to be missing.
async fn told(consumer: &mut dyn Consumer) -> String {
    loop {
        let delivery = next(consumer).await;
        let gap = |record: &Record| match record {
            Record::Gap(gap) => gap.reason.as_ref().map(|reason| reason.to_string()),
            _ => None,
        };
        let said = delivery.records.iter().find_map(gap);
        consumer.judged(delivery);
        if let Some(said) = said {
            return said;
        }
    }
}

fn counted(to: u32) -> Vec<f64> {
    (0..=to).map(f64::from).collect()
}

#[tokio::test]
async fn redis_frozen_for_a_while_loses_and_doubles_nothing() {
    let redis = peers::Redis::start().await;
    let running = running(&redis).await;
    let mut consumer = running.bus.consumer(start(1, None));
    running.bus.publish(vec![sample(0.0)]).await;
    assert_eq!(numbers(&mut *consumer, 0.0).await.0, [0.0]);
    redis.child.signal(Signal::STOP);
    for n in 1..=200 {
        assert_eq!(running.bus.publish(vec![sample(f64::from(n))]).await.taken, 1, "buffered");
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let away = running.bus.status();
    assert_eq!(away.buffered, 200);
    eventually("it is said", async || running.bus.status().error.is_some()).await;
    redis.child.signal(Signal::CONT);
    let (values, _) = numbers(&mut *consumer, 200.0).await;
    assert_eq!(values, counted(200)[1..]);
    eventually("it is said no more", async || running.bus.status().error.is_none()).await;
}

#[tokio::test]
async fn redis_restarted_without_its_data_is_a_gap_and_goes_on_by_itself() {
    let mut redis = peers::Redis::start().await;
    let running = running(&redis).await;
    let mut consumer = running.bus.consumer(start(1, None));
    running.bus.publish(vec![sample(0.0)]).await;
    assert_eq!(numbers(&mut *consumer, 0.0).await.0, [0.0]);
    redis.child.stop();
    let mut refused = 0;
    for n in 1..=1500 {
        refused += running.bus.publish(vec![sample(f64::from(n))]).await.refused;
    }
    assert!((400..=600).contains(&refused), "the buffer holds 1000: {refused} refused");
    redis.child.restart().await;
    let (values, gaps) = numbers(&mut *consumer, 1000.0).await;
    assert_eq!(values, counted(1000)[1..], "what was buffered comes");
    assert!(gaps.iter().any(|gap| gap.contains("Redis lost what was in it")), "{gaps:?}");
    let told = told(&mut *consumer).await;
    assert_eq!(
        told,
        format!(
            "{refused} records found no room on their way to Redis; their senders were told to come again"
        )
    );
}

#[tokio::test]
async fn flushall_in_mid_stream_is_a_gap_and_reading_goes_on() {
    let redis = peers::Redis::start().await;
    let running = running(&redis).await;
    let mut consumer = running.bus.consumer(start(1, None));
    running.bus.publish(vec![sample(0.0)]).await;
    assert_eq!(numbers(&mut *consumer, 0.0).await.0, [0.0]);
    redis.run::<()>("FLUSHALL").await;
    running.bus.publish(vec![sample(1.0)]).await;
    let (values, gaps) = numbers(&mut *consumer, 1.0).await;
    assert_eq!(values, [1.0]);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(gaps[0].contains("Redis lost what was in it"), "{gaps:?}");
}

#[tokio::test]
async fn entries_that_a_stranger_trims_are_counted_as_lost() {
    let redis = peers::Redis::start().await;
    let running = running(&redis).await;
    running.bus.publish(vec![sample(0.0)]).await;
    let mut first = running.bus.consumer(start(1, None));
    let (_, mark) = take(&mut *first, 1).await;
    drop(first);
    for n in 1..=3 {
        let before: u64 = redis.run(&format!("XLEN {STREAM}")).await;
        running.bus.publish(vec![sample(f64::from(n)), sample(f64::from(n))]).await;
        eventually("it is sent", async || redis.run::<u64>(&format!("XLEN {STREAM}")).await > before).await;
    }
    redis.run::<u64>(&format!("XTRIM {STREAM} MAXLEN = 1")).await;
    let mut second = running.bus.consumer(start(2, mark));
    let (values, gaps) = numbers(&mut *second, 3.0).await;
    assert_eq!(values, [3.0, 3.0]);
    assert_eq!(gaps, ["4 records were lost in Redis"]);
    assert_eq!(running.bus.status().partitions[0].gaps, 1);
}

#[tokio::test]
async fn a_former_reader_that_wakes_up_takes_nothing_away() {
    let redis = peers::Redis::start().await;
    let running = running(&redis).await;
    let mut first = running.bus.consumer(start(1, None));
    running.bus.publish(vec![sample(0.0)]).await;
    take(&mut *first, 1).await;
    let mut second = running.bus.consumer(start(2, None));
    assert_eq!(numbers(&mut *second, 0.0).await.0, [0.0], "what the first did not save");
    let ended = tokio::time::timeout(Duration::from_secs(30), first.next()).await.expect("in time");
    assert!(ended.is_none(), "it is told that it is over");
    for n in 1..=50 {
        running.bus.publish(vec![sample(f64::from(n))]).await;
    }
    assert_eq!(numbers(&mut *second, 50.0).await, (counted(50)[1..].to_vec(), vec![]));
    // Leases are numbered anew in another database.
    let mut other = running.bus.consumer(Start { era: "another".into(), ..start(1, None) });
    running.bus.publish(vec![sample(51.0)]).await;
    assert_eq!(numbers(&mut *other, 51.0).await.0, [51.0]);
}

#[tokio::test]
async fn what_nobody_can_read_goes_to_the_dead_letters_and_the_rest_goes_on() {
    let redis = peers::Redis::start().await;
    let running = running(&redis).await;
    redis.run::<String>(&format!("XADD {STREAM} * hello world")).await;
    redis.run::<String>(&format!("XADD {STREAM} * v 1 e x n 1 r 1 b 3 d abc")).await;
    running.bus.publish(vec![sample(1.0)]).await;
    let mut consumer = running.bus.consumer(start(1, None));
    let (values, gaps) = numbers(&mut *consumer, 1.0).await;
    assert_eq!(values, [1.0]);
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    assert!(gaps.iter().all(|gap| gap.contains("could not be read and were set aside")), "{gaps:?}");
    let dead: redis::streams::StreamRangeReply = redis.run("XRANGE aiops:dead - +").await;
    let reasons: Vec<String> = dead.ids.iter().map(|entry| entry.get("reason").expect("a reason")).collect();
    assert!(reasons[0].starts_with("field v is missing"), "{reasons:?}");
    assert!(reasons[1].starts_with("record 0 is broken"), "{reasons:?}");
    eventually("status says it", async || running.bus.status().dead_letters == 2).await;
}

/// What a newer replica writes while a deployment is upgraded.
#[tokio::test]
async fn records_of_a_kind_that_only_a_newer_version_knows_are_skipped_and_nothing_is_missing() {
    let redis = peers::Redis::start().await;
    let running = running(&redis).await;
    running.bus.publish(vec![sample(1.0)]).await;
    eventually("it is sent", async || redis.run::<u64>(&format!("XLEN {STREAM}")).await == 1).await;
    let epoch: String = redis.run("HGET aiops:{0}:state epoch").await;
    // Of a later kind, number 7, two bytes.
    let newer = "\u{3}\u{7}\u{2}ab";
    redis.run::<String>(&format!("XADD {STREAM} * v 1 e {epoch} n 2 r 3 b 999 d {newer}{newer}")).await;
    redis.run::<i64>("HSET aiops:{0}:state records 3").await;
    let skipped = aiops::metrics::BUS_SKIPPED.get();
    running.bus.publish(vec![sample(2.0)]).await;
    let mut consumer = running.bus.consumer(start(1, None));
    assert_eq!(numbers(&mut *consumer, 2.0).await, (vec![1.0, 2.0], vec![]));
    assert_eq!(redis.run::<u64>("XLEN aiops:dead").await, 0);
    assert_eq!(aiops::metrics::BUS_SKIPPED.get() - skipped, 2);
}

#[tokio::test]
async fn an_entry_that_its_readers_do_not_survive_is_set_aside() {
    let redis = peers::Redis::start().await;
    let running = running(&redis).await;
    for n in 0..3 {
        let before: u64 = redis.run(&format!("XLEN {STREAM}")).await;
        running.bus.publish(vec![sample(f64::from(n))]).await;
        eventually("it is sent", async || redis.run::<u64>(&format!("XLEN {STREAM}")).await > before).await;
    }
    let mut mark = None;
    let ids: redis::streams::StreamRangeReply = redis.run(&format!("XRANGE {STREAM} - +")).await;
    // Six readers in a row die of the second entry: they take the first, and are gone.
    for fence in 1..=6 {
        let mut reader = running.bus.consumer(start(fence, mark.clone()));
        let delivery = next(&mut *reader).await;
        if let Some(first) = delivery.mark.clone().filter(|_| fence == 1) {
            reader.judged(delivery);
            reader.saved(&first).await;
            mark = Some(first);
        }
        if fence >= 3 {
            eventually("it is written down which one is tried", async || {
                redis.run::<Option<String>>("HGET aiops:{0}:state trying").await.as_deref()
                    == Some(&ids.ids[1].id)
            })
            .await;
        }
        drop(reader);
    }
    let mut last = running.bus.consumer(start(7, mark));
    let (values, gaps) = numbers(&mut *last, 2.0).await;
    assert_eq!(values, [2.0], "only the one on trial is set aside");
    assert_eq!(gaps, ["1 records could not be read and were set aside"]);
    let dead: redis::streams::StreamRangeReply = redis.run("XRANGE aiops:dead - +").await;
    assert_eq!(dead.ids.len(), 1);
    assert_eq!(dead.ids[0].get::<String>("id").as_ref(), Some(&ids.ids[1].id));
    assert!(dead.ids[0].get::<String>("reason").expect("one").starts_with("handed out"), "{:?}", dead.ids);
}

#[tokio::test]
async fn redis_out_of_memory_refuses_within_bounds_and_goes_on_when_there_is_room() {
    let redis = peers::Redis::start().await;
    let running = running(&redis).await;
    let mut consumer = running.bus.consumer(start(1, None));
    running.bus.publish(vec![sample(0.0)]).await;
    assert_eq!(numbers(&mut *consumer, 0.0).await.0, [0.0]);
    redis.run::<()>("CONFIG SET maxmemory 1").await;
    let mut taken = 0;
    for n in 1..=1100 {
        taken += running.bus.publish(vec![sample(f64::from(n))]).await.taken;
    }
    assert_eq!(taken, 1000, "what the buffer holds");
    eventually("it is said", async || {
        running.bus.status().error.is_some_and(|error| error.contains("maxmemory"))
    })
    .await;
    redis.run::<()>("CONFIG SET maxmemory 0").await;
    let (values, _) = numbers(&mut *consumer, 1000.0).await;
    assert_eq!(values, counted(1000)[1..]);
    assert!(told(&mut *consumer).await.starts_with("100 records found no room on their way to Redis"));
}

#[tokio::test]
async fn a_fail_over_by_sentinel_is_followed() {
    let (mut master, replica_port) = (peers::Redis::start().await, peers::free_port());
    let replica =
        peers::Redis::start_at(replica_port, &["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
    let port = peers::free_port();
    let dir = peers::scratch("sentinel");
    let mut command = script("redis.sh");
    command
        .arg("sentinel")
        .arg(port.to_string())
        .arg(dir.join("data"))
        .arg("main")
        .arg(master.port.to_string());
    let _sentinel = peers::Child::start(command, &dir.join("sentinel.log"), peers::Ready::Port(port)).await;
    let settings = config::Redis {
        sentinels: vec![format!("redis://127.0.0.1:{port}")],
        master: "main".into(),
        timeout: Duration::from_secs(1),
        ..config::Redis::default()
    };
    let bus = aiops::bus::Redis::new(&settings, &one_partition()).expect("addresses");
    let running = Running::new(Arc::new(bus), None);
    let mut consumer = running.bus.consumer(start(1, None));
    running.bus.publish(vec![sample(0.0)]).await;
    assert_eq!(numbers(&mut *consumer, 0.0).await.0, [0.0]);
    eventually("the replica has it", async || replica.run::<u64>("EXISTS aiops:{0}:state").await == 1).await;
    let sentinel = peers::Redis::on(port);
    eventually("the sentinel knows the replica", async || {
        let known: Vec<redis::Value> = sentinel.run("SENTINEL REPLICAS main").await;
        !known.is_empty()
    })
    .await;
    master.child.kill();
    for n in 1..=20 {
        running.bus.publish(vec![sample(f64::from(n))]).await;
    }
    let (values, _) = numbers(&mut *consumer, 20.0).await;
    assert_eq!(values, counted(20)[1..], "from the new master");
    assert!(replica.run::<String>("INFO replication").await.contains("role:master"));
}

#[tokio::test]
async fn partitions_are_spread_over_a_cluster() {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(
            peers::Redis::start_with(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]).await,
        );
    }
    let mut join = script("redis.sh");
    join.arg("cluster").args(nodes.iter().map(|node| node.port.to_string()));
    peers::finish(join).await;
    let settings = config::Redis {
        nodes: vec![nodes[0].url.clone()],
        timeout: Duration::from_secs(2),
        ..config::Redis::default()
    };
    let partitions = config::BusSettings { partitions: 8, max_records: 8000, max_bytes: 8 << 20 };
    let bus = aiops::bus::Redis::new(&settings, &partitions).expect("addresses");
    let running = Running::new(Arc::new(bus), None);
    let records: Vec<Record> = (0..64).map(|n| log(&format!("service{n}"), "hello")).collect();
    assert_eq!(running.bus.publish(records).await.taken, 64);
    let mut seen = 0;
    for partition in 0..8 {
        let mut consumer = running.bus.consumer(Start { partition, ..start(1, None) });
        let delivery = next(&mut *consumer).await;
        seen += delivery.records.len();
        let mark = delivery.mark.clone().expect("a place");
        consumer.judged(delivery);
        consumer.saved(&mark).await;
    }
    assert_eq!(seen, 64);
    let mut used = 0;
    for node in &nodes {
        used += u32::from(node.run::<u64>("DBSIZE").await > 0);
    }
    assert!(used > 1, "they are on one node");
    eventually("all is done", async || {
        let status = running.bus.status();
        status.error.is_none()
            && status.partitions.len() == 8
            && status.partitions.iter().all(|p| p.waiting == 0)
    })
    .await;
    let reached = aiops::bus::reach(&settings).await.expect("it answers");
    assert_eq!(reached.problems, [""; 0]);
}
