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
    fold(state ^ last(bytes), K0)
}

/// The last eight bytes, of fewer all. Bytes that were hashed before may be among them: the length is
/// part of the hash. To copy a tail of any length would be a call.
#[inline]
fn last(bytes: &[u8]) -> u64 {
    if let Some(last) = bytes.last_chunk::<8>() {
        return u64::from_le_bytes(*last);
    }
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(a), Some(b)) => {
            u64::from(u32::from_le_bytes(*a)) << 32 | u64::from(u32::from_le_bytes(*b))
        }
        // One to three bytes: the first, the middle and the last are all of them.
        _ => {
            let at = |at: usize| bytes.get(at).copied().map_or(0, u64::from);
            at(0) << 16 | at(bytes.len() / 2) << 8 | at(bytes.len().wrapping_sub(1))
        }
    }
}

/// Whether both are the same: the comparison of the standard library is a call, which for a topic
/// takes longer than this.
#[inline]
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    // Topics of one length mostly differ at their end.
    if a.len() != b.len() || last(a) != last(b) {
        return false;
    }
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let mut differ = 0;
    for (a, b) in words {
        differ |= u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
    }
    differ == 0
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

    #[test]
    fn texts_are_the_same_if_every_byte_is() {
        for len in 0..40 {
            let text: Vec<u8> = (0..len).collect();
            assert!(same(&text, &text.clone()));
            assert!(!same(&text, &[&text[..], b"x"].concat()));
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] ^= 0x80;
                assert!(!same(&text, &other), "{len} {at}");
            }
        }
    }
}
