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
    fold(state ^ little_endian(rest))
}

/// Up to seven bytes as a number, read by few loads, which may overlap: words are short, and a copy of each would cost more than
/// all else here.
fn little_endian(bytes: &[u8]) -> u64 {
    let at = |i: usize| u64::from(bytes[i]) << (8 * i);
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last)) << (8 * (bytes.len() - 4));
            u64::from(u32::from_le_bytes(*first)) | last
        }
        _ if bytes.is_empty() => 0,
        _ => at(0) | at(bytes.len() / 2) | at(bytes.len() - 1),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_count_as_they_stand() {
        let bytes = [1, 2, 3, 4, 5, 6, 7];
        for n in 0..=bytes.len() {
            let mut padded = [0; 8];
            padded[..n].copy_from_slice(&bytes[..n]);
            assert_eq!(little_endian(&bytes[..n]), u64::from_le_bytes(padded), "{n}");
        }
    }
}
