//! Settings of the engine: parsed and checked by whoever starts it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmain_acl::{CACHE_PLACES, Effect, Policy, Settings};
use ringmain_mqtt::QoS;

use super::rates::Rates;

/// Everything the engine can be told. Immutable; replaced as a whole between turns.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Node name, as in `$SYS/brokers/<node>/…`.
    pub node: String,
    /// One line of description for `$SYS/brokers/<node>/sysdescr`.
    pub sysdescr: String,
    /// Version for `$SYS/brokers/<node>/version`.
    pub version: String,
    /// The listeners, by the index that [`Peer::listener`](super::ids::Peer) carries.
    pub listeners: Vec<ListenerConfig>,
    /// Protocol settings, for listeners without their own.
    pub mqtt: MqttConfig,
    /// Shared subscriptions.
    pub shared: SharedConfig,
    /// Retained messages.
    pub retained: RetainedConfig,
    /// Limits of the node.
    pub limits: LimitConfig,
    /// What to do when a shard falls behind.
    pub overload: OverloadConfig,
    /// `$SYS`.
    pub sys: SysConfig,
    /// Clients that come and go too often. (L04)
    pub flapping: FlappingConfig,
    /// What clients may do. (AZ01)
    pub policy: Arc<Policy>,
    /// Decisions by these rules that a shard keeps, 64 bytes each; 0: none. Fixed when it starts. (AZ05)
    pub decisions_kept: usize,
}

/// What the engine knows of a listener.
#[derive(Clone, Debug, Default)]
pub struct ListenerConfig {
    /// Name for logs and `$SYS`.
    pub name: String,
    /// MQTT protocol levels that may connect: subset of 3, 4, 5; empty = all. (W05)
    pub accept_protocol_versions: Vec<u8>,
    /// Connections at once; 0 = no limit but the node's. (T15)
    pub max_connections: u32,
    /// New connections per second; 0 = no limit. (T15)
    pub max_connection_rate_per_s: u32,
    /// What happens to connections above this rate or the node's. (T15)
    pub connection_rate_mode: RateMode,
    /// Connections at once from one address; 0 = no limit. (T15)
    pub max_connections_per_ip: u32,
    /// New connections per second from one address; 0 = no limit. More are closed. (T15)
    pub max_connection_rate_per_ip_per_s: u32,
    /// Rates of all its clients together. (L01)
    pub rates: Rates,
    /// Whether clients are let in only after a verdict: see [`auth`](super::auth). (AU01)
    pub authenticate: bool,
    /// Own protocol settings instead of [`EngineConfig::mqtt`].
    pub mqtt: Option<Box<MqttConfig>>,
}

/// What happens to connections that come faster than they may (T15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateMode {
    /// They wait in the kernel's backlog.
    #[default]
    Wait,
    /// They are closed with RST.
    Reset,
}

/// What to do with a message for a full queue (Q04).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueDropPolicy {
    /// Drop the oldest queued message, QoS 0 first.
    #[default]
    Oldest,
    /// Drop the message that comes.
    Newest,
    /// Refuse the message that comes: its publisher gets 0x97 when no other target took it.
    Reject,
}

/// What a publish or subscribe that is not allowed leads to (P04).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenyAction {
    /// A reason code in the acknowledgement.
    #[default]
    Ignore,
    /// DISCONNECT with the reason code.
    Disconnect,
}

/// What happens to a version 3 client that asks for a keep-alive above the maximum (C11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepAliveV3Policy {
    /// The broker silently uses the maximum.
    #[default]
    Clamp,
    /// CONNACK 0x02.
    Refuse,
}

/// Clients that come and go too often. (L04)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlappingConfig {
    /// Ends of connections of one client within the window after which it is banned; 0 = never.
    pub max_count: u32,
    /// The window, in seconds.
    pub window_s: u32,
    /// For how long, in seconds.
    pub ban_s: u32,
}

/// What happens to a client that sends faster than it may. (L01)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateAction {
    /// It is not read until it is in time.
    #[default]
    Pause,
    /// QoS 0 is dropped, QoS > 0 and SUBSCRIBE get 0x97. A version 3 publisher with QoS > 0 can't be told: it is
    /// disconnected.
    Refuse,
    /// DISCONNECT 0x96.
    Disconnect,
}

/// Copies of a message for a client with several matching filters. [S-47]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// One copy at the highest granted QoS with all subscription identifiers.
    #[default]
    Merge,
    /// One copy for each matching filter.
    Each,
}

