//! The house keeps its shape: imports go down, stages do not know each other, nothing goes in circles.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// From the ground up; a module may use those of lower floors and of its own. A module that is in none fails the test, so
/// that whoever adds one says where it lives.
const FLOORS: [&[&str]; 8] = [
    &["model"],
    &["alarm", "clock", "gamma", "http_client", "ids", "metrics", "redact", "retry", "threads"],
    &["admission", "breaker", "config", "telemetry"],
    &["bot_api", "bus", "llm", "playbook", "prometheus_api", "search", "slack_api", "store"],
    &["owned", "steer", "steps", "worker"],
    &STAGES,
    &["http", "pipeline"],
    &["app", "cli", "replay"],
];

const STAGES: [&str; 10] =
    ["act", "correlate", "decide", "detect", "diagnose", "export", "intake", "notify", "selfwatch", "verify"];

/// Top-level module → the top-level modules that it uses.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut left = vec![src.clone()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).expect("readable").map(|e| e.expect("readable").path()));
            continue;
        }
        let inside = path.strip_prefix(&src).expect("under src");
        let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        if path.extension().is_none_or(|e| e != "rs") || ["lib", "main"].contains(&module.as_str()) {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        let uses = found.entry(module.clone()).or_default();
        uses.extend(used(&text).into_iter().filter(|u| *u != module));
    }
    found
}

/// What follows `crate::`, also inside `use crate::{…}` over several lines. Doc comments do not count.
fn used(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|l| !l.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut out = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(list) = rest.strip_prefix('{') else {
            out.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut item = String::new();
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    out.insert(word(item.trim()));
                    item.clear();
                    continue;
                }
                _ => {}
            }
            item.push(c);
        }
        out.insert(word(item.trim()));
    }
    out.into_iter().filter(|w| w.chars().next().is_some_and(char::is_lowercase)).collect()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|f| f.contains(&module))
}

#[test]
fn imports_go_down() {
    let mut wrong = Vec::new();
    for (module, uses) in imports() {
        let Some(mine) = floor(&module) else {
            wrong.push(format!("{module} has no floor yet: give it one in this test"));
            continue;
        };
        for used in uses.iter().filter(|u| floor(u).is_some_and(|f| f > mine)) {
            wrong.push(format!("{module} uses {used}, which is above it"));
        }
        if STAGES.contains(&module.as_str()) {
            let others = uses.iter().filter(|u| STAGES.contains(&u.as_str()));
            wrong.extend(others.map(|u| format!("the stage {module} uses the stage {u}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The client libraries of other services stay behind one module each.
#[test]
fn one_module_alone_knows_the_elasticsearch_client() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut left, mut found) = (vec![src.clone()], BTreeSet::new());
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).expect("readable").map(|e| e.expect("readable").path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        // A module of ours may have the name, too.
        if text.contains("elasticsearch::") && !text.contains("mod elasticsearch;") {
            found.insert(path.parent().expect("a folder").strip_prefix(&src).expect("under src").to_owned());
        }
    }
    assert_eq!(found, [Path::new("search/elastic").to_owned()].into());
}

/// That a replay sends nothing, runs nothing and asks nobody rests on what it is made of.
#[test]
fn a_replay_has_nothing_to_reach_the_world_with() {
    let uses = imports().remove("replay").expect("it is there");
    for out in
        ["act", "app", "bot_api", "http", "http_client", "prometheus_api", "slack_api", "steps", "verify"]
    {
        assert!(!uses.contains(out), "replay uses {out}");
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/replay");
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        for out in [
            "reqwest",
            "std::net",
            "tokio::net",
            "process::Command",
            "Chain::new",
            "channels::build",
            "Elastic",
            "Hands",
        ] {
            assert!(!text.contains(out), "{} uses {out}", path.display());
        }
    }
    let world = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/replay/world.rs"));
    let world = world.expect("it is there");
    for nothing in ["http: None", "hands: None", "Chain::none(", "Logs::none()", "channels::on_paper("] {
        assert!(world.contains(nothing), "{nothing}");
    }
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/notify/channels/paper.rs");
    let paper = std::fs::read_to_string(paper).expect("it is there");
    for out in ["http_client", "SlackApi", "BotApi", "lettre", "stdout()"] {
        assert!(!paper.contains(out), "paper uses {out}");
    }
}

#[test]
fn nothing_goes_in_circles() {
    let mut left = imports();
    loop {
        let known: BTreeSet<String> = left.keys().cloned().collect();
        let before = left.len();
        left.retain(|_, uses| uses.iter().any(|u| known.contains(u)));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "these use each other in a circle: {left:#?}");
}

/// A proof that was renamed proves nothing.
#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    let mut left = vec![root.join("src"), root.join("tests/it")];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).expect("readable").map(|e| e.expect("readable").path()));
        } else if path.extension().is_some_and(|e| e == "rs") {
            code += &std::fs::read_to_string(&path).expect("UTF-8");
        }
    }
    let promises = std::fs::read_to_string(root.join("docs/guarantees.md")).expect("it is there");
    let is_path = |s: &&str| {
        s.contains("::") && s.chars().all(|c| c.is_ascii_lowercase() || "_:0123456789".contains(c))
    };
    let proofs: BTreeSet<&str> = promises.split('`').filter(is_path).collect();
    assert!(proofs.len() > 10, "{proofs:?}");
    let is_test = |path: &&str| {
        code.contains(&format!("fn {}(", path.rsplit("::").next().expect("it has a last part")))
    };
    let missing: Vec<&str> = proofs.into_iter().filter(|path| !is_test(path)).collect();
    assert!(missing.is_empty(), "docs/guarantees.md names tests that are not there: {missing:#?}");
}
