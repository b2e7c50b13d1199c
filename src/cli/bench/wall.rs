//! The time of day as the generator writes it: RFC 3339 of fixed width, cheap enough for every record.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The length of `2026-11-21T10:00:00.123Z`; longer ones have further digits before the `Z`.
pub const MILLIS: usize = 24;

/// Writes times; formats a date only once a second.
pub struct Wall {
    second: u64,
    /// `2026-11-21T10:00:00.`
    head: [u8; 20],
}

impl Default for Wall {
    fn default() -> Self {
        Self { second: u64::MAX, head: [0; 20] }
    }
}

/// Since 1970.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Wall {
    /// Fills `out`, which is at least [`MILLIS`] long, with a time since 1970.
    pub fn write(&mut self, at: Duration, out: &mut [u8]) {
        if at.as_secs() != self.second {
            self.second = at.as_secs();
            let date = Timestamp::from_second(at.as_secs() as i64).unwrap_or_default();
            let text = format!("{date:.0}");
            self.head[..19].copy_from_slice(&text.as_bytes()[..19]);
            self.head[19] = b'.';
        }
        let last = out.len() - 1;
        out[..20].copy_from_slice(&self.head);
        out[last] = b'Z';
        let fraction = &mut out[20..last];
        digits(u64::from(at.subsec_nanos()) / 10_u64.pow(9 - fraction.len() as u32), fraction);
    }
}

/// The last decimal digits of a number, as many as there is room for.
pub fn digits(mut number: u64, out: &mut [u8]) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_a_parser_reads() {
        let mut wall = Wall::default();
        for micros in [0_u64, 1_795_255_200_250_000, 1_795_255_200_999_999, 1_795_255_201_000_001] {
            let at = Duration::from_micros(micros);
            let mut out = [0; 27];
            wall.write(at, &mut out);
            let read: Timestamp = std::str::from_utf8(&out).expect("ASCII").parse().expect("a time");
            assert_eq!(read.as_microsecond(), micros as i64);
            let mut out = [0; MILLIS];
            wall.write(at, &mut out);
            let read: Timestamp = std::str::from_utf8(&out).expect("ASCII").parse().expect("a time");
            assert_eq!(read.as_millisecond(), (micros / 1000) as i64);
        }
    }
}