/// Protocol settings. Times in the unit of the name.
#[derive(Clone, Debug, PartialEq)]
pub struct MqttConfig {
    /// Largest packet accepted, in bytes, fixed header included; 20..=268,435,460. (W16)
    pub max_packet_size: u32,
    /// Longest client id, in bytes. (W17)
    pub max_client_id_len: u16,
    /// Most levels in a topic or filter; 0 = no limit. (W15)
    pub max_topic_levels: u16,
    /// Highest QoS. (C12)
    pub max_qos: QoS,
    /// Whether clients may retain. (C12)
    pub retain_available: bool,
    /// Whether filters may have wildcards. (C12)
    pub wildcard_available: bool,
    /// Whether subscriptions may have identifiers. (C12)
    pub subscription_id_available: bool,
    /// Whether `$share` and `$queue` work. (C12)
    pub shared_available: bool,
    /// Topic aliases a client may use; 0 = none. (C05)
    pub topic_alias_max: u16,
    /// Topic aliases used towards a client that allows them. (P08)
    pub topic_alias_out_max: u16,
    /// Unacknowledged QoS > 0 publishes a client may have. (C03)
    pub receive_maximum: u16,
    /// Shortest keep-alive, in seconds; 0 = no bound.
    pub keep_alive_min_s: u16,
    /// Longest keep-alive, in seconds; 0 = no bound.
    pub keep_alive_max_s: u16,
    /// For version 3 clients outside of the bounds.
    pub keep_alive_v3_policy: KeepAliveV3Policy,
    /// A connection is dead after this many hundredths of its keep-alive; 150 by the standard.
    pub keep_alive_percent: u16,
    /// Replaces what the client asks for; 0 = off. (C11)
    pub server_keep_alive_s: u16,
    /// Time for CONNECT to arrive after the connection was accepted. (W12)
    pub connect_timeout_ms: u32,
    /// Cap of the session expiry interval, in seconds; `u32::MAX` = none. (Q10)
    pub max_session_expiry_s: u32,
    /// Session expiry for versions 3 with clean session 0, in seconds. (Q10)
    pub default_session_expiry_v3_s: u32,
    /// Unacknowledged publishes towards one client; 1..=65,535. (Q07)
    pub max_inflight: u16,
    /// Messages queued for one session; 0 = no limit. (Q04)
    pub max_mqueue_len: u32,
    /// Bytes queued for one session; 0 = no limit. (Q04)
    pub max_mqueue_bytes: u64,
    /// Messages are not sent from a queue this long after they were published; 0 = no limit. (Q08)
    pub max_mqueue_age_s: u32,
    /// Which message goes when the queue is full. (Q04)
    pub mqueue_drop_policy: QueueDropPolicy,
    /// Whether QoS 0 is queued for offline sessions. (Q06, D2)
    pub mqueue_store_qos0: bool,
    /// Priorities by topic, 1..=255, higher first. (Q05)
    pub mqueue_priorities: BTreeMap<String, u8>,
    /// Priority of other topics; 0 = lowest.
    pub mqueue_default_priority: u8,
    /// QoS 2 packet ids a client may have unreleased. (P22)
    pub max_awaiting_rel: u16,
    /// After this a packet id no longer counts against `max_awaiting_rel`. (P22)
    pub await_rel_timeout_s: u32,
    /// Resend unacknowledged publishes after this; versions 3 only; 0 = off. (D7)
    pub retry_interval_s: u32,
    /// Subscriptions of one client; 0 = no limit. (P15)
    pub max_subscriptions: u32,
    /// Levels that a filter names before its first wildcard, unless a superuser subscribes; 0 = none. (L10)
    pub min_wildcard_depth: u16,
    /// Rates of each client. (L01)
    pub rates: Rates,
    /// For what is above a rate: its own, the listener's or the node's.
    pub rate_action: RateAction,
    /// Deliver at the QoS of the subscription even above that of the message. (P02)
    pub upgrade_qos: bool,
    /// No Local for versions 3. (P20)
    pub ignore_loop_deliver: bool,
    /// Refuse control characters in strings. (W09)
    pub strict_utf8: bool,
    /// Accept over-long remaining lengths. (W06)
    pub lenient_remaining_length: bool,
    /// Count instead of refusing what exceeds Receive Maximum. (D8)
    pub lenient_receive_maximum: bool,
    /// Accept client ids over 23 characters from version 3.1. [S-99]
    pub lenient_v31_client_id: bool,
    /// For publishes that are not allowed. (P04)
    pub deny_action: DenyAction,
    /// Check payloads that say they are UTF-8. (P05)
    pub check_payload_format: bool,
    /// Expiry of messages that have none, in seconds; 0 = none. (P06)
    pub message_expiry_default_s: u32,
    /// Cap of message expiry, in seconds; 0 = none. (P06)
    pub message_expiry_max_s: u32,
    /// Answer to Request Response Information; empty = none. (C06)
    pub response_information: String,
    /// Where a node that is being drained sends its clients, as in Server Reference; empty = it says
    /// that it shuts down. (C14)
    pub server_reference: String,
    /// Longest life of a connection, in seconds; 0 = no limit. (Q15)
    pub max_connection_lifetime_s: u32,
    /// Copies for overlapping subscriptions. [S-47]
    pub overlap: Overlap,
    /// The user name replaces the client id. (C18)
    pub use_username_as_client_id: bool,
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            max_packet_size: 1 << 20,
            max_client_id_len: 65_535,
            max_topic_levels: 128,
            max_qos: QoS::ExactlyOnce,
            retain_available: true,
            wildcard_available: true,
            subscription_id_available: true,
            shared_available: true,
            topic_alias_max: 16,
            topic_alias_out_max: 16,
            receive_maximum: 100,
            keep_alive_min_s: 0,
            keep_alive_max_s: 0,
            keep_alive_v3_policy: KeepAliveV3Policy::Clamp,
            keep_alive_percent: 150,
            server_keep_alive_s: 0,
            connect_timeout_ms: 15_000,
            max_session_expiry_s: u32::MAX,
            default_session_expiry_v3_s: 7_200,
            max_inflight: 32,
            max_mqueue_len: 1_000,
            max_mqueue_bytes: 64 << 20,
            max_mqueue_age_s: 0,
            mqueue_drop_policy: QueueDropPolicy::Oldest,
            mqueue_store_qos0: false,
            mqueue_priorities: BTreeMap::new(),
            mqueue_default_priority: 0,
            max_awaiting_rel: 100,
            await_rel_timeout_s: 300,
            retry_interval_s: 0,
            max_subscriptions: 0,
            min_wildcard_depth: 0,
            rates: Rates::default(),
            rate_action: RateAction::Pause,
            upgrade_qos: false,
            ignore_loop_deliver: false,
            strict_utf8: false,
            lenient_remaining_length: false,
            lenient_receive_maximum: false,
            lenient_v31_client_id: false,
            deny_action: DenyAction::Ignore,
            check_payload_format: false,
            message_expiry_default_s: 0,
            message_expiry_max_s: 0,
            response_information: String::new(),
            server_reference: String::new(),
            max_connection_lifetime_s: 0,
            overlap: Overlap::Merge,
            use_username_as_client_id: false,
        }
    }
}

