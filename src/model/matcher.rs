//! What a label must be: how silences and maintenance windows say which alerts they mean.

use std::collections::BTreeMap;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::Labels;

/// Label → what it must be; all must fit. A label that is not there is the empty text.
pub type Matchers = BTreeMap<String, Matcher>;

/// True if all matchers fit these labels.
pub fn all_match(matchers: &Matchers, labels: &Labels) -> bool {
    matchers.iter().all(|(name, m)| m.matches(labels.get(name).map_or("", String::as_str)))
}

/// A label value, or an anchored regular expression if it begins with `~`.
#[derive(Clone, Debug)]
pub struct Matcher {
    text: String,
    regex: Option<Regex>,
}

impl Matcher {
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        let regex = text.strip_prefix('~').map(|r| Regex::new(&format!("^(?:{r})$"))).transpose()?;
        Ok(Self { text: text.to_owned(), regex })
    }
    pub fn matches(&self, value: &str) -> bool {
        self.regex.as_ref().map_or(self.text == value, |r| r.is_match(value))
    }
    /// As it was written, with its `~`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for Matcher {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Matcher {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}
