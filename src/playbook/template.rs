//! A text with `{{ name }}` in it: names of parameters and nothing else; no expressions, no filters, no nesting.

use serde::{Deserialize, Deserializer};

/// A parsed template. What is put in for a name is never parsed again.
#[derive(Clone, Debug, PartialEq, schemars::JsonSchema)]
#[schemars(with = "String")]
pub struct Template {
    source: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    Text(String),
    Name(String),
}

impl Template {
    /// The error says what is wrong and what would be right.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some(open) = rest.find("{{") {
            push_text(&mut parts, &rest[..open])?;
            let inner = &rest[open + 2..];
            let close = inner
                .find("}}")
                .ok_or_else(|| format!("{{{{ is not closed in {source:?}; write {{{{ name }}}}"))?;
            let name = inner[..close].trim();
            if !is_name(name) {
                return Err(format!(
                    "{{{{{}}}}} is not the name of a parameter; write {{{{ name }}}}",
                    &inner[..close]
                ));
            }
            parts.push(Part::Name(name.to_owned()));
            rest = &inner[close + 2..];
        }
        push_text(&mut parts, rest)?;
        Ok(Self { source: source.to_owned(), parts })
    }

    pub fn source(&self) -> &str {
        &self.source
    }
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
    /// The parameters that it names, repeats included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|p| match p {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }
    pub fn is_literal(&self) -> bool {
        self.names().next().is_none()
    }
    /// The name, if the template is one parameter and nothing else.
    pub fn only_name(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Name(name)] => Some(name),
            _ => None,
        }
    }
    /// Puts the values in as they are: for texts that people read.
    pub(super) fn plain(&self, value: impl Fn(&str) -> String) -> String {
        self.parts
            .iter()
            .map(|p| match p {
                Part::Text(text) => text.clone(),
                Part::Name(name) => value(name),
            })
            .collect()
    }
}

fn push_text(parts: &mut Vec<Part>, text: &str) -> Result<(), String> {
    if text.contains("}}") {
        return Err(format!("}}}} without {{{{ in {text:?}; write {{{{ name }}}}"));
    }
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
    Ok(())
}

/// Lower-case letters, digits and `_`, beginning with a letter.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_understood() {
        let t = Template::parse("{{ service }}.service").expect("a template");
        assert_eq!(t.names().collect::<Vec<_>>(), ["service"]);
        assert_eq!(t.plain(|_| "{{ evil }}".into()), "{{ evil }}.service");
        for wrong in ["{{7*7}}", "{{ a.b }}", "{{ x | upper }}", "{{", "a }} b", "{{}}", "{{ {{ a }} }}"] {
            assert!(Template::parse(wrong).is_err(), "{wrong}");
        }
        insta::assert_snapshot!(Template::parse("x {{7*7}}").unwrap_err(), @"{{7*7}} is not the name of a parameter; write {{ name }}");
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(text in "(\\PC|\\{\\{|\\}\\}){0,60}") {
            if let Ok(t) = Template::parse(&text) {
                proptest::prop_assert!(t.names().all(is_name));
            }
        }
    }
}
