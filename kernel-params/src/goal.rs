//! What the host is to do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::formula::Variables;
use crate::host::Hardware;

/// Names that formulas may use.
pub const VARIABLES: &[&str] = &[
    "connections",
    "rate",
    "cores",
    "memory",
    "nodes",
    "queues",
    "nics",
    "swap",
    "tracked",
    "kernel",
];

/// What matters most. Profiles differ in what they propose, not in what they find dangerous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// As many connections as the host can hold, mostly idle.
    ManyConnections,
    /// Short and even times of delivery.
    Latency,
    /// As many messages a second as the host can carry.
    Throughput,
    /// The host runs `ringmain-load`, or bridges, and opens the connections.
    LoadGenerator,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::ManyConnections, Self::Latency, Self::Throughput, Self::LoadGenerator];

    /// As in the data and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ManyConnections => "many-connections",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::LoadGenerator => "load-generator",
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|p| p.name()).collect();
            format!("there is no profile `{name}`; there are {}", names.join(", "))
        })
    }
}

/// What is asked of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Goal {
    /// What matters most.
    pub profile: Profile,
    /// Connections held at the same time.
    pub connections: u64,
    /// Messages a second, in and out together.
    pub rate: u64,
}

/// Most connections of a goal: what the formulas and the guides were thought through for.
pub const CONNECTIONS_MAX: u64 = 100_000_000;
/// Most messages a second of a goal.
pub const RATE_MAX: u64 = 1_000_000_000;

impl Goal {
    /// The variables of formulas for this goal on such a host.
    #[must_use]
    pub fn variables(&self, hardware: &Hardware) -> Variables {
        Variables::from([
            ("connections", self.connections.into()),
            ("rate", self.rate.into()),
            ("cores", i128::from(hardware.cores.max(1))),
            ("memory", hardware.memory.into()),
            ("nodes", i128::from(hardware.nodes.max(1))),
            ("queues", hardware.queues.into()),
            ("nics", hardware.nics.into()),
            ("swap", hardware.swap.into()),
            ("tracked", hardware.tracked.into()),
            ("kernel", i128::from(hardware.kernel.0) * 1000 + i128::from(hardware.kernel.1)),
        ])
    }
}

/// A count with an optional K, M or G (thousands): `1M`, `250k`, `15000`, `1.5M`.
///
/// # Errors
/// What is wrong with it.
pub fn count(text: &str, most: u64) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no count; counts are like 15000, 250k, 1M");
    let text_of = text.trim();
    let (digits, factor) = match text_of.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text_of[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text_of[..at], 1e6),
        Some((at, 'g' | 'G')) => (&text_of[..at], 1e9),
        _ => (text_of, 1.0),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit() || c == '.' || c == '_') {
        return Err(wrong());
    }
    let number: f64 = digits.replace('_', "").parse().map_err(|_| wrong())?;
    let value = number * factor;
    if value < 1.0 || value > most as f64 {
        return Err(format!("`{text}` is not within 1 to {most}"));
    }
    Ok(value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_take_a_letter_for_thousands_and_say_what_is_wrong() {
        assert_eq!(count("1M", CONNECTIONS_MAX), Ok(1_000_000));
        assert_eq!(count("1.5m", CONNECTIONS_MAX), Ok(1_500_000));
        assert_eq!(count("250k", CONNECTIONS_MAX), Ok(250_000));
        assert_eq!(count("15_000", CONNECTIONS_MAX), Ok(15_000));
        for wrong in ["", "M", "many", "-1", "1.2.3", "1e6"] {
            assert!(count(wrong, CONNECTIONS_MAX).unwrap_err().contains("is no count"), "{wrong}");
        }
        assert!(count("200M", CONNECTIONS_MAX).unwrap_err().contains("not within 1 to 100000000"));
        assert!(count("0", CONNECTIONS_MAX).is_err());
    }

    #[test]
    fn each_variable_has_a_value() {
        let goal = Goal { profile: Profile::Latency, connections: 1, rate: 1 };
        let names: Vec<&str> = goal.variables(&Hardware::default()).into_keys().collect();
        let mut declared = VARIABLES.to_vec();
        declared.sort_unstable();
        assert_eq!(names, declared);
    }

    #[test]
    fn profiles_are_found_by_their_names() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        assert!("fast".parse::<Profile>().unwrap_err().contains("latency, throughput"));
    }
}
