//! The bus of the embedded profile: one bounded queue in memory for each partition.
//!
//! A batch is taken whole or refused whole. A delivery stays at the head of its queue until it is committed, so a consumer
//! that is started anew sees it again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Bus, Consumer, Delivery, Kind, Mark, PartitionStatus, Published, Record, Start, Status, filled};
use crate::config::BusSettings;

/// Cheap to clone; all clones share the queues.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
}

struct Shared {
    queues: Mutex<Queues>,
    /// One for each partition: it has something new, or the bus was closed.
    ready: Vec<Notify>,
    /// Bounds of one partition, so that a noisy service cannot shut out those of other partitions.
    max_records: usize,
    max_bytes: usize,
}

struct Queues {
    partitions: Vec<Queue>,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<(Arc<Vec<Record>>, usize)>,
    records: usize,
    bytes: usize,
}

impl Embedded {
    pub fn new(settings: &BusSettings) -> Self {
        let partitions = settings.partitions.max(1);
        Self {
            shared: Arc::new(Shared {
                queues: Mutex::new(Queues {
                    partitions: (0..partitions).map(|_| Queue::default()).collect(),
                    closed: false,
                }),
                ready: (0..partitions).map(|_| Notify::new()).collect(),
                max_records: (settings.max_records / partitions).max(1),
                max_bytes: (settings.max_bytes / partitions).max(1),
            }),
        }
    }

    fn split(&self, records: Vec<Record>) -> Vec<(Vec<Record>, usize)> {
        let n = self.partitions();
        let mut batches: Vec<(Vec<Record>, usize)> = (0..n).map(|_| (Vec::new(), 0)).collect();
        for record in records {
            let bytes = record.bytes();
            let place = record.place(n);
            if place.len() == 1 {
                batches[place.start].0.push(record);
                batches[place.start].1 += bytes;
                continue;
            }
            for (batch, sum) in &mut batches[place] {
                batch.push(record.clone());
                *sum += bytes;
            }
        }
        batches
    }
}

#[async_trait]
impl Bus for Embedded {
    fn kind(&self) -> Kind {
        Kind::Embedded
    }

    fn partitions(&self) -> usize {
        self.shared.ready.len()
    }

    async fn publish(&self, records: Vec<Record>) -> Published {
        let count = records.len();
        let batches = self.split(records);
        let mut queues = self.shared.lock();
        let fits = batches.iter().zip(&queues.partitions).all(|((batch, bytes), queue)| {
            batch.is_empty() || queue.batches.is_empty() || self.shared.fits(queue, batch.len(), *bytes)
        });
        if queues.closed || !fits {
            return Published { taken: 0, refused: count };
        }
        for (index, (batch, bytes)) in batches.into_iter().enumerate().filter(|(_, (b, _))| !b.is_empty()) {
            let queue = &mut queues.partitions[index];
            queue.records += batch.len();
            queue.bytes += bytes;
            queue.batches.push_back((Arc::new(batch), bytes));
            self.shared.ready[index].notify_one();
        }
        Published { taken: count, refused: 0 }
    }

    fn consumer(&self, start: Start) -> Box<dyn Consumer> {
        Box::new(Reader { shared: self.shared.clone(), partition: start.partition })
    }

    async fn run(&self, stop: CancellationToken) {
        stop.cancelled().await;
    }

    fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.ready.iter().for_each(Notify::notify_one);
    }

    fn depth(&self) -> usize {
        self.shared.lock().partitions.iter().map(|queue| queue.records).sum()
    }

    fn fill(&self) -> f64 {
        let Shared { max_records, max_bytes, .. } = *self.shared;
        let queues = self.shared.lock();
        let fill = |q: &Queue| filled(q.records as u64, q.bytes as u64, max_records, max_bytes);
        queues.partitions.iter().map(fill).fold(0.0, f64::max)
    }

    fn status(&self) -> Status {
        let queues = self.shared.lock();
        let partitions = queues.partitions.iter().enumerate();
        let partitions = partitions.map(|(partition, queue)| PartitionStatus {
            partition,
            waiting: queue.records as u64,
            waiting_bytes: queue.bytes as u64,
            ..PartitionStatus::default()
        });
        Status { kind: Kind::Embedded, partitions: partitions.collect(), ..Status::new(Kind::Embedded) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        // A panic between two lines of bookkeeping cannot leave a queue half changed in a way that matters.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, queue: &Queue, records: usize, bytes: usize) -> bool {
        queue.records + records <= self.max_records && queue.bytes + bytes <= self.max_bytes
    }
}

