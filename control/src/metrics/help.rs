//! What each metric means, in a sentence.

use std::borrow::Cow;

use ringmain_shards::observe::Stage;

use crate::text::Kind;

pub(super) const DROPS: &str = "What was lost, by reason: copies of messages on their way to a \
    subscriber (what=\"copy\"), and messages that never became one (what=\"message\").";
pub(super) const MEMORY: &str =
    "Memory by what it is for. What the allocator adds is not among it.";
pub(super) const LOOP: &str = "Time of the shard's loop: busy in turns, in system calls that did \
    not sleep (enter), in system calls that may have slept (slept).";
pub(super) const KERNEL: &str = "Counters of this host's kernel that should not grow, by their \
    names there. `ringmain doctor` says what each means and what helps.";

/// The stages, and what each is.
pub(super) fn stages() -> String {
    let mut text = "Time by stage. Of messages a sample is measured in most stages.".to_owned();
    for stage in Stage::ALL {
        text.push_str(&format!(" {}: {}.", stage.name(), stage.says()));
    }
    text
}

/// Of a counter below `$SYS/brokers/<node>/metrics/`.
pub(super) fn counter(path: &str) -> Cow<'static, str> {
    if let Some((_, help)) = COUNTERS.iter().find(|(known, _)| *known == path) {
        return Cow::Borrowed(help);
    }
    let says = match path.split('/').collect::<Vec<_>>()[..] {
        ["packets", kind, "received"] => format!("{} packets received.", kind.to_uppercase()),
        ["packets", kind, "sent"] => format!("{} packets sent.", kind.to_uppercase()),
        ["packets", kind, "missed"] => {
            format!("{} packets for an unknown packet identifier.", kind.to_uppercase())
        }
        ["messages", qos, "received"] => format!("Messages of {} received.", quality(qos)),
        ["messages", qos, "sent"] => format!("Messages of {} sent.", quality(qos)),
        _ => String::new(),
    };
    Cow::Owned(says)
}

fn quality(qos: &str) -> String {
    qos.replace("qos", "QoS ")
}

