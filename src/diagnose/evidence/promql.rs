//! Builds PromQL from trusted parts only: queries of the settings, and rules that Prometheus itself has. What comes in with an
//! alert chooses among them and fills quoted label values.

use crate::model::Labels;

/// A template of the settings with `$match` replaced by `label="value"`.
pub(super) fn fill(template: &str, label: &str, service: &str) -> String {
    template.replace("$match", &format!("{label}={}", quote(service)))
}

/// A PromQL string: backslash, quote and line breaks escaped.
fn quote(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The expression that a generator URL carries: `http://prometheus/graph?g0.expr=…`.
pub(super) fn expression(generator_url: &str) -> Option<String> {
    let url = reqwest::Url::parse(generator_url).ok()?;
    url.query_pairs().find(|(name, _)| name == "g0.expr").map(|(_, expr)| expr.into_owned())
}

/// A rule without the threshold at its end, so that the values that led up to it are seen too: `a / b > 0.1` is asked as
/// `a / b`. What remains of a binary expression without its right side is a whole expression.
pub(super) fn without_threshold(expr: &str) -> &str {
    static TAIL: std::sync::LazyLock<regex::Regex> = std::sync::LazyLock::new(|| {
        regex::Regex::new(r"(?s)^(.*\S)\s*(?:>=|<=|==|!=|>|<)\s*[-+]?[0-9][0-9.eE+-]*\s*$").expect("constant")
    });
    TAIL.captures(expr).and_then(|c| c.get(1)).map_or(expr, |m| m.as_str())
}

/// True if a series says nothing that contradicts an alert's labels.
pub(super) fn agrees(series: &Labels, alert: &Labels) -> bool {
    series.iter().all(|(name, value)| name == "__name__" || alert.get(name).is_none_or(|v| v == value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_service_name_stays_a_value() {
        let filled = fill("rate(x{$match}[5m])", "job", "a\"} or vector(1) #\\");
        assert_eq!(filled, r#"rate(x{job="a\"} or vector(1) #\\"}[5m])"#);
    }

    #[test]
    fn expressions_come_out_of_generator_urls() {
        let url = "http://p:9090/graph?g0.expr=up%7Bjob%3D%22shop%22%7D+%3D%3D+0&g0.tab=1";
        assert_eq!(expression(url).as_deref(), Some(r#"up{job="shop"} == 0"#));
        assert_eq!(expression("not a url"), None);
    }

    #[test]
    fn thresholds_are_left_out() {
        assert_eq!(without_threshold("rate(x[5m]) / rate(y[5m]) > 0.1"), "rate(x[5m]) / rate(y[5m])");
        assert_eq!(without_threshold("up == 0"), "up");
        assert_eq!(without_threshold("absent(up)"), "absent(up)");
        assert_eq!(without_threshold("a > b"), "a > b");
    }

    proptest! {
        #[test]
        fn quoting_leaves_no_way_out(value in "\\PC*|[\"\\\\\n{}a]{0,20}") {
            let quoted = quote(&value);
            let inner = &quoted[1..quoted.len() - 1];
            let mut escaped = false;
            for c in inner.chars() {
                prop_assert!(escaped || c != '"');
                escaped = !escaped && c == '\\';
            }
            prop_assert!(!escaped);
        }
    }
}
