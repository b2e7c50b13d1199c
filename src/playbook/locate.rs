//! Where in a YAML text a key such as `steps[1].run.command[0]` stands.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_yaml::Spanned;

/// A YAML document with the place of every value.
#[derive(Debug)]
pub(super) struct Places(Node);

#[derive(Debug)]
struct Node {
    at: (u64, u64),
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    Leaf,
}

impl Places {
    /// `None` if the text is not YAML.
    pub fn of(text: &str) -> Option<Self> {
        serde_yaml::from_str_with_options::<Node>(text, crate::config::yaml_options()).ok().map(Self)
    }

    /// Line and column, from 1, of the value at `key`, or of the innermost value around where it would be.
    pub fn find(&self, key: &str) -> (u64, u64) {
        let mut node = &self.0;
        for name in key.split(['.', '[']).filter(|n| !n.is_empty()) {
            let next = match (&node.inner, name.strip_suffix(']').map(str::parse::<usize>)) {
                (Inner::List(items), Some(Ok(i))) => items.get(i),
                (Inner::Map(entries), None) => entries.iter().find(|(k, _)| k == name).map(|(_, n)| n),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.at
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Inner>::deserialize(d)?;
        Ok(Self { at: (spanned.referenced.line(), spanned.referenced.column()), inner: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Inner {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(InnerVisitor)
    }
}

struct InnerVisitor;

/// Every scalar is a leaf.
macro_rules! leaves {
    ($($name:ident: $kind:ty),+) => { $(fn $name<E>(self, _: $kind) -> Result<Inner, E> { Ok(Inner::Leaf) })+ };
}

impl<'de> Visitor<'de> for InnerVisitor {
    type Value = Inner;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }
    leaves!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64, visit_str: &str, visit_bytes: &[u8]);
    fn visit_unit<E>(self) -> Result<Inner, E> {
        Ok(Inner::Leaf)
    }
    fn visit_none<E>(self) -> Result<Inner, E> {
        Ok(Inner::Leaf)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Inner, D::Error> {
        IgnoredAny::deserialize(d).map(|_| Inner::Leaf)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Inner, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Inner::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Inner, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Inner::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::Places;

    #[test]
    fn keys_are_found_where_they_stand() {
        let text = "id: x\nsteps:\n  - id: a\n    run: {command: [ls, -l]}\n  - id: b\n";
        let places = Places::of(text).expect("YAML");
        assert_eq!(places.find("id"), (1, 5));
        assert_eq!(places.find("steps[0].run.command[1]"), (4, 25));
        assert_eq!(places.find("steps[1].id"), (5, 9));
        assert_eq!(places.find("steps[1].timeout"), (5, 5));
        assert_eq!(places.find("verify"), (1, 1));
    }
}
