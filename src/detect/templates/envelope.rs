//! What stands before messages and says nothing of the event: what nearly every line begins with (it is learned), and a
//! time, a level, who speaks.

use serde::{Deserialize, Serialize};

use super::{
    node::Node,
    scan::{Kind, is_level},
};

const DEPTH: usize = 8;
/// A head has no more tokens.
const MAX_HEAD: usize = 16;
/// Before so many lines nothing is common.
const MIN_LINES: u64 = 8;
/// Before so many it may still be something else.
const SETTLED_LINES: u64 = 2 * MIN_LINES;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    pub lines: u64,
    pub lead: [Lead; DEPTH],
}

/// The majority's token at one place (Boyer and Moore's vote), and how often it was seen since it leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lead {
    pub hash: u64,
    pub votes: u64,
    pub count: u64,
}

impl Envelope {
    pub fn note(&mut self, hashes: impl Iterator<Item = u64>) {
        self.lines += 1;
        for (lead, hash) in self.lead.iter_mut().zip(hashes.chain(std::iter::repeat(0))) {
            if lead.hash == hash {
                lead.votes += 1;
                lead.count += 1;
            } else if lead.votes == 0 {
                *lead = Lead { hash, votes: 1, count: 1 };
            } else {
                lead.votes -= 1;
            }
        }
    }

    pub fn is_settled(&self) -> bool {
        self.lines >= SETTLED_LINES
    }

    /// How many tokens at the beginning nine of ten different lines share.
    pub fn depth(&self, hashes: &[u64]) -> usize {
        if self.lines < MIN_LINES {
            return 0;
        }
        let common = |(lead, hash): &(&Lead, &u64)| lead.hash == **hash && lead.count * 10 >= self.lines * 9;
        self.lead.iter().zip(hashes).take_while(common).count()
    }
}

/// How many tokens stand before the message of a line that begins with a time, a level, a thread, a logger's name: up to the
/// level, and what stands between it and the first word of a text. 0 without a level.
pub fn head(node: &Node) -> usize {
    let (mut level, mut end, mut depth) = (false, 0, 0_usize);
    for (i, (piece, text)) in node.texts().enumerate().take(MAX_HEAD) {
        let word = matches!(piece.kind, Kind::Word | Kind::Suspect);
        if word && !level && is_level(text) {
            level = true;
        } else if word && depth == 0 {
            let is_name = text.iter().any(|b| matches!(b, b'.' | b'_' | b'-'));
            if !level || !is_name {
                break;
            }
        } else if text == b"[" {
            depth += 1;
        } else if text == b"]" {
            depth = depth.saturating_sub(1);
        }
        end = i + 1;
    }
    if level { end } else { 0 }
}
