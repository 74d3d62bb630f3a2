//! Clients that read slowly, or not at all.

use std::io;

use io_uring::opcode;
use io_uring::types::Fixed;

use super::cancel;
use crate::client::{RECEIVING, State, WATCHED};
use crate::plan::Behaviour;
use crate::worker::{Op, Worker, user_data};

impl Worker {
    /// A client that is to read slowly, or not at all, became ready: it stops reading.
    pub(crate) fn turn_deaf(&mut self, local: u32) -> io::Result<()> {
        let (ring, slot) = self.place(local);
        let mask = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as u32;
        let poll =
            opcode::PollAdd::new(Fixed(slot), mask).build().user_data(user_data(Op::HangUp, local));
        self.clients[local as usize].set(WATCHED);
        // SAFETY: the entries point at nothing.
        unsafe { self.rings[ring].push(&[cancel(local, Op::Recv), poll]) }
    }

    /// A client that reads slowly has read `len` bytes, and no receive is armed.
    pub(super) fn turned_deaf(&mut self, local: u32, len: usize) -> io::Result<()> {
        self.clients[local as usize].unset(RECEIVING);
        if let Behaviour::Slow { bytes_per_s } = self.behaviour(local)
            && bytes_per_s > 0
        {
            self.read_later(local, len as u64 * 1_000_000_000 / u64::from(bytes_per_s));
        }
        Ok(())
    }

    /// Reads a slow reader's next bytes.
    pub(crate) fn read_slowly(&mut self, local: u32) -> io::Result<()> {
        let Behaviour::Slow { bytes_per_s } = self.behaviour(local) else { return Ok(()) };
        let (ring, slot) = self.place(local);
        let client = &mut self.clients[local as usize];
        if client.state != State::Live || client.has(RECEIVING) {
            return Ok(());
        }
        client.set(RECEIVING);
        // Ten reads a second, or as many as a buffer's size makes of it.
        let len = (bytes_per_s / 10).clamp(1, 4096);
        let entry = crate::ring::recv_once(slot, len, user_data(Op::Recv, local));
        // SAFETY: the entry points at nothing.
        unsafe { self.rings[ring].push(&[entry]) }
    }

    /// The broker hung up on a client that does not read.
    pub(crate) fn on_hang_up(&mut self, local: u32, result: i32) -> io::Result<()> {
        let client = &mut self.clients[local as usize];
        if result < 0 {
            return Ok(());
        }
        client.unset(WATCHED);
        // Where a receive is armed, it ends by itself.
        if client.state == State::Live && !client.has(RECEIVING) {
            return self.connection_ended(local, 0);
        }
        Ok(())
    }
}
