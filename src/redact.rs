//! Masks secrets in text before it is stored as evidence, logged or sent anywhere; hands back text that still reads well.
//!
//! Passes, left to right, over one alternation: what is most telling (key blocks, known tokens) comes first, `key=value`
//! pairs later. Masking masked text changes nothing.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock, RwLock},
};

use regex::{Captures, Regex};

/// What stands in for a secret.
pub const MASK: &str = "***";

/// Longer texts are cut before masking, so that a hostile log line costs bounded time.
const MAX_BYTES: usize = 256 * 1024;

/// Most texts take one pass or two, and none may take them for ever.
const MOST_PASSES: usize = 8;

/// The alternatives, in order of preference at the same position. Group names say how `replace` treats a match.
const ALTERNATIVES: &[&str] = &[
    // A private key, also one whose end was cut off.
    r"(?P<pem>-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z))",
    // Tokens whose issuers made them easy to recognise.
    r"(?P<token>(?-u:\b)(?:(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[A-Z0-9]{16}(?-u:\b)|xox[a-z]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|gh[a-z]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,}|[0-9]{6,12}:[A-Za-z0-9_-]{30,}|sk-[A-Za-z0-9_-]{16,}|[a-z]k_(?:live|test)_[A-Za-z0-9]{10,}|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_.-]{20,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|npm_[A-Za-z0-9]{30,}|hvs\.[A-Za-z0-9_-]{20,}|eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*))",
    r"(?P<hook>(?-u:\b)hooks\.slack\.com/(?:services|workflows|triggers)/)[A-Za-z0-9_/*-]+",
    r"(?P<bot>/bot)(?:[0-9]{6,12}:[A-Za-z0-9_-]{20,}|\*\*\*)",
    // scheme://user:password@host and scheme://token@host
    r#"(?P<url>(?-u:\b)[A-Za-z][A-Za-z0-9+.-]*://[^\x00-\x20:/@"'<>]*:)[^\x00-\x20/"'<>]+@"#,
    r#"(?P<urltoken>(?-u:\b)[A-Za-z][A-Za-z0-9+.-]*://)(?:[^\x00-\x20:/@"'<>]{20,}|\*\*\*)@"#,
    // Headers whose whole value is secret.
    r#"(?P<auth>(?-u:\b)(?i-u:(?:proxy-)?authorization)["']?[ \t]*[:=][ \t]*["']?(?:(?i-u:bearer|basic|token|apikey|negotiate)[ \t]+)?)[^\x00-\x20"',]+(?P<authrest>[^\r\n"']*)"#,
    r#"(?P<cookie>(?-u:\b)(?i-u:(?:set-)?cookie)["']?[ \t]*:[ \t]*["']?)[^\r\n"']+"#,
    r"(?P<scheme>(?-u:\b)(?i-u:bearer|basic)[ \t]+)(?P<schemevalue>[A-Za-z0-9._~+/-]{8,}=*)",
    // key=value, key: value, "key": "value"
    r#"(?P<key>[A-Za-z0-9_.-]*(?i-u:pass(?:wor[dt]|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|signing[_-]?key|routing[_-]?key|encryption[_-]?key|credentials?|session[_-]?id|signature)[A-Za-z0-9_.-]*)(?P<sep>\\?["']?[ \t]*(?:=>|:=|[:=])[ \t]*)(?P<value>\\"(?:[^"\\]|\\[^"])*\\"|"(?:[^"\\]|\\.)*"?|'[^']*'?|[^\x00-\x20,;&"'})\]]+)"#,
    // What looks like a payment card; checked by its prefix and its Luhn digit.
    r"(?P<card>(?-u:\b)(?:[2-6][0-9]{3}(?:[ -]?[0-9]{4}){2}[ -]?[0-9]{1,7}|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5})(?-u:\b))",
];

static SECRETS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&ALTERNATIVES.join("|")).expect("the alternatives are constant"));

static EXTRA: LazyLock<RwLock<Arc<[Regex]>>> = LazyLock::new(|| RwLock::new(Arc::new([])));

