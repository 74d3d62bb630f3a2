//! Known bugs, planted one at a time to show that the oracles find them.
//!
//! Most live in the driver: they change what the engine is told or what it says, so that engine and
//! driver together behave as an engine with that bug would. The others are hooks in the engine,
//! compiled with its feature `plant`.

use ringmain_shards::engine::mail::Mail;

use crate::rng::Rng;
use crate::topics;
use crate::wire::{ToClient, ToServer};

/// What the machine is told when a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// What happened.
    Truth,
    /// A DISCONNECT that the client did not send comes first.
    DisconnectFirst,
}

macro_rules! plants {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $seeds:literal, $rules:expr;)*) => {
        /// A planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Plant {
            $($(#[$doc])* $name,)*
        }

        impl Plant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The rules that it breaks: what finds it by another one does not count.
            #[must_use]
            pub fn breaks(self) -> &'static [&'static str] {
                match self {
                    $(Self::$name => &$rules,)*
                }
            }

            /// Seeds within which the simulator finds it.
            #[must_use]
            pub fn within_seeds(self) -> u64 {
                match self {
                    $(Self::$name => $seeds,)*
                }
            }
        }
    };
}

plants! {
    /// Now and then a mail between shards does not arrive.
    LostRoute = "lost-route", 50, ["lost S-55", "shared-lost", "will-missing", "stuck", "replay-incomplete", "no-matching"];
    /// Mail that finds a mailbox full is dropped instead of waiting at its sender.
    LostMailOnFullLane = "lost-mail-on-full-lane", 200, ["lost S-55", "shared-lost", "will-missing", "stuck", "replay-incomplete"];
    /// Now and then a mail arrives twice.
    DuplicatedMail = "duplicated-mail", 50, ["duplicate", "will-twice", "unmatched", "shared-once", "replay"];
    /// The mails of a turn arrive in reverse.
    ReorderedMail = "reordered-mail", 200, ["order S-80", "order S-81", "retained-monotonic"];
    /// Connections with a session are not closed when the engine says so.
    DoubleTakeover = "double-takeover", 50, ["one-connection"];
    /// The old connection is closed without DISCONNECT 0x8E.
    SilentTakeover = "silent-takeover", 50, ["silent-close"];
    /// PUBREL is not sent for even packet ids.
    DroppedPubrel = "dropped-pubrel", 50, ["pubrel-order", "pubrel-missing", "unfinished", "stuck"];
    /// PUBACK is not sent for packet ids divisible by three.
    DroppedPuback = "dropped-puback", 50, ["puback-order", "unanswered-publish", "stuck"];
    /// Packet ids above 2 are folded onto 1 and 2.
    ReusedPacketId = "reused-packet-id", 50, ["packet-id-in-use"];
    /// Resends do not carry DUP.
    ResendWithoutDup = "resend-without-dup", 100, ["packet-id-in-use"];
    /// The broker believes that every client said goodbye.
    ForgottenWill = "forgotten-will", 100, ["will-missing"];
    /// DISCONNECT does not cancel the will.
    WillNotCancelled = "will-not-cancelled", 100, ["will-cancelled"];
    /// One message more in flight than the client allows.
    InflightOffByOne = "inflight-off-by-one", 100, ["receive-maximum"];
    /// Some retained messages of QoS 0 are left out of a replay.
    LostRetainedTail = "lost-retained-tail", 100, ["replay-incomplete"];
    /// Clean Start is not honoured.
    WrongSessionPresent = "wrong-session-present", 50, ["session-present"];
    /// Sessions never expire.
    ImmortalSession = "immortal-session", 200, ["session-present"];
    /// UNSUBSCRIBE is answered and changes nothing.
    MissingUnsubscribe = "missing-unsubscribe", 50, ["unmatched"];
    /// An empty retained message clears nothing.
    RetainedNotCleared = "retained-not-cleared", 100, ["replay S-40", "retain-flag"];
    /// Every member of a shared group gets every message.
    GroupDoubleDelivery = "group-double-delivery", 100, ["shared-once"];
    /// Messages are delivered at the QoS of the publisher whatever was granted.
    GrantedQosIgnored = "granted-qos-ignored", 50, ["granted-qos"];
    /// No Local does nothing.
    NoLocalIgnored = "no-local-ignored", 100, ["unmatched", "duplicate"];
    /// Retain As Published is always on.
    RetainFlagLeaks = "retain-flag-leaks", 50, ["retain-flag", "shared-copy"];
    /// The first Subscription Identifier of a message is left out.
    LostSubscriptionId = "lost-subscription-id", 50, ["subscription-ids", "shared-copy", "replay S-40"];
    /// Maximum Packet Size does nothing.
    PacketSizeIgnored = "packet-size-ignored", 200, ["packet-size"];
    /// Keep Alive does nothing.
    KeepAliveIgnored = "keep-alive-ignored", 100, ["keep-alive-late"];
    /// Keep Alive is half of what it should be.
    KeepAliveEarly = "keep-alive-early", 100, ["keep-alive-early"];
    /// Message Expiry Interval does nothing.
    ExpiryIgnored = "expiry-ignored", 200, ["expir"];
}

