//! docs/guarantees.md names tests: each of them is one.

use std::{collections::BTreeSet, fs, path::Path};

/// `module::sub::name` between backticks.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split('`').skip(1).step_by(2);
    let is_path = |word: &&str| {
        word.contains("::") && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    };
    words.filter(is_path).collect()
}

/// The files that may hold a test of this path.
fn files(path: &str) -> Vec<String> {
    let mut parts: Vec<&str> = path.split("::").filter(|part| *part != "tests").collect();
    parts.pop();
    let place = parts.join("/");
    let of = |root: &str| ["", "/mod", "/tests"].map(|end| format!("{root}/{place}{end}.rs"));
    [of("tests/it"), of("src")].concat()
}

fn exists(path: &str) -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = path.rsplit("::").next().expect("there is a last part");
    files(path).iter().any(|file| {
        fs::read_to_string(root.join(file)).is_ok_and(|text| text.contains(&format!("fn {name}(")))
    })
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guarantees.md"));
    let text = text.expect("it is there");
    let named = named(&text);
    assert!(named.len() > 30, "{named:?}");
    let gone: Vec<_> = named.into_iter().filter(|path| !exists(path)).collect();
    assert!(gone.is_empty(), "docs/guarantees.md names tests that are none: {gone:#?}");
    assert!(!exists("intake::no_such_test"));
}
