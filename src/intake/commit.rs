//! Group commit: whatever waits goes into one transaction with one fsync; only then does anybody hear 2xx.
//!
//! Hands inbox rows to correlation, and changes to whoever diagnoses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    alarm::{self, Alarm},
    metrics,
    model::{AlertEvent, AnomalyEvent, Change},
    store::{
        self, Store, changes,
        inbox::{self, Delivery, Prepared},
        leases::Lease,
    },
};

/// Deliveries that share one transaction at most; more would make the first one wait for long.
const GROUP: usize = 1024;
/// So many that are written together had to wait for one another: more come than the disk and the processors take at once.
const CROWD: usize = 32;
const CROWDED_FOR: Duration = Duration::from_millis(20);
/// Bytes that may wait together, however few deliveries they are.
const MOST_BYTES: usize = 64 << 20;

crate::model::words!(
    /// Which road a durable delivery came in by; a metric label.
    Road {
        Alertmanager = "alertmanager",
        Prometheus = "prometheus",
        Generic = "generic",
        Changes = "changes",
        Anomalies = "anomalies",
        Reconcile = "reconcile",
        Expiry = "expiry",
    }
);

/// Why a delivery is not known to be durable. The sender hears 503 and comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCommitted {
    #[error("the queue to the store is full")]
    Full,
    #[error("the store did not answer in time")]
    Late,
    #[error("the store failed")]
    Failed,
    #[error("the service is stopping")]
    Stopped,
    /// What wrote it has another owner by now.
    #[error("another replica has taken over")]
    NotOurs,
}

/// The way to the writer. Cheap to clone; the writer ends when it is told to stop and has written what waited.
#[derive(Clone)]
pub struct Committer {
    store: Store,
    queue: mpsc::Sender<Pending>,
    deadline: Duration,
    load: Arc<Load>,
}

/// What waits for the disk.
struct Load {
    begun: Instant,
    bytes: AtomicUsize,
    /// Since when the oldest delivery that is being written has waited, in microseconds after `begun`; 0: none is.
    writing_since: AtomicU64,
    /// When a crowd was last written, likewise.
    crowded_at: AtomicU64,
}

impl Load {
    fn micros(&self, at: Instant) -> u64 {
        (at.saturating_duration_since(self.begun).as_micros() as u64).max(1)
    }
}

/// A part of the bytes that may wait; given back when it is dropped.
struct Share {
    load: Arc<Load>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Pending {
    write: Write,
    done: oneshot::Sender<bool>,
    since: Instant,
    /// Senders that hang up do not make room: what they left behind is still here.
    share: Share,
}

enum Write {
    Inbox(Prepared),
    Changes(Vec<Change>),
}

impl Committer {
    /// The way in, and the writer, to be run. At most `queue` deliveries wait for it, each at most `deadline`. After `stop` it
    /// takes nothing new, writes what waits, and ends.
    pub fn new(
        store: Store,
        queue: usize,
        deadline: Duration,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(queue.max(1));
        for road in Road::ALL {
            // A series that appears with its first loss would show no rise.
            metrics::INTAKE_SHED.with_label_values(&[road.as_str()]);
        }
        let (bytes, writing_since, crowded_at) = Default::default();
        let load = Arc::new(Load { begun: Instant::now(), bytes, writing_since, crowded_at });
        let writer = write_until_stopped(store.clone(), receiver, stop, load.clone());
        (Self { store, queue: sender, deadline, load }, writer)
    }

    /// The same with the writer running on this runtime.
    pub fn start(
        store: Store,
        queue: usize,
        deadline: Duration,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (committer, writer) = Self::new(store, queue, deadline, stop);
        (committer, tokio::spawn(writer))
    }

    /// Makes alerts of one delivery durable as one inbox row. No alerts, no row.
    pub async fn alerts(&self, road: Road, events: Vec<AlertEvent>) -> Result<(), NotCommitted> {
        if events.is_empty() {
            return Ok(());
        }
        let count = events.len();
        let row = Prepared::new(&Delivery::Alerts(events));
        self.submit(road, count, Write::Inbox(row)).await
    }

