//! The alphabet of log lines: which bytes part words, and words that are known on sight.

pub const SPACE: u8 = 1;
pub const DELIM: u8 = 2;
pub const DIGIT: u8 = 4;
pub const ALPHA: u8 = 8;
pub const STOP: u8 = 16;

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        table[i] = match b {
            b' ' | b'\t' | b'\r' | 0x0b | 0x0c | 0 => SPACE,
            b'\n' | 0x1b => STOP,
            b'=' | b',' | b';' | b':' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b'<' | b'>' | b'|'
            | b'"' | b'\'' | b'`' => DELIM,
            b'0'..=b'9' => DIGIT,
            b'a'..=b'z' | b'A'..=b'Z' | 0x80..=0xff => ALPHA,
            _ => 0,
        };
        i += 1;
    }
    table
}

/// Bytes of words that are neither letters nor digits.
const OTHER: u8 = 0x40;
/// Bytes that do more than belong to a word, or do not belong to it.
const MARKED: u8 = 0x80;

/// Classes of bytes, with one for each, and those of words marked where they do more.
const fn letters() -> [u8; 256] {
    let mut table = classes();
    let mut i = 0;
    while i < 256 {
        if table[i] & (SPACE | DELIM | STOP) != 0 || matches!(i as u8, b'.' | b'/' | b'\\' | b'@' | b'$') {
            table[i] |= MARKED;
        } else if table[i] == 0 {
            table[i] = OTHER;
        }
        i += 1;
    }
    table
}

static CLASS: [u8; 256] = classes();
static LETTERS: [u8; 256] = letters();

/// How many bytes just belong to a word, and the classes of those.
pub fn letters_of(text: &[u8]) -> (usize, u8) {
    let mut flags = 0;
    for (i, byte) in text.iter().enumerate() {
        let sort = LETTERS[*byte as usize];
        if sort & MARKED != 0 {
            return (i, flags);
        }
        flags |= sort;
    }
    (text.len(), flags)
}

pub fn class(b: u8) -> u8 {
    CLASS[b as usize]
}

pub fn is_word(b: u8) -> bool {
    class(b) & (SPACE | DELIM | STOP) == 0
}

pub const MONTHS: [[u8; 3]; 12] = [
    *b"jan", *b"feb", *b"mar", *b"apr", *b"may", *b"jun", *b"jul", *b"aug", *b"sep", *b"oct", *b"nov",
    *b"dec",
];
pub const DAYS: [[u8; 3]; 7] = [*b"mon", *b"tue", *b"wed", *b"thu", *b"fri", *b"sat", *b"sun"];

/// Is this word of three letters the name of a month or of a day?
pub fn is_date(word: &[u8]) -> bool {
    let lower = [word[0] | 32, word[1] | 32, word[2] | 32];
    MONTHS.contains(&lower) || DAYS.contains(&lower)
}

/// Units of time, size and frequency, and what stands after a time of day.
#[rustfmt::skip]
pub fn is_unit(word: &[u8]) -> bool {
    let mut lower = [0; 12];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    matches!(&*lower,
        b"s" | b"ms" | b"us" | b"ns" | b"sec" | b"secs" | b"msec" | b"msecs" | b"usec" | b"min" | b"mins" | b"hr" | b"hrs"
        | b"second" | b"seconds" | b"minute" | b"minutes" | b"hour" | b"hours" | b"day" | b"days" | b"week" | b"weeks"
        | b"millisecond" | b"milliseconds" | b"millis" | b"microseconds" | b"nanoseconds"
        | b"b" | b"kb" | b"mb" | b"gb" | b"tb" | b"kib" | b"mib" | b"gib" | b"tib" | b"byte" | b"bytes" | b"bit" | b"bits"
        | b"hz" | b"khz" | b"mhz" | b"ghz" | b"bps" | b"kbps" | b"mbps" | b"gbps" | b"am" | b"pm" | b"utc" | b"gmt")
}

/// `MB/s`, `requests/min`: so many of something in a time.
pub fn is_rate(word: &[u8]) -> bool {
    let Some(slash) = word.iter().position(|b| *b == b'/') else { return false };
    let (of, per) = (&word[..slash], &word[slash + 1..]);
    !of.is_empty()
        && of.iter().all(u8::is_ascii_alphabetic)
        && [&b"s"[..], b"sec", b"second", b"min", b"minute", b"h", b"hour", b"day"]
            .iter()
            .any(|unit| per.eq_ignore_ascii_case(unit))
}

/// `ClassName`, `someName`: words written as one.
pub fn is_humped(word: &[u8]) -> bool {
    word.windows(2).any(|w| w[0].is_ascii_lowercase() && w[1].is_ascii_uppercase())
}

/// How grave a line is, as programs write it.
#[rustfmt::skip]
pub fn is_level(word: &[u8]) -> bool {
    let mut lower = [0; 8];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    matches!(&*lower,
        b"trace" | b"debug" | b"verbose" | b"info" | b"notice" | b"note" | b"warn" | b"warning" | b"error" | b"severe"
        | b"alert" | b"fatal" | b"critical" | b"trc" | b"dbg" | b"inf" | b"wrn" | b"err" | b"crit" | b"ftl")
}

/// `android.intent.action.SCREEN_ON`: the last part is one of a known set.
pub fn constant_name(word: &[u8]) -> bool {
    let last = word.rsplit(|b| *b == b'.').next().unwrap_or_default();
    last.len() > 1 && last.iter().all(|b| b.is_ascii_uppercase() || *b == b'_')
}

/// `java.net.ConnectException`: what happened, though it looks like the name of a class.
pub fn exception_name(word: &[u8]) -> bool {
    word.ends_with(b"Exception") || word.ends_with(b"Error")
}

/// The length of the method, if this is the request line of HTTP.
pub fn request(text: &[u8]) -> Option<usize> {
    let method = text.iter().position(|b| *b == b' ')?;
    let ok = (3..=7).contains(&method) && text[..method].iter().all(u8::is_ascii_alphabetic);
    let target = *text.get(method + 1)?;
    let version =
        text.len() > method + 6 && text[method..].windows(6).any(|w| w[..5].eq_ignore_ascii_case(b"http/"));
    (ok && version && (target == b'/' || target == b'*' || text[method + 1..].starts_with(b"http")))
        .then_some(method)
}

pub fn hexadecimal(word: &[u8]) -> bool {
    matches!(word.len(), 8 | 16 | 32 | 40 | 64) && word.iter().all(u8::is_ascii_hexdigit)
}
