//! A 64-bit hash of topics for tables that compare what they find, so that a collision costs time
//! and nothing else.

const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0xd1b5_4a32_d192_ed03;

/// Two 64-bit halves of a 128-bit product, folded: the mixing step of wyhash and its kin.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// Hashes `bytes` under `seed`.
#[inline]
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut state = fold(seed ^ K0, bytes.len() as u64 ^ K1);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word), K1);
    }
    if tail.is_empty() {
        return fold(state, K0);
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    fold(state ^ u64::from_le_bytes(last), K0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let mut seen = std::collections::HashSet::new();
        for len in 0..40 {
            let text = vec![b'x'; len];
            assert!(seen.insert(hash(1, &text)));
            for at in 0..len {
                let mut other = text.clone();
                other[at] = b'y';
                assert!(seen.insert(hash(1, &other)), "{len} {at}");
            }
        }
        assert_ne!(hash(1, b"a"), hash(2, b"a"));
    }
}
