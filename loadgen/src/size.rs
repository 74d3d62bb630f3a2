//! Payload sizes: fixed, or drawn for each message from a distribution.
//!
//! A draw depends on the seed of the run, the publisher and the message's number alone, so that a
//! message that is sent again has the same size.

use crate::template::mix;

/// Largest payload in bytes: what fits into a packet beside topic and properties.
pub const PAYLOAD_MAX: usize = 268_000_000;

/// How many bytes a payload has.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// All alike.
    Fixed(usize),
    /// Any from `min` to `max`, both included, equally often.
    Uniform {
        /// Least bytes.
        min: usize,
        /// Most bytes.
        max: usize,
    },
    /// Exponentially distributed around `mean`, cut off at `max`.
    Exponential {
        /// Mean bytes before the cut.
        mean: usize,
        /// Most bytes.
        max: usize,
    },
    /// One of these sizes in bytes, as often as its weight says.
    Weighted(Vec<(usize, f64)>),
}

impl Size {
    /// The bytes of a message; `key` names it.
    #[must_use]
    pub fn draw(&self, key: u64) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform { min, max } => {
                let count = (max - min) as u128 + 1;
                min + ((u128::from(mix(key)) * count) >> 64) as usize
            }
            Self::Exponential { mean, max } => {
                let size = -(*mean as f64) * unit(key).ln();
                (size as usize).min(*max)
            }
            Self::Weighted(sizes) => {
                let mut at = unit(key) * sizes.iter().map(|s| s.1).sum::<f64>();
                for &(size, weight) in sizes {
                    at -= weight;
                    if at <= 0.0 {
                        return size;
                    }
                }
                sizes.last().map_or(0, |s| s.0)
            }
        }
    }

    /// Least bytes that a message can have.
    #[must_use]
    pub fn min(&self) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform { min, .. } => *min,
            Self::Exponential { .. } => 0,
            Self::Weighted(sizes) => sizes.iter().map(|s| s.0).min().unwrap_or(0),
        }
    }

    /// Most bytes that a message can have.
    #[must_use]
    pub fn max(&self) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform { max, .. } | Self::Exponential { max, .. } => *max,
            Self::Weighted(sizes) => sizes.iter().map(|s| s.0).max().unwrap_or(0),
        }
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence for the user.
    pub fn check(&self) -> Result<(), String> {
        if self.max() > PAYLOAD_MAX {
            return Err(format!("a payload has at most {PAYLOAD_MAX} bytes"));
        }
        match self {
            Self::Uniform { min, max } if min > max => {
                Err(format!("sizes from {min} to {max}: the least comes first"))
            }
            Self::Exponential { mean: 0, .. } => Err("a mean size is at least 1".into()),
            Self::Weighted(sizes)
                if sizes.is_empty() || sizes.iter().any(|s| !(s.1 > 0.0 && s.1.is_finite())) =>
            {
                Err("weighted sizes need at least one, and weights above 0".into())
            }
            _ => Ok(()),
        }
    }
}

/// A number above 0 and at most 1, by a hash.
#[must_use]
pub fn unit(key: u64) -> f64 {
    ((mix(key) >> 11) + 1) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(size: &Size) -> f64 {
        (0..20_000).map(|k| size.draw(k) as f64).sum::<f64>() / 20_000.0
    }

    #[test]
    fn uniform_sizes_reach_both_ends_and_centre_between_them() {
        let size = Size::Uniform { min: 10, max: 20 };
        let seen: std::collections::BTreeSet<usize> = (0..1000).map(|k| size.draw(k)).collect();
        assert_eq!(seen, (10..=20).collect());
        assert!((mean(&size) - 15.0).abs() < 0.1);
    }

    #[test]
    fn exponential_sizes_have_their_mean_and_their_cut() {
        let size = Size::Exponential { mean: 500, max: 100_000 };
        assert!((mean(&size) - 500.0).abs() < 15.0, "{}", mean(&size));
        let cut = Size::Exponential { mean: 500, max: 600 };
        assert_eq!((0..1000).map(|k| cut.draw(k)).max(), Some(600));
    }

    #[test]
    fn weighted_sizes_come_as_often_as_they_weigh() {
        let size = Size::Weighted(vec![(100, 3.0), (1000, 1.0)]);
        let large = (0..20_000).filter(|&k| size.draw(k) == 1000).count();
        assert!((4_800..5_200).contains(&large), "{large}");
    }

    #[test]
    fn a_message_that_is_sent_again_has_the_same_size() {
        let size = Size::Uniform { min: 0, max: 1_000_000 };
        assert_eq!(size.draw(77), size.draw(77));
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        for bad in [
            Size::Fixed(PAYLOAD_MAX + 1),
            Size::Uniform { min: 2, max: 1 },
            Size::Exponential { mean: 0, max: 9 },
            Size::Weighted(vec![]),
            Size::Weighted(vec![(1, 0.0)]),
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