/// Those that [`counter`] has no rule for.
pub(super) const COUNTERS: &[(&str, &str)] = &[
    ("bytes/received", "Bytes received from sockets of clients."),
    ("bytes/sent", "Bytes that sockets of clients took."),
    ("packets/received", "Packets received."),
    ("packets/sent", "Packets sent."),
    ("packets/connack/error", "CONNACK packets that refused the client."),
    ("packets/connack/auth_error", "CONNACK packets that refused the client's credentials."),
    ("packets/publish/inuse", "PUBLISH packets with a packet identifier that is in use."),
    ("packets/publish/error", "PUBLISH packets that were refused."),
    ("packets/publish/auth_error", "PUBLISH packets that were not authorised."),
    ("packets/publish/dropped", "PUBLISH packets that were dropped."),
    ("packets/publish/quota_exceeded", "PUBLISH packets over a quota."),
    ("bans/disconnected", "Live clients disconnected since they were banned."),
    ("bans/refused", "CONNECT packets refused since the client is banned."),
    ("bans/flapping", "Clients banned for a while since they came and went too often."),
    ("rates/paused", "Times that a client was not read since it sent faster than it may."),
    ("rates/refused", "Packets that were refused since they came faster than they may."),
    ("rates/disconnected", "Clients disconnected since they sent faster than they may."),
    (
        "rates/deliveries_delayed",
        "Times that messages stayed in a client's queue since it was sent all that it may be sent.",
    ),
    ("packets/puback/inuse", "PUBACK packets for an identifier that a QoS 2 exchange uses."),
    ("packets/pubrec/inuse", "PUBREC packets for an identifier that a QoS 1 exchange uses."),
    ("packets/pubcomp/inuse", "PUBCOMP packets for an identifier in another state."),
    ("packets/subscribe/error", "Filters of SUBSCRIBE packets that were refused."),
    (
        "packets/subscribe/waiting_exceeded",
        "Filters of shared groups that were refused, as too many answers of other shards were awaited.",
    ),
    ("packets/subscribe/auth_error", "Filters of SUBSCRIBE packets that were not authorised."),
    (
        "subscriptions/revoked",
        "Subscriptions that ended since the rules do not allow them any more.",
    ),
    ("authorization/cache_hit", "Decisions by the rules that were at hand."),
    (
        "authorization/cache_miss",
        "Decisions that had to be looked up in the rules, of clients whose decisions are kept.",
    ),
    ("packets/unsubscribe/error", "Filters of UNSUBSCRIBE packets that were refused."),
    ("messages/received", "Messages received, of any QoS."),
    ("messages/sent", "Messages sent, of any QoS."),
    ("messages/publish", "Messages that entered routing, wills and $SYS included."),
    (
        "messages/dropped",
        "Messages and copies of messages lost or refused, for reasons of ringmain_drops_total and others.",
    ),
    ("messages/forward", "Messages sent to other shards."),
    ("messages/delayed", "Messages with $delayed."),
    ("messages/retained", "Messages stored as retained."),
    ("messages/delivered", "Messages given to sockets, or whose delivery began."),
    ("messages/acked", "Messages acknowledged by clients."),
    ("messages/persisted", "Messages made durable."),
    ("delivery/matched", "Copies of messages for subscribers that matching produced."),
    (
        "delivery/completed",
        "Copies whose delivery is complete: QoS 0 sent, QoS 1 and 2 acknowledged.",
    ),
    ("delivery/dropped", "Copies not delivered, for the reasons of ringmain_drops_total."),
    ("delivery/returned", "Copies that went back to their shared group."),
    (
        "delivery/replays_overtaken",
        "Times that more messages waited for a replay of retained messages than may.",
    ),
    (
        "authentication/success",
        "Clients admitted, at CONNECT and when they authenticated again; where nobody is asked, none.",
    ),
    ("authentication/success/anonymous", "Of those, clients without a user name."),
    ("authentication/failure", "Clients refused by an authenticator, or since none knows them."),
    (
        "authentication/busy",
        "Clients told that the server is busy, since too many were to be authenticated.",
    ),
    (
        "authentication/timeout",
        "Clients about whom nothing was decided before mqtt.connect_timeout_ms.",
    ),
    ("authentication/expired", "Connections ended since what admitted them has expired."),
    ("client/connect", "CONNECT packets that were well-formed."),
    ("client/connack", "CONNECT packets that were answered."),
    ("client/connected", "Clients that connected."),
    ("client/disconnected", "Clients that went."),
    ("client/subscribe", "SUBSCRIBE packets handled."),
    ("client/unsubscribe", "UNSUBSCRIBE packets handled."),
    ("session/created", "Sessions created."),
    ("session/resumed", "Sessions resumed."),
    ("session/takenover", "Sessions taken over by another connection."),
    ("session/discarded", "Sessions discarded by Clean Start."),
    ("session/terminated", "Sessions that ended."),
    ("overload_protection/new_conn", "Connections refused, as the shard was far behind."),
    ("overload_protection/delay/lane", "Publishers paused, as the mailbox of a shard was full."),
    ("overload_protection/delay/lag", "Publishers paused, as the shard was far behind."),
    ("overload_protection/delay/memory", "Publishers paused, as memory was critical."),
    (
        "overload_protection/delay/verdict",
        "Publishers paused, as too many of their messages waited for the verdict of a queue.",
    ),
    ("connections/connect_timeout", "Connections closed that sent no CONNECT in time."),
    ("connections/keepalive_timeout", "Connections closed for their keep-alive."),
    ("connections/refused", "Connections refused by a limit."),
    ("connections/tls_on_plain", "Connections that spoke TLS to a plain listener."),
    ("connections/http_on_mqtt", "Connections that spoke HTTP to a listener of MQTT."),
    ("connections/protocol_errors", "Connections closed for malformed packets or protocol errors."),
    ("connections/slow_consumers_closed", "Connections closed, as they did not read."),
    ("connections/opened", "Connections accepted."),
    ("connections/handed_over", "Connections that moved to the home shard of their session."),
    (
        "connections/receive_maximum_exceeded",
        "Messages over Receive Maximum that a lenient listener took.",
    ),
    ("reactor/turns", "Turns that had something to do."),
    ("reactor/enters", "Calls of io_uring_enter."),
    ("reactor/receives", "Receives that brought data."),
    ("reactor/sends", "Sends."),
    ("mesh/mails", "Mails to other shards."),
    ("mesh/batches", "Batches of mails to other shards, and connections that moved."),
    ("mesh/wakes", "Wakes of shards that slept."),
    ("mesh/line_writes", "Writes to cache lines that shards share."),
    ("mesh/mail_lines", "Cache lines of mails."),
];

