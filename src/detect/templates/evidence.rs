//! Counts, for "this line with position i variable", how many different words were seen there; hands back the templates
//! that are one once there are enough.

use serde::{Deserialize, Serialize};

use super::{KeyMap, TemplateId, without};

/// Different words around the same rest that make a position variable.
const ENOUGH: usize = 4;
/// The same for the first word, and where fewer than two words would remain: they name the event.
const ENOUGH_OF_NAMES: usize = 16;
/// Positions of one line that leave evidence.
const MAX_POSITIONS: usize = 32;

#[derive(Serialize, Deserialize)]
pub struct Evidence {
    max: usize,
    seen: KeyMap<Seen>,
}

#[derive(Default, Serialize, Deserialize)]
struct Seen {
    words: Vec<u64>,
    templates: Vec<TemplateId>,
}

impl Evidence {
    pub fn new(max: usize) -> Self {
        Self { max, seen: KeyMap::default() }
    }

    /// Notes the words of the template with identity `key`. Returns the first position that this proves variable, with the
    /// templates that differ there.
    pub fn add(
        &mut self,
        key: u64,
        template: TemplateId,
        words: &[(usize, u64)],
    ) -> Option<(usize, Vec<TemplateId>)> {
        if self.seen.len() > self.max {
            // Evidence grows with lines that never repeat; what matters comes again.
            self.seen.clear();
        }
        for (rank, (position, hash)) in words.iter().take(MAX_POSITIONS).enumerate() {
            let names = rank == 0 || words.len() < 3;
            let rest = without(key, *position, *hash);
            let seen = self.seen.entry(rest).or_default();
            if !seen.words.contains(hash) {
                seen.words.push(*hash);
            }
            if !seen.templates.contains(&template) {
                seen.templates.push(template);
            }
            if seen.words.len() >= if names { ENOUGH_OF_NAMES } else { ENOUGH } {
                return self.seen.remove(&rest).map(|seen| (*position, seen.templates));
            }
        }
        None
    }
}
