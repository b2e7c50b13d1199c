//! Columns to model values and back.

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use super::{Error, Result};
use crate::model::{Phrase, Said};

/// Microseconds since the epoch.
pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// Microseconds of a length of time.
pub(super) fn length(d: std::time::Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX / 2)
}

pub(super) fn time(us: i64) -> Timestamp {
    crate::clock::from_micros(us)
}

/// One of an enum's words.
pub(super) fn word<T: std::str::FromStr<Err = String>>(text: &str) -> Result<T> {
    text.parse().map_err(Error::Damaged)
}

pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("model types serialise to JSON")
}

pub(super) fn from_json<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|e| Error::Damaged(format!("{e} in {}", text.chars().take(200).collect::<String>())))
}

pub(super) fn from_json_opt<T: DeserializeOwned>(text: Option<&str>) -> Result<Option<T>> {
    text.map(from_json).transpose()
}

/// The column beside a sentence's English: none if the words are not ours.
pub(super) fn phrase(said: &Said) -> Option<String> {
    said.phrase().map(to_json)
}

/// A sentence from its two columns. A phrase that this version does not know leaves its English.
pub(super) fn said(text: String, phrase: Option<&str>) -> Said {
    let known: Option<Phrase> = phrase.and_then(|json| serde_json::from_str(json).ok());
    Said::stored(text, known)
}
