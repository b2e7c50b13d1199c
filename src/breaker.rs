//! Circuit breakers around other services: after repeated failures we stop asking for a while, then try once.
//!
//! `failsafe` keeps the state machine. Around it stands what it lacks: the state can be read, a half-open breaker admits one
//! probe, a dropped call counts as a failure, and the late result of an earlier state counts as nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use failsafe::{
    Instrument, StateMachine,
    failure_policy::{self, ConsecutiveFailures, OrElse, SuccessRateOverTimeWindow},
};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::{clock, config, metrics, redact, retry::Backoff};

crate::model::words!(
    /// A service that we depend on, as metrics, `aiops check` and diagnoses name it.
    Dependency {
        Prometheus = "prometheus",
        Elasticsearch = "elasticsearch",
        OpenAi = "openai",
        Ollama = "ollama",
    }
);

crate::model::words!(
    /// What a breaker does with the next call.
    BreakerState {
        /// Lets it through.
        Closed = "closed",
        /// Lets one through, to see whether the service is back.
        HalfOpen = "half_open",
        /// Refuses it.
        Open = "open",
    }
);

/// One breaker, as people are shown it.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct BreakerStatus {
    pub name: Dependency,
    pub state: BreakerState,
    /// When it entered that state.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The last failure that it counted, secrets masked.
    pub last_error: Option<String>,
}

/// Why a call through a breaker gave no value.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    #[error("circuit open")]
    Open,
    #[error("circuit half-open, another call is testing it")]
    ProbeBusy,
    #[error("timed out after {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error(transparent)]
    Inner(E),
}

/// Every breaker of the program, one per dependency.
#[derive(Clone)]
pub struct Breakers(Arc<BTreeMap<Dependency, Breaker>>);

impl Breakers {
    pub fn new(settings: &config::Breaker) -> Self {
        Self(Arc::new(Dependency::ALL.iter().map(|d| (*d, Breaker::new(*d, settings))).collect()))
    }
    pub fn of(&self, name: Dependency) -> &Breaker {
        self.0.get(&name).expect("there is one for every dependency")
    }
    /// All of them, in the order of declaration.
    pub fn status(&self) -> Vec<BreakerStatus> {
        self.0.values().map(Breaker::status).collect()
    }
}

/// A circuit breaker; see the module.
pub struct Breaker {
    machine: StateMachine<Policy, Hook>,
    seen: Arc<Seen>,
    probes: Semaphore,
    /// Orders every question to the machine with the hook that it runs, so that its state and ours never differ.
    order: Mutex<()>,
}

type Policy = OrElse<SuccessRateOverTimeWindow<Waits>, ConsecutiveFailures<Waits>>;

impl Breaker {
    pub fn new(name: Dependency, settings: &config::Breaker) -> Self {
        let waits = Waits { backoff: Backoff::new(settings.open, settings.open_max), attempt: 0 };
        let policy = failure_policy::FailurePolicy::or_else(
            failure_policy::success_rate_over_time_window(0.5, 10, settings.window, waits.clone()),
            failure_policy::consecutive_failures(settings.failures, waits),
        );
        let seen = Arc::new(Seen {
            name,
            epoch: AtomicU64::new(0),
            view: Mutex::new(View { state: BreakerState::Closed, since: clock::now(), last_error: None }),
        });
        let machine = StateMachine::new(policy, Hook(seen.clone()));
        Self { machine, seen, probes: Semaphore::new(1), order: Mutex::new(()) }
    }

    pub fn state(&self) -> BreakerState {
        lock(&self.seen.view).state
    }

    pub fn status(&self) -> BreakerStatus {
        let view = lock(&self.seen.view);
        BreakerStatus {
            name: self.seen.name,
            state: view.state,
            since: view.since,
            last_error: view.last_error.clone(),
        }
    }

