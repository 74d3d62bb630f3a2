//! One simulated TCP connection: two byte pipes with their buffers, and both ends' views of it.

use std::collections::{HashMap, VecDeque};

use ringmain_shards::engine::effects::CloseHow;
use ringmain_shards::engine::ids::ConnId;

use crate::wire::{self, Publish, ToClient, ToServer};

/// Index of a connection in the world; never used again within a run.
pub type NetId = usize;

/// Where the server's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a listener's backlog.
    Backlog,
    /// Between two shards.
    Moving,
    /// Known to its shard under this id.
    On(ConnId),
    /// The machine was told that it is over.
    Gone,
}

/// How the client's end ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientEnd {
    /// It has not.
    #[default]
    Open,
    /// FIN sent behind all bytes.
    Fin,
    /// RST sent.
    Rst,
    /// It neither sends nor reads any more and nobody knows: half-open.
    Vanished,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Net {
    /// The device whose it is.
    pub(crate) owner: usize,
    /// Protocol version of its client.
    pub(crate) version: u8,
    /// The shard that has it, or where it moves to.
    pub(crate) shard: usize,
    pub(crate) place: Place,
    pub(crate) client_end: ClientEnd,
    // client to server
    bytes: Vec<u8>,
    head: usize,
    fed: u64,
    packets: VecDeque<(u64, ToServer)>,
    pub(crate) held: Vec<ToServer>,
    pub(crate) connacked: bool,
    pub(crate) established: bool,
    pub(crate) paused: bool,
    // server to client
    partial: Vec<u8>,
    out: VecDeque<(u64, ToClient)>,
    pub(crate) written: u64,
    pub(crate) kernel: u64,
    read: u64,
    aliases: HashMap<u16, String>,
    pub(crate) close: Option<CloseHow>,
    pub(crate) close_at_ns: u64,
    /// The machine has decided to close it or to hand it over; performed at the end of the turn.
    pub(crate) leaving: bool,
    /// Of these two the latter.
    pub(crate) moving: bool,
    pub(crate) garbled: bool,
}

impl Net {
    pub(crate) fn new(owner: usize, version: u8, shard: usize) -> Self {
        Self {
            owner,
            version,
            shard,
            place: Place::Backlog,
            client_end: ClientEnd::Open,
            bytes: Vec::new(),
            head: 0,
            fed: 0,
            packets: VecDeque::new(),
            held: Vec::new(),
            connacked: false,
            established: false,
            paused: false,
            partial: Vec::new(),
            out: VecDeque::new(),
            written: 0,
            kernel: 0,
            read: 0,
            aliases: HashMap::new(),
            close: None,
            close_at_ns: 0,
            leaving: false,
            moving: false,
            garbled: false,
        }
    }

    /// The client writes `bytes`, which stand for `packet`.
    pub(crate) fn client_send(&mut self, packet: Option<ToServer>, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if let Some(packet) = packet {
            let end = self.fed + (self.bytes.len() - self.head) as u64;
            self.packets.push_back((end, packet));
        }
    }

    /// Bytes that the server has not been fed.
    pub(crate) fn unfed(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Bytes to the end of the packet that the server is reading.
    pub(crate) fn to_packet_end(&self) -> usize {
        self.packets.front().map_or(usize::MAX, |(end, _)| (end - self.fed) as usize)
    }

    /// The next `len` bytes for the machine.
    pub(crate) fn next_bytes(&self, len: usize) -> &[u8] {
        &self.bytes[self.head..self.head + len]
    }

    /// The machine was fed `len` bytes: gives the packets that this completed.
    pub(crate) fn advance(&mut self, len: usize) -> Vec<ToServer> {
        self.head += len;
        self.fed += len as u64;
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        }
        let mut done = Vec::new();
        while self.packets.front().is_some_and(|(end, _)| *end <= self.fed) {
            done.extend(self.packets.pop_front().map(|(_, p)| p));
        }
        done
    }

    /// Drops what the client sent and the server did not read: RST does.
    pub(crate) fn forget_unfed(&mut self) {
        self.bytes.clear();
        self.head = 0;
        self.packets.clear();
    }

    /// The machine writes `bytes`: gives the packets that this completed, with their sizes.
    ///
    /// # Errors
    /// What a client's decoder says against them.
    pub(crate) fn server_write(&mut self, bytes: &[u8]) -> Result<Vec<(ToClient, usize)>, String> {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        let mut done = Vec::new();
        while let Some((packet, len)) = wire::decode(&self.partial[at..], self.version)? {
            at += len;
            done.push((packet, len));
        }
        self.partial.drain(..at);
        self.written += bytes.len() as u64;
        Ok(done)
    }

    /// Bytes of a packet that is not complete.
    pub(crate) fn partial_len(&self) -> u64 {
        self.partial.len() as u64
    }

    /// Whether the machine has written half a packet.
    pub(crate) fn inside_packet(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Puts the topic in place of its alias, as the client does.
    ///
    /// # Errors
    /// When the alias is not bound.
    pub(crate) fn resolve_alias(&mut self, publish: &mut Publish) -> Result<(), String> {
        let Some(alias) = publish.alias else { return Ok(()) };
        if publish.topic.is_empty() {
            let bound = self.aliases.get(&alias);
            publish.topic = bound.cloned().ok_or("a topic alias that is not bound")?;
        } else {
            self.aliases.insert(alias, publish.topic.clone());
        }
        Ok(())
    }

    /// A packet that the client will read once it has read up to `end`.
    pub(crate) fn deliver(&mut self, end: u64, packet: ToClient) {
        self.out.push_back((end, packet));
    }

    /// Bytes that the driver holds for the socket.
    pub(crate) fn pending(&self) -> u64 {
        self.written - self.kernel
    }

    /// Bytes in the kernel that the client has not read.
    pub(crate) fn unread(&self) -> u64 {
        self.kernel - self.read
    }

    /// The client reads `len` bytes: gives the packets that are complete by then.
    pub(crate) fn client_read(&mut self, len: u64) -> Vec<ToClient> {
        self.read += len;
        let mut done = Vec::new();
        while self.out.front().is_some_and(|(end, _)| *end <= self.read) {
            done.extend(self.out.pop_front().map(|(_, p)| p));
        }
        done
    }

    /// Whether the server's machine still knows it.
    pub(crate) fn conn(&self) -> Option<ConnId> {
        match self.place {
            Place::On(conn) => Some(conn),
            _ => None,
        }
    }

    /// Whether the client sees the end of the stream: it has read all that it will get.
    pub(crate) fn eof(&self) -> bool {
        self.place == Place::Gone && (self.unread() == 0 || self.close == Some(CloseHow::Abort))
    }

    /// Nobody has anything to do with it any more.
    pub(crate) fn finished(&self) -> bool {
        self.place == Place::Gone && (self.client_end != ClientEnd::Open || self.eof())
    }
}
