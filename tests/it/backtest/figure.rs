//! `docs/detection-metrics.svg`: four of our own series with what the detector says of them, drawn from its verdicts.

use std::{fmt::Write as _, path::Path};

use aiops::{
    config::Detect,
    detect::{Allowed, Change, Metric},
};

use super::series::{Fault, Made, make};

const WIDTH: f64 = 900.0;
const ROW: f64 = 120.0;
/// Values before and after the onset that are drawn.
const BEFORE: usize = 350;
const AFTER: usize = 250;

const STYLE: &str = ".v{fill:none;stroke:#2b6cb0;stroke-width:1}.s{fill:#f6ad55;opacity:.7}.o{stroke:#c53030;stroke-width:1.5}\
.t{fill:#1b2733;font-size:12px}.r{fill:#c53030;font-size:12px}\
@media (prefers-color-scheme: dark){.v{stroke:#63b3ed}.t{fill:#f1f5f9}.r{fill:#fc8181}.o{stroke:#fc8181}}";

#[test]
fn the_figure_shows_what_the_detector_says() {
    let drawn = draw();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/detection-metrics.svg");
    if std::fs::read_to_string(&path).unwrap_or_default() != drawn {
        std::fs::write(&path, drawn).expect("the figure can be written");
        panic!("{} was out of date and has been drawn anew; look at it and commit it", path.display());
    }
}

pub fn draw() -> String {
    let faults = [Fault::Level, Fault::WaveMissing, Fault::SwingsMore, Fault::Flat];
    let names = ["A level shift", "A daily wave that is missing", "Larger swings", "A flat line"];
    let height = ROW * faults.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"t d\" \
         font-family=\"system-ui, sans-serif\">\n<title id=\"t\">What the metric detector says</title>\n<desc id=\"d\">Four \
         series; under each the score of every value, and a line where an anomaly begins, with its reason.</desc>\n\
         <style>{STYLE}</style>\n"
    );
    for (i, (fault, name)) in faults.into_iter().zip(names).enumerate() {
        let _ = writeln!(svg, "<g transform=\"translate(0 {})\">", ROW * i as f64);
        panel(&mut svg, name, &make(fault, 2));
        svg += "</g>\n";
    }
    svg + "</svg>\n"
}

/// A series in its upper three quarters, scores below.
fn panel(svg: &mut String, name: &str, made: &Made) {
    let onset = made.onset.expect("each has a fault");
    let (from, to) = (onset - BEFORE, (onset + AFTER).min(made.values.len()));
    let shown = &made.values[from..to];
    let low = shown.iter().copied().fold(f64::INFINITY, f64::min);
    let high = shown.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let x = |row: usize| (row - from) as f64 / (BEFORE + AFTER) as f64 * WIDTH;
    let y = |value: f64| 85.0 - (value - low) / (high - low) * 60.0;
    let point = |(i, value): (usize, &f64)| format!("{:.1},{:.1}", x(from + i), y(*value));
    let line: Vec<String> = shown.iter().enumerate().map(point).collect();
    let _ = writeln!(svg, "<text class=\"t\" x=\"4\" y=\"14\">{name}</text>");
    let _ = writeln!(svg, "<polyline class=\"v\" points=\"{}\"/>", line.join(" "));
    let (mut metric, allowed) = (Metric::default(), Allowed::new(&Detect::default(), 1));
    let mut text_y = 30;
    for (row, value) in made.values[..to].iter().enumerate() {
        let at_us = (1_600_000_000 + row as i64 * made.step_s) * 1_000_000;
        let verdict = metric.push(at_us, *value, &allowed);
        if row < from {
            continue;
        }
        if verdict.score >= 0.05 {
            let tall = f64::from(verdict.score) * 25.0;
            let (x, y) = (x(row), 115.0 - tall);
            let _ = writeln!(
                svg,
                "<rect class=\"s\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"1.5\" height=\"{tall:.1}\"/>"
            );
        }
        if let Some(Change::Onset(onset)) = verdict.change {
            let why = onset.title("value".into(), aiops::model::Per::Nothing).to_string().replace('`', "");
            let x = x(row);
            let _ = writeln!(svg, "<line class=\"o\" x1=\"{x:.1}\" y1=\"18\" x2=\"{x:.1}\" y2=\"115\"/>");
            let (place, anchor) = if x > WIDTH / 2.0 { (x - 4.0, "end") } else { (x + 4.0, "start") };
            let _ = writeln!(
                svg,
                "<text class=\"r\" x=\"{place:.1}\" y=\"{text_y}\" text-anchor=\"{anchor}\">{why}</text>"
            );
            text_y += 14;
        }
    }
}
