//! PromQL watches: puts configured questions to Prometheus again and again and hands the answers to the bus as samples.
//!
//! No answer, an empty one and one without numbers are a [`Gap`]: what the watch would have shown is unknown, and diagnoses
//! of the service say so until it answers again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    logs, metrics as pushed,
    telemetry::{self, Kind, Parsed, Rejected},
    timestamps::{self, Time},
};
use crate::{
    breaker::{Breakers, CallError, Dependency},
    bus::{Bus, Record},
    clock,
    config::{Prometheus, Watch},
    metrics,
    model::{Gap, Labels, Said, Sample},
    owned::Keeper,
    prometheus_api::{ApiError, PrometheusApi, Series},
};

/// What the watches need.
#[derive(Clone)]
pub struct Deps {
    pub http: reqwest::Client,
    pub prometheus: Prometheus,
    pub breakers: Breakers,
    pub bus: Arc<dyn Bus>,
}

crate::model::words!(
    /// What became of one question; a metric label.
    Pull {
        Answered = "answered",
        Empty = "empty",
        Failed = "failed",
    }
);

/// Asks every watch at its pace until cancelled; replicas share them, so that each question is put by one.
pub async fn run(deps: Deps, watches: Vec<Watch>, keeper: Keeper, cancel: CancellationToken) {
    let by_name: BTreeMap<String, Watch> =
        watches.into_iter().map(|watch| (format!("watch.{}", watch.name), watch)).collect();
    let names: Vec<String> = by_name.keys().cloned().collect();
    keeper
        .share(&names, cancel, |lease, ours| {
            let puller = Puller::new(deps.clone(), by_name[&lease.name].clone());
            ask_again_and_again(puller, ours)
        })
        .await;
}

async fn ask_again_and_again(mut puller: Puller, cancel: CancellationToken) {
    let mut turns = tokio::time::interval(puller.watch.every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = turns.tick() => puller.pull().await,
        }
    }
}

/// What tells a series of a watch from the others.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    pub service: String,
    /// What it is called.
    pub name: String,
    pub labels: Labels,
}

/// Whom the series of one answer are about.
#[derive(Default)]
pub struct Identities(HashSet<Identity>);

impl Identities {
    /// That of the next series; why it has none.
    pub fn next(&mut self, watch: &Watch, mut metric: Labels) -> Result<Identity, String> {
        let label = |name: &str, given: &str| match name {
            "" => Ok(given.to_owned()),
            label => logs::name(metric.get(label).map(Into::into))
                .ok_or_else(|| format!("a series has no label {label}")),
        };
        let service = label(&watch.service_label, &watch.service)?;
        let name = label(&watch.name_label, &watch.name)?;
        metric.remove("__name__");
        let identity = Identity { service, name, labels: metric };
        match self.0.insert(identity.clone()) {
            true => Ok(identity),
            false => {
                Err("only its name tells a series from another: name_label: __name__ calls each by its own"
                    .into())
            }
        }
    }
}

/// A service that is missing for so long is taken for gone.
const GONE_AFTER: Duration = Duration::from_secs(86_400);
/// Seconds. What was scraped longer ago is not asked for: a selector finds nothing older either (`--query.lookback-delta`).
const LOOK_BACK: u64 = 300;
/// Seconds until what was scraped can be asked for: where samples are sent on by `remote_write`, they come late.
const LATE: u64 = 60;

/// One watch with what it has heard so far.
pub struct Puller {
    deps: Deps,
    watch: Watch,
    /// Services that have answered before: whose silence can be missed.
    known: BTreeSet<String>,
    /// Whom a gap was reported for; none stands for everybody, as long as nobody is known.
    missing: BTreeMap<Option<String>, Timestamp>,
    news: News,
    /// What was scraped is asked for so many seconds back, at most; none if Prometheus refuses that.
    look_back: u64,
    /// What was last wrong with series of an answer: logged when it is something else.
    wrong: String,
}

/// Tells samples from those that were heard before: between two scrapes Prometheus gives the same one again and again.
#[derive(Default)]
pub struct News(HashMap<u64, Timestamp>);

impl News {
    /// True if nothing as new was heard of the series, of one watch.
    pub fn is(&mut self, sample: &Sample) -> bool {
        let newest = self.0.entry(series_of(sample)).or_insert(Timestamp::MIN);
        let is = sample.at > *newest;
        *newest = sample.at.max(*newest);
        is
    }

    /// Since when there may be news of these series; the beginning of time if one of them was not heard yet.
    fn since(&self, samples: &[Sample]) -> Timestamp {
        let newest = samples.iter().map(|s| self.0.get(&series_of(s)).copied().unwrap_or(Timestamp::MIN));
        newest.min().unwrap_or(Timestamp::MIN)
    }

    fn forget_gone(&mut self, now: Timestamp) {
        self.0.retain(|_, newest| clock::between(*newest, now) <= GONE_AFTER);
    }
}

