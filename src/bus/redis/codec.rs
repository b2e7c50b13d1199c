//! How a batch of records is written into one stream entry.
//!
//! Record after record, so that encoded batches can be put behind each other. Numbers are LEB128, texts a length and UTF-8.
//! A record begins with one byte: the low two bits say what it is (0 log, 1 sample, 2 gap, 3 of a later kind), bit 2 that its
//! service is that of the log or sample before, bit 3 that its host is, bit 4 that a trace id follows. Then come:
//! - log: level (one byte), microseconds since 1970 (zigzag), service, host, message, trace id
//! - sample: microseconds, service, name, count of labels, names and values of the labels, value (eight bytes, little endian)
//! - gap: JSON
//! - of a later kind: the number of its kind, a length and so many bytes. A reader that does not know the kind skips them and
//!   counts it, and of a kind that it knows it leaves what stands behind what it knows: versions run side by side while a
//!   deployment is upgraded. Nothing else refers to such a record.
//!   - kind 0, span: one byte (bit 0 that it failed), microseconds, service, operation, trace, span and parent (eight bytes
//!     each, little endian), microseconds that it took, whom it waited for as far as it says (empty: nobody)

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
const LATER: u8 = 3;
const KIND: u8 = 0b11;
const SAME_SERVICE: u8 = 1 << 2;
const SAME_HOST: u8 = 1 << 3;
const TRACED: u8 = 1 << 4;

/// Kinds that came later.
const SPAN: u64 = 0;
const FAILED: u8 = 1;

/// Writes one record behind those of a batch; `before` is the one before it in that batch.
pub fn encode(out: &mut Vec<u8>, record: &Record, before: Option<&Record>) {
    // A gap has its service inside its JSON, and what came later may be skipped.
    let same_service = before
        .is_some_and(|b| matches!(b, Record::Log(_) | Record::Sample(_)) && b.service() == record.service());
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
            let mut body = vec![if span.error { FAILED } else { 0 }];
            time(&mut body, span.at);
            text(&mut body, &span.service);
            text(&mut body, &span.operation);
            for id in [span.trace, span.id, span.parent] {
                body.extend_from_slice(&id.to_le_bytes());
            }
            number(&mut body, span.duration_us.max(0).unsigned_abs());
            text(&mut body, span.peer.as_deref().unwrap_or(""));
            later(out, SPAN, &body);
        }
        Record::Gap(gap) => {
            out.push(GAP);
            text(out, &serde_json::to_string(gap).expect("a gap is plain data"));
        }
    }
}

fn later(out: &mut Vec<u8>, kind: u64, body: &[u8]) {
    out.push(LATER);
    number(out, kind);
    number(out, body.len() as u64);
    out.extend_from_slice(body);
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

/// All records of an entry that says it holds `count`, as far as their kinds are known: the rest is missing. An error says
/// what is wrong with it.
pub fn decode(payload: &[u8], count: usize) -> Result<Vec<Record>, String> {
    let mut from = Reader { bytes: payload };
    let mut records = Vec::with_capacity(count.min(payload.len() / 4));
    let (mut service, mut host, mut held) = (None, None, 0);
    while !from.bytes.is_empty() {
        let record = from.record(&mut service, &mut host).ok_or_else(|| {
            let at = payload.len() - from.bytes.len();
            format!("record {held} is broken before byte {at} of {}", payload.len())
        })?;
        held += 1;
        records.extend(record);
    }
    if held != count {
        return Err(format!("it holds {held} records and says {count}"));
    }
    Ok(records)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// None if it is broken; nothing in it if its kind is unknown.
    fn record(
        &mut self,
        service: &mut Option<&'a str>,
        host: &mut Option<&'a str>,
    ) -> Option<Option<Record>> {
        let flags = self.byte()?;
        Some(Some(match flags & KIND {
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
            GAP => Record::Gap(serde_json::from_str(self.text()?).ok()?),
            _ => {
                let (kind, length) = (self.number()?, usize::try_from(self.number()?).ok()?);
                let mut body = Reader { bytes: self.take(length)? };
                match kind {
                    SPAN => Record::Span(body.span()?),
                    _ => return Some(None),
                }
            }
        }))
    }

    fn span(&mut self) -> Option<TraceSpan> {
        let error = self.byte()? & FAILED != 0;
        let (at, service, operation) = (self.time()?, self.text()?.to_owned(), self.text()?.to_owned());
        let [trace, id, parent] = [self.id()?, self.id()?, self.id()?];
        let duration_us = i64::try_from(self.number()?).ok()?;
        let peer = Some(self.text()?).filter(|peer| !peer.is_empty()).map(str::to_owned);
        Some(TraceSpan { at, service, operation, trace, id, parent, duration_us, error, peer })
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
        let peer = prop::option::of("[a-z]{1,9}");
        let span =
            (at.clone(), "[ab]", "[a-z /]{0,9}", any::<[u64; 3]>(), 0_i64..1 << 40, any::<bool>(), peer);
        let span =
            span.prop_map(|(at, service, operation, [trace, id, parent], duration_us, error, peer)| {
                Record::Span(TraceSpan {
                    at,
                    service,
                    operation,
                    trace,
                    id,
                    parent,
                    duration_us,
                    error,
                    peer,
                })
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
        fn records_of_kinds_that_came_later_are_skipped(
            known in prop::collection::vec(some_record(), 0..9), kind in 1_u64..1 << 40, body in prop::collection::vec(any::<u8>(), 0..50), at in any::<prop::sample::Index>(),
        ) {
            let (before, after) = known.split_at(at.index(known.len() + 1));
            let mut bytes = encoded(before);
            later(&mut bytes, kind, &body);
            bytes.extend(encoded(after));
            prop_assert_eq!(decode(&bytes, known.len() + 1), Ok(known));
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
