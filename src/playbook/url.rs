//! Puts values into URLs so that they stay within one path segment or one query value; the host is never one of them.

use reqwest::Url;

use super::{Template, Value, template::Part};

/// Checks a base URL from the settings: http(s), a host, no credentials, no query. Returned without a trailing slash.
pub(super) fn base(text: &str) -> Result<String, String> {
    let right = "must be a base URL such as http://127.0.0.1:9001";
    let url = Url::parse(text).map_err(|e| format!("{right}: {e}"))?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if plain { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(right.to_owned()) }
}

/// The URL with its values. The error says what stands where it may not.
pub(super) fn fill(template: &Template, value: impl Fn(&str) -> Value) -> Result<Url, String> {
    let mut out = String::new();
    for (i, part) in template.parts().iter().enumerate() {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Name(name) => match value(name) {
                Value::Url(base) if i == 0 => {
                    let follows = template.parts().get(1);
                    if !matches!(follows, None | Some(Part::Text(_)))
                        || follows.is_some_and(|p| !begins_a_path(p))
                    {
                        return Err(format!("what follows {{{{ {name} }}}} must begin with / or ?"));
                    }
                    out.push_str(&base);
                }
                Value::Url(_) => {
                    return Err(format!("{{{{ {name} }}}} is a URL: it may only be the beginning"));
                }
                _ if !past_the_host(&out) => {
                    return Err(format!(
                        "{{{{ {name} }}}} may not be part of the scheme, host or port; use a parameter of type url, from a setting"
                    ));
                }
                other => match other.text() {
                    text if text.is_empty() => return Err(format!("{{{{ {name} }}}} is empty")),
                    text => encode(&text, &mut out),
                },
            },
        }
    }
    check(&out)
}

fn begins_a_path(part: &Part) -> bool {
    matches!(part, Part::Text(text) if text.starts_with(['/', '?']))
}

/// True once the authority is closed, so that nothing can be added to it.
fn past_the_host(so_far: &str) -> bool {
    so_far.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?']))
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn encode(text: &str, out: &mut String) {
    use std::fmt::Write;
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            write!(out, "%{b:02X}").expect("writing to a string cannot fail");
        }
    }
}

fn check(text: &str) -> Result<Url, String> {
    if text.contains(['\\', '#']) || text.chars().any(char::is_whitespace) {
        return Err(format!("{text:?} may hold no \\, # or blank"));
    }
    let path = text.split('?').next().unwrap_or_default();
    let dots =
        |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(dots) {
        return Err(format!("{text:?} climbs out of its path with . or .."));
    }
    let url = Url::parse(text).map_err(|e| format!("{text:?} is not a URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https")
        || !url.has_host()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(format!("{text:?} must be http or https, with a host and without credentials"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, value: &str) -> Result<String, String> {
        let value = Value::Text(value.into());
        fill(&Template::parse(template).expect("a template"), |_| value.clone()).map(|u| u.to_string())
    }

    #[test]
    fn values_stay_in_their_segment() {
        assert_eq!(
            filled("http://h:1/s/{{ x }}/restart", "a/../b?c#d").expect("filled"),
            "http://h:1/s/a%2F..%2Fb%3Fc%23d/restart"
        );
        assert_eq!(filled("http://h/?q={{ x }}", "a&b=c").expect("filled"), "http://h/?q=a%26b%3Dc");
        for (template, value) in [
            ("http://h/{{ x }}/y", ".."),
            ("http://h/.{{ x }}/y", "."),
            ("http://{{ x }}/", "evil"),
            ("http://h{{ x }}/", ".evil"),
            ("http://h:{{ x }}/", "80@evil"),
            ("{{ x }}/y", "http://evil"),
            ("ftp://h/{{ x }}", "a"),
            ("http://u:p@h/{{ x }}", "a"),
        ] {
            assert!(filled(template, value).is_err(), "{template} {value}");
        }
    }

    #[test]
    fn a_base_from_the_settings_may_come_first() {
        let put = |t: &str, base: &str| {
            fill(&Template::parse(t).expect("a template"), |_| Value::Url(super::base(base).expect("a base")))
        };
        assert_eq!(put("{{ b }}/x", "http://h:9/").expect("filled").as_str(), "http://h:9/x");
        assert!(put("{{ b }}.evil/x", "http://h:9").is_err());
        assert!(put("http://h/{{ b }}", "http://h:9").is_err());
        for wrong in ["file:///x", "http://u@h", "http://h/?a", "h"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_value_changes_host_segments_or_query(value in "\\PC{1,30}") {
            if let Ok(url) = filled("http://h:1/a/{{ x }}/b?c={{ x }}", &value) {
                let url = Url::parse(&url).expect("a URL");
                proptest::prop_assert_eq!(url.host_str(), Some("h"));
                proptest::prop_assert_eq!(url.path_segments().expect("segments").count(), 3);
                proptest::prop_assert_eq!(url.query_pairs().count(), 1);
                proptest::prop_assert_eq!(&*url.query_pairs().next().expect("one").1, value.as_str());
            }
        }
    }
}