/// Replaces the further patterns of the settings (`diagnose.mask`). A pattern with a group masks the group, one without masks
/// the whole match.
pub fn set_extra(patterns: Vec<Regex>) {
    *EXTRA.write().unwrap_or_else(std::sync::PoisonError::into_inner) = patterns.into();
}

/// Masks every secret that it recognises in `text`, at most the first 256 KiB of which are kept.
pub fn mask(text: &str) -> String {
    let text = cut(text, MAX_BYTES);
    let extra = EXTRA.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let mut masked = SECRETS.replace_all(text, replace);
    // A mask can complete what only then looks like a secret; each pass leaves less to mask.
    for _ in 0..MOST_PASSES {
        let Cow::Owned(changed) = &masked else { break };
        let again = SECRETS.replace_all(changed, replace).into_owned();
        if again == *changed {
            break;
        }
        masked = Cow::Owned(again);
    }
    extra
        .iter()
        .fold(masked.into_owned(), |text, pattern| pattern.replace_all(&text, replace_extra).into_owned())
}

/// Masks every string in a JSON value; the value of a key that names a secret is masked whatever it looks like.
pub fn mask_json(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::String(s) => *s = mask(s),
        Value::Array(items) => items.iter_mut().for_each(mask_json),
        Value::Object(map) => {
            for (key, v) in map.iter_mut() {
                match v {
                    Value::String(s) if names_secret(key) && !s.is_empty() => *s = MASK.into(),
                    Value::Number(_) if names_secret(key) => *v = MASK.into(),
                    v => mask_json(v),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The longest prefix of at most `max` bytes that ends between characters.
pub fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn replace(m: &Captures<'_>) -> String {
    let whole = &m[0];
    let group = |name: &str| m.name(name).map(|g| g.as_str());
    if group("pem").is_some() {
        "[private key ***]".into()
    } else if group("token").is_some() {
        MASK.into()
    } else if let Some(head) = group("url").or_else(|| group("urltoken")) {
        format!("{head}{MASK}@")
    } else if let Some(head) = group("auth") {
        mask_authorization(head, &m["authrest"])
    } else if let Some(head) = group("hook").or_else(|| group("bot")).or_else(|| group("cookie")) {
        format!("{head}{MASK}")
    } else if let Some(head) = group("scheme") {
        if looks_random(&m["schemevalue"]) { format!("{head}{MASK}") } else { whole.into() }
    } else if let Some(key) = group("key") {
        mask_pair(whole, key, &m["sep"], &m["value"])
    } else if is_card(whole) {
        MASK.into()
    } else {
        whole.into()
    }
}

fn replace_extra(m: &Captures<'_>) -> String {
    match m.get(1) {
        Some(g) => {
            let whole = m.get_match();
            let (from, to) = (g.start() - whole.start(), g.end() - whole.start());
            format!("{}{MASK}{}", &m[0][..from], &m[0][to..])
        }
        None => MASK.into(),
    }
}

/// A known scheme is followed by one word, so the rest of the line stays; otherwise the rest belongs to the credentials
/// (`AWS4-HMAC-SHA256 Credential=…, Signature=…`).
fn mask_authorization(head: &str, rest: &str) -> String {
    let known = head.ends_with(char::is_whitespace) && head.trim_end().ends_with(char::is_alphabetic);
    // The rest may hold further secrets, and is shorter than what was matched.
    if known {
        format!("{head}{MASK}{}", SECRETS.replace_all(rest, replace))
    } else {
        format!("{head}{MASK}")
    }
}

fn mask_pair(whole: &str, key: &str, sep: &str, value: &str) -> String {
    let bare = value.trim_matches(['\\', '"', '\'']);
    if !(names_secret(key) && is_worth_masking(bare) || looks_random(bare) && bare.len() >= 16) {
        return whole.into();
    }
    let quote = ["\\\"", "\"", "'"].into_iter().find(|q| value.starts_with(q)).unwrap_or("");
    let close = if value.len() > quote.len() && value.ends_with(quote) { quote } else { "" };
    format!("{key}{sep}{quote}{MASK}{close}")
}

/// True for keys that end in a word for a secret: `db_password`, `X-Api-Key`, but not `token_count` or `password_file`.
fn names_secret(key: &str) -> bool {
    static KEY: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)(?:pass(?:wor[dt]|wd|phrase)?|pwd|secret|token|(?:api|access|private|signing|routing|encryption|secret)[_-]?key|credentials?|session[_-]?id|authorization|cookie|signature)\d?$")
            .expect("the pattern is constant")
    });
    // `bypass`, `compass` and the like are words of their own.
    let word = key.to_ascii_lowercase();
    KEY.is_match(key) && !word.ends_with("bypass") && !word.ends_with("compass")
}

/// `token: null` and `secret=true` say something and hide nothing.
fn is_worth_masking(value: &str) -> bool {
    !value.is_empty()
        && !matches!(
            value.to_ascii_lowercase().as_str(),
            "null" | "none" | "nil" | "true" | "false" | "undefined" | "(unset)"
        )
}

/// True for text that nobody types: letters and digits mixed, many different characters.
fn looks_random(text: &str) -> bool {
    let (mut seen, mut digits, mut letters) = ([false; 256], 0u32, 0u32);
    for b in text.bytes() {
        seen[usize::from(b)] = true;
        digits += u32::from(b.is_ascii_digit());
        letters += u32::from(b.is_ascii_alphabetic());
    }
    let distinct = seen.iter().filter(|s| **s).count();
    text.len() >= 8 && letters >= 2 && (digits >= 2 || text.ends_with('=')) && distinct >= 7.min(text.len())
}

/// The prefixes and lengths of the large card schemes, and the Luhn digit.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let prefix = |n: usize| digits.iter().take(n).fold(0, |p, d| p * 10 + d);
    let shape = match digits.len() {
        15 => matches!(prefix(2), 34 | 37),
        13 | 19 => prefix(1) == 4,
        16 => {
            prefix(1) == 4
                || (51..=55).contains(&prefix(2))
                || (2221..=2720).contains(&prefix(4))
                || prefix(2) == 65
                || prefix(4) == 6011
        }
        _ => false,
    };
    let luhn =
        digits.iter().rev().enumerate().map(|(i, d)| if i % 2 == 0 { *d } else { d * 2 / 10 + d * 2 % 10 });
    shape && luhn.sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn masks(text: &str, expected: &str) {
        assert_eq!(mask(text), expected);
        assert_eq!(mask(expected), expected, "masking again changes nothing");
    }

    #[test]
    fn headers_and_schemes() {
        masks("Authorization: Bearer abc.def-123 GET /x 200", "Authorization: Bearer *** GET /x 200");
        masks("authorization=Basic dXNlcjpwYXNz", "authorization=Basic ***");
        masks(r#"{"Authorization":"Bearer abc","n":1}"#, r#"{"Authorization":"Bearer ***","n":1}"#);
        masks("Authorization: AWS4-HMAC-SHA256 Credential=x/y, Signature=ab12", "Authorization: ***");
        masks("Cookie: sid=abc; theme=dark\nnext line", "Cookie: ***\nnext line");
        masks("sent Bearer 4f9a8b7c6d5e to it", "sent Bearer *** to it");
        masks(
            "Basic authentication failed for bearer capacity",
            "Basic authentication failed for bearer capacity",
        );
    }

    #[test]
    fn pairs_in_every_spelling() {
        masks("password=hunter2 user=ann", "password=*** user=ann");
        masks(r#"{"db_password": "p\"w, x", "user": "ann"}"#, r#"{"db_password": "***", "user": "ann"}"#);
        masks("GET /cb?access_token=abc&state=1", "GET /cb?access_token=***&state=1");
        masks("AWS_SECRET_ACCESS_KEY='abc/def'", "AWS_SECRET_ACCESS_KEY='***'");
        masks(r#"{\"api_key\":\"k1\"}"#, r#"{\"api_key\":\"***\"}"#);
        masks("passwordHash: 5f4dcc3b5aa765d61d8327deb882cf99", "passwordHash: ***");
    }

    #[test]
    fn what_hides_nothing_stays() {
        for text in [
            "max_tokens=4096 token_count: 12",
            "token: null, secret=false",
            "password_file=/run/secrets/db",
            "bypass=on at 1732179600000000",
            "error: connection refused to 10.0.0.1:5432",
            "http://host:8080/path?mail=a@b.c",
            "started at 12:34:56, pid 4242",
        ] {
            masks(text, text);
        }
    }

    #[test]
    fn urls_and_known_tokens() {
        masks("dial postgres://app:s3cr3t@db:5432/x", "dial postgres://app:***@db:5432/x");
        masks(
            "https://api.telegram.org/bot123456789:AAF0abcdefghijklmnopqrstuvwxyz12345/getMe",
            "https://api.telegram.org/bot***/getMe",
        );
        masks(
            "POST https://hooks.slack.com/services/T00/B00/abc 404",
            "POST https://hooks.slack.com/services/*** 404",
        );
        let samples = [
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            format!("xoxb-{}", "1234567890-abcdef"),
            format!("ghp_{}", "a1B2".repeat(9)),
            format!("sk-proj-{}", "a1B2".repeat(9)),
            format!("123456789:{}", "AAFa1".repeat(7)),
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl".to_owned(),
        ];
        for secret in samples {
            masks(&format!("got {secret} here"), "got *** here");
        }
    }

    #[test]
    fn what_a_mask_completes_is_masked_too() {
        let once = mask("Bearer://password://,@");
        assert_eq!(mask(&once), once);
    }

    #[test]
    fn keys_and_cards() {
        masks(
            "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b",
            "a [private key ***] b",
        );
        masks("cut -----BEGIN PRIVATE KEY-----\nMIIE", "cut [private key ***]");
        masks("card 4111 1111 1111 1111 ok", "card *** ok");
        masks("order 4111111111111112 ok", "order 4111111111111112 ok");
    }

    #[test]
    fn json_values_of_secret_keys_are_masked_whatever_they_hold() {
        let mut v =
            serde_json::json!({"token": "x", "pwd": 1234, "n": 1, "in": ["password=a"], "title": "fine"});
        mask_json(&mut v);
        assert_eq!(
            v,
            serde_json::json!({"token": "***", "pwd": "***", "n": 1, "in": ["password=***"], "title": "fine"})
        );
    }

    #[test]
    fn settings_add_patterns() {
        let group = Regex::new(r"internal-(\d+)").expect("valid");
        assert_eq!(group.replace_all("see internal-42.", replace_extra), "see internal-***.");
        let whole = Regex::new("ACME-[0-9]+").expect("valid");
        assert_eq!(whole.replace_all("see ACME-42.", replace_extra), "see ***.");
    }

    proptest! {
        #[test]
        fn masking_is_idempotent(text in prop_oneof![
            "\\PC{0,200}",
            r#"(password|Authorization|token|api_key|Bearer|Basic|Cookie|://|:|=|"|'|\\|@|/bot|eyJ|sk-|-----BEGIN PRIVATE KEY-----| |,|;|\n|\*|[a-z0-9]{1,24}){0,24}"#,
        ]) {
            let once = mask(&text);
            prop_assert_eq!(mask(&once), once);
        }

        #[test]
        fn a_value_after_a_secret_key_never_survives(
            key in "(db_)?(password|secret|token|api[_-]key|passphrase)",
            sep in "(=|: |:|\": \")",
            value in "[A-Za-z0-9+/_.!-]{6,40}",
            before in "[ a-z0-9]{0,20}", after in "[ a-z]{0,20}",
        ) {
            prop_assume!(is_worth_masking(&value) && !before.contains(&value) && !after.contains(&value) && !key.contains(&value));
            let masked = mask(&format!("{before} {key}{sep}{value} {after}"));
            prop_assert!(!masked.contains(&value), "{}", masked);
        }
    }
}
