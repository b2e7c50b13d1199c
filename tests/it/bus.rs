//! The telemetry bus: both implementations behave alike; over a real Redis nothing is lost in silence, whatever happens to it.

use std::{sync::Arc, time::Duration};

use aiops::{
    bus::{Bus, Consumer, Delivery, Embedded, Mark, Record, Redis, Start},
    clock, config,
    model::{Gap, LogLevel, LogRecord, Sample},
};
use tokio_util::sync::CancellationToken;

use crate::peers;

mod contract;
mod faults;
mod replicas;
mod serve;

/// A bus under test, with what has to run beside it.
struct Running {
    bus: Arc<dyn Bus>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    _redis: Option<peers::Redis>,
}

impl Running {
    fn new(bus: Arc<dyn Bus>, redis: Option<peers::Redis>) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (bus, stop) = (bus.clone(), stop.clone());
            async move { bus.run(stop).await }
        });
        Self { bus, stop, task: Some(task), _redis: redis }
    }

    /// Ends it as the program does: what is buffered is sent.
    async fn stop(&mut self) {
        self.stop.cancel();
        self.task.take().expect("once").await.expect("no panic");
    }
}

/// Both kinds, each with so much room.
async fn both(max_records: usize) -> [Running; 2] {
    let settings = config::BusSettings { partitions: 1, max_records, max_bytes: 1 << 20 };
    let redis = peers::Redis::start().await;
    let over = over(&redis, &settings, |redis| redis.max_records = max_records);
    [Running::new(Arc::new(Embedded::new(&settings)), None), Running::new(Arc::new(over), Some(redis))]
}

fn over(redis: &peers::Redis, bus: &config::BusSettings, set: impl FnOnce(&mut config::Redis)) -> Redis {
    let mut settings =
        config::Redis { url: redis.url.clone(), timeout: Duration::from_secs(2), ..config::Redis::default() };
    set(&mut settings);
    Redis::new(&settings, bus).expect("a URL")
}

fn one_partition() -> config::BusSettings {
    config::BusSettings { partitions: 1, max_records: 1000, max_bytes: 1 << 20 }
}

fn log(service: &str, message: &str) -> Record {
    Record::Log(LogRecord {
        at: clock::now(),
        service: service.into(),
        host: "h1".into(),
        level: LogLevel::Error,
        message: message.into(),
        trace_id: Some("abc".into()),
    })
}

fn sample(value: f64) -> Record {
    Record::Sample(Sample {
        at: clock::now(),
        name: "latency".into(),
        service: "shop".into(),
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        value,
    })
}

async fn next(consumer: &mut dyn Consumer) -> Delivery {
    tokio::time::timeout(Duration::from_secs(30), consumer.next())
        .await
        .expect("in time")
        .expect("not closed")
}

/// Takes the next `count` records, and the place behind them.
async fn take(consumer: &mut dyn Consumer, count: usize) -> (Vec<Record>, Option<Mark>) {
    let (mut records, mut mark) = (Vec::new(), None);
    while records.len() < count {
        let delivery = next(consumer).await;
        records.extend(delivery.records.iter().cloned());
        mark = delivery.mark.clone().or(mark);
        consumer.judged(delivery);
    }
    (records, mark)
}

async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 30 s: {what}");
}

#[tokio::test]
async fn records_of_every_kind_come_out_in_order_as_they_went_in() {
    for running in both(1000).await {
        let gap = Gap { at: clock::now(), until: None, service: None, source: "watch".into(), reason: None };
        let sent =
            vec![log("shop", "one"), sample(0.1), log("shop", "два"), Record::Gap(gap), log("db", "four")];
        for record in &sent {
            assert_eq!(running.bus.publish(vec![record.clone()]).await.taken, 1);
        }
        let mut consumer = running.bus.consumer(Start::of(0));
        assert_eq!(take(&mut *consumer, sent.len()).await.0, sent, "{}", running.bus.kind());
    }
}

#[tokio::test]
async fn a_full_bus_refuses_whole_batches_until_what_it_holds_is_worked_off() {
    for running in both(1000).await {
        let batch = |n: usize| (0..n).map(|i| sample(i as f64)).collect::<Vec<_>>();
        let mut taken = 0;
        // Over Redis, both the buffer of this process and the stream take so much.
        eventually("it refuses", async || {
            let published = running.bus.publish(batch(400)).await;
            assert!([0, 400].contains(&published.taken));
            taken += published.taken;
            published.refused > 0 && running.bus.publish(batch(400)).await.refused > 0 && taken >= 800
        })
        .await;
        let mut consumer = running.bus.consumer(Start::of(0));
        let (records, mark) = take(&mut *consumer, 400).await;
        if let Some(mark) = mark {
            consumer.saved(&mark).await;
        }
        assert_eq!(records.len() % 400, 0);
        eventually("it takes again", async || running.bus.publish(batch(400)).await.taken == 400).await;
    }
}

#[tokio::test]
async fn what_was_not_given_back_comes_again_and_what_was_is_gone() {
    for running in both(1000).await {
        for message in ["one", "two"] {
            running.bus.publish(vec![log("shop", message)]).await;
        }
        let mut first = running.bus.consumer(Start { fence: 1, ..Start::of(0) });
        let (one, mark) = take(&mut *first, 1).await;
        if let Some(mark) = &mark {
            first.saved(mark).await;
        }
        drop(first);
        let mut second = running.bus.consumer(Start { fence: 2, mark, ..Start::of(0) });
        let expected = 2 - one.len();
        assert_eq!(take(&mut *second, expected).await.0.len(), expected, "{}", running.bus.kind());
        running.bus.publish(vec![log("shop", "three")]).await;
        let (rest, _) = take(&mut *second, 1).await;
        assert!(matches!(&rest[..], [Record::Log(log)] if log.message == "three"), "{rest:?}");
    }
}

#[tokio::test]
async fn a_closed_bus_refuses() {
    for running in both(1000).await {
        running.bus.close();
        assert_eq!(running.bus.publish(vec![sample(1.0)]).await.refused, 1);
    }
}

#[tokio::test]
async fn what_is_buffered_when_the_program_stops_is_sent() {
    let redis = peers::Redis::start().await;
    let mut first = Running::new(Arc::new(over(&redis, &one_partition(), |_| {})), None);
    for n in 0..500 {
        assert_eq!(first.bus.publish(vec![sample(f64::from(n))]).await.taken, 1);
    }
    first.stop().await;
    let second = Running::new(Arc::new(over(&redis, &one_partition(), |_| {})), None);
    let mut consumer = second.bus.consumer(Start::of(0));
    let (records, _) = take(&mut *consumer, 500).await;
    let in_order =
        records.iter().zip(0..).all(|(r, n)| matches!(r, Record::Sample(s) if s.value == f64::from(n)));
    assert!(in_order && records.len() == 500);
}
