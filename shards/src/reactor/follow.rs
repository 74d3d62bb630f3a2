//! Followed messages on their way out, and the times of all sends.

use super::conn::flag;
use super::net::Net;
use crate::engine::ids::ConnId;
use crate::observe::{Followed, Recorder, Stage};

/// Followed copies that wait for their socket. A slow reader must not make it grow: further ones end at the
/// write.
const WAITING_MAX: usize = 64;
/// A followed copy ends the sleep through sends (decision record 0017) once in so long, ns, so that its send is
/// timed also on a shard with little to do. More often it would cost what that sleep gains.
const TIMED_EVERY_NS: u64 = 50_000_000;

/// A followed copy whose bytes are pending.
#[derive(Debug)]
struct Waiting {
    followed: Followed,
    /// Bytes of its connection up to its last one that the socket has not taken.
    left: usize,
    /// Whether the send that takes its last byte is under way.
    sending: bool,
}

/// Lives on: its shard.
#[derive(Debug, Default)]
pub(super) struct Follow {
    waiting: Vec<Waiting>,
    timed_ns: u64,
}

impl Net {
    /// Takes over the copies that the machine wrote in this turn. Their bytes are behind all others of their
    /// connections.
    pub(super) fn follow_written(&mut self, observe: &mut Recorder) {
        let Some(written) = observe.take_written() else { return };
        for followed in written {
            let id = followed.conn;
            let pending = self.conns.get(id).and_then(|c| {
                let layered = c.has(flag::LAYERED);
                c.tx().map(|tx| tx.pending(layered))
            });
            match pending {
                Some(left) if self.follow.waiting.len() < WAITING_MAX => {
                    if let Some(conn) = self.conns.get(id) {
                        conn.set(flag::FOLLOWED);
                    }
                    self.follow.waiting.push(Waiting { followed, left, sending: false });
                }
                _ => observe.sent(followed),
            }
        }
    }

    /// A send of a followed connection starts, of `bytes` from its first pending one on. Whether its
    /// completion is to be seen as soon as it is there.
    pub(super) fn followed_send_starts(&mut self, id: ConnId, bytes: usize, now_ns: u64) -> bool {
        let mut some = false;
        for w in self.follow.waiting.iter_mut().filter(|w| w.followed.conn == id && !w.sending) {
            if w.left <= bytes {
                w.sending = true;
                some = true;
                let journey = &mut w.followed.journey;
                let waited = now_ns.saturating_sub(journey.mark_ns);
                journey.trace.spans_ns[Stage::Coalesce as usize] = waited;
                journey.mark_ns = now_ns;
            }
        }
        let timed = some && now_ns - self.follow.timed_ns >= TIMED_EVERY_NS;
        if timed {
            self.follow.timed_ns = now_ns;
        }
        timed
    }

    /// The socket of a followed connection took `bytes`. `seen_ns`: when, if that is known.
    pub(super) fn followed_bytes_sent(
        &mut self,
        id: ConnId,
        bytes: usize,
        seen_ns: Option<u64>,
        observe: &mut Recorder,
    ) {
        let mut more = false;
        let mut at = 0;
        while at < self.follow.waiting.len() {
            let w = &mut self.follow.waiting[at];
            if w.followed.conn != id {
                at += 1;
                continue;
            }
            w.left = w.left.saturating_sub(bytes);
            if w.left > 0 {
                more = true;
                at += 1;
                continue;
            }
            let mut followed = self.follow.waiting.swap_remove(at).followed;
            let journey = &mut followed.journey;
            match seen_ns {
                Some(now_ns) => {
                    journey.trace.spans_ns[Stage::Send as usize] =
                        now_ns.saturating_sub(journey.mark_ns);
                    journey.mark_ns = now_ns;
                }
                None => journey.trace.send_unseen = true,
            }
            observe.sent(followed);
        }
        if !more && let Some(conn) = self.conns.get(id) {
            conn.clear(flag::FOLLOWED);
        }
    }

    /// The connection is gone with what was pending.
    pub(super) fn forget_followed(&mut self, id: ConnId) {
        self.follow.waiting.retain(|w| w.followed.conn != id);
    }
}
