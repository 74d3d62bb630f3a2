//! The client's half of a session. (§4.1)

use std::collections::HashSet;

use crate::wire::Publish;

/// How far a message towards the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutState {
    /// PUBLISH sent.
    Published,
    /// PUBREL sent.
    Released,
}

/// A message that the server has not finished.
#[derive(Clone, Debug)]
pub struct Out {
    /// As it will be sent again.
    pub publish: Publish,
    /// How far it is.
    pub state: OutState,
}

/// Session state of a client.
#[derive(Debug, Default)]
pub struct Session {
    /// Towards the server, in order.
    pub out: Vec<Out>,
    /// QoS 2 packet ids received and not released.
    pub in_qos2: HashSet<u16>,
    /// Packet ids of SUBSCRIBE and UNSUBSCRIBE without answer.
    pub requests: Vec<u16>,
    /// Chance per mille of refusing a message.
    pub refuse: u32,
    last_id: u16,
}

impl Session {
    /// An empty one.
    #[must_use]
    pub fn new(refuse: u32) -> Self {
        Self { refuse, ..Self::default() }
    }

    /// A packet id that is not in use. They start again early, to meet old ones.
    pub fn packet_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % 120 + 1;
            let id = self.last_id;
            if !self.requests.contains(&id) && self.out.iter().all(|o| o.publish.pid != id) {
                return id;
            }
        }
    }

    /// A PUBLISH with QoS > 0 is about to be sent.
    pub fn push(&mut self, publish: Publish) {
        self.out.push(Out { publish, state: OutState::Published });
    }

    /// PUBACK or PUBCOMP.
    pub fn acked(&mut self, pid: u16) {
        self.out.retain(|o| o.publish.pid != pid);
    }

    /// PUBREC. Returns whether a PUBREL is to follow.
    pub fn received(&mut self, pid: u16, reason: u8) -> bool {
        if reason >= 0x80 {
            self.acked(pid);
            return false;
        }
        match self.out.iter_mut().find(|o| o.publish.pid == pid) {
            Some(out) if out.state == OutState::Published => {
                out.state = OutState::Released;
                true
            }
            _ => false,
        }
    }

    /// Nothing is open. What the server has not released is its own affair: a client that raced with
    /// itself may hold ids of a session that is gone.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.out.is_empty() && self.requests.is_empty()
    }

    /// What is open; for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let out: Vec<_> = self.out.iter().map(|o| (o.publish.pid, o.state)).collect();
        format!("out {out:?} requests {:?} unreleased {:?}", self.requests, self.in_qos2)
    }
}
