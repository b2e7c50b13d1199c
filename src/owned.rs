//! Keeps what must have one owner among the replicas with one: runs its work while this process owns its name, renews the
//! lease, and ends the work before the lease can be another's.
//!
//! A process can be stopped at any line, so this is not enough by itself: what the work writes holds its [`Lease`] in the
//! same transaction ([`leases::hold`]), and so fails once somebody else has taken over.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    metrics::{LEASES_LOST, LEASES_OWNED, LEASES_TAKEN},
    store::{
        Result, Store,
        leases::{self, Lease},
    },
};

/// What is ours by our own clock ends so much before it does by the database's; also what work gets to end by itself in.
const MARGIN: Duration = Duration::from_secs(1);
/// After a failure of the store.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
struct Pace {
    lease: Duration,
    renew: Duration,
    /// How often names are looked for that have become free, and members that have come or gone.
    look: Duration,
}

/// A replica that is gone is followed within the lease and a look.
const SHARED: Pace =
    Pace { lease: Duration::from_secs(10), renew: Duration::from_secs(3), look: Duration::from_secs(2) };
/// One process has the store to itself: nobody waits for it, and every renewal would cost a flush to the disk.
const ALONE: Pace =
    Pace { lease: Duration::from_secs(200), renew: Duration::from_secs(60), look: Duration::from_secs(2) };

/// One replica, as owner of names. Cheap to clone.
#[derive(Clone)]
pub struct Keeper {
    store: Store,
    owner: Arc<str>,
    pace: Pace,
}

/// A name that is ours until `until`, unless it is renewed.
struct Term {
    lease: Lease,
    until: Instant,
}

