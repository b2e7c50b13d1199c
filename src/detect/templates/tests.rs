//! The miner on a corpus made up for it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Made-up lines of a shop: the template that each should get, and the line.
fn corpus() -> Vec<(&'static str, String)> {
    let names = ["ann", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy"];
    let hosts = ["db-a.internal", "db-b.internal", "cache.internal", "mq.internal", "search.internal"];
    let mut lines = Vec::new();
    for i in 0..200_usize {
        let (name, host) = (names[i % 10], hosts[i % 5]);
        lines.push((
            "order <*> accepted for <*> in <*>",
            format!("order {} accepted for u{i} in {}ms", i * 7, i % 90),
        ));
        lines.push(("user <*> logged in from <*>", format!("user {name} logged in from 10.0.{i}.1")));
        lines.push((
            "lost the connection to <*> after <*> s",
            format!("lost the connection to {host} after {i} s"),
        ));
        lines.push(("cache is warm", "cache is warm".into()));
        lines.push(("cache is cold", "cache is cold".into()));
        lines.push((
            "покупатель <*> оплатил заказ <*>",
            format!("покупатель {} оплатил заказ {i}", ["анна", "борис", "вера", "глеб", "дарья"][i % 5]),
        ));
    }
    lines
}

#[test]
fn lines_of_one_statement_end_in_one_template() {
    let mut miner = Miner::new(1000);
    let mut owner: BTreeMap<TemplateId, TemplateId> = BTreeMap::new();
    let mut ids: BTreeMap<&str, BTreeSet<TemplateId>> = BTreeMap::new();
    for (_, line) in corpus() {
        for gone in miner.add(&line).gone {
            if let Gone::Merged { from, into } = gone {
                owner.insert(from, into);
            }
        }
    }
    for (template, line) in corpus() {
        let id = miner.add(&line).id;
        ids.entry(template).or_default().insert(id);
        assert_eq!(miner.text(id), template, "{line}");
    }
    assert!(ids.values().all(|set| set.len() == 1), "{ids:?}");
    assert!(!owner.is_empty(), "names were learned, not masked");
    assert_eq!(miner.len(), 6);
}

#[test]
fn ids_survive_a_restart_and_merges_name_the_oldest() {
    let first = Miner::new(10).add("user ann logged in").id;
    let mut miner = Miner::new(10);
    assert_eq!(miner.add("user ann logged in"), Found { id: first, new: true, gone: vec![] });
    assert_eq!(miner.add("user ann logged in"), Found { id: first, new: false, gone: vec![] });
    for name in ["bob", "carol"] {
        assert!(miner.add(&format!("user {name} logged in")).new);
    }
    let found = miner.add("user dave logged in");
    assert_eq!((found.id, found.new, found.gone.len()), (first, false, 3));
    assert_eq!(miner.text(first), "user <*> logged in");
    assert!(!miner.add("user zed logged in").new);
}

#[test]
fn short_lines_do_not_melt_into_each_other() {
    let mut miner = Miner::new(100);
    let lines = ["connection refused", "connection established", "connection reset", "connection closed"];
    let ids: BTreeSet<_> = lines.iter().map(|line| miner.add(line).id).collect();
    assert_eq!(ids.len(), 4);
}

#[test]
fn memory_is_bounded_and_the_longest_unseen_goes_first() {
    let mut miner = Miner::new(50);
    let hot = miner.add("the one that stays busy").id;
    let mut forgotten = Vec::new();
    for i in 0..5000_u32 {
        let word: String = i.to_string().bytes().map(|b| char::from(b - b'0' + b'a')).collect();
        // Lengths differ, so that nothing merges.
        let found = miner.add(&format!("{word} {}", "x ".repeat(i as usize % 40)));
        forgotten.extend(found.gone);
        assert_eq!(miner.add("the one that stays busy").id, hot);
        assert!(miner.len() <= 50);
    }
    assert!(!forgotten.contains(&Gone::Forgotten(hot)));
    assert!(miner.by_key.len() <= 50 * MAX_KEYS && miner.groups.len() <= 50);
}

proptest! {
    #[test]
    fn every_line_has_a_template_with_a_text(lines in prop::collection::vec("[a-d]{1,2}( [a-d7:=/]{1,3}){0,4}", 1..300)) {
        let mut miner = Miner::new(20);
        for line in &lines {
            let found = miner.add(line);
            prop_assert!(!miner.text(found.id).is_empty());
            prop_assert!(miner.len() <= 20);
            prop_assert_eq!(miner.add(line).id, found.id, "a line that was just seen is known");
        }
        prop_assert!(miner.by_key.values().all(|id| miner.templates.contains_key(id)));
        prop_assert!(miner.groups.values().flatten().all(|id| miner.templates.contains_key(id)));
    }
}