/// For so many seconds back each sample must be asked for so that none is missed.
fn at_least(watch: &Watch) -> u64 {
    watch.every.as_secs() + LATE
}

fn series_of(sample: &Sample) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&sample.service, &sample.name, &sample.labels).hash(&mut hasher);
    hasher.finish()
}

impl Puller {
    pub fn new(deps: Deps, watch: Watch) -> Self {
        let known = Some(watch.service.clone()).filter(|s| !s.is_empty()).into_iter().collect();
        let (missing, news, wrong) = Default::default();
        let look_back = LOOK_BACK.max(at_least(&watch));
        Self { deps, watch, known, missing, news, look_back, wrong }
    }

    /// Asks once and publishes the answer, or that there is none.
    pub async fn pull(&mut self) {
        let now = clock::now();
        let (result, why) = match self.ask(now).await {
            Ok((mut parsed, heard)) => {
                self.complain(parsed.errors.first());
                self.news.forget_gone(now);
                parsed.records.retain(|sample| self.news.is(sample));
                let result = if heard.is_empty() { Pull::Empty } else { Pull::Answered };
                let why = match parsed.errors.first() {
                    Some(error) => error.reason.clone(),
                    None => "the answer has no series".to_owned(),
                };
                self.publish(parsed, heard, now).await;
                (result, why)
            }
            Err(CallError::Inner(e)) => (Pull::Failed, format!("Prometheus {e}")),
            Err(e) => (Pull::Failed, e.to_string()),
        };
        metrics::WATCH_PULLS.with_label_values(&[result.as_str()]).inc();
        if result != Pull::Answered {
            self.miss(self.known.clone(), &why, now).await;
        }
    }

    /// What the answer says, and of whom. Of what is scraped, the samples: who asks more often than Prometheus scrapes would hear
    /// one twice, and take a counter for one that stands still at each second turn; who asks for a sum and for a count with a
    /// scrape between would hear of two moments.
    async fn ask(
        &mut self,
        now: Timestamp,
    ) -> Result<(Parsed<Sample>, BTreeSet<String>), CallError<ApiError>> {
        let answer = self.call(self.prometheus().instant(&self.watch.query)).await?;
        let mut answer: Vec<_> = answer.into_iter().map(Series::from).collect();
        let is_scraped = answer.iter().all(Series::is_scraped);
        let asked = answer.first().and_then(|series| series.values.first()).map(|(at, _)| *at);
        // Whatever the order in which it comes, the same ones have names that tell them from others.
        answer.sort_by(|a, b| a.metric.cmp(&b.metric));
        let parsed = self.samples(answer, now);
        let heard = parsed.records.iter().map(|s| s.service.clone()).collect();
        let scraped = match asked.filter(|_| is_scraped) {
            Some(at) => self.scraped(at, &parsed.records).await?,
            None => None,
        };
        Ok((scraped.map_or(parsed, |answer| self.samples(answer, now)), heard))
    }

    /// What was scraped of these series since they were heard, up to the time of their answer; `None` if Prometheus does not
    /// tell.
    async fn scraped(
        &mut self,
        at: f64,
        there: &[Sample],
    ) -> Result<Option<Vec<Series>>, CallError<ApiError>> {
        let since = self.news.since(there).as_millisecond() as f64 / 1000.0;
        let seconds = (at - since).ceil().max(0.0) as u64 + 1;
        while self.look_back > 0 {
            let seconds = seconds.min(self.look_back);
            let prometheus = self.prometheus();
            let error = match self.call(prometheus.scraped(&self.watch.query, at, seconds)).await {
                Err(CallError::Inner(error)) => error,
                answer => return answer.map(Some),
            };
            let watch = &self.watch.name;
            match &error {
                // With less, samples would be missed.
                error if error.is_too_much() && seconds / 2 < at_least(&self.watch) => {
                    let why = error.to_string();
                    tracing::warn!(
                        watch,
                        why,
                        "its values count as of the time of the question: ask for less"
                    );
                    self.look_back = 0;
                }
                error if error.is_too_much() => self.look_back = seconds / 2,
                // No selector, though what it computes has names.
                ApiError::Refused(_) | ApiError::WrongType(_) => self.look_back = 0,
                _ => return Err(CallError::Inner(error)),
            }
        }
        Ok(None)
    }

