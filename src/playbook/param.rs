//! Typed parameters: what a value must look like before it may go anywhere.

use std::time::Duration;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Value as Json, json};

crate::model::words!(
    /// What kind of value a parameter takes.
    ParamType {
        Text = "string",
        Integer = "integer",
        Boolean = "boolean",
        Duration = "duration",
        /// The base of an http(s) URL; only from the settings.
        Url = "url",
    }
);

/// What a string parameter without `pattern` and `enum` may be. It also never begins with `-`.
pub(super) const DEFAULT_PATTERN: &str = "[A-Za-z0-9_.:@/-]{1,128}";
const DEFAULT_MAX_LENGTH: usize = 128;

/// One parameter as the playbook declares it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Param {
    #[serde(rename = "type")]
    pub kind: ParamType,
    /// What it means, for people and prompts.
    #[serde(default)]
    pub description: String,
    /// Taken from there, and from nowhere else: `label NAME`, `incident service`, `setting NAME`.
    #[serde(default)]
    pub from: Option<Source>,
    /// Taken if nobody says otherwise.
    #[serde(default)]
    pub default: Option<Scalar>,
    /// For strings: the whole value must match. Without it: letters, digits and `_ . : @ / -`, not beginning with `-`.
    #[serde(default)]
    pub pattern: Option<Pattern>,
    /// For strings: one of these.
    #[serde(default, rename = "enum")]
    pub options: Vec<String>,
    /// For strings: characters, at most; 128 if nothing is said.
    #[serde(default)]
    pub max_length: Option<usize>,
    /// For integers and durations.
    #[serde(default)]
    pub min: Option<Scalar>,
    /// For integers and durations.
    #[serde(default)]
    pub max: Option<Scalar>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum Source {
    /// A label that all matching alerts agree on.
    Label(String),
    /// The incident's service.
    Service,
    /// `playbooks.values` in the settings.
    Setting(String),
}

impl std::str::FromStr for Source {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(' ').map(|(kind, name)| (kind, name.trim())) {
            Some(("label", name)) if !name.is_empty() => Ok(Self::Label(name.to_owned())),
            Some(("setting", name)) if !name.is_empty() => Ok(Self::Setting(name.to_owned())),
            Some(("incident", "service")) => Ok(Self::Service),
            _ => Err(format!(
                "{text:?} is not a source; write `label NAME`, `incident service` or `setting NAME`"
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A regular expression that is matched against the whole value.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(with = "String")]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Pattern {
    fn new(source: &str) -> Result<Self, String> {
        let regex = regex::RegexBuilder::new(&format!(r"\A(?:{source})\z")).size_limit(1 << 20).build();
        let regex =
            regex.map_err(|_| format!("{source:?} is not a regular expression that can be used here"))?;
        Ok(Self { source: source.to_owned(), regex })
    }
    pub(super) fn matches(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A scalar as YAML has it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a string, a whole number or a boolean")]
pub enum Scalar {
    Boolean(bool),
    Integer(i64),
    Text(String),
}

impl Scalar {
    pub fn json(&self) -> Json {
        match self {
            Self::Boolean(b) => json!(b),
            Self::Integer(n) => json!(n),
            Self::Text(t) => json!(t),
        }
    }
}

/// A checked value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    Duration(Duration),
    /// Without a trailing slash.
    Url(String),
}

impl Value {
    /// As it stands in a text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(t) | Self::Url(t) => t.clone(),
            Self::Integer(n) => n.to_string(),
            Self::Boolean(b) => b.to_string(),
            Self::Duration(d) => humantime::format_duration(*d).to_string().replace(' ', ""),
        }
    }
    /// As it stands in a plan and in a JSON body.
    pub fn json(&self) -> Json {
        match self {
            Self::Integer(n) => json!(n),
            Self::Boolean(b) => json!(b),
            other => json!(other.text()),
        }
    }
}

impl Param {
    /// Checks a value that comes from anywhere. The error is a phrase that follows the parameter's name.
    pub fn accept(&self, given: &Json) -> Result<Value, String> {
        match (self.kind, given) {
            (ParamType::Text, Json::String(text)) => self.accept_text(text),
            (ParamType::Url, Json::String(text)) => super::url::base(text).map(Value::Url),
            (ParamType::Duration, Json::String(text)) => self.accept_duration(text),
            (ParamType::Integer, Json::Number(n)) => match n.as_i64() {
                Some(n) => self.accept_integer(n),
                None => Err(format!("is {n}, not a whole number")),
            },
            (ParamType::Integer, Json::String(text)) if text.len() <= 20 => match text.parse() {
                Ok(n) => self.accept_integer(n),
                Err(_) => Err(format!("is {text:?}, not a whole number")),
            },
            (ParamType::Boolean, Json::Bool(b)) => Ok(Value::Boolean(*b)),
            (ParamType::Boolean, Json::String(t)) if t == "true" || t == "false" => {
                Ok(Value::Boolean(t == "true"))
            }
            (kind, _) => Err(format!("must be of type {kind}")),
        }
    }

