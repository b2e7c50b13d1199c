//! The arithmetic of identities: a sum over positions, so that changing one position costs one step.

use std::ops::Range;

use super::{
    hash::{VAR_HASH, mix},
    scan::Token,
};

pub fn key_of(tokens: &[Token]) -> u64 {
    let sum = tokens
        .iter()
        .zip(&FACTORS)
        .fold(0_u64, |sum, (t, factor)| sum.wrapping_add(t.hash.wrapping_mul(*factor)));
    mix(tokens.len() as u64).wrapping_add(sum)
}

pub fn key_of_hashes(hashes: &[u64]) -> u64 {
    let sum = hashes
        .iter()
        .zip(&FACTORS)
        .fold(0_u64, |sum, (hash, factor)| sum.wrapping_add(hash.wrapping_mul(*factor)));
    mix(hashes.len() as u64).wrapping_add(sum)
}

/// The identity with a variable instead of the word with this hash at position `i`.
pub fn without(key: u64, i: usize, hash: u64) -> u64 {
    key.wrapping_add(VAR_HASH.wrapping_sub(hash).wrapping_mul(FACTORS[i]))
}

/// The identity with variables at the positions in `mask`.
pub fn masked(mut key: u64, mask: u128, hashes: &[u64]) -> u64 {
    for (i, hash) in positions(mask).map_while(|i| Some((i, *hashes.get(i)?))) {
        key = without(key, i, hash);
    }
    key
}

pub fn positions(mut mask: u128) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let i = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (i < 128).then_some(i)
    })
}

/// The identity with one variable instead of a range of tokens.
pub fn key_around(hashes: &[u64], middle: Range<usize>) -> u64 {
    let tokens = hashes[..middle.start].iter().chain([&VAR_HASH]).chain(&hashes[middle.end..]);
    let sum =
        tokens.zip(&FACTORS).fold(0_u64, |sum, (hash, factor)| sum.wrapping_add(hash.wrapping_mul(*factor)));
    mix((hashes.len() - middle.len() + 1) as u64).wrapping_add(sum)
}

/// Length and punctuation: what lines must share to be one template.
pub fn shape_of(punctuation: impl Iterator<Item = Option<u64>>) -> u64 {
    let (mut sum, mut n) = (1_u64, 0_u64);
    for (mark, factor) in punctuation.zip(&FACTORS) {
        if let Some(hash) = mark {
            sum = sum.wrapping_add(hash.wrapping_mul(*factor));
        }
        n += 1;
    }
    mix(sum ^ (n << 56))
}

const fn factors() -> [u64; 128] {
    let mut out = [0; 128];
    let mut i = 0;
    while i < 128 {
        // Odd, so that no bit of a hash is lost.
        out[i] = mix((i as u64 + 1).wrapping_mul(VAR_HASH)) | 1;
        i += 1;
    }
    out
}

static FACTORS: [u64; 128] = factors();
