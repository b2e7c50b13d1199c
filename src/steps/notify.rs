//! Tells people something: the text becomes a line of the incident's story in the transaction that records the step.

use super::Outcome;

pub(super) fn run(text: &str) -> Outcome {
    Outcome::succeeded(text)
}