    /// Like [`Committer::alerts`], for what one replica alone may write: only while the lease is its own.
    pub async fn alerts_held(
        &self,
        lease: &Lease,
        road: Road,
        events: Vec<AlertEvent>,
    ) -> Result<(), NotCommitted> {
        if events.is_empty() {
            return Ok(());
        }
        let count = events.len();
        let row = [Prepared::new(&Delivery::Alerts(events))];
        let written = tokio::time::timeout(self.deadline, inbox::append_held(&self.store, lease, &row)).await;
        let outcome = match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(store::Error::LeaseLost)) => Err(NotCommitted::NotOurs),
            Ok(Err(error)) => {
                tracing::error!(%error, "what was to be repaired could not be made durable");
                Err(NotCommitted::Failed)
            }
            Err(_) => Err(NotCommitted::Late),
        };
        Self::count(road, count, outcome)
    }

    /// Makes the onset or end of an anomaly durable.
    pub async fn anomaly(&self, event: AnomalyEvent) -> Result<(), NotCommitted> {
        let row = Prepared::new(&Delivery::Anomaly(Box::new(event)));
        self.submit(Road::Anomalies, 1, Write::Inbox(row)).await
    }

    /// Makes changes durable where diagnosis finds them; the same ids again are the same changes.
    pub async fn changes(&self, changes: Vec<Change>) -> Result<(), NotCommitted> {
        if changes.is_empty() {
            return Ok(());
        }
        self.submit(Road::Changes, changes.len(), Write::Changes(changes)).await
    }

    /// Deliveries that wait for the writer.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// How long the oldest delivery that is being written has waited for the disk.
    pub fn wait(&self) -> Duration {
        match self.load.writing_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            micros => self.load.begun.elapsed().saturating_sub(Duration::from_micros(micros)),
        }
    }

    /// Whether many deliveries are waiting for the disk together just now.
    pub fn is_crowded(&self) -> bool {
        let at = self.load.crowded_at.load(Ordering::Relaxed);
        at > 0 && self.load.begun.elapsed() < Duration::from_micros(at) + CROWDED_FOR
    }

    async fn submit(&self, road: Road, items: usize, write: Write) -> Result<(), NotCommitted> {
        Self::count(road, items, self.commit(write).await)
    }

    fn count(road: Road, items: usize, outcome: Result<(), NotCommitted>) -> Result<(), NotCommitted> {
        let label = [road.as_str()];
        match outcome {
            Ok(()) => {
                metrics::INTAKE_DELIVERIES.with_label_values(&label).inc();
                metrics::INTAKE_ITEMS.with_label_values(&label).inc_by(items as u64);
            }
            Err(_) => metrics::INTAKE_SHED.with_label_values(&label).inc_by(items as u64),
        }
        outcome
    }

    async fn commit(&self, write: Write) -> Result<(), NotCommitted> {
        let started = Instant::now();
        let (done, answer) = oneshot::channel();
        let share = self.share(write.bytes())?;
        let pending = Pending { write, done, since: started, share };
        self.queue.try_send(pending).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => NotCommitted::Full,
            mpsc::error::TrySendError::Closed(_) => NotCommitted::Stopped,
        })?;
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(true)) => {
                metrics::INTAKE_COMMIT_SECONDS.observe(started.elapsed().as_secs_f64());
                Ok(())
            }
            Ok(Ok(false)) => Err(NotCommitted::Failed),
            Ok(Err(_)) => Err(NotCommitted::Stopped),
            Err(_) => Err(NotCommitted::Late),
        }
    }
}

impl Committer {
    /// Room for so many bytes. One delivery alone always has it.
    fn share(&self, bytes: usize) -> Result<Share, NotCommitted> {
        let before = self.load.bytes.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { load: self.load.clone(), bytes };
        if before > 0 && before + bytes > MOST_BYTES { Err(NotCommitted::Full) } else { Ok(share) }
    }
}

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Self::Inbox(row) => row.bytes(),
            Self::Changes(changes) => changes.iter().map(|c| c.summary.len() + c.service.len() + 256).sum(),
        }
    }
}

