//! Reads the times that log shippers write.

use jiff::{Timestamp, civil, fmt::strtime, tz::TimeZone};

use super::flatten::Scalar;

/// What a time field says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Time {
    At(Timestamp),
    /// A form that names no moment (BSD syslog's `Nov 21 10:00:00` has neither year nor zone): take the arrival.
    Vague,
    Unreadable,
}

/// RFC 3339 (also with a space, a comma before the fraction, `+0300`), a local date and time (taken as UTC), Apache's
/// `21/Nov/2026:10:00:00 +0000`, or the time since 1970 in seconds (with a fraction), ms, µs or ns, told apart by size, as a
/// number or a string. To the microsecond.
pub fn read(value: &Scalar<'_>) -> Time {
    let at = match value {
        Scalar::Int(number) => from_int(*number),
        Scalar::Float(number) => from_float(*number),
        Scalar::Text(text) => return from_text(text.trim()),
    };
    at.map_or(Time::Unreadable, Time::At)
}

fn from_int(number: i64) -> Option<Timestamp> {
    let micros = match number.unsigned_abs() {
        0..100_000_000_000 => number.checked_mul(1_000_000)?,
        100_000_000_000..100_000_000_000_000 => number * 1000,
        100_000_000_000_000..100_000_000_000_000_000 => number,
        _ => number / 1000,
    };
    Timestamp::from_microsecond(micros).ok()
}

fn from_float(number: f64) -> Option<Timestamp> {
    if !number.is_finite() || number.abs() > 9e18 {
        return None;
    }
    match number.abs() {
        0.0..1e11 => Timestamp::from_microsecond((number * 1e6).round() as i64).ok(),
        _ => from_int(number as i64),
    }
}

fn from_text(text: &str) -> Time {
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let at = if numeric { from_digits(text) } else { from_date(text) };
    match at {
        Some(at) => Time::At(at),
        None if is_bsd(text) => Time::Vague,
        None => Time::Unreadable,
    }
}

fn from_digits(text: &str) -> Option<Timestamp> {
    match text.parse::<i64>() {
        Ok(number) => from_int(number),
        Err(_) => from_float(text.parse().ok()?),
    }
}

fn from_date(text: &str) -> Option<Timestamp> {
    if text.len() > 64 {
        return None;
    }
    let at = text.parse().ok().or_else(|| from_civil(text)).or_else(|| from_apache(text))?;
    Timestamp::from_microsecond(at.as_microsecond()).ok()
}

fn from_civil(text: &str) -> Option<Timestamp> {
    let text = text.replace(',', ".");
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    let local: civil::DateTime = text.parse().ok()?;
    Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn from_apache(text: &str) -> Option<Timestamp> {
    strtime::parse("%d/%b/%Y:%H:%M:%S %z", text).ok()?.to_timestamp().ok()
}

fn is_bsd(text: &str) -> bool {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    text.get(..3).is_some_and(|month| MONTHS.contains(&month)) && text.matches(':').count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        Time::At(text.parse().expect("a valid expectation"))
    }
    fn text(text: &str) -> Time {
        read(&Scalar::Text(text.into()))
    }

    #[test]
    fn every_spelling_of_a_moment_is_the_same_moment() {
        let moment = at("2026-11-21T10:00:00.25Z");
        for spelling in [
            "2026-11-21T10:00:00.25Z",
            "2026-11-21T13:00:00.250+03:00",
            "2026-11-21T13:00:00.250+0300",
            "2026-11-21 10:00:00,250",
            "2026-11-21T10:00:00.250000000",
            "1795255200.25",
            "1795255200250",
            "1795255200250000",
            "1795255200250000000",
        ] {
            assert_eq!(text(spelling), moment, "{spelling}");
        }
        assert_eq!(read(&Scalar::Float(1795255200.25)), moment);
        assert_eq!(read(&Scalar::Int(1795255200250)), moment);
        assert_eq!(text("21/Nov/2026:10:00:00 +0000"), at("2026-11-21T10:00:00Z"));
    }

    #[test]
    fn what_names_no_moment_is_told_from_junk() {
        assert_eq!(text("Nov 21 10:00:00"), Time::Vague);
        assert_eq!(text("yesterday"), Time::Unreadable);
        assert_eq!(text(""), Time::Unreadable);
        assert_eq!(read(&Scalar::Float(1e300)), Time::Unreadable);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(s in "\\PC*", i: i64, f: f64) {
            let _ = text(&s);
            let _ = read(&Scalar::Int(i));
            let _ = read(&Scalar::Float(f));
        }
    }
}
