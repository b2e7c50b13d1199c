//! The call graph as spans show it: who calls whom, how often of late. Learned by detection; read by correlation and ranking
//! beside the topology of the settings.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;

/// So many calls of one service to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Called {
    pub caller: String,
    pub callee: String,
    pub count: f64,
}

/// Cheap to clone; all clones are one graph.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<RwLock<Graph>>);

#[derive(Debug, Default)]
struct Graph {
    /// Caller, callee.
    edges: BTreeMap<(String, String), Edge>,
    forgotten: u64,
    /// Learned and not saved yet.
    unsaved: BTreeMap<(String, String), f64>,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    count: f64,
    at: Timestamp,
}

/// Half of the calls are forgotten after so many seconds: what is called nightly stays, what was moved away is gone in a
/// week or two.
const HALF_LIFE: f64 = 86_400.0;
/// Fewer calls than this are a test by hand, or a span that lost its way, and no architecture.
const KNOWN: f64 = 10.0;
/// Edges that are kept; the faintest make room.
const MAX_EDGES: usize = 10_000;

impl Edge {
    fn plus(self, count: f64, at: Timestamp) -> Self {
        // What was before the other is older by then.
        let last = at.max(self.at);
        let other = Self { count, at };
        Self { count: self.now(last) + other.now(last), at: last }
    }

    fn now(&self, at: Timestamp) -> f64 {
        let seconds = at.duration_since(self.at).as_secs_f64().max(0.0);
        self.count * 0.5_f64.powf(seconds / HALF_LIFE)
    }
}

impl Calls {
    /// Adds calls that were seen.
    pub fn learn(&self, calls: Vec<(String, String, f64)>, at: Timestamp) {
        if calls.is_empty() {
            return;
        }
        let mut graph = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (caller, callee, count) in calls {
            let pair = (caller, callee);
            *graph.unsaved.entry(pair.clone()).or_default() += count;
            graph.add(pair, count, at);
        }
        graph.make_room(at);
    }

    /// What was learned since it was last asked for; to be saved, or to be [given back](Calls::not_saved).
    pub fn unsaved(&self) -> Vec<Called> {
        let mut graph = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let all = std::mem::take(&mut graph.unsaved).into_iter();
        all.map(|((caller, callee), count)| Called { caller, callee, count }).collect()
    }

    /// It could not be saved: it comes again.
    pub fn not_saved(&self, calls: Vec<Called>) {
        let mut graph = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for Called { caller, callee, count } in calls {
            *graph.unsaved.entry((caller, callee)).or_default() += count;
        }
    }

    /// Takes what was saved, by this process or another one, in place of what was known. What is not saved yet stays.
    pub fn restore(&self, saved: Vec<(Called, Timestamp)>, at: Timestamp) {
        let mut graph = self.0.write().unwrap_or_else(PoisonError::into_inner);
        graph.edges.clear();
        for (Called { caller, callee, count }, of) in saved {
            graph.add((caller, callee), count, of.min(at));
        }
        for (pair, count) in graph.unsaved.clone() {
            graph.add(pair, count, at);
        }
        graph.make_room(at);
    }

    /// Who calls whom, and how often (calls, halved every day).
    pub fn all(&self, at: Timestamp) -> Vec<(String, String, f64)> {
        let graph = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let now = graph.edges.iter().map(|((a, b), edge)| (a.clone(), b.clone(), edge.now(at)));
        now.filter(|(_, _, count)| *count >= KNOWN).collect()
    }

    /// What each of these services calls, then what calls it.
    pub fn neighbours_of(&self, services: &HashSet<String>, at: Timestamp) -> HashMap<String, Vec<String>> {
        let graph = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: HashMap<String, Vec<String>> = HashMap::new();
        let known = || graph.edges.iter().filter(|(_, e)| e.now(at) >= KNOWN).map(|(pair, _)| pair);
        for (caller, callee) in known().filter(|(caller, _)| services.contains(caller)) {
            all.entry(caller.clone()).or_default().push(callee.clone());
        }
        for (caller, callee) in known().filter(|(_, callee)| services.contains(callee)) {
            all.entry(callee.clone()).or_default().push(caller.clone());
        }
        all
    }