/// Name and meaning of a gauge.
pub(super) fn gauge(field: &str) -> (&'static str, &'static str) {
    let known = GAUGES.iter().find(|(known, ..)| *known == field);
    known.map_or(("ringmain_unnamed", ""), |(_, name, help)| (name, help))
}

const GAUGES: &[(&str, &str, &str)] = &[
    ("connections", "ringmain_connections", "Connections with a session."),
    ("sockets", "ringmain_sockets", "Sockets of clients, those before CONNECT included."),
    ("sessions", "ringmain_sessions", "Sessions, those of absent clients included."),
    ("filters", "ringmain_filters", "Distinct topic filters with a subscriber on the shard."),
    ("subscriptions", "ringmain_subscriptions", "Subscriptions without shared ones."),
    ("shared_subscriptions", "ringmain_shared_subscriptions", "Memberships in shared groups."),
    ("retained", "ringmain_retained_messages", "Retained messages that the shard owns."),
    ("queued", "ringmain_queued_messages", "Messages that wait in the queues of sessions."),
    ("inflight", "ringmain_inflight_messages", "Messages sent that clients have not acknowledged."),
    (
        "group_queued",
        "ringmain_group_queued_messages",
        "Messages that wait in the shared groups of the shard.",
    ),
];

/// Name, kind and meaning of a counter of the rings.
pub(super) fn ring(field: &str) -> (String, Kind, Cow<'static, str>) {
    let known = RING.iter().find(|(known, ..)| *known == field);
    let (kind, help) = match known {
        Some((_, kind, help)) => (*kind, Cow::Borrowed(*help)),
        None => (Kind::Counter, Cow::Owned(format!("`{field}` of the shard's rings."))),
    };
    let name = match (field, kind) {
        ("bytes_received", _) => "ringmain_ring_received_bytes_total".to_owned(),
        ("bytes_sent", _) => "ringmain_ring_sent_bytes_total".to_owned(),
        (_, Kind::Counter) => format!("ringmain_ring_{field}_total"),
        _ => format!("ringmain_ring_{field}"),
    };
    (name, kind, help)
}

