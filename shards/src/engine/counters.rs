//! Counters of one shard. Plain integers: only the shard itself writes them; whoever asks gets a copy.

use ringmain_acl::CacheStats;

/// Why a copy of a message was not delivered. Each has a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The queue of the session was full (Q04).
    QueueFull,
    /// QoS 0 for an offline session, or for one whose socket does not take it (Q06).
    Qos0,
    /// The message expired in a queue. [S-12]
    Expired,
    /// Larger than the client's Maximum Packet Size. [S-30]
    TooLarge,
    /// The session ended with the message still queued or unacknowledged.
    SessionEnded,
    /// The shared group ended, or its queue was full. [S-66]
    GroupEnded,
    /// The publisher is the subscriber, and No Local is set. [S-49]
    NoLocal,
    /// The client refused it with PUBACK or PUBREC >= 0x80. [S-65]
    Refused,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident $(=> $path:literal)?,)*) => {
        /// Counters of one shard. Those with a path appear below
        /// `$SYS/brokers/<node>/metrics/` (Y04 to Y07).
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Counters {
            /// Adds those of another shard.
            pub fn add(&mut self, other: &Self) {
                $(self.$field = self.$field.wrapping_add(other.$field);)*
            }

            /// All that have a path in `$SYS`, with it.
            pub fn metrics(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$($((concat!($path), self.$field),)?)*].into_iter()
            }

            /// All, by field name.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Bytes received from sockets.
    bytes_received => "bytes/received",
    /// Bytes that sockets took.
    bytes_sent => "bytes/sent",
    /// Packets.
    packets_received => "packets/received",
    /// Packets.
    packets_sent => "packets/sent",
    /// CONNECT packets.
    connect_received => "packets/connect/received",
    /// CONNACK packets.
    connack_sent => "packets/connack/sent",
    /// CONNACK packets with an error.
    connack_error => "packets/connack/error",
    /// CONNACK packets for refused credentials.
    connack_auth_error => "packets/connack/auth_error",
    /// PUBLISH packets.
    publish_received => "packets/publish/received",
    /// PUBLISH packets.
    publish_sent => "packets/publish/sent",
    /// PUBLISH with a packet id that is in use.
    publish_inuse => "packets/publish/inuse",
    /// PUBLISH packets that were refused.
    publish_error => "packets/publish/error",
    /// PUBLISH packets that were not authorised.
    publish_auth_error => "packets/publish/auth_error",
    /// PUBLISH packets that were dropped.
    publish_dropped => "packets/publish/dropped",
    /// Live clients disconnected since they were banned.
    clients_banned => "bans/disconnected",
    /// CONNECT packets refused since the client is banned.
    connects_banned => "bans/refused",
    /// Clients banned for a while since they came and went too often.
    clients_flapping => "bans/flapping",
    /// Times that a client was not read since it sent faster than it may.
    rate_pauses => "rates/paused",
    /// Packets refused since they came faster than they may.
    rate_refusals => "rates/refused",
    /// Clients disconnected since they sent faster than they may.
    rate_disconnects => "rates/disconnected",
    /// Times that messages for a client stayed in its queue since it was sent all that it may be sent.
    deliveries_delayed => "rates/deliveries_delayed",
    /// PUBLISH packets over a quota.
    publish_quota_exceeded => "packets/publish/quota_exceeded",
    /// PUBACK packets.
    puback_received => "packets/puback/received",
    /// PUBACK packets.
    puback_sent => "packets/puback/sent",
    /// PUBACK for an id in use by a QoS 2 handshake.
    puback_inuse => "packets/puback/inuse",
    /// PUBACK for an unknown id.
    puback_missed => "packets/puback/missed",
    /// PUBREC packets.
    pubrec_received => "packets/pubrec/received",
    /// PUBREC packets.
    pubrec_sent => "packets/pubrec/sent",
    /// PUBREC for an id in use by a QoS 1 handshake.
    pubrec_inuse => "packets/pubrec/inuse",
    /// PUBREC for an unknown id.
    pubrec_missed => "packets/pubrec/missed",
    /// PUBREL packets.
    pubrel_received => "packets/pubrel/received",
    /// PUBREL packets.
    pubrel_sent => "packets/pubrel/sent",
    /// PUBREL for an unknown id.
    pubrel_missed => "packets/pubrel/missed",
    /// PUBCOMP packets.
    pubcomp_received => "packets/pubcomp/received",
    /// PUBCOMP packets.
    pubcomp_sent => "packets/pubcomp/sent",
    /// PUBCOMP for an id in another state.
    pubcomp_inuse => "packets/pubcomp/inuse",
    /// PUBCOMP for an unknown id.
    pubcomp_missed => "packets/pubcomp/missed",
    /// SUBSCRIBE packets.
    subscribe_received => "packets/subscribe/received",
    /// Filters refused.
    subscribe_error => "packets/subscribe/error",
    /// Filters of groups refused because too many answers of other shards were awaited.
    subscribe_waiting_exceeded => "packets/subscribe/waiting_exceeded",
    /// Filters not authorised.
    subscribe_auth_error => "packets/subscribe/auth_error",
    /// Subscriptions ended since the rules do not allow them any more.
    subscriptions_revoked => "subscriptions/revoked",
    /// Decisions by the rules that were at hand. (AZ05)
    authorization_cache_hit => "authorization/cache_hit",
    /// Those that were looked up in the rules, of clients whose decisions are kept.
    authorization_cache_miss => "authorization/cache_miss",
    /// SUBACK packets.
    suback_sent => "packets/suback/sent",
    /// UNSUBSCRIBE packets.
    unsubscribe_received => "packets/unsubscribe/received",
    /// Filters refused.
    unsubscribe_error => "packets/unsubscribe/error",
    /// UNSUBACK packets.
    unsuback_sent => "packets/unsuback/sent",
    /// PINGREQ packets.
    pingreq_received => "packets/pingreq/received",
    /// PINGRESP packets.
    pingresp_sent => "packets/pingresp/sent",
    /// DISCONNECT packets.
    disconnect_received => "packets/disconnect/received",
    /// DISCONNECT packets.
    disconnect_sent => "packets/disconnect/sent",
    /// AUTH packets.
    auth_received => "packets/auth/received",
    /// AUTH packets.
    auth_sent => "packets/auth/sent",
    /// Messages, all kinds of QoS.
    messages_received => "messages/received",
    /// Messages, all kinds of QoS.
    messages_sent => "messages/sent",
    /// Messages that entered routing, wills and `$SYS` included.
    messages_publish => "messages/publish",
    /// Messages lost or refused for any reason.
    messages_dropped => "messages/dropped",
    /// QoS 2 packet ids never released in time.
    messages_dropped_await_pubrel_timeout => "messages/dropped/await_pubrel_timeout",
    /// Messages without a subscriber.
    messages_dropped_no_subscribers => "messages/dropped/no_subscribers",
    /// Messages over a quota or under memory pressure.
    messages_dropped_quota_exceeded => "messages/dropped/quota_exceeded",
    /// Messages over Receive Maximum.
    messages_dropped_receive_maximum => "messages/dropped/receive_maximum",
    /// Messages expired before they were routed or while retained.
    messages_dropped_expired => "messages/dropped/expired",
    /// Messages sent to other shards.
    messages_forward => "messages/forward",
    /// Messages with `$delayed`.
    messages_delayed => "messages/delayed",
    /// Messages stored as retained.
    messages_retained => "messages/retained",
    /// Messages given to sockets or whose delivery began.
    messages_delivered => "messages/delivered",
    /// Messages acknowledged by clients.
    messages_acked => "messages/acked",
    /// Messages made durable.
    messages_persisted => "messages/persisted",
    /// QoS 0.
    messages_qos0_received => "messages/qos0/received",
    /// QoS 0.
    messages_qos0_sent => "messages/qos0/sent",
    /// QoS 1.
    messages_qos1_received => "messages/qos1/received",
    /// QoS 1.
    messages_qos1_sent => "messages/qos1/sent",
    /// QoS 2.
    messages_qos2_received => "messages/qos2/received",
    /// QoS 2.
    messages_qos2_sent => "messages/qos2/sent",
    /// Copies not delivered, any reason.
    delivery_dropped => "delivery/dropped",
    /// See [`DropReason::NoLocal`].
    delivery_dropped_no_local => "delivery/dropped/no_local",
    /// See [`DropReason::TooLarge`].
    delivery_dropped_too_large => "delivery/dropped/too_large",
    /// See [`DropReason::Qos0`].
    delivery_dropped_qos0_msg => "delivery/dropped/qos0_msg",
    /// See [`DropReason::QueueFull`].
    delivery_dropped_queue_full => "delivery/dropped/queue_full",
    /// See [`DropReason::Expired`].
    delivery_dropped_expired => "delivery/dropped/expired",
    /// See [`DropReason::SessionEnded`].
    delivery_dropped_session_ended => "delivery/dropped/session_ended",
    /// See [`DropReason::GroupEnded`].
    delivery_dropped_group_ended => "delivery/dropped/group_ended",
    /// See [`DropReason::Refused`].
    delivery_dropped_refused => "delivery/dropped/refused",
    /// Copies whose delivery is complete: QoS 0 sent, QoS 1 and 2 acknowledged.
    delivery_completed => "delivery/completed",
    /// Copies that went back to their shared group.
    delivery_returned => "delivery/returned",
    /// Times that more messages waited for a retained replay than may (docs/adr/0014).
    replays_overtaken => "delivery/replays_overtaken",
    /// Copies that matching produced on this shard. Each is completed, dropped with a reason,
    /// returned, queued or in flight.
    delivery_matched => "delivery/matched",
    /// Clients admitted by an authenticator, or let in though none knows them (AU01).
    auth_success => "authentication/success",
    /// Of those, the ones without a user name.
    auth_anonymous => "authentication/success/anonymous",
    /// Clients refused.
    auth_failure => "authentication/failure",
    /// Clients told that the broker has too many to authenticate (AU18).
    auth_busy => "authentication/busy",
    /// Clients about whom nothing was decided before `mqtt.connect_timeout_ms`.
    auth_timeout => "authentication/timeout",
    /// Connections ended since what admitted them has expired (AU09).
    auth_expired => "authentication/expired",
    /// CONNECT packets that were accepted as well-formed.
    client_connect => "client/connect",
    /// CONNACK packets.
    client_connack => "client/connack",
    /// Clients connected.
    client_connected => "client/connected",
    /// Clients disconnected.
    client_disconnected => "client/disconnected",
    /// SUBSCRIBE handled.
    client_subscribe => "client/subscribe",
    /// UNSUBSCRIBE handled.
    client_unsubscribe => "client/unsubscribe",
    /// Sessions created.
    session_created => "session/created",
    /// Sessions resumed.
    session_resumed => "session/resumed",
    /// Sessions taken over by another connection.
    session_takenover => "session/takenover",
    /// Sessions discarded by Clean Start.
    session_discarded => "session/discarded",
    /// Sessions ended.
    session_terminated => "session/terminated",
    /// Connections refused under overload.
    overload_new_conn => "overload_protection/new_conn",
    /// Publishers paused because a mailbox was full.
    overload_delay_lane => "overload_protection/delay/lane",
    /// Publishers paused because the shard was far behind.
    overload_delay_lag => "overload_protection/delay/lag",
    /// Publishers paused because memory is critical.
    overload_delay_memory => "overload_protection/delay/memory",
    /// Publishers paused because too many of their publishes wait for verdicts (Q04).
    overload_delay_verdict => "overload_protection/delay/verdict",
    /// Connections that sent no CONNECT in time (W12).
    connect_timeout => "connections/connect_timeout",
    /// Connections closed by keep-alive.
    keepalive_timeout => "connections/keepalive_timeout",
    /// Connections refused by a limit (T15).
    connections_refused => "connections/refused",
    /// TLS on a plain listener (W19).
    tls_on_plain => "connections/tls_on_plain",
    /// HTTP on an MQTT listener (W19).
    http_on_mqtt => "connections/http_on_mqtt",
    /// Malformed packets and protocol errors.
    protocol_errors => "connections/protocol_errors",
    /// Slow consumers closed (L08).
    slow_consumers_closed => "connections/slow_consumers_closed",
    /// Connections accepted.
    connections_opened => "connections/opened",
    /// Connections handed to their home shard.
    connections_handed_over => "connections/handed_over",
    /// Publishes over Receive Maximum from lenient listeners (D8).
    receive_maximum_lenient => "connections/receive_maximum_exceeded",
    /// See [`DriverCounts::turns`].
    reactor_turns => "reactor/turns",
    /// See [`DriverCounts::enters`].
    reactor_enters => "reactor/enters",
    /// See [`DriverCounts::receives`].
    reactor_receives => "reactor/receives",
    /// See [`DriverCounts::sends`].
    reactor_sends => "reactor/sends",
    /// See [`DriverCounts::mails`].
    mesh_mails => "mesh/mails",
    /// See [`DriverCounts::batches`].
    mesh_batches => "mesh/batches",
    /// See [`DriverCounts::wakes`].
    mesh_wakes => "mesh/wakes",
    /// See [`DriverCounts::line_writes`].
    mesh_line_writes => "mesh/line_writes",
    /// See [`DriverCounts::mail_lines`].
    mesh_mail_lines => "mesh/mail_lines",
}

