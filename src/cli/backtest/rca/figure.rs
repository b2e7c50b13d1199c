//! Draws a ranking: a bar for each service, in pieces by kind of evidence, and the line that the first must reach to be clear.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::diagnose::rank::{Kind, Ranking};

const SERVICES: usize = 8;
const WIDTH: f64 = 860.0;
/// Where bars begin, and how much room they have.
const LEFT: f64 = 190.0;
const ROOM: f64 = 610.0;
const ROW: f64 = 30.0;
const TOP: f64 = 64.0;
/// Told apart by people who see few colours, too (Okabe & Ito, 2008).
const COLOURS: [&str; 8] =
    ["#0072b2", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#999999", "#f0e442"];

/// The ranking as an SVG document.
pub fn svg(id: &str, ranking: &Ranking) -> String {
    let shown: Vec<_> = ranking.ranked.iter().take(SERVICES).collect();
    let most = shown.iter().map(|r| r.score).fold(ranking.bar, f64::max) * 1.05;
    let scale = ROOM / most;
    let height = TOP + ROW * shown.len() as f64 + 44.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
         <title>Suspects of {}: {}</title>\n\
         <style>text{{fill:#1b2733}}.a{{stroke:#5b6b82;stroke-dasharray:4 3}}@media (prefers-color-scheme: dark){{text{{fill:#f1f5f9}}}}</style>\n",
        escaped(id),
        ranking.verdict
    );
    let mut kinds: Vec<Kind> = shown.iter().flat_map(|r| r.evidence.iter().map(|e| e.kind)).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut x = LEFT;
    for kind in &kinds {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"25\">{kind}</text>",
            colour(*kind),
            x + 17.0
        );
        x += 90.0;
    }
    for (row, ranked) in shown.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 14.0,
            escaped(&ranked.service)
        );
        let mut by: BTreeMap<Kind, f64> = BTreeMap::new();
        ranked.evidence.iter().for_each(|e| *by.entry(e.kind).or_default() += e.nats);
        let sum: f64 = by.values().sum();
        let mut x = LEFT;
        for (kind, nats) in by.iter().filter(|(_, nats)| **nats > 0.0) {
            // One thing that shows in many places counts once: pieces are shares of the score.
            let width = nats / sum * ranked.score * scale;
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"20\" fill=\"{}\"/>",
                colour(*kind)
            );
            x += width;
        }
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{}\">{:.1}</text>", x + 6.0, y + 14.0, ranked.score);
    }
    let (x, end) = (LEFT + ranking.bar * scale, TOP + ROW * shown.len() as f64);
    let _ = writeln!(
        out,
        "<line class=\"a\" x1=\"{x:.1}\" y1=\"{}\" x2=\"{x:.1}\" y2=\"{end}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">clear from {:.1} nats</text>\n</svg>",
        TOP - 12.0,
        end + 20.0,
        ranking.bar
    );
    out
}

fn colour(kind: Kind) -> &'static str {
    COLOURS[Kind::ALL.iter().position(|k| *k == kind).unwrap_or(0) % COLOURS.len()]
}

/// As XML takes it, which knows no control characters.
fn escaped(text: &str) -> String {
    let text = text.replace(char::is_control, "\u{fffd}");
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