/// The fields of the reactor's counters.
pub(super) const RING: &[(&str, Kind, &str)] = &[
    ("connections", Kind::Gauge, "Connections in any state."),
    (
        "slots_used",
        Kind::Gauge,
        "Slots of the direct descriptor tables that are taken or promised.",
    ),
    ("accepted", Kind::Counter, "Connections accepted from the kernel."),
    (
        "accept_errors",
        Kind::Counter,
        "Accepts that failed for a reason without a counter of its own.",
    ),
    ("accept_table_full", Kind::Counter, "Accepted connections lost, as the table was full."),
    (
        "accept_over_limit",
        Kind::Counter,
        "Connections closed at once, as other shards had taken the node's last places.",
    ),
    (
        "accept_no_descriptors",
        Kind::Counter,
        "Accepts that found no ordinary descriptor free (EMFILE, ENFILE).",
    ),
    (
        "gone_at_open",
        Kind::Counter,
        "Accepted connections that were gone before their address could be asked for.",
    ),
    ("closed", Kind::Counter, "Connections closed."),
    (
        "flush_timeouts",
        Kind::Counter,
        "Connections closed with output that their client did not take in a second.",
    ),
    ("handed_over", Kind::Counter, "Connections sent to other shards."),
    ("arrived", Kind::Counter, "Connections that came from other shards."),
    ("handover_failed", Kind::Counter, "Connections closed, as no shard could take them over."),
    ("bytes_received", Kind::Counter, "Bytes received."),
    ("bytes_sent", Kind::Counter, "Bytes handed to the kernel."),
    ("receives", Kind::Counter, "Receive completions with data."),
    ("sends", Kind::Counter, "Sends."),
    ("no_buffers", Kind::Counter, "Receives that ended for want of a buffer."),
    (
        "rearmed",
        Kind::Counter,
        "Multishot receives that ended without a reason and were armed again.",
    ),
    ("cq_overflows", Kind::Counter, "Looks that found the completion queue to have overflowed."),
    ("enters", Kind::Counter, "Calls of io_uring_enter."),
    ("completions", Kind::Counter, "Completions."),
    ("turns", Kind::Counter, "Turns of the shard."),
    ("stale_ops", Kind::Counter, "Operations on connections that were gone already."),
    ("mails_sent", Kind::Counter, "Mails sent to other shards."),
    ("batches_sent", Kind::Counter, "Mailbox entries pushed."),
    ("mails_received", Kind::Counter, "Mails received."),
    ("wakes_sent", Kind::Counter, "Wakes of sleeping shards."),
    ("lanes_filled", Kind::Counter, "Times that a lane to another shard became full."),
    ("lane_waiting_peak", Kind::Gauge, "Most deliveries that ever waited at this sender."),
    ("tls_full", Kind::Counter, "TLS handshakes with all their signatures."),
    ("tls_resumed", Kind::Counter, "TLS handshakes that a ticket made cheaper."),
    (
        "tls_failed_not_tls",
        Kind::Counter,
        "Connections to TLS listeners that spoke something else.",
    ),
    (
        "tls_failed_client_certificate",
        Kind::Counter,
        "TLS handshakes that ended because the client's certificate was refused.",
    ),
    (
        "tls_failed_no_client_certificate",
        Kind::Counter,
        "TLS handshakes that ended because the client has no certificate and must.",
    ),
    (
        "tls_failed_nothing_in_common",
        Kind::Counter,
        "TLS handshakes without a version, cipher suite, group or signature in common.",
    ),
    ("tls_failed_alpn", Kind::Counter, "TLS handshakes without an application protocol in common."),
    (
        "tls_failed_server_name",
        Kind::Counter,
        "TLS handshakes for a server name that no certificate is for.",
    ),
    (
        "tls_failed_peer_alert",
        Kind::Counter,
        "TLS connections that clients ended with an alert: mostly, they refuse our certificate.",
    ),
    ("tls_failed_protocol", Kind::Counter, "TLS connections whose client broke the protocol."),
    ("tls_failed_internal", Kind::Counter, "TLS connections that ended by a fault of the broker."),
    ("websockets_opened", Kind::Counter, "WebSocket handshakes that were granted."),
    ("websockets_refused", Kind::Counter, "WebSocket handshakes that were refused."),
    (
        "websockets_failed",
        Kind::Counter,
        "WebSockets that were closed because the client broke the protocol.",
    ),
    (
        "proxy_headers_refused",
        Kind::Counter,
        "Connections closed for a PROXY header that is wrong, missing or not wanted.",
    ),
    ("events_dropped", Kind::Counter, "Events that the control plane had no room for."),
];
