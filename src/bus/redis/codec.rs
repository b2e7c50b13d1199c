//! How a batch of records is written into one stream entry.
//!
//! Record after record, so that encoded batches can be put behind each other. Numbers are LEB128, texts a length and UTF-8.
//! A record begins with one byte: the low two bits say what it is (0 log, 1 sample, 2 gap, 3 span), bit 2 that its service is that of
//! the log or sample before, bit 3 that its host is, bit 4 that a trace id follows. Then come:
//! - log: level (one byte), microseconds since 1970 (zigzag), service, host, message, trace id
//! - sample: microseconds, service, name, count of labels, names and values of the labels, value (eight bytes, little endian)
//! - span: microseconds, service, operation, trace, span and parent (eight bytes each, little endian), microseconds that it
//!   took; bit 4 says that it failed
//! - gap: JSON

use crate::{
    bus::Record,
    clock,
    model::{Labels, LogLevel, LogRecord, Sample, TraceSpan},
};

/// The version of this format, field `v` of an entry.
pub const VERSION: &str = "1";

const LOG: u8 = 0;
const SAMPLE: u8 = 1;
const GAP: u8 = 2;
const SPAN: u8 = 3;
const KIND: u8 = 0b11;
const SAME_SERVICE: u8 = 1 << 2;
const SAME_HOST: u8 = 1 << 3;
const TRACED: u8 = 1 << 4;
const FAILED: u8 = 1 << 4;

/// Writes one record behind those of a batch; `before` is the one before it in that batch.
pub fn encode(out: &mut Vec<u8>, record: &Record, before: Option<&Record>) {
    // A gap has its service inside its JSON.
    let same_service = before.is_some_and(|b| {
        !matches!(b, Record::Gap(_)) && b.service().is_some() && b.service() == record.service()
    });
    let service = if same_service { SAME_SERVICE } else { 0 };
    match record {
        Record::Log(log) => {
            let same_host = matches!(before, Some(Record::Log(b)) if b.host == log.host);
            let traced = if log.trace_id.is_some() { TRACED } else { 0 };
            out.push(LOG | service | if same_host { SAME_HOST } else { 0 } | traced);
            out.push(log.level as u8);
            time(out, log.at);
            if !same_service {
                text(out, &log.service);
            }
            if !same_host {
                text(out, &log.host);
            }
            text(out, &log.message);
            if let Some(trace) = &log.trace_id {
                text(out, trace);
            }
        }
        Record::Sample(sample) => {
            out.push(SAMPLE | service);
            time(out, sample.at);
            if !same_service {
                text(out, &sample.service);
            }
            text(out, &sample.name);
            number(out, sample.labels.len() as u64);
            for (name, value) in &sample.labels {
                text(out, name);
                text(out, value);
            }
            out.extend_from_slice(&sample.value.to_le_bytes());
        }
        Record::Span(span) => {
            out.push(SPAN | service | if span.error { FAILED } else { 0 });
            time(out, span.at);
            if !same_service {
                text(out, &span.service);
            }
            text(out, &span.operation);
            for id in [span.trace, span.id, span.parent] {
                out.extend_from_slice(&id.to_le_bytes());
            }
            number(out, span.duration_us.max(0).unsigned_abs());
        }
        Record::Gap(gap) => {
            out.push(GAP);
            text(out, &serde_json::to_string(gap).expect("a gap is plain data"));
        }
    }
}

fn number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn time(out: &mut Vec<u8>, at: jiff::Timestamp) {
    let us = at.as_microsecond();
    number(out, ((us << 1) ^ (us >> 63)) as u64);
}

