//! Times and durations as people read them.

use std::time::Duration;

use jiff::Timestamp;

use super::{Style, Texts, fill};

/// `2026-11-21 03:12 MSK`.
pub(super) fn date(at: Timestamp, style: &Style) -> String {
    at.to_zoned(style.zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

/// `03:12`, for times near one that was given in full.
pub(super) fn clock(at: Timestamp, style: &Style) -> String {
    at.to_zoned(style.zone.clone()).strftime("%H:%M").to_string()
}

/// `03:12:05`.
pub(super) fn clock_seconds(at: Timestamp, style: &Style) -> String {
    at.to_zoned(style.zone.clone()).strftime("%H:%M:%S").to_string()
}

/// The two largest units: `1 h 4 min`, `12 s`, `340 ms`.
pub(super) fn duration(d: Duration, t: &Texts) -> String {
    let s = d.as_secs();
    let units = [(s / 86_400, t.day), (s / 3600 % 24, t.hour), (s / 60 % 60, t.minute), (s % 60, t.second)];
    let said: Vec<String> = units
        .iter()
        .skip_while(|(n, _)| *n == 0)
        .take(2)
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| fill(unit, &[&n.to_string()]))
        .collect();
    if said.is_empty() { fill(t.millisecond, &[&d.as_millis().to_string()]) } else { said.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Language;

    #[test]
    fn two_units_are_enough() {
        let said = |s| duration(Duration::from_millis(s), Texts::of(Language::English));
        assert_eq!(said(0), "0 ms");
        assert_eq!(said(340), "340 ms");
        assert_eq!(said(12_700), "12 s");
        assert_eq!(said(3_600_000), "1 h");
        assert_eq!(said(3_845_000), "1 h 4 min");
        assert_eq!(said(90_061_000), "1 d 1 h");
    }
}