impl Plant {
    /// By its name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.name() == name)
    }

    /// What goes over the wire for `packet` of device `owner`, which speaks `version`.
    pub(crate) fn on_ingress(
        self,
        packet: &ToServer,
        owner: usize,
        version: u8,
    ) -> Option<ToServer> {
        let mut packet = packet.clone();
        match (&mut packet, self) {
            (ToServer::Disconnect { reason: 0, .. }, Self::WillNotCancelled) => return None,
            (ToServer::Connect(c), Self::InflightOffByOne) => {
                c.receive_max = c.receive_max.map(|n| n.saturating_add(1));
            }
            (ToServer::Connect(c), Self::WrongSessionPresent) => c.clean = false,
            (ToServer::Connect(c), Self::ImmortalSession) => {
                c.expiry_s = c.expiry_s.map(|_| u32::MAX);
            }
            (ToServer::Connect(c), Self::PacketSizeIgnored) => c.packet_max = None,
            (ToServer::Connect(c), Self::KeepAliveIgnored) => c.keep_alive_s = 0,
            (ToServer::Connect(c), Self::KeepAliveEarly) => {
                c.keep_alive_s = c.keep_alive_s.div_ceil(2);
            }
            // Version 5 would be told that there was no such subscription.
            (ToServer::Unsubscribe { filters, .. }, Self::MissingUnsubscribe) if version < 5 => {
                filters.iter_mut().for_each(|f| f.push_str("/none"));
                filters.iter_mut().for_each(|f| *f = f.replace('#', "x"));
            }
            (ToServer::Publish(p), Self::RetainedNotCleared) if p.payload.is_empty() => {
                p.retain = false;
            }
            (ToServer::Publish(p), Self::ExpiryIgnored) => p.expiry_s = None,
            (ToServer::Subscribe { filters, .. }, Self::GroupDoubleDelivery) => {
                for f in filters {
                    if let (Some(group), filter) = topics::split_share(&f.text) {
                        f.text = format!("$share/{group}{owner}/{filter}");
                    }
                }
            }
            (ToServer::Subscribe { filters, .. }, Self::GrantedQosIgnored) => {
                filters.iter_mut().for_each(|f| f.qos = 2);
            }
            (ToServer::Subscribe { filters, .. }, Self::NoLocalIgnored) => {
                filters.iter_mut().for_each(|f| f.no_local = false);
            }
            (ToServer::Subscribe { filters, .. }, Self::RetainFlagLeaks) => {
                filters.iter_mut().for_each(|f| f.rap = true);
            }
            _ => {}
        }
        Some(packet)
    }

    /// What comes out for `packet` that the engine wrote.
    pub(crate) fn on_write(self, mut packet: ToClient) -> Option<ToClient> {
        match (&mut packet, self) {
            (ToClient::PubRel { pid, .. }, Self::DroppedPubrel) if *pid % 2 == 0 => return None,
            (ToClient::PubAck { pid, .. }, Self::DroppedPuback) if *pid % 3 == 0 => return None,
            (ToClient::Disconnect { reason: 0x8E }, Self::SilentTakeover) => return None,
            (ToClient::Publish(p), Self::ReusedPacketId) if p.pid > 2 => p.pid = 1 + p.pid % 2,
            (ToClient::Publish(p), Self::ResendWithoutDup) => p.dup = false,
            (ToClient::Publish(p), Self::LostRetainedTail)
                if p.retain && p.qos == 0 && p.payload.len() % 3 == 0 =>
            {
                return None;
            }
            (ToClient::Publish(p), Self::LostSubscriptionId) if !p.sub_ids.is_empty() => {
                p.sub_ids.remove(0);
            }
            _ => {}
        }
        Some(packet)
    }

    /// What the machine is told when a connection ends that was not closed by itself.
    pub(crate) fn on_closed(self) -> Told {
        if self == Self::ForgottenWill { Told::DisconnectFirst } else { Told::Truth }
    }

    /// Changes a batch of mail on its way.
    pub(crate) fn on_mail(self, mails: &mut Vec<Mail>, rng: &mut Rng) {
        match self {
            Self::LostRoute if rng.chance(20) => {
                let at = rng.below(mails.len());
                mails.remove(at);
            }
            Self::DuplicatedMail if rng.chance(50) => {
                let again = mails[rng.below(mails.len())].clone();
                mails.push(again);
            }
            Self::ReorderedMail => mails.reverse(),
            _ => {}
        }
    }
}
