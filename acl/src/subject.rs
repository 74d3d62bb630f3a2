//! Who wants to do what.

use core::net::IpAddr;

use ringmain_mqtt::QoS;

/// What is known of a client when it has been let in. Borrowed for the time of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// Its client id, also one that the broker assigned.
    pub client_id: &'a str,
    /// Its user name, as authentication left it.
    pub username: Option<&'a str>,
    /// Where it comes from; behind a proxy what the proxy says. `None`: not known, so no address
    /// matches and it is not local.
    pub peer: Option<IpAddr>,
    /// The name of the listener that accepted it.
    pub listener: &'a str,
    /// The common name in its certificate.
    pub cert_common_name: Option<&'a str>,
    /// Its attributes: names and values. The first of a name counts.
    pub attributes: &'a [(&'a str, &'a str)],
    /// Whether it may do everything.
    pub superuser: bool,
}

impl<'a> Subject<'a> {
    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    /// Its address; an IPv4 address that came through an IPv6 socket (`::ffff:10.0.0.1`) is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.to_canonical())
    }

    /// Whether it comes from a loopback address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.address().is_some_and(|address| address.is_loopback())
    }
}

/// What a client wants to do with a topic.
///
/// A will is a publish, checked at CONNECT and once more when it is sent (S-19); so is a message of
/// a topic alias, with the topic that the alias stands for (S-29). Subscriptions that the broker
/// makes for a client, or that a session inherits, are subscribes (S-06).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It publishes.
    Publish {
        /// The QoS of the message.
        qos: QoS,
        /// Whether it is to be retained.
        retain: bool,
    },
    /// It subscribes.
    Subscribe {
        /// The QoS that it asks for.
        qos: QoS,
    },
}

impl Action {
    /// One of [`ActionSet::COUNT`] numbers.
    #[inline]
    pub(crate) const fn index(self) -> u8 {
        match self {
            Self::Publish { qos, retain } => qos as u8 * 2 + retain as u8,
            Self::Subscribe { qos } => 6 + qos as u8,
        }
    }

    /// Whether it is a subscribe.
    #[inline]
    #[must_use]
    pub const fn is_subscribe(self) -> bool {
        matches!(self, Self::Subscribe { .. })
    }
}

/// Actions by verb, QoS and retain, a bit each: publish QoS 0, the same retained, QoS 1, …, then
/// subscribe QoS 0, 1, 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ActionSet(u16);

impl ActionSet {
    /// How many actions there are.
    pub(crate) const COUNT: u8 = 9;
    /// All of them.
    pub(crate) const ALL: Self = Self((1 << Self::COUNT) - 1);

    /// What a rule is about. `retain` does not matter to a subscribe.
    pub(crate) fn of(verb: Verb, qos: QosSet, retain: Option<bool>) -> Self {
        let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
        let mut bits = 0;
        for qos in all.into_iter().filter(|level| qos.contains(*level)) {
            for flag in [false, true] {
                if verb != Verb::Subscribe && retain.is_none_or(|wanted| wanted == flag) {
                    bits |= 1 << Action::Publish { qos, retain: flag }.index();
                }
            }
            if verb != Verb::Publish {
                bits |= 1 << Action::Subscribe { qos }.index();
            }
        }
        Self(bits)
    }

    /// None of them.
    pub(crate) const NONE: Self = Self(0);

    /// The actions of these indices.
    pub(crate) fn of_indices(indices: impl Iterator<Item = u8>) -> Self {
        Self(indices.fold(0, |bits, index| bits | 1 << index))
    }

    /// Those of either.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it holds the action of this index.
    #[inline]
    pub(crate) const fn has(self, index: u8) -> bool {
        self.0 >> index & 1 != 0
    }
}

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Publishing.
    Publish,
    /// Subscribing.
    Subscribe,
    /// Both.
    All,
}

/// Some of QoS 0, 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QosSet(u8);

impl QosSet {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All three.
    pub const ALL: Self = Self(0b111);

    /// This set and one more.
    #[must_use]
    pub const fn with(self, qos: QoS) -> Self {
        Self(self.0 | 1 << qos as u8)
    }

    /// Whether it is in the set.
    #[must_use]
    pub const fn contains(self, qos: QoS) -> bool {
        self.0 >> qos as u8 & 1 != 0
    }
}

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// The client may.
    Allow,
    /// It may not.
    Deny,
}
