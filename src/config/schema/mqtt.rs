//! `[mqtt]`, `[shared]` and `[retained]`: what clients may do and what they get.

use std::collections::BTreeMap;

use ringmain_shards::engine::rates::Rate;

use crate::config::field::choice;
use crate::config::section::section;

section! {
    /// The protocol: what clients may do and what a session may hold. `[listeners.mqtt]` overrides
    /// any of these keys for one listener. A client is held to what its CONNACK told it, whatever
    /// changed since; other changes hold at once.
    pub struct Mqtt {
        /// Largest packet that a client may send, whole packet; a v5 client learns it in CONNACK.
        /// Above it: DISCONNECT 0x95.
        max_packet_size_bytes: u32 = 1_048_576, [64..=268_435_460], Live;
        /// Longest client identifier, in bytes. Above it: CONNACK 0x85, in v3.1.1 0x02.
        max_client_id_len: u16 = 65_535, [1..=65_535], Live;
        /// Most levels of a topic name or filter. 0: no limit. Above it: 0x90 or 0x8F.
        max_topic_levels: u16 = 128, [0..=65_535], Live;
        /// Highest QoS that clients may publish with and be granted.
        max_qos: u8 = 2, [0..=2], Live;
        /// Whether retained messages are kept. Off: a PUBLISH with RETAIN gets 0x9A.
        retain_available: bool = true, Live;
        /// Whether filters may hold `+` and `#`. Off: such a SUBSCRIBE gets 0xA2.
        wildcard_subscription_available: bool = true, Live;
        /// Whether v5 clients may give Subscription Identifiers. Off: 0xA1.
        subscription_identifiers_available: bool = true, Live;
        /// Whether clients may subscribe to `$share/<group>/<filter>`. Off: 0x9E.
        shared_subscription_available: bool = true, Live;
        /// Topic aliases that a v5 client may define in one connection (Topic Alias Maximum of
        /// CONNACK). 0: none. Memory: up to this many topics for each connection that uses them.
        max_topic_alias: u16 = 16, [0..=65_535], Live;
        /// Most topic aliases that the broker defines towards a client; never above the client's
        /// own maximum. 0: none. Memory as above.
        topic_alias_out_max: u16 = 16, [0..=65_535], Live;
        /// QoS 1 and 2 PUBLISHes of one client that may be unacknowledged at a time (Receive
        /// Maximum of CONNACK). Above it: DISCONNECT 0x93.
        receive_maximum: u16 = 100, [1..=65_535], Live;
        /// Shortest keep alive; a client that asks for less gets this (v5: Server Keep Alive).
        keep_alive_min_s: u16 = 0, [0..=65_535], Live;
        /// Longest keep alive; a client that asks for more, or for none (0), gets this. 65535
        /// leaves clients the choice of none.
        keep_alive_max_s: u16 = 65_535, [1..=65_535], Live;
        /// What a v3 client outside these limits gets, as it cannot be told another value.
        /// "clamp": the limit holds silently; "refuse": CONNACK 0x02.
        keep_alive_v3_policy: KeepAliveV3Policy = KeepAliveV3Policy::Clamp, Live;
        /// A client that is silent for this many keep-alive periods is closed. MQTT says 1.5.
        keep_alive_multiplier: f64 = 1.5, [1..=10], Live;
        /// Keep alive that every v5 client is told to use, whatever it asked for. 0: its own.
        server_keep_alive_s: u16 = 0, [0..=65_535], Live;
        /// Time from the TCP connection to a whole CONNECT. Above it: closed.
        connect_timeout_ms: u32 = 15_000, [100..=600_000], Live;
        /// Longest session expiry that a v5 client is granted. 4294967295: as it asks, for ever
        /// included.
        max_session_expiry_s: u32 = 4_294_967_295, [0..=4_294_967_295], Live;
        /// Session expiry of v3.1 and v3.1.1 clients that connect with CleanSession 0; never more than
        /// max_session_expiry_s.
        default_session_expiry_v3_s: u32 = 7_200, [0..=4_294_967_295], Live;
        /// QoS 1 and 2 PUBLISHes in flight to a client; never above its own Receive Maximum.
        max_inflight: u16 = 32, [1..=65_535], Live;
        /// Messages that wait in a session's queue. 0: no limit but bytes.
        max_mqueue_len: u32 = 1_000, [0..=100_000_000], Live;
        /// Topic, property and payload bytes that wait in a session's queue. 0: no limit but length. An
        /// empty queue takes one message of any size.
        max_mqueue_bytes: u64 = 8_388_608, [0..=1_099_511_627_776], Live;
        /// Age, since it was published, at which a message in a session's queue is dropped instead of
        /// sent. Retained messages of a new subscription are exempt. 0: no limit but its own expiry
        /// and the session's.
        max_mqueue_age_s: u32 = 0, [0..=4_294_967_295], Live;
        /// Which message a full queue drops: the "oldest", the "newest", or "reject": the new one,
        /// and a v5 publisher learns it with 0x97. QoS 0 goes first in each case.
        mqueue_drop_policy: DropPolicy = DropPolicy::Oldest, Live;
        /// Whether QoS 0 messages are queued for an absent client.
        mqueue_store_qos0: bool = false, Live;
        /// Priority of topics in a session's queue: "a/b" = 5. Higher goes first; lower is not
        /// starved.
        mqueue_priorities: BTreeMap<String, u8> = BTreeMap::new(), [1..=255], Live;
        /// Priority of topics that mqueue_priorities does not name.
        mqueue_default_priority: u8 = 0, [0..=255], Live;
        /// QoS 2 messages of a client that wait for PUBREL. Above it: PUBREC 0x97.
        max_awaiting_rel: u16 = 100, [1..=65_535], Live;
        /// Time that a QoS 2 message waits for PUBREL before its identifier is forgotten. 0: as
        /// long as the session lives.
        await_rel_timeout_s: u32 = 300, [0..=4_294_967_295], Live;
        /// Time after which an unacknowledged message is sent again on a live connection. Only
        /// v3.1 and v3.1.1: MQTT 5 forbids it. 0: never.
        retry_interval_s: u32 = 0, [0..=86_400], Live;
        /// Subscriptions of one client. 0: no limit. Above it: 0x97.
        max_subscriptions: u32 = 0, [0..=10_000_000], Live;
        /// Levels that a filter must name before its first wildcard; of a shared subscription, the filter in it. 1: neither
        /// # nor +/a. Others get 0x8F, but for superusers. 0: any.
        min_wildcard_depth: u16 = 0, [0..=128], Live;
        /// PUBLISH packets of one client, such as "100/s", "10/1m" or "100/s burst 500"; without "burst" as many
        /// may come at once as in the time named. "0": no limit. What happens above it says rate_action.
        message_rate: Rate = Rate::default(), Live;
        /// Bytes of these packets. "0": no limit.
        byte_rate: Rate = Rate::default(), Live;
        /// Filters in SUBSCRIBE packets of one client. "0": no limit.
        subscribe_rate: Rate = Rate::default(), Live;
        /// Messages to one client; further ones wait in its queue, as for a slow consumer. "0": no limit.
        delivery_rate: Rate = Rate::default(), Live;
        /// Topic and payload bytes of these messages. "0": no limit.
        delivery_byte_rate: Rate = Rate::default(), Live;
        /// What a client gets that sends faster than its own rates, its listener's or those of `[limits]` let it.
        /// "pause": it is not read until it is in time, and nothing is lost; "refuse": its QoS 0 messages are
        /// dropped, others and SUBSCRIBE get 0x97 (a v3 publisher with QoS above 0 can't be told and is closed);
        /// "disconnect": it is closed with 0x96.
        rate_action: RateAction = RateAction::Pause, Live;
        /// Whether messages are delivered with the subscription's QoS even if published lower.
        upgrade_qos: bool = false, Live;
        /// Whether v3 clients do not get their own messages back (v5 clients use No Local).
        ignore_loop_deliver: bool = false, Live;
        /// Whether strings with control characters or non-characters are refused.
        strict_utf8: bool = false, Live;
        /// Whether a Remaining Length in more bytes than needed is accepted.
        lenient_remaining_length: bool = false, Live;
        /// Whether a client that exceeds receive_maximum is counted and logged, not disconnected.
        lenient_receive_maximum: bool = false, Live;
        /// Whether v3.1 clients may have identifiers longer than 23 characters.
        lenient_v31_client_id: bool = false, Live;
        /// What a publish that its client may not make (0x87) leads to: "ignore" acknowledges it (v5
        /// with the code) and drops it; "disconnect" closes the connection.
        deny_action: DenyAction = DenyAction::Ignore, Live;
        /// Whether payloads that are said to be UTF-8 are checked. A wrong one gets 0x99.
        check_payload_format: bool = false, Live;
        /// Message expiry of messages that are published without one. 0: none. It is not added to
        /// what subscribers see.
        message_expiry_default_s: u32 = 0, [0..=4_294_967_295], Live;
        /// Longest message expiry; longer ones count as this. 0: no limit.
        message_expiry_max_s: u32 = 0, [0..=4_294_967_295], Live;
        /// Response Information for v5 clients that ask for it. Empty: none.
        response_information: String = String::new(), [0..=65_535], Live;
        /// Where a broker that shuts down sends its clients: Server Reference with 0x9C. Empty: it says
        /// 0x8B.
        server_reference: String = String::new(), [0..=65_535], Live;
        /// Age at which a connection is closed with 0xA0. 0: never.
        max_connection_lifetime_s: u32 = 0, [0..=4_294_967_295], Live;
        /// What a client with overlapping filters gets: "merge": one copy with the highest QoS and
        /// all Subscription Identifiers; "each": one copy for each filter.
        overlap: Overlap = Overlap::Merge, Live;
        /// Whether the user name replaces the client identifier.
        use_username_as_client_id: bool = false, Live;
    }
}

