//! Groups signals into incidents; hands each changed incident to diagnosis.
//!
//! Works on batches: what waits in the inbox is read, what it touches is loaded, changed in memory event by event, and written
//! together, so that a flood costs per batch what a single event would cost alone.

mod alerts;
mod anomalies;
mod batch;
mod lifecycle;
mod quiet;
mod signal;

use std::sync::Arc;

use jiff::Timestamp;

pub use lifecycle::settle;

use crate::{
    config::{Correlate, Live},
    model::Calls,
    store::{
        Result, Store, Tx,
        inbox::{self, Delivery},
    },
};
use batch::Batch;

/// What correlation needs.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub settings: Arc<Live<Correlate>>,
    /// Who calls whom, as spans show.
    pub calls: Calls,
    /// The channels that every incident owes a message.
    pub channels: Arc<[String]>,
}

/// What has become of the incidents that a batch touched.
#[derive(Debug, Default, PartialEq)]
pub struct Outcome {
    /// Alerts and anomalies taken.
    pub items: u64,
    /// Incidents with new signals: their diagnosis is out of date.
    pub diagnose: Vec<String>,
    /// Incidents to look at again later: flapping ones, and those whose messages are held back. The earliest time of each.
    pub settle: Vec<(String, Timestamp)>,
}

/// Takes deliveries off the inbox, as many as bring about `most` alerts, and applies them in order, all in the returned
/// transaction. `None` if nothing waits.
pub async fn drain(deps: &Deps, most: usize) -> Result<Option<(Tx, Outcome)>> {
    let set = deps.settings.get();
    let Some((mut tx, deliveries)) = inbox::take(&deps.store, most).await? else { return Ok(None) };
    let mut batch = Batch::load(&mut tx, &set, &deps.calls, &deps.channels, &deliveries).await?;
    let mut items = 0;
    for delivery in deliveries {
        match delivery {
            Delivery::Alerts(events) => {
                items += events.len() as u64;
                for event in events {
                    alerts::apply(&mut batch, event);
                }
            }
            Delivery::Anomaly(event) => {
                items += 1;
                anomalies::apply(&mut batch, *event);
            }
        }
    }
    let mut out = batch.write(&mut tx).await?;
    out.items = items;
    out.diagnose.sort_unstable();
    out.diagnose.dedup();
    out.settle.sort_unstable();
    out.settle.dedup_by(|a, b| a.0 == b.0);
    Ok(Some((tx, out)))
}
