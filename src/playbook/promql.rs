//! Puts values into PromQL so that they stay values: within double quotes, escaped as a label value, and within `=~"…"` as a
//! literal inside the regular expression too.

use super::{Template, Value, template::Part};

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Outside,
    Comment,
    Quoted { by: char, regex: bool },
}

/// The query with its values. The error says which parameter stands where none may stand.
pub(super) fn fill(query: &Template, value: impl Fn(&str) -> Value) -> Result<String, String> {
    let mut out = String::new();
    let mut place = Place::Outside;
    for part in query.parts() {
        match part {
            Part::Text(text) => place = scan(text, place, &mut out),
            Part::Name(name) => out.push_str(&put(name, &value(name), place)?),
        }
    }
    Ok(out)
}

/// Copies literal text and follows the quotes in it. `out` holds all that came before.
fn scan(text: &str, mut place: Place, out: &mut String) -> Place {
    let mut escaped = false;
    for c in text.chars() {
        place = match place {
            Place::Outside if matches!(c, '"' | '\'' | '`') => {
                let before = out.trim_end();
                Place::Quoted { by: c, regex: before.ends_with("=~") || before.ends_with("!~") }
            }
            Place::Outside if c == '#' => Place::Comment,
            Place::Comment if c == '\n' => Place::Outside,
            Place::Quoted { by, .. } if c == by && !escaped => Place::Outside,
            same => same,
        };
        escaped = matches!(place, Place::Quoted { by: '"' | '\'', .. }) && c == '\\' && !escaped;
        out.push(c);
    }
    place
}

fn put(name: &str, value: &Value, place: Place) -> Result<String, String> {
    match (place, value) {
        (Place::Quoted { by: '"', regex: true }, v) => Ok(escape(&regex::escape(&v.text()))),
        (Place::Quoted { by: '"', regex: false }, v) => Ok(escape(&v.text())),
        (Place::Outside, Value::Integer(n)) => Ok(n.to_string()),
        (Place::Outside, Value::Duration(d)) => Ok(format!("{}ms", d.as_millis())),
        _ => Err(format!(
            "{{{{ {name} }}}} must stand within double quotes, as in {{label=\"{{{{ {name} }}}}\"}}; only integers and durations may stand outside"
        )),
    }
}

/// As in a double-quoted PromQL string.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(query: &str, value: Value) -> Result<String, String> {
        fill(&Template::parse(query).expect("a template"), |_| value.clone())
    }

    #[test]
    fn values_stay_in_their_quotes() {
        let text = |t: &str| Value::Text(t.into());
        assert_eq!(
            filled(r#"up{job="{{ s }}"} == 1"#, text(r#"x"} or vector(1) or up{job="y\"#)).expect("filled"),
            r#"up{job="x\"} or vector(1) or up{job=\"y\\"} == 1"#
        );
        assert_eq!(
            filled(r#"up{job=~"{{ s }}.*"}"#, text("a.b|.*")).expect("filled"),
            r#"up{job=~"a\\.b\\|\\.\\*.*"}"#
        );
        assert_eq!(
            filled("rate(x[{{ d }}])", Value::Duration(std::time::Duration::from_secs(60))).expect("filled"),
            "rate(x[60000ms])"
        );
    }

    #[test]
    fn text_outside_of_double_quotes_is_refused() {
        for wrong in [
            "{{ s }}",
            "up{job='{{ s }}'}",
            "up{job=`{{ s }}`}",
            "up # \"{{ s }}",
            r#"up{a="x\"", b={{ s }}}"#,
        ] {
            assert!(filled(wrong, Value::Text("x".into())).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_value_never_leaves_its_quotes(value in "\\PC{0,40}") {
            let out = filled(r#"up{job="{{ s }}"}"#, Value::Text(value)).expect("filled");
            let inner = out.strip_prefix(r#"up{job=""#).and_then(|o| o.strip_suffix(r#""}"#)).expect("its place");
            let mut escaped = false;
            for c in inner.chars() {
                proptest::prop_assert!(c != '"' || escaped);
                escaped = c == '\\' && !escaped;
            }
            proptest::prop_assert!(!escaped);
        }
    }
}
