//! Conditions on a client. They are asked once, when it connects, never for a message.

use core::net::IpAddr;
use std::fmt;

use regex::{Regex, RegexBuilder};

use crate::subject::Subject;

/// The largest compiled regular expression in bytes. An expression that needs more has counted
/// repetitions of large classes, and every policy would carry it.
const REGEX_BYTES_MAX: usize = 256 * 1024;

/// A condition on a client.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    All,
    /// It comes from a loopback address.
    Local,
    Username(Text),
    ClientId(Text),
    Listener(Text),
    CommonName(Text),
    Attribute(String, Text),
    /// Its address is in one of these networks.
    Address(Vec<Network>),
    /// All of these hold.
    And(Vec<Who>),
    /// One of these holds.
    Or(Vec<Who>),
    Not(Box<Who>),
}

impl Who {
    /// Whether it holds for `subject`. A value that is missing meets no condition.
    pub(crate) fn holds(&self, subject: &Subject<'_>) -> bool {
        let is = |text: &Text, value: Option<&str>| value.is_some_and(|value| text.matches(value));
        match self {
            Self::All => true,
            Self::Local => subject.is_local(),
            Self::Username(text) => is(text, subject.username),
            Self::ClientId(text) => text.matches(subject.client_id),
            Self::Listener(text) => text.matches(subject.listener),
            Self::CommonName(text) => is(text, subject.cert_common_name),
            Self::Attribute(name, text) => is(text, subject.attribute(name)),
            Self::Address(networks) => subject
                .address()
                .is_some_and(|address| networks.iter().any(|network| network.contains(address))),
            Self::And(all) => all.iter().all(|who| who.holds(subject)),
            Self::Or(any) => any.iter().any(|who| who.holds(subject)),
            Self::Not(who) => !who.holds(subject),
        }
    }

    /// Which condition does not hold, in words; `None` when all do.
    pub(crate) fn failing(&self, subject: &Subject<'_>) -> Option<String> {
        if self.holds(subject) {
            return None;
        }
        let given = |name: &str, value: Option<&str>, wanted: &Text| match value {
            None => format!("the client has no {name}"),
            Some(value) => format!("{name} {value:?} is not {wanted}"),
        };
        Some(match self {
            Self::All => unreachable!("everybody meets it"),
            Self::Local => match subject.address() {
                None => "the client's address is not known".to_owned(),
                Some(address) => format!("{address} is not a loopback address"),
            },
            Self::Username(text) => given("user name", subject.username, text),
            Self::ClientId(text) => given("client id", Some(subject.client_id), text),
            Self::Listener(text) => given("listener", Some(subject.listener), text),
            Self::CommonName(text) => {
                given("common name of a certificate", subject.cert_common_name, text)
            }
            Self::Attribute(name, text) => {
                given(&format!("attribute {name:?}"), subject.attribute(name), text)
            }
            Self::Address(networks) => match subject.address() {
                None => "the client's address is not known".to_owned(),
                Some(address) => {
                    let networks: Vec<String> = networks.iter().map(Network::to_string).collect();
                    format!("{address} is not in {}", networks.join(", "))
                }
            },
            Self::And(all) => {
                all.iter().find_map(|who| who.failing(subject)).expect("one of them fails")
            }
            Self::Or(any) if any.is_empty() => "\"or\" without conditions never holds".to_owned(),
            Self::Or(any) => {
                let all: Vec<String> = any.iter().filter_map(|who| who.failing(subject)).collect();
                all.join(", and ")
            }
            Self::Not(_) => "a condition holds that must not".to_owned(),
        })
    }
}

/// What a name must be.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Is(String),
    /// It matches somewhere in the name, unless anchored. Takes time linear in the name's length.
    Like(Regex),
}

impl Text {
    /// A regular expression.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn like(pattern: &str) -> Result<Self, String> {
        let compiled = RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
        compiled.map(Self::Like).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!(
                    "the regular expression {pattern:?} needs more than {REGEX_BYTES_MAX} bytes"
                )
            }
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("{pattern:?} is not a regular expression: {last}")
            }
        })
    }

    /// Whether it is this regular expression.
    pub(crate) fn is_pattern(&self, pattern: &str) -> bool {
        matches!(self, Self::Like(regex) if regex.as_str() == pattern)
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Is(text) => text == value,
            Self::Like(regex) => regex.is_match(value),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(text) => write!(f, "{text:?}"),
            Self::Like(regex) => write!(f, "like {:?}", regex.as_str()),
        }
    }
}

/// An address, or a network in CIDR notation. Bits beyond the prefix are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Parses `10.0.0.1`, `10.0.0.0/8` or `2001:db8::/32`.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let wrong = || format!("{text:?} is neither an address nor a network like 10.0.0.0/8");
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        Ok(Self { address: masked(address, prefix), prefix })
    }

    /// Its address, with the bits beyond the prefix cleared.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that count.
    pub(crate) fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether `address`, in canonical form, is in it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix) == self.address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

pub(crate) fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_only() {
        let holds = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.1.2") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.1.2.3/8", "10.9.9.9"), "bits beyond the prefix do not count");
        assert!(holds("10.0.0.1", "10.0.0.1") && !holds("10.0.0.1", "10.0.0.2"));
        assert!(holds("0.0.0.0/0", "1.2.3.4") && !holds("0.0.0.0/0", "::1"));
        assert!(holds("::/0", "::1") && holds("2001:db8::/32", "2001:db8:1::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::"));
        for bad in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "host"] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() {
        let peer = Some("::ffff:127.0.0.1".parse().unwrap());
        let subject = Subject { peer, ..Subject::default() };
        assert!(subject.is_local());
        assert!(Who::Address(vec![Network::parse("127.0.0.1").unwrap()]).holds(&subject));
    }

    #[test]
    fn what_is_missing_meets_no_condition() {
        let nobody = Subject { client_id: "c", ..Subject::default() };
        let any = || Text::like("").unwrap();
        assert!(!Who::Username(any()).holds(&nobody));
        assert!(!Who::CommonName(any()).holds(&nobody));
        assert!(!Who::Attribute("a".into(), any()).holds(&nobody));
        assert!(!Who::Local.holds(&nobody));
        assert!(!Who::Address(vec![Network::parse("0.0.0.0/0").unwrap()]).holds(&nobody));
        assert!(Who::ClientId(any()).holds(&nobody));
    }

    #[test]
    fn expressions_that_cannot_run_in_linear_time_are_refused() {
        for bad in ["(?=x)", "(a)\\1", "(", "(\\w{1000}){100}"] {
            let error = Text::like(bad).unwrap_err();
            assert!(error.contains("regular expression"), "{error}");
        }
    }
}
