//! Counters of the reactor. The shard writes, anyone reads.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Lives on: its shard, the only writer; so a relaxed load and store suffice to count. Aligned,
        /// so that no other shard writes to the same cache lines, or to those fetched along with them.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(super) struct ShardStats { $(pub $name: Stat,)* }

        /// A copy of a shard's counters.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StatsSnapshot { $($(#[$doc])* pub $name: u64,)* }

        impl StatsSnapshot {
            /// All, by name.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }

        impl ShardStats {
            pub(super) fn snapshot(&self) -> StatsSnapshot {
                StatsSnapshot { $($name: self.$name.get(),)* }
            }
        }

        impl std::ops::AddAssign for StatsSnapshot {
            fn add_assign(&mut self, other: Self) { $(self.$name += other.$name;)* }
        }
    };
}

stats! {
    /// Connections of this shard now, in any state.
    connections,
    /// Slots in the direct descriptor tables of this shard that are taken or promised.
    slots_used,
    /// Connections accepted from the kernel.
    accepted,
    /// Accepts that failed with something that has no counter of its own.
    accept_errors,
    /// Accepted connections that were lost because the table was full.
    accept_table_full,
    /// Connections closed at once because other shards had taken the node's last places.
    accept_over_limit,
    /// Accepts that found no ordinary descriptor free (EMFILE, ENFILE).
    accept_no_descriptors,
    /// Accepted connections that were gone before their address could be asked for.
    gone_at_open,
    /// Connections closed.
    closed,
    /// Flushes that did not end within a second. [S-93]
    flush_timeouts,
    /// Connections sent to other shards.
    handed_over,
    /// Connections that came from other shards.
    arrived,
    /// Connections closed because no shard could take them over.
    handover_failed,
    /// Bytes received.
    bytes_received,
    /// Bytes handed to the kernel.
    bytes_sent,
    /// Receive completions with data.
    receives,
    /// Sends.
    sends,
    /// Receives ended for want of a buffer.
    no_buffers,
    /// Multishot receives that ended without a reason and were armed again.
    rearmed,
    /// Passes in which the completion queue was found to have overflowed.
    cq_overflows,
    /// Calls of io_uring_enter.
    enters,
    /// Completions.
    completions,
    /// Turns of the machine.
    turns,
    /// Operations on connections that were gone already.
    stale_ops,
    /// Mails sent to other shards.
    mails_sent,
    /// Mailbox entries pushed.
    batches_sent,
    /// Mails received.
    mails_received,
    /// Wakes of sleeping peers.
    wakes_sent,
    /// Times that a lane to a peer became full.
    lanes_filled,
    /// Most deliveries that ever waited at this sender.
    lane_waiting_peak,
    /// TLS handshakes with all their signatures.
    tls_full,
    /// TLS handshakes that a ticket made cheaper.
    tls_resumed,
    /// Connections to a TLS listener that spoke something else.
    tls_failed_not_tls,
    /// TLS handshakes that ended because the client's certificate was refused.
    tls_failed_client_certificate,
    /// TLS handshakes that ended because the client has no certificate and must.
    tls_failed_no_client_certificate,
    /// TLS handshakes without a version, cipher suite, group or signature in common.
    tls_failed_nothing_in_common,
    /// TLS handshakes without an application protocol in common.
    tls_failed_alpn,
    /// TLS handshakes for a server name that no certificate is for.
    tls_failed_server_name,
    /// TLS connections that the client ended with an alert: it refuses our certificate, mostly.
    tls_failed_peer_alert,
    /// TLS connections whose client broke the protocol.
    tls_failed_protocol,
    /// TLS connections that ended by a fault of ours.
    tls_failed_internal,
    /// WebSocket handshakes that were granted.
    websockets_opened,
    /// WebSocket handshakes that were refused.
    websockets_refused,
    /// WebSockets that were closed because the client broke the protocol.
    websockets_failed,
    /// Connections closed for a PROXY header that is wrong, missing or not wanted.
    proxy_headers_refused,
    /// Events that the control plane had no room for.
    events_dropped,
}

/// One counter.
#[derive(Debug, Default)]
pub(super) struct Stat(AtomicU64);

impl Stat {
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(super) fn inc(&self) {
        self.add(1);
    }

    pub(super) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