    fn accept_text(&self, text: &str) -> Result<Value, String> {
        let max = self.max_length.unwrap_or(DEFAULT_MAX_LENGTH);
        if text.chars().count() > max {
            return Err(format!("is longer than {max} characters"));
        }
        if text.chars().any(is_hidden) {
            return Err(format!("{} holds control or invisible characters", shown(text)));
        }
        if !self.options.is_empty() {
            let known = self.options.iter().any(|o| o == text);
            return if known {
                Ok(Value::Text(text.to_owned()))
            } else {
                Err(format!("is {}, none of {}", shown(text), self.options.join(", ")))
            };
        }
        match &self.pattern {
            Some(p) if !p.matches(text) => Err(format!("{} does not match {}", shown(text), p.source)),
            Some(_) => Ok(Value::Text(text.to_owned())),
            None if text.starts_with('-') => Err(format!("{} begins with -", shown(text))),
            None if !is_default(text) => {
                Err(format!("{} may hold only letters, digits and _ . : @ / -", shown(text)))
            }
            None => Ok(Value::Text(text.to_owned())),
        }
    }

    fn accept_integer(&self, n: i64) -> Result<Value, String> {
        let bound = |b: &Option<Scalar>| match b {
            Some(Scalar::Integer(n)) => Some(*n),
            _ => None,
        };
        match (bound(&self.min), bound(&self.max)) {
            (Some(min), _) if n < min => Err(format!("is {n}, less than {min}")),
            (_, Some(max)) if n > max => Err(format!("is {n}, more than {max}")),
            _ => Ok(Value::Integer(n)),
        }
    }

    fn accept_duration(&self, text: &str) -> Result<Value, String> {
        let d = humantime::parse_duration(text)
            .map_err(|_| format!("is {}, not a duration such as 30s or 5m", shown(text)))?;
        let bound = |b: &Option<Scalar>| match b {
            Some(Scalar::Text(t)) => humantime::parse_duration(t).ok(),
            _ => None,
        };
        match (bound(&self.min), bound(&self.max)) {
            (Some(min), _) if d < min => {
                Err(format!("is {text}, less than {}", humantime::format_duration(min)))
            }
            (_, Some(max)) if d > max => {
                Err(format!("is {text}, more than {}", humantime::format_duration(max)))
            }
            _ => Ok(Value::Duration(d)),
        }
    }

    /// JSON Schema of one value, for prompts and forms.
    pub fn value_schema(&self) -> Json {
        let bounds = |mut schema: Json| {
            for (name, bound) in [("minimum", &self.min), ("maximum", &self.max)] {
                if let Some(bound) = bound {
                    schema[name] = bound.json();
                }
            }
            schema
        };
        let mut schema = match self.kind {
            ParamType::Text if !self.options.is_empty() => json!({"type": "string", "enum": self.options}),
            ParamType::Text => json!({
                "type": "string",
                "pattern": format!("^(?:{})$", self.pattern.as_ref().map_or(DEFAULT_PATTERN, |p| &p.source)),
                "maxLength": self.max_length.unwrap_or(DEFAULT_MAX_LENGTH),
            }),
            ParamType::Integer => bounds(json!({"type": "integer"})),
            ParamType::Boolean => json!({"type": "boolean"}),
            ParamType::Duration => json!({"type": "string", "format": "duration, such as 30s or 5m"}),
            ParamType::Url => json!({"type": "string", "format": "uri"}),
        };
        if !self.description.is_empty() {
            schema["description"] = json!(self.description);
        }
        schema
    }
}

fn is_default(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:@/-".contains(&b))
}

/// Characters that would make what is shown differ from what is run.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}')
}

/// Quoted, escaped and cut: fit for a message.
fn shown(text: &str) -> String {
    let cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(yaml: &str) -> Param {
        serde_yaml::from_str(yaml).expect("a parameter")
    }

    #[test]
    fn hostile_labels_are_refused_by_default() {
        let p = param("type: string");
        let hostile = [
            "; rm -rf /",
            "$(x)",
            "`id`",
            "--flag",
            "-f",
            "a\nb",
            "{{7*7}}",
            "a b",
            "",
            "a|b",
            "a\u{202e}b",
            "é",
        ];
        for value in hostile {
            assert!(p.accept(&json!(value)).is_err(), "{value:?}");
        }
        assert_eq!(p.accept(&json!("checkout-1.eu/x@y:80")), Ok(Value::Text("checkout-1.eu/x@y:80".into())));
        insta::assert_snapshot!(p.accept(&json!("; rm -rf /")).unwrap_err(), @r#""; rm -rf /" may hold only letters, digits and _ . : @ / -"#);
    }

    #[test]
    fn patterns_are_anchored_at_both_ends() {
        let p = param("{type: string, pattern: 'a|b'}");
        assert!(p.accept(&json!("a")).is_ok());
        for wrong in ["ax", "xb", "a\n", "ab"] {
            assert!(p.accept(&json!(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_durations_and_options_keep_their_bounds() {
        let p = param("{type: integer, min: 1, max: 10}");
        assert_eq!(p.accept(&json!(3)), Ok(Value::Integer(3)));
        assert_eq!(p.accept(&json!("3")), Ok(Value::Integer(3)));
        assert_eq!(p.accept(&json!(11)).unwrap_err(), "is 11, more than 10");
        assert!(p.accept(&json!(1.5)).is_err());
        let p = param("{type: duration, max: 5m}");
        assert_eq!(p.accept(&json!("90s")).map(|v| v.text()), Ok("1m30s".into()));
        assert_eq!(p.accept(&json!("1h")).unwrap_err(), "is 1h, more than 5m");
        let p = param("{type: string, enum: [soft, hard]}");
        assert!(p.accept(&json!("soft")).is_ok());
        assert_eq!(p.accept(&json!("off")).unwrap_err(), r#"is "off", none of soft, hard"#);
        let p = param("type: boolean");
        assert_eq!(p.accept(&json!("true")), Ok(Value::Boolean(true)));
        assert_eq!(p.accept(&json!(1)).unwrap_err(), "must be of type boolean");
    }
}
