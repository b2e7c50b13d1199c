//! What a miner knows, as plain values that can be saved; evidence that proved nothing yet is collected anew.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    Miner,
    envelope::Envelope,
    hash::mix,
    node::{Node, NodeId, Piece},
    params::Params,
    phrase,
    rows::Row,
    scan::Kind,
};

/// Changes with what is saved and what it means.
const FORMAT: u32 = 5;

#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    max: usize,
    lines: u64,
    nodes: Vec<Saved>,
    /// By shape: the sets of positions that vary, in two halves each.
    masks: Vec<(u64, Vec<(u64, u64)>)>,
    values: Vec<u64>,
    envelope: Envelope,
}

/// One node; `parent` and `few` are places in `State::nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Saved {
    k: u64,
    shape: u64,
    public: u64,
    parent: u32,
    apart: bool,
    leaf: bool,
    phrase: u8,
    lines: u32,
    used: u32,
    few: Vec<u32>,
    /// Four bytes each: kind (0 variable, 1 punctuation, 2 word, 3 suspect), flags, length.
    pieces: Bytes,
    text: Bytes,
    params: Params,
}

const KINDS: [Kind; 4] = [Kind::Var, Kind::Punct, Kind::Word, Kind::Suspect];

impl Serialize for Miner {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.state().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Miner {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let state = State::deserialize(from)?;
        if state.format != FORMAT {
            let message = format!("templates of format {}, this version writes {FORMAT}", state.format);
            return Err(de::Error::custom(message));
        }
        Ok(Self::restore(state))
    }
}

impl Miner {
    fn state(&self) -> State {
        let mut place = vec![0_u32; self.nodes.len()];
        for (i, (id, _)) in self.living().enumerate() {
            place[id] = i as u32;
        }
        let saved = |(id, n): (usize, &Node)| Saved {
            k: n.key,
            shape: n.shape,
            public: n.public,
            parent: place[n.parent as usize],
            apart: n.apart,
            leaf: n.leaf,
            phrase: n.phrase,
            lines: self.lines_of(id as NodeId),
            used: self.rows.own(n.key).map_or(0, |at| self.rows.at(at).used),
            few: self.few_of(id as NodeId).iter().map(|f| place[*f as usize]).collect(),
            pieces: Bytes(n.pieces.iter().flat_map(packed).collect()),
            text: Bytes(n.text.to_vec()),
            params: n.params.clone(),
        };
        let halves = |mask: &u128| (*mask as u64, (*mask >> 64) as u64);
        State {
            format: FORMAT,
            max: self.max,
            lines: self.lines,
            nodes: self.living().map(saved).collect(),
            masks: self
                .shapes
                .iter()
                .map(|(shape, s)| (*shape, s.masks.iter().map(halves).collect()))
                .collect(),
            values: self.evidence.values().collect(),
            envelope: self.envelope.clone(),
        }
    }

    /// A miner that goes on where the state was taken; what does not fit together in it is left out.
    fn restore(state: State) -> Self {
        let mut miner = Self::new(state.max);
        miner.lines = state.lines;
        miner.envelope = state.envelope;
        miner.evidence.restore_values(state.values);
        let count = state.nodes.len();
        for saved in &state.nodes {
            let mut node = saved.node();
            phrase::Form::of(&node).into_iter().for_each(|form| miner.phrases.know(form));
            while miner.rows.own(node.key).is_some() {
                node.key = mix(node.key);
            }
            let row = Row::own(node.key, miner.create(node), saved.lines, saved.used);
            miner.rows.insert(row);
        }
        for (id, saved) in state.nodes.iter().enumerate() {
            let (id, parent) = (id as NodeId, saved.parent);
            if parent != id && (parent as usize) < count && miner.root(parent) != id {
                miner.hang(id, parent);
            }
            if !saved.few.is_empty() && saved.few.iter().all(|f| (*f as usize) < count) {
                miner.set_few(id, saved.few.clone());
                miner.nodes[id as usize].apart = saved.apart;
            }
        }
        for id in 0..miner.nodes.len() as NodeId {
            miner.keep_name(id);
        }
        for (shape, masks) in state.masks {
            if let Some(shape) = miner.shapes.get_mut(&shape) {
                shape.masks =
                    masks.iter().map(|(low, high)| u128::from(*low) | u128::from(*high) << 64).collect();
            }
        }
        miner
    }

    fn living(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, n)| n.serial != 0)
    }
}

fn packed(piece: &Piece) -> [u8; 4] {
    let kind = KINDS.iter().position(|k| *k == piece.kind).unwrap_or(0) as u8;
    let [low, high] = piece.length.to_le_bytes();
    [kind, piece.flags, low, high]
}

impl Saved {
    fn node(&self) -> Node {
        let piece = |bytes: &[u8; 4]| {
            let [kind, flags, low, high] = *bytes;
            Piece { kind: KINDS[usize::from(kind) & 3], flags, length: u16::from_le_bytes([low, high]) }
        };
        let pieces: Box<[Piece]> = self.pieces.0.as_chunks::<4>().0.iter().map(piece).collect();
        let whole = pieces.iter().map(|p| usize::from(p.length)).sum::<usize>() == self.text.0.len();
        Node {
            key: if whole { self.k } else { mix(self.k) },
            shape: self.shape,
            public: self.public,
            leaf: self.leaf,
            phrase: if whole && usize::from(self.phrase) <= pieces.len() { self.phrase } else { 0 },
            pieces: if whole { pieces } else { Box::default() },
            text: if whole { self.text.0.clone().into() } else { Box::default() },
            params: self.params.clone(),
            ..Node::default()
        }
    }
}

/// Bytes that are saved as such, not number by number.
#[derive(Clone, Debug, PartialEq)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        from.deserialize_bytes(Visitor)
    }
}