    /// Awaits `call` for at most `timeout`, if the breaker lets it through. A time-out, an error for which `counts` is true
    /// and dropping the returned future count as failures; any other result is a success.
    pub async fn call<T, E: std::fmt::Display>(
        &self,
        timeout: Duration,
        counts: impl Fn(&E) -> bool,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CallError<E>> {
        let (_probe, mut report) = self.admit()?;
        let result = tokio::time::timeout(timeout, call).await;
        match result {
            Ok(Ok(value)) => {
                report.success();
                Ok(value)
            }
            Ok(Err(e)) => {
                if counts(&e) {
                    report.failure(&e.to_string())
                } else {
                    report.success()
                }
                Err(CallError::Inner(e))
            }
            Err(_) => {
                let e = CallError::Timeout(timeout);
                report.failure(&e.to_string());
                Err(e)
            }
        }
    }

    fn admit<E>(&self) -> Result<(Option<tokio::sync::SemaphorePermit<'_>>, Report<'_>), CallError<E>> {
        let _order = lock(&self.order);
        if !self.machine.is_call_permitted() {
            return Err(CallError::Open);
        }
        let probe = match self.state() {
            BreakerState::Closed => None,
            BreakerState::HalfOpen | BreakerState::Open => match self.probes.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    metrics::BREAKER_REJECTED.with_label_values(&[self.seen.name.as_str()]).inc();
                    return Err(CallError::ProbeBusy);
                }
            },
        };
        Ok((probe, Report { breaker: self, epoch: self.seen.epoch.load(Ordering::Acquire), done: false }))
    }
}

/// Tells the machine how an admitted call ended, once; dropping it unspoken is a failure.
struct Report<'a> {
    breaker: &'a Breaker,
    epoch: u64,
    done: bool,
}

impl Report<'_> {
    fn success(&mut self) {
        self.tell(StateMachine::on_success);
    }
    fn failure(&mut self, error: &str) {
        lock(&self.breaker.seen.view).last_error = Some(redact::mask(redact::cut(error, 300)));
        self.tell(StateMachine::on_error);
    }
    fn tell(&mut self, what: fn(&StateMachine<Policy, Hook>)) {
        self.done = true;
        let _order = lock(&self.breaker.order);
        // The state has changed since this call began: its result says nothing about the present one.
        if self.breaker.seen.epoch.load(Ordering::Acquire) == self.epoch {
            what(&self.breaker.machine);
        }
    }
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.failure("the call was given up");
        }
    }
}

struct View {
    state: BreakerState,
    since: Timestamp,
    last_error: Option<String>,
}

struct Seen {
    name: Dependency,
    /// Grows with every change of state.
    epoch: AtomicU64,
    view: Mutex<View>,
}

/// Called by the machine; must not call it back.
struct Hook(Arc<Seen>);

impl Hook {
    fn enter(&self, state: BreakerState) {
        let mut view = lock(&self.0.view);
        let before = std::mem::replace(&mut view.state, state);
        view.since = clock::now();
        self.0.epoch.fetch_add(1, Ordering::AcqRel);
        let name = self.0.name.as_str();
        metrics::BREAKER_STATE.with_label_values(&[name]).set(state as i64);
        if before != state {
            metrics::BREAKER_TRANSITIONS.with_label_values(&[name, state.as_str()]).inc();
            let error = view.last_error.as_deref().unwrap_or_default();
            tracing::warn!(breaker = name, from = %before, to = %state, error, "circuit breaker changed its state");
        }
    }
}

impl Instrument for Hook {
    fn on_call_rejected(&self) {
        metrics::BREAKER_REJECTED.with_label_values(&[self.0.name.as_str()]).inc();
    }
    fn on_open(&self) {
        self.enter(BreakerState::Open);
    }
    fn on_half_open(&self) {
        self.enter(BreakerState::HalfOpen);
    }
    fn on_closed(&self) {
        self.enter(BreakerState::Closed);
    }
}

/// How long it stays open, time after time. `failsafe`'s own backoffs count whole seconds and panic under one.
#[derive(Clone, Debug)]
struct Waits {
    backoff: Backoff,
    attempt: i64,
}

impl Iterator for Waits {
    type Item = Duration;
    fn next(&mut self) -> Option<Duration> {
        self.attempt += 1;
        Some(self.backoff.wait(self.attempt))
    }
}