impl Keeper {
    /// `owner` names this process; no two may have the same.
    pub fn new(store: Store, owner: &str) -> Self {
        let pace = if store.is_shared() { SHARED } else { ALONE };
        Self { store, owner: owner.into(), pace }
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Does `work` whenever and as long as this process owns `name`, until cancelled. The work is told to end by its token; when
    /// the lease is lost, it is dropped if it has not ended a second later. Work that ends by itself gives the name back and
    /// begins again when it is somebody's turn.
    pub async fn run<F, Fut>(&self, name: &str, cancel: CancellationToken, work: F)
    where
        F: Fn(Lease, CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        while !cancel.is_cancelled() {
            let wait = match self.take(name).await {
                Ok(Ok(term)) => {
                    self.serve(term, &cancel, &work).await;
                    AGAIN
                }
                Ok(Err(busy)) => busy,
                Err(error) => {
                    tracing::warn!(%error, name, "asking for a lease failed");
                    AGAIN
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// A term, or how long to wait before asking again.
    async fn take(&self, name: &str) -> Result<std::result::Result<Term, Duration>> {
        let mut tx = self.store.read_few().await?;
        let busy = leases::busy_for(&mut tx, name, &self.owner, self.pace.lease).await?;
        drop(tx);
        if busy > Duration::ZERO {
            return Ok(Err(busy.min(self.pace.look)));
        }
        let asked = Instant::now();
        let mut tx = self.store.write().await?;
        let lease = leases::acquire(&mut tx, name, &self.owner, self.pace.lease).await?;
        tx.commit().await?;
        Ok(lease.map(|lease| Term { lease, until: self.ends(asked) }).ok_or(AGAIN))
    }

    /// When a lease that was asked for then has to be seen as ended here.
    fn ends(&self, asked: Instant) -> Instant {
        asked + self.pace.lease - MARGIN
    }

    async fn serve<F, Fut>(&self, term: Term, cancel: &CancellationToken, work: &F)
    where
        F: Fn(Lease, CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        let lease = term.lease.clone();
        tracing::info!(name = lease.name, fence = lease.fence, "this replica owns it now");
        LEASES_TAKEN.inc();
        let _owned = Owned::new();
        let ours = cancel.child_token();
        let mut work = std::pin::pin!(work(lease.clone(), ours.clone()));
        tokio::select! {
            () = &mut work => self.release(&lease).await,
            () = self.keep(term) => {
                ours.cancel();
                let _ = timeout(MARGIN, work).await;
                lost(&lease.name);
            }
        }
    }

    /// Renews the lease for as long as it is ours; returns when it may be another's.
    async fn keep(&self, mut term: Term) {
        let mut next = Instant::now() + self.pace.renew;
        loop {
            sleep_until(next.min(term.until)).await;
            let asked = Instant::now();
            match timeout_at(term.until, self.renew(std::slice::from_ref(&term.lease))).await {
                Ok(Ok(kept)) if kept.is_empty() => return,
                Ok(Ok(_)) => {
                    term.until = self.ends(asked);
                    next = asked + self.pace.renew;
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, name = term.lease.name, "renewing a lease failed");
                    next = Instant::now() + AGAIN;
                }
                Err(_) => return,
            }
        }
    }

    /// Those of the leases that are ours still, for another time.
    async fn renew(&self, held: &[Lease]) -> Result<Vec<Lease>> {
        let mut tx = self.store.write().await?;
        let mut kept = Vec::with_capacity(held.len());
        for lease in held {
            // Taken anew after somebody else had it, it has another fence: that is no renewal.
            let renewed = leases::hold(&mut tx, lease).await;
            match renewed {
                Ok(()) => {
                    kept.extend(leases::acquire(&mut tx, &lease.name, &self.owner, self.pace.lease).await?)
                }
                Err(crate::store::Error::LeaseLost) => {}
                Err(e) => return Err(e),
            }
        }
        tx.commit().await?;
        Ok(kept)
    }

    async fn release(&self, lease: &Lease) {
        let released = async {
            let mut tx = self.store.write().await?;
            leases::release(&mut tx, lease).await?;
            tx.commit().await
        };
        match timeout(self.pace.lease, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, name = lease.name, "giving back a lease failed; it ends by itself")
            }
            Err(_) => tracing::warn!(name = lease.name, "giving back a lease takes long; it ends by itself"),
        }
    }

    /// Says that this replica is alive, until cancelled.
    pub async fn attend(&self, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let said = async {
                let mut tx = self.store.write().await?;
                leases::attend(&mut tx, &self.owner, self.pace.lease).await?;
                tx.commit().await
            };
            let said: Result<()> = said.await;
            if let Err(error) = said {
                tracing::warn!(%error, "this replica could not say that it is alive");
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = sleep(self.pace.renew) => {}
            }
        }
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, "this replica could not say that it ends");
        }
    }

    /// Shares `names` fairly among the living replicas, each of which calls this with the same names: does `work` for at most
    /// `ceil(names / replicas)` of them, gives surplus back when a replica comes, and takes over when one dies. Each piece of
    /// work is a task of its own, told to end as by [`Keeper::run`]. A panic in one is passed on.
    pub async fn share<F, Fut>(&self, names: &[String], cancel: CancellationToken, work: F)
    where
        F: Fn(Lease, CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut share = Share { held: BTreeMap::new(), ended: Arc::default() };
        loop {
            let wait = match self.turn(&mut share, names, &cancel, &work).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(%error, "renewing this replica's share of the leases failed");
                    AGAIN
                }
            };
            self.drop_overdue(&mut share).await;
            if cancel.is_cancelled() && share.held.is_empty() {
                break;
            }
            tokio::select! {
                () = cancel.cancelled(), if !cancel.is_cancelled() => {}
                () = share.ended.notified() => {}
                () = sleep(wait) => {}
            }
        }
        if let Err(error) = self.leave().await {
            tracing::warn!(%error, "this replica could not say that it ends");
        }
    }

    /// Renews, gives back, takes; how long until the next turn.
    async fn turn<F, Fut>(
        &self,
        share: &mut Share,
        names: &[String],
        cancel: &CancellationToken,
        work: &F,
    ) -> Result<Duration>
    where
        F: Fn(Lease, CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        for lease in share.reap().await {
            self.release(&lease).await;
        }
        let first_end = share.held.values().map(|h| h.until).min();
        let asked = Instant::now();
        let renewing = self.renew_share(share);
        let (kept, members) = match first_end {
            Some(end) => match timeout_at(end, renewing).await {
                Ok(renewed) => renewed?,
                // What is overdue by now is dropped by the caller.
                Err(_) => return Ok(Duration::ZERO),
            },
            None => renewing.await?,
        };
        let lost: Vec<String> =
            share.held.keys().filter(|name| !kept.iter().any(|l| l.name == **name)).cloned().collect();
        for held in share.held.values_mut() {
            held.until = self.ends(asked);
        }
        share.end(&lost).await;
        if cancel.is_cancelled() {
            return Ok(self.pace.look);
        }
        let fair = names.len().div_ceil(members.max(1));
        share.give_back(fair);
        if share.held.len() < fair {
            self.take_more(share, names, fair, cancel, work).await?;
        }
        // On its own, a process renews when it must.
        Ok(if self.store.is_shared() { self.pace.look } else { self.pace.renew })
    }

    /// Which are ours still, and how many replicas live, this one included.
    async fn renew_share(&self, share: &Share) -> Result<(Vec<Lease>, usize)> {
        let held: Vec<Lease> = share.held.values().map(|h| h.lease.clone()).collect();
        let mut tx = self.store.write().await?;
        leases::attend(&mut tx, &self.owner, self.pace.lease).await?;
        let members = leases::members(&mut tx).await?.len();
        tx.commit().await?;
        Ok((if held.is_empty() { held } else { self.renew(&held).await? }, members))
    }

    async fn take_more<F, Fut>(
        &self,
        share: &mut Share,
        names: &[String],
        fair: usize,
        cancel: &CancellationToken,
        work: &F,
    ) -> Result<()>
    where
        F: Fn(Lease, CancellationToken) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        // Each begins elsewhere, so that replicas that start together do not ask for the same ones.
        let start = self.owner.bytes().fold(0_usize, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
        for i in 0..names.len() {
            let name = &names[start.wrapping_add(i) % names.len()];
            if share.held.len() >= fair {
                return Ok(());
            }
            if share.held.contains_key(name) {
                continue;
            }
            if let Ok(Term { lease, until }) = self.take(name).await? {
                tracing::info!(name, fence = lease.fence, "this replica owns it now");
                LEASES_TAKEN.inc();
                let token = cancel.child_token();
                let (body, ended) = (work(lease.clone(), token.clone()), share.ended.clone());
                let task = tokio::spawn(async move {
                    let _rung = Rung(ended);
                    body.await;
                });
                let held = Held { lease, until, token, task, _owned: Owned::new() };
                share.held.insert(name.clone(), held);
            }
        }
        Ok(())
    }

    async fn drop_overdue(&self, share: &mut Share) {
        let now = Instant::now();
        let overdue: Vec<String> =
            share.held.iter().filter(|(_, h)| h.until <= now).map(|(name, _)| name.clone()).collect();
        share.end(&overdue).await;
    }

    async fn leave(&self) -> Result<()> {
        let mut tx = self.store.write().await?;
        leases::leave(&mut tx, &self.owner).await?;
        tx.commit().await
    }
}