/// What the driver of a shard did so far. It counts for itself and tells the machine after each turn;
/// all are 0 where no driver counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverCounts {
    /// Turns that had something to do.
    pub turns: u64,
    /// Calls of io_uring_enter.
    pub enters: u64,
    /// Receives that brought data.
    pub receives: u64,
    /// Sends.
    pub sends: u64,
    /// Mails to other shards.
    pub mails: u64,
    /// Batches of them, and connections that moved.
    pub batches: u64,
    /// Wakes of shards that slept.
    pub wakes: u64,
    /// Writes to cache lines that shards share: see
    /// [`LaneCounts::line_writes`](crate::mesh::LaneCounts::line_writes).
    pub line_writes: u64,
    /// Cache lines of mail: see [`LaneCounts::mail_lines`](crate::mesh::LaneCounts::mail_lines).
    pub mail_lines: u64,
}

impl Counters {
    /// Takes over what the gate counted.
    pub(crate) fn set_cache(&mut self, stats: CacheStats) {
        self.authorization_cache_hit = stats.hits;
        self.authorization_cache_miss = stats.misses;
    }

    /// Takes over what the driver counted.
    pub(crate) fn set_driver(&mut self, driver: &DriverCounts) {
        self.reactor_turns = driver.turns;
        self.reactor_enters = driver.enters;
        self.reactor_receives = driver.receives;
        self.reactor_sends = driver.sends;
        self.mesh_mails = driver.mails;
        self.mesh_batches = driver.batches;
        self.mesh_wakes = driver.wakes;
        self.mesh_line_writes = driver.line_writes;
        self.mesh_mail_lines = driver.mail_lines;
    }