    fn prometheus(&self) -> PrometheusApi<'_> {
        PrometheusApi::new(&self.deps.http, &self.deps.prometheus)
    }

    async fn call<T>(
        &self,
        question: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, CallError<ApiError>> {
        let breaker = self.deps.breakers.of(Dependency::Prometheus);
        breaker.call(self.deps.prometheus.timeout, ApiError::is_its_fault, question).await
    }

    fn samples(&self, answer: Vec<Series>, now: Timestamp) -> Parsed<Sample> {
        let mut parsed = Parsed { records: vec![], rejected: 0, errors: vec![], replaced: 0, cut: 0 };
        let mut identities = Identities::default();
        for (index, Series { metric, values }) in answer.into_iter().enumerate() {
            let series = identities.next(&self.watch, metric);
            for value in values {
                match series.clone().and_then(|series| self.sample(series, value, now)) {
                    Ok(sample) => parsed.records.push(sample),
                    Err(reason) => parsed.reject(index, reason),
                }
            }
        }
        parsed
    }

    fn sample(
        &self,
        Identity { service, name, labels }: Identity,
        (at, value): (f64, String),
        now: Timestamp,
    ) -> Result<Sample, String> {
        let at = match timestamps::read(&super::flatten::Scalar::Float(at)) {
            Time::At(at) => at,
            Time::Vague | Time::Unreadable => now,
        };
        let value = pushed::value(&serde_json::Value::String(value))?;
        Ok(Sample { at, name, service, labels, value })
    }

    fn complain(&mut self, error: Option<&Rejected>) {
        if let Some(error) = error.filter(|error| self.wrong != error.reason) {
            tracing::warn!(watch = self.watch.name, why = error.reason, "part of an answer cannot be used");
            self.wrong.clone_from(&error.reason);
        }
    }

    /// Hands on what was heard, ends the gaps of those who were heard, and reports those who were not.
    async fn publish(&mut self, parsed: Parsed<Sample>, heard: BTreeSet<String>, now: Timestamp) {
        let deps = telemetry::Deps { bus: self.deps.bus.clone() };
        telemetry::accept(&deps, Kind::Watches, parsed).await;
        if heard.is_empty() {
            return;
        }
        let back: Vec<_> =
            self.missing.keys().filter(|s| s.as_ref().is_none_or(|s| heard.contains(s))).cloned().collect();
        for service in back {
            if self.tell(service.clone(), None, now).await {
                self.missing.remove(&service);
            }
        }
        let silent = self.known.difference(&heard).cloned().collect();
        self.miss(silent, "the answer has no series of it", now).await;
        self.known.extend(heard);
    }

    async fn miss(&mut self, services: BTreeSet<String>, why: &str, now: Timestamp) {
        let nobody = self.known.is_empty();
        for service in services.into_iter().map(Some).chain(nobody.then_some(None)) {
            let since = *self.missing.entry(service.clone()).or_insert(now);
            // Told again at every turn, so that a detector that forgot it hears of it.
            self.tell(service, Some(why.to_owned()), since).await;
        }
        self.forget_gone(now).await;
    }

    /// Services that a label names come and go: one that has been missing for long is missed no longer.
    async fn forget_gone(&mut self, now: Timestamp) {
        let is_gone = |(service, since): (&Option<String>, &Timestamp)| {
            let named = service.clone().filter(|name| *name != self.watch.service)?;
            (clock::between(*since, now) > GONE_AFTER).then_some(named)
        };
        for service in self.missing.iter().filter_map(is_gone).collect::<Vec<_>>() {
            if self.tell(Some(service.clone()), None, now).await {
                self.known.remove(&service);
                self.missing.remove(&Some(service));
            }
        }
    }

    /// True if the bus took it; what it did not take is told again at the next turn.
    async fn tell(&self, service: Option<String>, reason: Option<String>, at: Timestamp) -> bool {
        let source = format!("watch {}", self.watch.name);
        let gap = Gap { at, until: None, service, source, reason: reason.map(Said::from) };
        self.deps.bus.publish(vec![Record::Gap(gap)]).await.refused == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bus::Embedded,
        config::{self, BusSettings},
        http_client,
    };

    #[tokio::test]
    async fn a_service_that_is_missing_for_a_day_is_gone_and_missed_no_longer() {
        let bus = Arc::new(Embedded::new(&BusSettings::default()));
        let deps = Deps {
            http: http_client::new(),
            prometheus: Prometheus::default(),
            breakers: Breakers::new(&config::Breaker::default()),
            bus: bus.clone(),
        };
        let watch = r#"{"name":"p99","query":"q","service_label":"job"}"#;
        let mut puller = Puller::new(deps, serde_json::from_str(watch).expect("a watch"));
        let both = || BTreeSet::from(["old".to_owned(), "shop".to_owned()]);
        puller.known = both();
        let at = |hour: i64| Timestamp::from_second(1_795_255_200 + hour * 3600).expect("in range");
        for hour in [0, 23] {
            puller.miss(BTreeSet::from(["old".to_owned()]), "no series", at(hour)).await;
            assert_eq!(puller.known, both());
        }
        let told = bus.depth();
        puller.miss(BTreeSet::from(["old".to_owned()]), "no series", at(25)).await;
        assert_eq!((puller.known, puller.missing.len()), (BTreeSet::from(["shop".to_owned()]), 0));
        assert_eq!(bus.depth(), told + 2, "that it is missing, and that it is missed no longer");
    }
}