section! {
    /// Shared subscriptions: `$share/<group>/<filter>` and `$queue/<filter>`.
    pub struct Shared {
        /// Which member of a group gets a message. "random"; "round_robin": in turn, for each
        /// publisher; "round_robin_per_group": in turn, over all publishers; "sticky": always the
        /// same while it lasts; "local": one on the publisher's shard if there is any;
        /// "hash_clientid", "hash_topic": by hash of the publisher or the topic;
        /// "least_inflight": the one with the fewest unacknowledged messages.
        strategy: ShareStrategy = ShareStrategy::RoundRobin, Live;
        /// Strategy of single groups: "group" = "sticky".
        group_strategies: BTreeMap<String, ShareStrategy> = BTreeMap::new(), Live;
        /// How "sticky" picks a member when it has none. Strategies hold for groups that form after a
        /// change.
        sticky_pick: StickyPick = StickyPick::Random, Live;
        /// When an unacknowledged QoS 1 message goes to another member. "immediate": when the
        /// connection ends; "on_session_end": when the session ends, so that a member that comes
        /// back gets it first.
        redispatch: Redispatch = Redispatch::OnSessionEnd, Live;
        /// Messages that wait for a group of which no member can take them. 0: no limit but bytes. The
        /// oldest go first.
        max_group_queue_len: u32 = 10_000, [0..=100_000_000], Live;
        /// Topic, property and payload bytes of the same. 0: no limit but length. An empty queue takes
        /// one message of any size.
        max_group_queue_bytes: u64 = 67_108_864, [0..=1_099_511_627_776], Live;
    }
}

