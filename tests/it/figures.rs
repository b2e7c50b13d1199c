//! The figures of the documentation, made by the code that they show.

use std::{fmt::Write as _, path::Path};

use aiops::{
    bus::Record,
    config::Detect,
    detect::{Partition, templates::mix},
    model::{AnomalyEvent, LogLevel, LogRecord},
};
use jiff::Timestamp;

const START: i64 = 1_795_255_200;
const SECONDS: i64 = 180;

/// Three minutes of a shop: its queries grow slow and many.
struct Story {
    /// Lines a second of the warning that is drawn, and milliseconds that it tells of.
    counts: Vec<u32>,
    millis: Vec<u32>,
    events: Vec<AnomalyEvent>,
}

fn story() -> Story {
    let mut partition = Partition::new(&Detect::default(), 1);
    let mut story = Story { counts: Vec::new(), millis: Vec::new(), events: Vec::new() };
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed += 1;
        (mix(seed) % below) as u32
    };
    for second in 0..SECONDS {
        let now = Timestamp::from_second(START + second).expect("in range");
        let trouble = (120..150).contains(&second);
        let mut log = |level, message: String| {
            let (service, host) = ("shop".into(), "h1".into());
            let record = LogRecord { at: now, service, host, level, message, trace_id: None };
            partition.record(&Record::Log(record), now, &mut story.events);
        };
        for _ in 0..5 {
            let millis = if trouble { 300 + random(500) } else { 10 + random(30) };
            story.millis.push(millis);
            log(LogLevel::Info, format!("order {} stored in {millis}ms", random(100_000)));
        }
        let count = if trouble { 4 + random(5) } else { u32::from(random(5) == 0) };
        (0..count).for_each(|_| log(LogLevel::Warn, format!("query {} is slow", random(1000))));
        story.counts.push(count);
        partition.tick(now, &mut story.events);
    }
    story
}

fn draw(story: &Story) -> String {
    let x = |second: f64| 10.0 + second * 4.0;
    let mut svg = String::from(concat!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 740 300" font-family="sans-serif" font-size="11">"##,
        r##"<rect width="740" height="300" fill="#fff"/>"##,
    ));
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    for (kind, top, name) in [
        ("log_burst", 20.0, "lines a second: query <*> is slow"),
        ("log_values", 160.0, "milliseconds: order <*> stored in <*>"),
    ] {
        let of = |ended: bool| {
            story
                .events
                .iter()
                .find(|e| e.kind.as_str() == kind && e.ended_at.is_some() == ended)
                .expect("it is told")
        };
        let second = |at: Timestamp| (at.as_millisecond() - START * 1000) as f64 / 1000.0;
        let (onset, end) = (of(false), of(true));
        let (from, to) = (second(onset.started_at), second(end.ended_at.expect("it has ended")));
        let _ = write!(
            svg,
            r##"<rect x="{:.0}" y="{top}" width="{:.0}" height="100" fill="#fde2e2"/><text x="10" y="{:.0}" fill="#555">{}</text><text x="10" y="{:.0}" fill="#b00020">{}</text>"##,
            x(from),
            x(to) - x(from),
            top - 6.0,
            escaped(name),
            top + 116.0,
            escaped(&onset.title.to_string()),
        );
        let _ = write!(svg, r##"<line x1="10" y1="{0}" x2="730" y2="{0}" stroke="#999"/>"##, top + 100.0);
    }
    for (second, count) in story.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = f64::from(*count) * 10.0;
        let _ = write!(
            svg,
            r##"<rect x="{:.0}" y="{:.0}" width="3" height="{height:.0}" fill="#1f5fa8"/>"##,
            x(second as f64),
            120.0 - height
        );
    }
    for (i, millis) in story.millis.iter().enumerate() {
        let _ = write!(
            svg,
            r##"<circle cx="{:.1}" cy="{:.1}" r="1.2" fill="#1f5fa8"/>"##,
            x(i as f64 / 5.0),
            260.0 - f64::from(*millis).log10() * 33.0
        );
    }
    svg + "</svg>\n"
}

#[test]
fn the_figure_of_log_anomalies_is_what_the_detectors_say() {
    let (made, name) = (draw(&story()), "detection-logs.svg");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    if std::fs::read_to_string(&docs).ok().as_ref() != Some(&made) {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&fresh, &made).expect("written");
        panic!(
            "the detectors draw another figure now: look at {} and copy it to {}",
            fresh.display(),
            docs.display()
        );
    }
}
