//! The one place that makes ids and randomness.

use ring::rand::{SecureRandom, SystemRandom};

/// A UUID v7: unique, and sorts by the time of making.
pub fn new() -> String {
    let Some((at, number)) = crate::clock::numbered() else { return uuid::Uuid::now_v7().to_string() };
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&number.to_be_bytes());
    let ms = at.as_millisecond().try_into().unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(ms, &bytes).into_uuid().to_string()
}

/// 32 random bytes in URL-safe base64, for tokens; 43 characters.
pub fn secret() -> String {
    base64url(&random::<32>())
}

/// A short random id for buttons and file names: 16 random bytes, 22 characters.
pub fn opaque() -> String {
    base64url(&random::<16>())
}

/// A name for this process among others, on this host and elsewhere: the host's and something random.
pub fn process() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-.".contains(*c)).take(60).collect();
    let random = u32::from_le_bytes(random::<4>());
    format!("{}-{random:08x}", if host.is_empty() { "aiops" } else { &host })
}

/// A number in 0..1, for jitter.
pub fn fraction() -> f64 {
    f64::from(u32::from_le_bytes(random::<4>())) / (f64::from(u32::MAX) + 1.0)
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel's random source does not fail once it is up");
    bytes
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 1);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..=chunk.len() {
            out.push(ALPHABET[(n >> (18 - 6 * i) & 63) as usize] as char);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64url_is_rfc_4648() {
        assert_eq!(super::base64url(b"foobar"), "Zm9vYmFy");
        assert_eq!(super::base64url(b"fooba"), "Zm9vYmE");
        assert_eq!(super::base64url(&[0xfb, 0xff]), "-_8");
        assert_eq!(super::secret().len(), 43);
    }
}