section! {
    /// Retained messages.
    pub struct Retained {
        /// Topics with a retained message. Above it, a message for a new topic is delivered but
        /// not retained. 0: no limit.
        max_messages: u32 = 1_000_000, [0..=4_294_967_295], Live;
        /// Largest payload that is retained; a larger one is delivered but not retained. 0: as
        /// large as a packet may be.
        max_payload_bytes: u32 = 1_048_576, [0..=268_435_455], Live;
        /// Topic, property and payload bytes of all retained messages. Above it a message is delivered
        /// but not retained; what its topic had before stays. 0: no limit but the memory limits.
        max_bytes: u64 = 0, [0..=17_592_186_044_416], Live;
        /// Time after which a retained message without expiry of its own is removed. 0: never.
        default_expiry_s: u32 = 0, [0..=4_294_967_295], Live;
        /// Whether a message above max_payload_bytes is refused: not delivered either, and a publisher
        /// of QoS 1 or 2 learns it with 0x97.
        reject_oversized: bool = false, Live;
        /// Whether the empty message that clears a topic is kept from subscribers.
        stop_publish_clear_msg: bool = false, Live;
        /// Retained messages that a shard hands over at a time when a wildcard subscription asks
        /// for them.
        page_messages: u32 = 64, [1..=4_096], Live;
    }
}

choice! {
    /// What a v3 client with a keep alive outside the limits gets.
    pub enum KeepAliveV3Policy {
        /// The limit holds silently.
        Clamp = "clamp",
        /// CONNACK 0x02.
        Refuse = "refuse",
    }
}

choice! {
    /// Which message a full queue drops.
    pub enum DropPolicy {
        /// The oldest.
        Oldest = "oldest",
        /// The new one.
        Newest = "newest",
        /// The new one, and the publisher learns it.
        Reject = "reject",
    }
}

choice! {
    /// What sending faster than allowed leads to.
    pub enum RateAction {
        /// Wait.
        Pause = "pause",
        /// Drop, or 0x97.
        Refuse = "refuse",
        /// Close with 0x96.
        Disconnect = "disconnect",
    }
}

choice! {
    /// What a forbidden publish leads to.
    pub enum DenyAction {
        /// Acknowledge and drop.
        Ignore = "ignore",
        /// Close.
        Disconnect = "disconnect",
    }
}

choice! {
    /// Copies for overlapping filters of a client.
    pub enum Overlap {
        /// One.
        Merge = "merge",
        /// One for each filter.
        Each = "each",
    }
}

choice! {
    /// Which member of a group gets a message.
    pub enum ShareStrategy {
        /// Any.
        Random = "random",
        /// In turn, for each publisher.
        RoundRobin = "round_robin",
        /// In turn, over all publishers.
        RoundRobinPerGroup = "round_robin_per_group",
        /// Always the same while it lasts.
        Sticky = "sticky",
        /// One on the publisher's shard if there is any.
        Local = "local",
        /// By hash of the publisher's client identifier.
        HashClientId = "hash_clientid",
        /// By hash of the topic.
        HashTopic = "hash_topic",
        /// The one with the fewest unacknowledged messages.
        LeastInflight = "least_inflight",
    }
}

choice! {
    /// How a sticky group picks its first member.
    pub enum StickyPick {
        /// Any.
        Random = "random",
        /// One on the publisher's shard if there is any.
        Local = "local",
        /// By hash of the publisher's client identifier.
        HashClientId = "hash_clientid",
        /// By hash of the topic.
        HashTopic = "hash_topic",
    }
}

choice! {
    /// When an unacknowledged message of a group goes to another member.
    pub enum Redispatch {
        /// When the member's connection ends.
        Immediate = "immediate",
        /// When the member's session ends.
        OnSessionEnd = "on_session_end",
    }
}
