//! Hashes that are the same on every machine and in every version, for template ids are made of them.

/// What stands for a variable in every hash.
pub const VAR_HASH: u64 = 0x9e37_79b9_7f4a_7c15;

/// 64 bits over some bytes, eight at a time; the same on every machine.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut state = (bytes.len() as u64).wrapping_mul(VAR_HASH) ^ 0x2545_f491_4f6c_dd1d;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        state = fold(state ^ u64::from_le_bytes(*chunk));
    }
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    fold(state ^ u64::from_le_bytes(tail))
}

/// The hash of a word whatever its digits.
pub fn numbered(word: &[u8]) -> u64 {
    word.iter().filter(|b| !b.is_ascii_digit()).fold(VAR_HASH, |h, b| fold(h ^ u64::from(*b)))
}

fn fold(x: u64) -> u64 {
    let wide = u128::from(x ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db;
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// A bijection that spreads every bit (the finaliser of SplitMix64).
pub const fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// [`mix`] backwards.
pub const fn unmix(mut x: u64) -> u64 {
    x = (x ^ (x >> 31) ^ (x >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    x = (x ^ (x >> 27) ^ (x >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    x ^ (x >> 30) ^ (x >> 60)
}