/// A panic while the lock was held leaves plain data behind, which stays usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(5);

    fn breaker(open: Duration) -> Breaker {
        let settings = config::Breaker { failures: 2, open, open_max: open, ..config::Breaker::default() };
        Breaker::new(Dependency::OpenAi, &settings)
    }
    async fn fail(b: &Breaker) -> Result<(), CallError<&'static str>> {
        b.call(LONG, |_| true, async { Err("refused, password=hunter2") }).await
    }
    async fn succeed(b: &Breaker) -> Result<(), CallError<&'static str>> {
        b.call(LONG, |_| true, async { Ok(()) }).await
    }
    async fn half_open() -> Breaker {
        let b = breaker(Duration::from_millis(20));
        for _ in 0..2 {
            fail(&b).await.expect_err("fails");
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
        b
    }

    #[tokio::test]
    async fn opens_after_repeated_failures_and_says_why() {
        let b = breaker(LONG);
        fail(&b).await.expect_err("fails");
        assert_eq!(b.state(), BreakerState::Closed);
        fail(&b).await.expect_err("fails");
        assert!(matches!(succeed(&b).await, Err(CallError::Open)));
        let status = b.status();
        assert_eq!(status.state, BreakerState::Open);
        assert_eq!(status.last_error.as_deref(), Some("refused, password=***"));
    }

    #[tokio::test]
    async fn an_error_that_does_not_count_is_a_success() {
        let b = breaker(LONG);
        for _ in 0..5 {
            let r: Result<(), _> = b.call(LONG, |_| false, async { Err("over budget") }).await;
            assert!(matches!(r, Err(CallError::Inner("over budget"))));
        }
        assert_eq!(b.state(), BreakerState::Closed);
    }

    #[tokio::test]
    async fn half_open_admits_one_probe_and_its_success_closes() {
        let b = half_open().await;
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let probe = b.call(LONG, |_: &&str| true, async { wait.await.map_err(|_| "dropped") });
        let others = async {
            tokio::task::yield_now().await;
            assert_eq!(b.state(), BreakerState::HalfOpen);
            assert!(matches!(succeed(&b).await, Err(CallError::ProbeBusy)));
            go.send(()).expect("the probe waits");
        };
        let (probe, ()) = tokio::join!(probe, others);
        probe.expect("the probe succeeds");
        assert_eq!(b.state(), BreakerState::Closed);
        succeed(&b).await.expect("closed");
    }

    #[tokio::test]
    async fn a_failed_probe_opens_again() {
        let b = half_open().await;
        fail(&b).await.expect_err("fails");
        assert_eq!(b.state(), BreakerState::Open);
    }

    #[tokio::test]
    async fn a_dropped_call_and_a_timeout_are_failures() {
        let b = breaker(LONG);
        let never = std::future::pending::<Result<(), &str>>();
        assert!(matches!(
            b.call(Duration::from_millis(5), |_| true, never).await,
            Err(CallError::Timeout(_))
        ));
        let never = std::future::pending::<Result<(), &str>>();
        let given_up = tokio::time::timeout(Duration::from_millis(5), b.call(LONG, |_| true, never)).await;
        assert!(given_up.is_err());
        assert_eq!(b.state(), BreakerState::Open);
        assert_eq!(b.status().last_error.as_deref(), Some("the call was given up"));
    }

    #[tokio::test]
    async fn a_late_success_of_an_earlier_state_does_not_close_it() {
        let b = breaker(LONG);
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let slow = b.call(LONG, |_: &&str| true, async { wait.await.map_err(|_| "dropped") });
        let others = async {
            tokio::task::yield_now().await;
            for _ in 0..2 {
                fail(&b).await.expect_err("fails");
            }
            go.send(()).expect("the slow call waits");
        };
        let (slow, ()) = tokio::join!(slow, others);
        slow.expect("the call itself went well");
        assert_eq!(b.state(), BreakerState::Open);
    }

    #[test]
    fn every_dependency_has_a_breaker() {
        let all = Breakers::new(&config::Breaker::default());
        assert_eq!(all.status().len(), Dependency::ALL.len());
    }
}