/// What one replica holds of the names that are shared.
struct Share {
    held: BTreeMap<String, Held>,
    /// Rung when a piece of work ends.
    ended: Arc<Notify>,
}

struct Held {
    lease: Lease,
    until: Instant,
    token: CancellationToken,
    task: JoinHandle<()>,
    _owned: Owned,
}

impl Share {
    /// Leases of work that has ended.
    async fn reap(&mut self) -> Vec<Lease> {
        let over: Vec<String> =
            self.held.iter().filter(|(_, h)| h.task.is_finished()).map(|(name, _)| name.clone()).collect();
        let mut leases = Vec::new();
        for name in over {
            let mut held = self.held.remove(&name).expect("just seen");
            if let Err(e) = (&mut held.task).await
                && e.is_panic()
            {
                std::panic::resume_unwind(e.into_panic());
            }
            leases.push(held.lease.clone());
        }
        leases
    }

    /// Tells surplus work to end; its lease is given back when it has.
    fn give_back(&self, fair: usize) {
        let surplus = self.held.len().saturating_sub(fair);
        for held in self.held.values().rev().take(surplus) {
            held.token.cancel();
        }
    }

    /// Ends work whose name may be another's.
    async fn end(&mut self, names: &[String]) {
        let ending: Vec<Held> = names.iter().filter_map(|name| self.held.remove(name)).collect();
        ending.iter().for_each(|held| held.token.cancel());
        let limit = Instant::now() + MARGIN;
        for mut held in ending {
            if timeout_at(limit, &mut held.task).await.is_err() {
                held.task.abort();
            }
            lost(&held.lease.name);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

fn lost(name: &str) {
    LEASES_LOST.inc();
    tracing::warn!(name, "the lease was lost: another replica has it, or the store did not answer in time");
}

/// Rings when the work is over, however it ends.
struct Rung(Arc<Notify>);

impl Drop for Rung {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Counted while it is ours.
struct Owned;

impl Owned {
    fn new() -> Self {
        LEASES_OWNED.inc();
        Self
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        LEASES_OWNED.dec();
    }
}
