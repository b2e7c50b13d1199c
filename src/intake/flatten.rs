//! Walks one JSON object without building a tree and calls back for every scalar with its dotted, lower-case path, so that
//! `{"log":{"level":"error"}}` and `{"log.level":"error"}` look the same.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A leaf of the object. Arrays, `null` and booleans are no leaves: no field that we read has them.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    Text(Cow<'a, str>),
    Int(i64),
    Float(f64),
}

impl<'a> Scalar<'a> {
    pub fn into_text(self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text,
            Self::Int(number) => number.to_string().into(),
            Self::Float(number) => number.to_string().into(),
        }
    }
}

/// Objects within objects that are followed; the record of a bomb is refused.
const MAX_DEPTH: usize = 16;

/// Calls `leaf(path, value)` for every scalar of the object `json`. Errors are fit to show to the sender.
pub fn flatten<'a>(json: &'a str, mut leaf: impl FnMut(&str, Scalar<'a>)) -> Result<(), String> {
    if !json.starts_with('{') {
        return Err("not a JSON object".into());
    }
    let mut path = String::with_capacity(64);
    let mut parser = serde_json::Deserializer::from_str(json);
    Node { path: &mut path, depth: 0, leaf: &mut leaf }
        .deserialize(&mut parser)
        .and_then(|()| parser.end())
        .map_err(|e| e.to_string())
}

struct Node<'p, F> {
    path: &'p mut String,
    depth: usize,
    leaf: &'p mut F,
}

impl<'de, F: FnMut(&str, Scalar<'de>)> DeserializeSeed<'de> for Node<'_, F> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de, F: FnMut(&str, Scalar<'de>)> Visitor<'de> for Node<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        if self.depth == MAX_DEPTH {
            return Err(M::Error::custom(format_args!("nested deeper than {MAX_DEPTH} levels")));
        }
        let parent = self.path.len();
        while map.next_key_seed(Key(self.path))?.is_some() {
            map.next_value_seed(Node { path: self.path, depth: self.depth + 1, leaf: self.leaf })?;
            self.path.truncate(parent);
        }
        Ok(())
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<(), S::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        (self.leaf)(self.path, Scalar::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        (self.leaf)(self.path, Scalar::Text(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        (self.leaf)(self.path, Scalar::Int(number));
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        let scalar = i64::try_from(number).map_or(Scalar::Float(number as f64), Scalar::Int);
        (self.leaf)(self.path, scalar);
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        (self.leaf)(self.path, Scalar::Float(number));
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Adds a key to the path.
struct Key<'p>(&'p mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        if !self.0.is_empty() {
            self.0.push('.');
        }
        let start = self.0.len();
        self.0.push_str(key);
        self.0[start..].make_ascii_lowercase();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(json: &str) -> Result<Vec<(String, Scalar<'_>)>, String> {
        let mut leaves = Vec::new();
        flatten(json, |path, value| leaves.push((path.to_owned(), value)))?;
        Ok(leaves)
    }

    #[test]
    fn nested_and_dotted_keys_have_the_same_path() {
        let nested = paths(r#"{"Log":{"level":"error"},"n":[1,{"x":2}],"t":1.5,"z":null}"#);
        let dotted = paths(r#"{"log.level":"error","t":1.5}"#);
        assert_eq!(nested, dotted);
    }

    #[test]
    fn bombs_are_refused() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(1000), "}".repeat(1000));
        assert!(paths(&deep).unwrap_err().starts_with("nested deeper than 16 levels"));
        assert!(paths("[1]").is_err());
        assert!(paths(r#"{"a":1}{"#).is_err(), "trailing text");
    }
}