/// How a shared group picks the member that gets a message (H03, H04).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Any, with equal chance.
    Random,
    /// In turn, counted for each publisher.
    #[default]
    RoundRobin,
    /// In turn, counted for the group.
    RoundRobinPerGroup,
    /// The same until it goes.
    Sticky,
    /// Random among those on the publisher's shard, if any.
    Local,
    /// By the publisher's client id.
    HashClientId,
    /// By the topic.
    HashTopic,
    /// The one with the fewest unacknowledged messages.
    LeastInflight,
}

/// How a sticky group picks its member (H03).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StickyPick {
    /// Any, with equal chance.
    #[default]
    Random,
    /// Random among those on the publisher's shard, if any.
    Local,
    /// By the publisher's client id.
    HashClientId,
    /// By the topic.
    HashTopic,
}

/// When the messages of a member that went offline move to others. [S-63]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redispatch {
    /// What is not yet sent moves when the connection ends; what is sent, when the session ends.
    #[default]
    Immediate,
    /// All moves when the session ends.
    OnSessionEnd,
}

/// Shared subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedConfig {
    /// Strategy of groups that have no own.
    pub strategy: Strategy,
    /// Strategy by group name.
    pub group_strategies: BTreeMap<String, Strategy>,
    /// When messages move.
    pub redispatch: Redispatch,
    /// How groups with [`Strategy::Sticky`] pick.
    pub sticky_pick: StickyPick,
    /// Messages that wait for a group of which no member can take them; 0 = no limit. [S-66]
    pub max_group_queue_len: u32,
    /// Bytes of the same; 0 = no limit. An empty queue takes one message of any size.
    pub max_group_queue_bytes: u64,
}

/// Retained messages (P09).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedConfig {
    /// Most retained messages on the node; 0 = no limit.
    pub max_messages: u64,
    /// Most bytes of retained messages on the node; 0 = no limit.
    pub max_bytes: u64,
    /// Messages that an owner hands over at a time, 1 or more. [S-44]
    pub page_messages: usize,
    /// Largest payload, in bytes; 0 = no limit. Larger ones are forwarded, not stored.
    pub max_payload_bytes: u32,
    /// Answer 0x97 to a publish whose payload is too large to retain.
    pub reject_oversized: bool,
    /// Expiry for retained messages without one, in seconds; 0 = none.
    pub default_expiry_s: u32,
    /// A retained publish without payload clears, and is not forwarded.
    pub stop_publish_clear_msg: bool,
}

