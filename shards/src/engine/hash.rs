//! The seeded 64-bit hash of client ids and topics: picks home shards, so all shards of a node must
//! agree on it, and an outsider must not be able to predict it.

/// Two 64-bit halves of a 128-bit product, folded: the mixing step of wyhash and its kin.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

const K0: u64 = 0xa076_1d64_78bd_642f;
const K1: u64 = 0xe703_7ed1_a0b4_28db;

/// Hashes `bytes` under `seed`. Not cryptographic: good against collisions that nobody chose with
/// knowledge of the seed.
#[must_use]
pub fn hash64(seed: u64, bytes: &[u8]) -> u64 {
    let mut h = seed ^ fold(bytes.len() as u64 ^ K0, K1);
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        h = fold(h ^ u64::from_le_bytes(*chunk), K0 ^ seed.rotate_left(32));
    }
    if !rest.is_empty() {
        let mut tail = [0u8; 8];
        tail[..rest.len()].copy_from_slice(rest);
        h = fold(h ^ u64::from_le_bytes(tail), K1 ^ seed);
    }
    fold(h ^ K1, K0)
}

/// Maps a hash onto `0..n` without the bias and cost of a remainder.
#[must_use]
pub fn scale(hash: u64, n: usize) -> usize {
    ((u128::from(hash) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_similar_ids_evenly() {
        let mut buckets = [0u32; 7];
        for i in 0..70_000 {
            buckets[scale(hash64(1, format!("client-{i}").as_bytes()), 7)] += 1;
        }
        assert!(buckets.iter().all(|n| (9_500..10_500).contains(n)), "{buckets:?}");
    }

    #[test]
    fn length_seed_and_every_byte_matter() {
        assert_ne!(hash64(1, b"a"), hash64(1, b"a\0"));
        assert_ne!(hash64(1, b"abcdefgh"), hash64(2, b"abcdefgh"));
        assert_ne!(hash64(1, b"abcdefghi"), hash64(1, b"abcdefghj"));
    }
}