/// All records of an entry that says it holds `count`; an error says what is wrong with it.
pub fn decode(payload: &[u8], count: usize) -> Result<Vec<Record>, String> {
    let mut from = Reader { bytes: payload };
    let mut records = Vec::with_capacity(count.min(payload.len() / 4));
    let (mut service, mut host) = (None, None);
    while !from.bytes.is_empty() {
        records.push(from.record(&mut service, &mut host).ok_or_else(|| {
            let at = payload.len() - from.bytes.len();
            format!("record {} is broken before byte {at} of {}", records.len(), payload.len())
        })?);
    }
    if records.len() != count {
        return Err(format!("it holds {} records and says {count}", records.len()));
    }
    Ok(records)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn record(&mut self, service: &mut Option<&'a str>, host: &mut Option<&'a str>) -> Option<Record> {
        let flags = self.byte()?;
        Some(match flags & KIND {
            LOG => {
                let level = *LogLevel::ALL.get(usize::from(self.byte()?))?;
                let at = self.time()?;
                self.named(service, flags & SAME_SERVICE)?;
                self.named(host, flags & SAME_HOST)?;
                let message = self.text()?.to_owned();
                let trace_id = if flags & TRACED == 0 { None } else { Some(self.text()?.to_owned()) };
                let (service, host) = ((*service)?.to_owned(), (*host)?.to_owned());
                Record::Log(LogRecord { at, service, host, level, message, trace_id })
            }
            SAMPLE => {
                let at = self.time()?;
                self.named(service, flags & SAME_SERVICE)?;
                let name = self.text()?.to_owned();
                let mut labels = Labels::new();
                for _ in 0..self.number()? {
                    let name = self.text()?;
                    labels.insert(name.to_owned(), self.text()?.to_owned());
                }
                let value = f64::from_le_bytes(self.take(8)?.try_into().ok()?);
                let service = (*service)?.to_owned();
                value.is_finite().then_some(Record::Sample(Sample { at, name, service, labels, value }))?
            }
            SPAN => {
                let at = self.time()?;
                self.named(service, flags & SAME_SERVICE)?;
                let operation = self.text()?.to_owned();
                let [trace, id, parent] = [self.id()?, self.id()?, self.id()?];
                let duration_us = i64::try_from(self.number()?).ok()?;
                let (service, error) = ((*service)?.to_owned(), flags & FAILED != 0);
                Record::Span(TraceSpan { at, service, operation, trace, id, parent, duration_us, error })
            }
            GAP => Record::Gap(serde_json::from_str(self.text()?).ok()?),
            _ => return None,
        })
    }

    fn named(&mut self, slot: &mut Option<&'a str>, same: u8) -> Option<()> {
        if same == 0 {
            *slot = Some(self.text()?);
        }
        Some(())
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(n)?;
        self.bytes = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn id(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn number(&mut self) -> Option<u64> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn time(&mut self) -> Option<jiff::Timestamp> {
        let n = self.number()?;
        Some(clock::from_micros((n >> 1) as i64 ^ -((n & 1) as i64)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Gap;

    fn encoded(records: &[Record]) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, record) in records.iter().enumerate() {
            encode(&mut out, record, i.checked_sub(1).map(|i| &records[i]));
        }
        out
    }

    fn some_record() -> impl Strategy<Value = Record> {
        let at = (-1_000_000_000_i64..4_000_000_000_000_000).prop_map(clock::from_micros);
        let trace = prop::option::of("[0-9a-f]{0,32}");
        let log = (at.clone(), "[ab]", "[h ]{0,2}", 0_usize..6, ".{0,200}", trace).prop_map(
            |(at, service, host, level, message, trace_id)| {
                Record::Log(LogRecord { at, service, host, level: LogLevel::ALL[level], message, trace_id })
            },
        );
        let labels = prop::collection::btree_map("[a-z]{1,3}", ".{0,8}", 0..4);
        let sample = (at.clone(), "[a-z_]{1,9}", "[ab]", labels, -1e300_f64..1e300).prop_map(
            |(at, name, service, labels, value)| Record::Sample(Sample { at, name, service, labels, value }),
        );
        let span = (at.clone(), "[ab]", "[a-z /]{0,9}", any::<[u64; 3]>(), 0_i64..1 << 40, any::<bool>());
        let span = span.prop_map(|(at, service, operation, [trace, id, parent], duration_us, error)| {
            Record::Span(TraceSpan { at, service, operation, trace, id, parent, duration_us, error })
        });
        let gap =
            (at, prop::option::of("[ab]"), prop::option::of(".{0,20}")).prop_map(|(at, service, reason)| {
                let reason = reason.map(crate::model::Said::from);
                Record::Gap(Gap { at, until: None, service, source: "watch".into(), reason })
            });
        prop_oneof![log, sample, span, gap]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(one in prop::collection::vec(some_record(), 0..20), two in prop::collection::vec(some_record(), 0..20)) {
            let both = [encoded(&one), encoded(&two)].concat();
            let records: Vec<Record> = one.into_iter().chain(two).collect();
            prop_assert_eq!(decode(&both, records.len()), Ok(records));
        }

        #[test]
        fn junk_is_refused_and_never_harmful(mut bytes in prop::collection::vec(any::<u8>(), 0..200), records in prop::collection::vec(some_record(), 1..5), at in any::<prop::sample::Index>()) {
            let _ = decode(&bytes, 3);
            bytes = encoded(&records);
            prop_assert!(decode(&bytes[..at.index(bytes.len())], records.len()).is_err(), "cut off");
            let at = at.index(bytes.len());
            bytes[at] ^= 0x55;
            let _ = decode(&bytes, records.len());
        }
    }
}
