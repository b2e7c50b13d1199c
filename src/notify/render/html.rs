//! HTML markup for Telegram and mail: tags are ours and fixed, everything else is escaped on its way in.

use super::{Block, Line, Span, Text};

/// Markup under construction. Only [`Html::text`] takes what is not fixed in the program, and it escapes.
#[derive(Clone, Debug, Default)]
pub struct Html {
    out: String,
    visible: usize,
}

impl Html {
    pub fn new() -> Self {
        Self::default()
    }
    /// Our own markup, as it is.
    pub fn tag(&mut self, markup: &'static str) -> &mut Self {
        self.out.push_str(markup);
        self
    }
    /// Text, escaped.
    pub fn text(&mut self, text: &Text) -> &mut Self {
        self.visible += text.as_str().encode_utf16().count();
        escape(text.as_str(), &mut self.out);
        self
    }
    /// A line break that counts as a character, as Telegram has it.
    pub fn newline(&mut self) -> &mut Self {
        self.visible += 1;
        self.tag("\n")
    }
    pub fn link(&mut self, label: &Text, url: &Text) -> &mut Self {
        self.tag("<a href=\"");
        escape(url.as_str(), &mut self.out);
        self.tag("\">").text(label).tag("</a>")
    }
    /// The spans of a line, in the tags that both Telegram and mail clients know.
    pub fn line(&mut self, line: &Line) -> &mut Self {
        for span in &line.spans {
            match span {
                Span::Plain(t) => self.text(t),
                Span::Strong(t) => self.tag("<b>").text(t).tag("</b>"),
                Span::Code(t) => self.tag("<code>").text(t).tag("</code>"),
                Span::Link { label, url } => self.link(label, url),
            };
        }
        self
    }
    /// UTF-16 units that remain when the markup is taken away: what Telegram counts.
    pub fn visible(&self) -> usize {
        self.visible
    }
    pub fn finish(self) -> String {
        self.out
    }
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
}

/// A document's blocks as plain lines, for the plain-text forms.
pub fn plain(blocks: &[Block]) -> String {
    let mut paragraphs = Vec::new();
    for block in blocks {
        let title = block.title.iter().map(|t| format!("{}:", t.as_str()));
        let lines = block.lines.iter().map(plain_line);
        paragraphs.push(title.chain(lines).collect::<Vec<_>>().join("\n"));
    }
    paragraphs.join("\n\n")
}

fn plain_line(line: &Line) -> String {
    let start = ["", "- ", "    "][usize::from(line.indent.min(2))];
    let spans = line.spans.iter().map(|span| match span {
        Span::Plain(t) | Span::Strong(t) | Span::Code(t) => t.as_str().to_owned(),
        Span::Link { label, url } => format!("{}: {}", label.as_str(), url.as_str()),
    });
    std::iter::once(start.to_owned()).chain(spans).collect()
}