async fn write_until_stopped(
    store: Store,
    mut queue: mpsc::Receiver<Pending>,
    stop: CancellationToken,
    load: Arc<Load>,
) {
    let mut group = Vec::with_capacity(GROUP);
    loop {
        let taken = tokio::select! {
            biased;
            () = stop.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
            taken = queue.recv_many(&mut group, GROUP) => taken,
        };
        if taken == 0 {
            // Everybody who could send has gone, which at the end may be a moment before the stop.
            return stop.cancelled().await;
        }
        if let Some(oldest) = group.iter().map(|pending| pending.since).min() {
            load.writing_since.store(load.micros(oldest), Ordering::Relaxed);
        }
        if group.len() >= CROWD {
            load.crowded_at.store(load.micros(Instant::now()), Ordering::Relaxed);
        }
        write_group(&store, &mut group).await;
        load.writing_since.store(0, Ordering::Relaxed);
    }
}

/// Writes one group and tells everybody in it; leaves it empty.
async fn write_group(store: &Store, group: &mut Vec<Pending>) {
    // Who has given up was told 503 and will come again.
    group.retain(|pending| !pending.done.is_closed());
    let (mut rows, mut rows_told) = (Vec::with_capacity(group.len()), Vec::with_capacity(group.len()));
    let (mut changed, mut changed_told) = (Vec::new(), Vec::new());
    let mut shares = Vec::with_capacity(group.len());
    for Pending { write, done, since: _, share } in group.drain(..) {
        shares.push(share);
        match write {
            Write::Inbox(row) => {
                rows.push(row);
                rows_told.push(done);
            }
            Write::Changes(changes) => {
                changed.extend(changes);
                changed_told.push(done);
            }
        }
    }
    if !rows.is_empty() {
        let outcome = inbox::append(store, &rows).await;
        match &outcome {
            Ok(()) => alarm::clear(Alarm::StoreFailing),
            Err(error) => {
                alarm::raise(Alarm::StoreFailing, format!("alerts cannot be made durable: {error}"))
            }
        }
        answer(rows_told, outcome);
    }
    if !changed_told.is_empty() {
        // Where the inbox is a file of its own, alerts must not wait for the state's writer behind a change.
        let store = store.clone();
        tokio::spawn(async move { answer(changed_told, save_changes(&store, &changed).await) });
    }
}

fn answer(told: Vec<oneshot::Sender<bool>>, outcome: store::Result<()>) {
    if let Err(error) = &outcome {
        tracing::error!(%error, deliveries = told.len(), "intake could not be made durable; senders were told 503");
    }
    for done in told {
        // A receiver that is gone took its 503 already.
        let _ = done.send(outcome.is_ok());
    }
}

