//! Shows apart what was merged, where the words that differ are few and each told often: names of events, not values.

use super::{Change, Miner, node::NodeId};

/// More different words than this at one place are values.
pub const MAX_FEW: usize = 8;
/// Told fewer times than this, a word may as well be a rare value.
const RARE: u32 = 4;
/// So many lines per word without a new one: these are all the words there are.
const LINES_PER_WORD: u64 = 16;

impl Miner {
    pub(super) fn few_of(&self, general: NodeId) -> &[NodeId] {
        self.few.get(&general).map(|few| &**few).unwrap_or_default()
    }

    pub(super) fn set_few(&mut self, general: NodeId, few: Vec<NodeId>) {
        self.nodes[general as usize].few = true;
        self.few.insert(general, few);
    }

    /// Words that are few, all known, and each told often are names of events.
    pub(super) fn decide_apart(&mut self, general: NodeId) {
        let g = &self.nodes[general as usize];
        if !g.few {
            return;
        }
        let few = self.few_of(general);
        let told = few.iter().map(|n| self.lines_of(*n));
        let often = told.clone().all(|lines| lines >= RARE)
            && told.map(u64::from).sum::<u64>() >= LINES_PER_WORD * few.len() as u64;
        let apart = g.parent == general && often && !few.iter().any(|n| self.has_value(general, *n));
        if apart != g.apart {
            self.show_apart(general, apart);
        }
    }

    /// There is more at the variable than a few words: it is one template for good.
    pub(super) fn close_few(&mut self, general: NodeId) {
        if !self.nodes[general as usize].few {
            return;
        }
        if self.nodes[general as usize].apart {
            self.show_apart(general, false);
        }
        self.nodes[general as usize].few = false;
        let whole = self.nodes[general as usize].hashes();
        for node in self.few.remove(&general).into_iter().flatten() {
            let hashes = self.nodes[node as usize].hashes();
            let values = whole.iter().zip(hashes).filter(|(whole, hash)| *whole != hash).map(|both| both.1);
            self.evidence.note_values(values);
        }
    }

    fn show_apart(&mut self, general: NodeId, apart: bool) {
        self.nodes[general as usize].apart = apart;
        let whole = self.nodes[general as usize].public;
        let words: Vec<_> = self
            .few_of(general)
            .iter()
            .map(|n| (self.nodes[*n as usize].public, u64::from(self.lines_of(*n))))
            .collect();
        let all: u64 = words.iter().map(|(_, lines)| lines).sum();
        // The one that keeps the id comes last: until then it has all that there is to share.
        let (own, others): (Vec<_>, Vec<_>) = words.into_iter().partition(|(word, _)| *word == whole);
        for (word, lines) in others.into_iter().chain(own) {
            if apart {
                let share = lines as f64 / all.max(1) as f64;
                self.note(Change::Parted { from: whole, into: word, share });
            } else if word != whole {
                self.note(Change::Merged { from: word, into: whole });
            }
        }
    }

    /// Is the word that this node has at the general one's variable known as a value elsewhere?
    fn has_value(&self, general: NodeId, node: NodeId) -> bool {
        let general = self.nodes[general as usize].hashes();
        let hashes = self.nodes[node as usize].hashes();
        general.iter().zip(&hashes).any(|(g, h)| g != h && self.evidence.is_value(*h))
    }
}