/// Reads one partition in order.
struct Reader {
    shared: Arc<Shared>,
    partition: usize,
}

#[async_trait]
impl Consumer for Reader {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            {
                let queues = self.shared.lock();
                if let Some((records, _)) = queues.partitions[self.partition].batches.front() {
                    return Some(Delivery { records: records.clone(), arrived: None, mark: None });
                }
                if queues.closed {
                    return None;
                }
            }
            self.shared.ready[self.partition].notified().await;
        }
    }

    fn judged(&mut self, delivery: Delivery) {
        let mut queues = self.shared.lock();
        let queue = &mut queues.partitions[self.partition];
        if queue.batches.front().is_some_and(|(head, _)| Arc::ptr_eq(head, &delivery.records))
            && let Some((records, bytes)) = queue.batches.pop_front()
        {
            queue.records -= records.len();
            queue.bytes -= bytes;
        }
    }

    /// What was judged is gone from memory already.
    async fn saved(&mut self, _mark: &Mark) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::partition;
    use crate::model::Sample;

    fn sample(service: &str) -> Record {
        Record::Sample(Sample {
            at: jiff::Timestamp::UNIX_EPOCH,
            name: "up".into(),
            service: service.into(),
            labels: Default::default(),
            value: 1.0,
        })
    }

    fn bus(max_records: usize) -> Embedded {
        Embedded::new(&BusSettings { partitions: 1, max_records, max_bytes: 1 << 20 })
    }

    #[tokio::test]
    async fn full_bus_refuses_the_whole_batch_until_a_commit_makes_room() {
        let bus = bus(3);
        let mut consumer = bus.consumer(Start::of(0));
        assert_eq!(bus.publish(vec![sample("a"), sample("b")]).await, Published { taken: 2, refused: 0 });
        assert_eq!(bus.publish(vec![sample("a"), sample("b")]).await, Published { taken: 0, refused: 2 });
        let delivery = consumer.next().await.expect("a batch waits");
        assert_eq!(bus.publish(vec![sample("a"), sample("b")]).await.refused, 2, "in flight still counts");
        consumer.judged(delivery);
        assert_eq!(bus.publish(vec![sample("a"), sample("b")]).await.taken, 2);
        assert_eq!(bus.depth(), 2);
    }

    #[tokio::test]
    async fn uncommitted_delivery_comes_again() {
        let bus = bus(10);
        assert_eq!(bus.publish(vec![sample("a")]).await.taken, 1);
        drop(bus.consumer(Start::of(0)).next().await);
        let mut consumer = bus.consumer(Start::of(0));
        let again = consumer.next().await.expect("delivered again");
        assert_eq!(again.records.len(), 1);
        consumer.judged(again);
        bus.close();
        assert!(consumer.next().await.is_none());
        assert_eq!(bus.publish(vec![sample("a")]).await.refused, 1, "closed");
    }

    #[tokio::test]
    async fn oversized_batch_is_taken_by_an_empty_partition_only() {
        let bus = bus(2);
        assert_eq!(bus.publish(vec![sample("a"), sample("b"), sample("c")]).await.taken, 3);
        assert_eq!(bus.publish(vec![sample("a")]).await.refused, 1);
    }

    #[test]
    fn one_service_always_has_the_same_partition() {
        assert_eq!(partition("checkout", 8), partition("checkout", 8));
        let used: std::collections::BTreeSet<_> = (0..100).map(|i| partition(&format!("s{i}"), 8)).collect();
        assert_eq!(used.len(), 8);
    }
}