    /// Edges that are kept, and how many had to make room so far.
    pub fn size(&self) -> (usize, u64) {
        let graph = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (graph.edges.len(), graph.forgotten)
    }
}

impl Graph {
    fn add(&mut self, pair: (String, String), count: f64, at: Timestamp) {
        let edge = self.edges.entry(pair).or_insert(Edge { count: 0.0, at });
        *edge = edge.plus(count, at);
    }

    /// Forgets the faintest tenth, if there are too many.
    fn make_room(&mut self, at: Timestamp) {
        if self.edges.len() <= MAX_EDGES {
            return;
        }
        let mut counts: Vec<f64> = self.edges.values().map(|e| e.now(at)).collect();
        counts.sort_by(f64::total_cmp);
        let bar = counts[counts.len() / 10];
        let before = self.edges.len();
        self.edges.retain(|_, edge| edge.now(at) > bar);
        self.forgotten += (before - self.edges.len()) as u64;
        let edges = &self.edges;
        self.unsaved.retain(|pair, _| edges.contains_key(pair));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_known_after_ten_calls_and_fades_by_half_a_day() {
        let (calls, now) = (Calls::default(), Timestamp::from_second(1_800_000_000).expect("in range"));
        let edge = |n| vec![("shop".to_owned(), "db".to_owned(), n)];
        calls.learn(edge(6.0), now);
        assert_eq!(calls.all(now), []);
        calls.learn(edge(14.0), now);
        assert_eq!(calls.all(now), edge(20.0));
        let tomorrow = now + std::time::Duration::from_secs(86_400);
        assert_eq!(calls.all(tomorrow), edge(10.0));
        assert_eq!(calls.all(tomorrow + std::time::Duration::from_secs(3600)), []);
        let of = |name: &str| calls.neighbours_of(&HashSet::from([name.to_owned()]), now);
        assert_eq!(of("db")["db"], ["shop"]);
        assert_eq!(of("shop")["shop"], ["db"]);
    }

    #[test]
    fn what_was_saved_is_known_again_beside_what_was_not() {
        let (calls, now) = (Calls::default(), Timestamp::from_second(1_800_000_000).expect("in range"));
        let edge = |n| vec![("shop".to_owned(), "db".to_owned(), n)];
        calls.learn(edge(20.0), now);
        let taken = calls.unsaved();
        assert_eq!((taken.len(), taken[0].count, calls.unsaved()), (1, 20.0, vec![]));
        calls.not_saved(taken.clone());
        calls.learn(edge(4.0), now);
        assert_eq!(calls.unsaved()[0].count, 24.0, "what could not be saved comes again");
        calls.learn(edge(3.0), now);
        let yesterday = now - std::time::Duration::from_secs(86_400);
        let saved = taken[0].clone();
        calls.restore(vec![(Called { count: 40.0, ..saved.clone() }, yesterday), (saved, now)], now);
        assert_eq!(calls.all(now), edge(43.0));
    }

    #[test]
    fn the_faintest_edges_make_room() {
        let (calls, now) = (Calls::default(), Timestamp::from_second(1_800_000_000).expect("in range"));
        let edge = |i: usize| (format!("s{i}"), "db".to_owned(), i as f64 + 20.0);
        calls.learn((0..=MAX_EDGES).map(edge).collect(), now);
        let (kept, forgotten) = calls.size();
        assert!(kept <= MAX_EDGES && kept as u64 + forgotten == MAX_EDGES as u64 + 1);
        assert!(calls.all(now).iter().all(|(caller, ..)| caller != "s0"));
    }
}
