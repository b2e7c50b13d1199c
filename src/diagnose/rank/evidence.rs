//! A reason why a service is suspected.

use crate::model::{Phrase, case::Sym};

crate::model::words!(
    /// Kinds of evidence; each is a view of its own.
    Kind {
        /// Requests do what they did not, or no longer what they did.
        Behaviour = "behaviour",
        /// Its own work takes longer.
        Slow = "slow",
        /// Calls wait longer than the called one works.
        Edge = "edge",
        /// A series of it left its range.
        Metric = "metric",
        /// Without its own excess the alert's would be gone.
        Impact = "impact",
        /// Lines outside of requests.
        Lines = "lines",
        /// An error that is no longer.
        Gone = "gone",
        /// A change was announced shortly before.
        Change = "change",
    }
);

/// One reason, as a sentence with its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub service: Sym,
    pub kind: Kind,
    /// ln of how much likelier the data is if this changed than if it didn't, less what others explain.
    pub nats: f64,
    /// In how many places this kind of evidence was looked for in this service: the more, the likelier one shows by chance.
    pub looks: f64,
    pub text: Phrase,
}

/// ln of the Bayes factor "one of the places that were looked at has changed, each as likely" against "none has", where
/// places of which nothing is told say nothing: ln(1 + Σ (eⁿ − 1) / looks), for n above 0.
pub fn together<'a>(all: impl Iterator<Item = &'a Evidence> + Clone) -> f64 {
    let each = || all.clone().map(|e| (e.nats, e.looks.max(1.0).ln()));
    let top = each().map(|(nats, looks)| nats - looks).fold(0.0, f64::max);
    let sum: f64 = each().map(|(nats, looks)| (nats - looks - top).exp() - (-looks - top).exp()).sum();
    top + (sum + (-top).exp()).ln()
}
