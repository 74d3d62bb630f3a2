//! Moving a connection to another shard.
//!
//! ```text
//!  cancel the receive ─► reserve a slot in a ring of the target ─► MSG_RING: send the descriptor
//!      ─► its completion says which slot ─► parcel with ring and slot to the target's mailbox
//!      ─► close our own slot
//! ```
//!
//! The sender learns the slot, not the receiver: so a descriptor without a parcel, or a parcel
//! without a descriptor, cannot be. Cost: the parcel leaves when the target has run the work, about
//! one turn of it later.

use std::os::fd::AsRawFd;

use io_uring::{opcode, types};

use super::conn::{Cold, Phase, flag};
use super::net::Net;
use super::shared::Stage;
use super::token::{self, Kind};
use crate::engine::ids::{ConnId, ShardId};
use crate::engine::mail::Parcel;
use crate::mesh::Carried;

/// IORING_MSG_RING_CQE_SKIP: no completion at the target.
pub(super) const MSG_RING_CQE_SKIP: u32 = 1;

impl Net {
    /// The machine's order.
    pub(super) fn hand_over(&mut self, id: ConnId, to: ShardId, parcel: Box<Parcel>) -> bool {
        let Some(conn) = self.open_conn(id) else { return false };
        let answers = conn.tx().is_some_and(|tx| tx.queue.is_empty()) && conn.has(flag::LAYERED);
        debug_assert!(!conn.has(flag::ESTABLISHED), "see Op::Handover");
        debug_assert!(conn.tx().is_none() || answers, "see Op::Handover");
        conn.phase = Phase::Moving;
        conn.set(flag::SILENT);
        if conn.has(flag::RECV) {
            self.cancel_recv(id);
        }
        if answers {
            self.move_later(id, to, parcel);
        } else {
            self.begin_move(id, to, parcel);
        }
        true
    }

    /// Nothing is to be sent any more.
    pub(super) fn begin_move(&mut self, id: ConnId, to: ShardId, parcel: Box<Parcel>) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.set_cold(Cold::Moving { parcel, to, ring: 0, tries: 0 });
        self.move_when_quiet(id);
    }

    /// Bytes that were received while the receive was being cancelled.
    pub(super) fn append_to_parcel(&mut self, id: ConnId, bytes: &[u8]) {
        if let Some(Cold::Moving { parcel, .. }) = self.conns.get(id).and_then(|c| c.cold_mut()) {
            parcel.bytes.extend_from_slice(bytes);
        }
    }

    /// Sends the descriptor on its way when nothing is in flight on it.
    pub(super) fn move_when_quiet(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if !conn.is_quiet() {
            return;
        }
        let Some(Cold::Moving { to, ring: target, tries, .. }) = conn.cold_mut() else {
            return;
        };
        if *to == self.me {
            return self.rename(id);
        }
        let rings = self.shared.rings(*to);
        while usize::from(*tries) < rings.len() && !rings[usize::from(*tries)].reserve() {
            *tries += 1;
        }
        let Some(addr) = rings.get(usize::from(*tries)) else {
            self.shared.stats(self.me).handover_failed.inc();
            if let Some(Cold::Moving { parcel, .. }) = conn.take_cold() {
                self.unmoved.push(parcel.peer);
            }
            return self.end(id);
        };
        *target = *tries;
        *tries += 1;
        conn.misc += 1;
        let (ring, slot) = (conn.ring, conn.slot);
        let entry = opcode::MsgRingSendFd::new(
            types::Fd(addr.fd.as_raw_fd()),
            types::Fixed(slot),
            types::DestinationSlot::auto_target(),
            0,
        )
        .opcode_flags(MSG_RING_CQE_SKIP)
        .build()
        .user_data(token::of_conn(Kind::SendFd, id));
        // SAFETY: points to no memory.
        unsafe { self.submit(ring, entry) }
    }

    /// A move to the shard where the connection is already: it gets a new id, nothing else.
    fn rename(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let (ring, slot) = (conn.ring, conn.slot);
        let Some(Cold::Moving { parcel, .. }) = conn.take_cold() else { return };
        let layers = self.pack_layers(id);
        self.conns.free(id);
        self.shared.stats(self.me).handed_over.inc();
        self.lanes.send_connection(self.me, (ring, slot), parcel, layers);
    }

    pub(super) fn on_fd_sent(&mut self, id: ConnId, result: i32) {
        let Some(conn) = self.conns.get(id) else { return };
        conn.misc -= 1;
        let Some(Cold::Moving { to, ring, .. }) = conn.cold_mut() else {
            unreachable!("only a moving connection gets here")
        };
        let (to, ring) = (*to, *ring);
        if result < 0 {
            self.shared.ring(to, ring).release();
            return self.move_when_quiet(id); // to the target's next ring
        }
        let Some(Cold::Moving { parcel, .. }) = conn.take_cold() else { return };
        conn.cause = super::close::MOVED;
        self.shared.stats(self.me).handed_over.inc();
        let layers = self.pack_layers(id);
        self.lanes.send_connection(to, (ring, result as u32), parcel, layers);
        self.end(id);
    }

    /// A connection that another shard sent. Its slot was reserved by the sender.
    pub(super) fn arrive(
        &mut self,
        (ring, slot): (u16, u32),
        listener: u16,
        layers: Option<Box<Carried>>,
    ) -> ConnId {
        self.shared.stats(self.me).arrived.inc();
        let id = self.conns.open(ring, slot, listener, Phase::Open);
        if let Some(carried) = layers {
            self.unpack_layers(id, *carried);
        }
        if self.stage == Stage::Stopping {
            self.stop_conn(id);
        }
        self.want_arm(id);
        id
    }
}