async fn save_changes(store: &Store, changed: &[Change]) -> store::Result<()> {
    let mut tx = store.write().await?;
    for change in changed {
        changes::save(&mut tx, change).await?;
    }
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AlertState, Labels};

    fn event(name: &str) -> AlertEvent {
        let labels = Labels::from([("alertname".to_owned(), name.to_owned())]);
        AlertEvent {
            source: "alertmanager".into(),
            fingerprint: crate::model::fingerprint(&labels),
            state: AlertState::Firing,
            labels,
            annotations: Labels::new(),
            starts_at: crate::clock::now(),
            ends_at: None,
            expires_at: None,
            generator_url: String::new(),
        }
    }

    async fn store(dir: &tempfile::TempDir) -> Store {
        Store::open("", dir.path()).await.expect("a store in a temporary directory")
    }

    async fn backlog(store: &Store) -> i64 {
        inbox::backlog(store).await.expect("counted").0
    }

    #[tokio::test]
    async fn what_waits_shares_a_transaction_and_a_stop_writes_the_rest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir).await;
        let stop = CancellationToken::new();
        let (committer, writer) = Committer::start(store.clone(), 64, Duration::from_secs(5), stop.clone());
        let posts = (0..20).map(|i| {
            let committer = committer.clone();
            async move { committer.alerts(Road::Alertmanager, vec![event(&format!("A{i}"))]).await }
        });
        for outcome in futures_util::future::join_all(posts).await {
            assert_eq!(outcome, Ok(()));
        }
        assert_eq!(backlog(&store).await, 20);
        stop.cancel();
        writer.await.expect("the writer ends");
        let late = committer.alerts(Road::Alertmanager, vec![event("late")]).await;
        assert_eq!(late, Err(NotCommitted::Stopped));
    }

    #[tokio::test]
    async fn only_many_at_a_time_are_a_crowd_and_it_is_over_soon() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir).await;
        let (committer, _writer) =
            Committer::start(store.clone(), 256, Duration::from_secs(5), CancellationToken::new());
        assert_eq!(committer.alerts(Road::Alertmanager, vec![event("alone")]).await, Ok(()));
        assert!(!committer.is_crowded());
        let busy = crate::store::testing::hold_inbox(&store).await;
        let post = |name: String| {
            let committer = committer.clone();
            tokio::spawn(async move { committer.alerts(Road::Alertmanager, vec![event(&name)]).await })
        };
        let mut posts = vec![post("first".into())];
        while committer.wait().is_zero() {
            tokio::task::yield_now().await;
        }
        // Those behind the one that is being written will be together.
        posts.extend((0..CROWD).map(|i| post(format!("A{i}"))));
        while committer.waiting() < CROWD {
            tokio::task::yield_now().await;
        }
        drop(busy);
        for post in posts {
            assert_eq!(post.await.expect("it ends"), Ok(()));
        }
        assert!(committer.load.crowded_at.load(Ordering::Relaxed) > 0);
        tokio::time::sleep(2 * CROWDED_FOR).await;
        assert!(!committer.is_crowded());
    }

    #[tokio::test]
    async fn a_slow_store_is_not_waited_for_and_a_full_queue_refuses() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir).await;
        let stop = CancellationToken::new();
        let (committer, writer) =
            Committer::start(store.clone(), 1, Duration::from_millis(200), stop.clone());
        let busy = crate::store::testing::hold_inbox(&store).await;
        let post = || committer.alerts(Road::Alertmanager, vec![event("A")]);
        // The writer takes the first out of the queue and waits for the store with it; the second fills the queue.
        let (first, rest) = tokio::join!(post(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            tokio::join!(post(), post())
        });
        assert_eq!(first, Err(NotCommitted::Late));
        assert_eq!(rest, (Err(NotCommitted::Late), Err(NotCommitted::Full)));
        drop(busy);
        while committer.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(post().await, Ok(()));
        stop.cancel();
        writer.await.expect("the writer ends");
        // The first may be there too: it was under way when its sender gave up. The second was dropped unwritten.
        assert!((1..=2).contains(&backlog(&store).await));
    }

    #[tokio::test]
    async fn what_waits_for_the_disk_is_bounded_in_bytes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = store(&dir).await;
        let stop = CancellationToken::new();
        let (committer, writer) = Committer::start(store.clone(), 64, Duration::from_secs(30), stop.clone());
        let busy = crate::store::testing::hold_inbox(&store).await;
        let mut large = event("large");
        large.annotations.insert("text".into(), "x".repeat(MOST_BYTES - 1000));
        let first = committer.alerts(Road::Alertmanager, vec![large]);
        let rest = async {
            while committer.waiting() > 0 || committer.wait().is_zero() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut small = event("small");
            small.annotations.insert("text".into(), "x".repeat(2000));
            assert_eq!(committer.alerts(Road::Alertmanager, vec![small]).await, Err(NotCommitted::Full));
            drop(busy);
        };
        let (first, ()) = tokio::join!(first, rest);
        assert_eq!(first, Ok(()), "one alone always has room");
        assert_eq!(committer.alerts(Road::Alertmanager, vec![event("after")]).await, Ok(()));
        stop.cancel();
        writer.await.expect("the writer ends");
    }
}
