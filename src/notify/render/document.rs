//! A message as blocks of plain text, in reading order, with what may be left out first; the channels turn it into markup.

use super::text::Text;
use crate::model::{Severity, Verb};

/// A piece of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Span {
    Plain(Text),
    Strong(Text),
    Code(Text),
    Link { label: Text, url: Text },
}

/// One line; `indent` 0 is plain, 1 is a list item, 2 belongs to the item above it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    pub spans: Vec<Span>,
    pub indent: u8,
}

impl Line {
    pub fn new() -> Self {
        Self::default()
    }
    pub fn item() -> Self {
        Self { indent: 1, ..Self::default() }
    }
    pub fn sub_item() -> Self {
        Self { indent: 2, ..Self::default() }
    }
    pub fn plain(mut self, text: impl Into<Text>) -> Self {
        self.spans.push(Span::Plain(text.into()));
        self
    }
    pub fn strong(mut self, text: impl Into<Text>) -> Self {
        self.spans.push(Span::Strong(text.into()));
        self
    }
    pub fn code(mut self, text: impl Into<Text>) -> Self {
        self.spans.push(Span::Code(text.into()));
        self
    }
    pub fn link(mut self, label: impl Into<Text>, url: impl Into<Text>) -> Self {
        self.spans.push(Span::Link { label: label.into(), url: url.into() });
        self
    }
}

/// What a block is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Headline,
    Facts,
    Standing,
    Alerts,
    Diagnosis,
    Missing,
    Proposal,
    Run,
    Press,
    Timeline,
    Link,
}

/// How badly a block is needed: the least needed goes first when the message is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    Timeline,
    Link,
    Alerts,
    Details,
    Missing,
    Run,
    Plan,
    Diagnosis,
    Always,
}

/// Lines that stand or fall together.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    pub part: Part,
    pub keep: Keep,
    pub title: Option<Text>,
    pub lines: Vec<Line>,
    /// The shorter form that takes its place when it has to go.
    pub instead: Option<Box<Block>>,
}

impl Block {
    pub fn new(part: Part, keep: Keep, lines: Vec<Line>) -> Self {
        Self { part, keep, title: None, lines, instead: None }
    }
    pub fn titled(mut self, title: impl Into<Text>) -> Self {
        self.title = Some(title.into());
        self
    }
    pub fn or(mut self, shorter: Block) -> Self {
        self.instead = Some(Box::new(shorter));
        self
    }
}

/// A button that the document offers; the outbox gives it its id.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub verb: Verb,
    pub label: Text,
    /// Offered only beside this block in full: nobody approves what they were not shown.
    pub needs: Option<Part>,
}

/// A whole message.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub severity: Severity,
    /// One line without markup: mail subject, PagerDuty summary, notification preview.
    pub subject: Text,
    pub blocks: Vec<Block>,
    pub offers: Vec<Offer>,
}

impl Document {
    /// Leaves out whole blocks, or takes their shorter forms, the least needed first, until it fits; what must always be
    /// told is bounded by construction.
    pub fn fit(mut self, fits: impl Fn(&Document) -> bool) -> Self {
        while !fits(&self) && self.shorten() {}
        self
    }

    /// False if there is nothing left that may go.
    fn shorten(&mut self) -> bool {
        let droppable = self.blocks.iter().enumerate().filter(|(_, b)| b.keep != Keep::Always);
        let Some((at, _)) = droppable.min_by_key(|(at, b)| (b.keep, std::cmp::Reverse(*at))) else {
            return false;
        };
        let gone = self.blocks.remove(at);
        self.offers.retain(|o| o.needs != Some(gone.part));
        if let Some(shorter) = gone.instead {
            self.blocks.insert(at, *shorter);
        }
        true
    }
}