    /// Counts a copy that will not be delivered.
    pub fn drop_copy(&mut self, reason: DropReason, n: u64) {
        self.delivery_dropped += n;
        self.messages_dropped += n;
        *match reason {
            DropReason::QueueFull => &mut self.delivery_dropped_queue_full,
            DropReason::Qos0 => &mut self.delivery_dropped_qos0_msg,
            DropReason::Expired => &mut self.delivery_dropped_expired,
            DropReason::TooLarge => &mut self.delivery_dropped_too_large,
            DropReason::SessionEnded => &mut self.delivery_dropped_session_ended,
            DropReason::GroupEnded => &mut self.delivery_dropped_group_ended,
            DropReason::NoLocal => &mut self.delivery_dropped_no_local,
            DropReason::Refused => &mut self.delivery_dropped_refused,
        } += n;
    }
}

/// What a shard holds at one moment; sums over shards give the `stats` of `$SYS` (Y03).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections with a session.
    pub connections: u64,
    /// Sockets, handshakes included.
    pub sockets: u64,
    /// Sessions, offline ones included.
    pub sessions: u64,
    /// Filters with at least one subscriber on this shard.
    pub filters: u64,
    /// Subscriptions, without shared ones.
    pub subscriptions: u64,
    /// Memberships in shared groups.
    pub shared_subscriptions: u64,
    /// Retained messages owned by this shard.
    pub retained: u64,
    /// Messages queued in sessions.
    pub queued: u64,
    /// Messages waiting for acknowledgement.
    pub inflight: u64,
    /// Messages queued in groups owned by this shard.
    pub group_queued: u64,
}

impl Gauges {
    /// Adds those of another shard.
    pub fn add(&mut self, o: &Self) {
        self.connections += o.connections;
        self.sockets += o.sockets;
        self.sessions += o.sessions;
        self.filters += o.filters;
        self.subscriptions += o.subscriptions;
        self.shared_subscriptions += o.shared_subscriptions;
        self.retained += o.retained;
        self.queued += o.queued;
        self.inflight += o.inflight;
        self.group_queued += o.group_queued;
    }
}
