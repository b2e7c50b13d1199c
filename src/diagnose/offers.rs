//! Binds the parameters that a tier chose to what an offer allows. Nothing that a log line says gets past this as an argument:
//! a free choice exists only where the playbook's author bounded it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::{Offer, OfferedParam};

/// The parameters of a run: bound values, choices within the schemas, defaults. The error names the parameter.
pub fn bind(offer: &Offer, chosen: &Map<String, Value>) -> Result<BTreeMap<String, Value>, String> {
    if let Some(name) = chosen.keys().find(|name| !offer.params.contains_key(*name)) {
        return Err(format!("{} has no parameter {}", offer.playbook, quoted(name)));
    }
    let one = |(name, param): (&String, &OfferedParam)| {
        let given = chosen.get(name).filter(|v| !v.is_null());
        Ok((name.clone(), value(param, given).map_err(|why| format!("{name} {why}"))?))
    };
    offer.params.iter().map(one).collect()
}

fn value(param: &OfferedParam, given: Option<&Value>) -> Result<Value, String> {
    match (&param.bound, given, &param.default) {
        (Some(bound), Some(given), _) if given != bound => Err(format!("is fixed to {bound}")),
        (Some(bound), _, _) => Ok(bound.clone()),
        (None, Some(given), default) => {
            if Some(given) != default.as_ref() {
                allows(param, given)?;
            }
            Ok(given.clone())
        }
        (None, None, Some(default)) => Ok(default.clone()),
        (None, None, None) => Err("is not given".into()),
    }
}

/// True if a model may choose it: a number, a truth value, or one of a list. Text that is merely well-formed could be copied
/// from a log line.
pub fn is_choosable(param: &OfferedParam) -> bool {
    let s = &param.schema;
    param.bound.is_none()
        && (s["enum"].is_array() || matches!(s["type"].as_str(), Some("integer" | "number" | "boolean")))
}

fn allows(param: &OfferedParam, given: &Value) -> Result<(), String> {
    let s = &param.schema;
    let shown = quoted(&given.to_string());
    if !is_choosable(param) {
        return Err(format!("is free text, which is not taken from a model ({shown})"));
    }
    let of_type = match s["type"].as_str() {
        Some("integer") => given.is_i64() || given.is_u64(),
        Some("number") => given.is_number(),
        Some("boolean") => given.is_boolean(),
        Some("string") => given.is_string(),
        _ => true,
    };
    if !of_type {
        return Err(format!("must be of type {}, not {shown}", s["type"]));
    }
    if s["enum"].as_array().is_some_and(|allowed| !allowed.contains(given)) {
        return Err(format!("must be one of {}, not {shown}", s["enum"]));
    }
    if let Some(n) = given.as_f64()
        && (s["minimum"].as_f64().is_some_and(|min| n < min)
            || s["maximum"].as_f64().is_some_and(|max| n > max))
    {
        return Err(format!("must be within {} and {}, not {shown}", s["minimum"], s["maximum"]));
    }
    Ok(())
}

/// A model's words in a sentence of ours: cut, in quotes, without control characters.
pub fn quoted(text: &str) -> String {
    format!("{:?}", super::evidence::bounded(text, 60))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn offer(schema: Value, bound: Option<Value>, default: Option<Value>) -> Offer {
        Offer {
            playbook: "restart".into(),
            title: "Restart".into(),
            description: String::new(),
            params: [("p".to_owned(), OfferedParam { schema, bound, default })].into(),
            target: "shop".into(),
            read_only: false,
        }
    }
    fn choose(offer: &Offer, value: Value) -> Result<Value, String> {
        let chosen = json!({ "p": value });
        bind(offer, chosen.as_object().expect("an object")).map(|mut p| p.remove("p").expect("bound"))
    }

    #[test]
    fn choices_stay_within_the_schema() {
        let count = offer(json!({"type": "integer", "minimum": 1, "maximum": 5}), None, Some(json!(2)));
        assert_eq!(choose(&count, json!(5)), Ok(json!(5)));
        assert_eq!(choose(&count, Value::Null), Ok(json!(2)));
        assert!(choose(&count, json!(6)).expect_err("too many").contains("must be within 1 and 5"));
        assert!(choose(&count, json!("5")).expect_err("a string").contains("must be of type"));
        assert!(choose(&count, json!(2.5)).is_err());
        let place = offer(json!({"type": "string", "enum": ["eu", "us"]}), None, None);
        assert_eq!(choose(&place, json!("eu")), Ok(json!("eu")));
        assert!(choose(&place, json!("eu; rm -rf /")).is_err());
        assert_eq!(bind(&place, &Map::new()), Err("p is not given".into()));
    }

    #[test]
    fn free_text_and_fixed_values_are_not_for_choosing() {
        let free = offer(json!({"type": "string", "pattern": ".*"}), None, Some(json!("main")));
        assert!(choose(&free, json!("$(reboot)")).expect_err("free text").contains("not taken"));
        assert_eq!(choose(&free, json!("main")), Ok(json!("main")));
        let fixed = offer(json!({"type": "string"}), Some(json!("shop")), None);
        assert_eq!(choose(&fixed, Value::Null), Ok(json!("shop")));
        assert!(choose(&fixed, json!("db")).is_err());
        let chosen = json!({"q": 1});
        assert!(bind(&fixed, chosen.as_object().expect("an object")).is_err());
    }
}
