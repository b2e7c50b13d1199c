//! Groups signals into incidents; hands each changed incident to diagnosis.

mod alerts;
mod anomalies;
mod lifecycle;
mod quiet;
mod signal;

use std::sync::Arc;

use jiff::Timestamp;

pub use lifecycle::settle;

use crate::{
    clock,
    config::{Correlate, Live},
    model::Silence,
    store::{
        Result, Store, Tx,
        inbox::{self, Delivery},
        silences,
    },
};

/// What correlation needs.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub settings: Arc<Live<Correlate>>,
    /// The channels that every incident owes a message.
    pub channels: Arc<[String]>,
}

/// What one batch works with: settings and silences stay the same for all of it.
struct At<'a> {
    set: &'a Correlate,
    channels: &'a [String],
    /// Those that hold now.
    silences: &'a [Silence],
}

/// What has become of the incidents that a batch touched.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Deliveries taken.
    pub taken: usize,
    /// Incidents with new signals: their diagnosis is out of date.
    pub diagnose: Vec<String>,
    /// Incidents to look at again later: flapping ones, and those whose messages are held back.
    pub settle: Vec<(String, Timestamp)>,
}

/// Takes up to `limit` deliveries off the inbox and applies them in order, all in the returned transaction. `None` if
/// nothing waits.
pub async fn drain(deps: &Deps, limit: i64) -> Result<Option<(Tx, Outcome)>> {
    let mut tx = deps.store.write().await?;
    tx.lock("correlate").await?;
    let set = deps.settings.get();
    let waiting = inbox::take(&mut tx, limit).await?;
    if waiting.is_empty() {
        return Ok(None);
    }
    let silences = silences::active(&mut tx, clock::now()).await?;
    let deps = &At { set: &set, channels: &deps.channels, silences: &silences };
    let mut out = Outcome { taken: waiting.len(), ..Outcome::default() };
    for w in waiting {
        match w.delivery {
            Delivery::Alerts(events) => {
                for event in events {
                    alerts::apply(deps, &mut tx, event, &mut out).await?;
                }
            }
            Delivery::Anomaly(event) => anomalies::apply(deps, &mut tx, *event, &mut out).await?,
        }
    }
    out.diagnose.sort_unstable();
    out.diagnose.dedup();
    Ok(Some((tx, out)))
}
