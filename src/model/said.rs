//! A sentence that is kept: its English for the API, the command line and the logs, and what it says, if the words are ours, so
//! that people read it in their own language.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Language, Phrase};

/// Words of ours ([`Phrase`]) or of somebody else: an annotation, a log line, a model's answer stay as they are.
///
/// Derefs to its English. Serialises as its phrase where it has one; what the API shows uses [`Said::as_text`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    text: String,
    phrase: Option<Box<Phrase>>,
}

impl Said {
    pub fn as_str(&self) -> &str {
        &self.text
    }
    pub fn phrase(&self) -> Option<&Phrase> {
        self.phrase.as_deref()
    }
    /// As it was stored: the text stands, also where this version would word it otherwise or knows no such phrase.
    pub fn stored(text: String, phrase: Option<Phrase>) -> Self {
        Self { text, phrase: phrase.map(Box::new) }
    }
    pub fn in_language(&self, language: Language) -> String {
        match (&self.phrase, language) {
            (Some(phrase), Language::Russian) => phrase.say(language),
            _ => self.text.clone(),
        }
    }
    /// Changes what was put in, and the words of others: to mask, to bound.
    pub fn map(mut self, change: &dyn Fn(&str) -> String) -> Self {
        match &mut self.phrase {
            Some(phrase) => {
                phrase.each(&mut |part| *part = change(part));
                self.text = phrase.to_string();
            }
            None => self.text = change(&self.text),
        }
        self
    }
    /// For what the API shows: a string.
    pub fn as_text<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
    /// Like [`Said::as_text`].
    pub fn as_text_opt<S: Serializer>(said: &Option<Self>, to: S) -> Result<S::Ok, S::Error> {
        said.as_deref().serialize(to)
    }
}

impl std::ops::Deref for Said {
    type Target = str;
    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Phrase> for Said {
    fn from(phrase: Phrase) -> Self {
        Self { text: phrase.to_string(), phrase: Some(Box::new(phrase)) }
    }
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        Self { text, phrase: None }
    }
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<&String> for Said {
    fn from(text: &String) -> Self {
        text.clone().into()
    }
}

impl From<&Said> for Said {
    fn from(said: &Said) -> Self {
        said.clone()
    }
}

impl PartialEq<String> for Said {
    fn eq(&self, other: &String) -> bool {
        self.text == *other
    }
}

impl PartialEq<str> for Said {
    fn eq(&self, other: &str) -> bool {
        self.text == other
    }
}

impl PartialEq<&str> for Said {
    fn eq(&self, other: &&str) -> bool {
        self.text == *other
    }
}

impl Serialize for Said {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.phrase {
            Some(phrase) => phrase.serialize(to),
            None => self.text.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Phrase(Box<Phrase>),
        }
        Ok(match Form::deserialize(from)? {
            Form::Text(text) => text.into(),
            Form::Phrase(phrase) => Self::from(*phrase),
        })
    }
}