/// What happens to a connection that does not read (L08).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumerPolicy {
    /// QoS 0 is dropped, QoS > 0 waits in the queue.
    #[default]
    DropQos0,
    /// Closed with 0x97 after the grace time.
    Disconnect,
}

/// Limits of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitConfig {
    /// Connections of the node; 0 = no limit but the rings'.
    pub max_connections: u32,
    /// New connections of the node per second; 0 = no limit. (T15)
    pub max_connection_rate_per_s: u32,
    /// Rates of all clients together. (L01)
    pub rates: Rates,
    /// Connections of a shard that have not sent a whole CONNECT, above which it accepts no more.
    pub max_handshakes_per_shard: u32,
    /// Sessions of the node; 0 = no limit. Above it CONNACK 0x97.
    pub max_sessions: u32,
    /// Routes of the node; 0 = no limit. Above it SUBACK 0x97.
    pub max_routes: u32,
    /// Bytes in the queues of all sessions and groups of the node; 0 = no limit. (Q08)
    pub max_queued_bytes: u64,
    /// Bytes written to a connection and not yet taken by its socket, above which QoS 0 is dropped
    /// and queues stop draining.
    pub out_buffer_bytes: u32,
    /// For connections that do not read.
    pub slow_consumer_policy: SlowConsumerPolicy,
    /// How long such a connection may stay so, in seconds.
    pub slow_consumer_grace_s: u32,
}

/// What a shard does when it falls behind its timers (L05). Lag is how late a timer fires that is set
/// anew as long as the shard has work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverloadConfig {
    /// Whether it does anything.
    pub enabled: bool,
    /// Time between looks, in ms.
    pub check_interval_ms: u32,
    /// Lag in ms above which new connections are refused.
    pub lag_refuse_ms: u32,
    /// Lag in ms above which QoS 0 publishes are dropped too.
    pub lag_drop_qos0_ms: u32,
    /// Lag in ms above which publishers are paused too.
    pub lag_pause_ms: u32,
    /// Time without such a lag after which the latest measure is lifted, in ms.
    pub recovery_ms: u32,
}

/// `$SYS` (Y01 to Y08).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysConfig {
    /// Statistics and metrics are published this often, in seconds; 0 = never.
    pub interval_s: u32,
    /// Uptime and date are published this often, in seconds; 0 = never.
    pub heartbeat_s: u32,
    /// `$SYS/brokers/<node>/clients/<id>/connected` and its kin. (H15)
    pub client_events: bool,
    /// Also publish the names of EMQX 4 with dots. (D3)
    pub v4_dots: bool,
    /// Also publish `$SYS/broker/<node>/stats/connections/count` and `…/sessions/count`. (D3)
    pub faq_singular: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            node: "ringmain@127.0.0.1".into(),
            sysdescr: "Ringmain".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            listeners: vec![ListenerConfig { name: "default".into(), ..Default::default() }],
            mqtt: MqttConfig::default(),
            shared: SharedConfig {
                max_group_queue_len: 10_000,
                max_group_queue_bytes: 64 << 20,
                ..Default::default()
            },
            retained: RetainedConfig {
                max_messages: 0,
                max_bytes: 0,
                page_messages: 64, // as many as fit a default inflight window twice
                max_payload_bytes: 1 << 20,
                reject_oversized: false,
                default_expiry_s: 0,
                stop_publish_clear_msg: false,
            },
            limits: LimitConfig {
                rates: Rates::default(),
                max_connections: 0,
                max_connection_rate_per_s: 0,
                max_handshakes_per_shard: 4096,
                max_sessions: 0,
                max_routes: 0,
                max_queued_bytes: 0,
                out_buffer_bytes: 1 << 20,
                slow_consumer_policy: SlowConsumerPolicy::DropQos0,
                slow_consumer_grace_s: 60,
            },
            // A driver's clock may jump in tests: whoever wants it says so.
            overload: OverloadConfig {
                enabled: false,
                check_interval_ms: 100,
                lag_refuse_ms: 500,
                lag_drop_qos0_ms: 1000,
                lag_pause_ms: 2000,
                recovery_ms: 2000,
            },
            sys: SysConfig {
                interval_s: 60,
                heartbeat_s: 30,
                client_events: true,
                v4_dots: false,
                faq_singular: false,
            },
            flapping: FlappingConfig::default(),
            // No rules: everybody may do everything.
            policy: Policy::compile(0, Vec::new(), Settings::new(Effect::Allow)),
            decisions_kept: CACHE_PLACES,
        }
    }
}

impl EngineConfig {
    /// Protocol settings of a listener.
    #[must_use]
    pub fn mqtt_of(&self, listener: u16) -> &MqttConfig {
        self.listeners
            .get(usize::from(listener))
            .and_then(|l| l.mqtt.as_deref())
            .unwrap_or(&self.mqtt)
    }
}
