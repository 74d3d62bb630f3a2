//! The floor: an io_uring server that moves bytes and does nothing else.
//!
//! It answers CONNECT and SUBSCRIBE, so that the same generator drives it, and looks at the topic
//! of a connection's first PUBLISH. From then on what comes in on that connection goes out on the
//! connections that subscribed to this topic, unread. The ring is set up as the broker's are;
//! whatever a broker costs above this is the price of MQTT.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

use clap::Args;
use io_uring::{opcode, types};
use ringmain_load::ring::{Completion, Ring, RingConfig, recv_multi, send};
use ringmain_mqtt::{Packet, PacketType, Role, Rules, Version, decode, decode_publish, header};

/// Connections that the floor holds: one table.
const SLOTS: u32 = 16_384;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Longest sleep: nothing but completions wakes it.
const SLEEP: Duration = Duration::from_secs(1);

const ACCEPT: u64 = 1 << 56;
const RECV: u64 = 2 << 56;
const SEND: u64 = 3 << 56;
const OTHER: u64 = 4 << 56;
const KIND: u64 = 0xFF << 56;

/// `floor-server`
#[derive(Debug, Args)]
pub(crate) struct FloorServer {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
}

/// One connection.
#[derive(Default)]
struct Connection {
    /// Where its bytes go, once it published.
    targets: Option<Vec<u32>>,
    inflight: Vec<u8>,
    pending: Vec<u8>,
    sending: bool,
    open: bool,
    dirty: bool,
    /// What it subscribed to last.
    topic: Option<String>,
    ended: bool,
    version: Option<Version>,
}

struct Server {
    ring: Ring,
    listener: TcpListener,
    connections: Vec<Connection>,
    topics: HashMap<String, Vec<u32>>,
    dirty: Vec<u32>,
}

impl FloorServer {
    pub(crate) fn run(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.listen)?;
        as_the_broker_listens(&listener)?;
        // SAFETY: listening again only makes the backlog longer.
        unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) };
        let ring = Ring::new(RingConfig { slots: SLOTS, buffers: 2048, buffer_size: 4096 })?;
        let connections = (0..SLOTS).map(|_| Connection::default()).collect();
        let mut server =
            Server { ring, listener, connections, topics: HashMap::new(), dirty: Vec::new() };
        server.serve()
    }
}

impl Server {
    fn serve(&mut self) -> io::Result<()> {
        self.accept()?;
        let mut completions = Vec::new();
        loop {
            self.ring.turn(SLEEP)?;
            self.ring.reap(&mut completions);
            for &c in &completions {
                let slot = c.user_data as u32;
                match c.user_data & KIND {
                    ACCEPT => self.on_accept(c)?,
                    RECV => self.on_recv(slot, c)?,
                    SEND => self.on_send(slot)?,
                    _ => {}
                }
            }
            for slot in std::mem::take(&mut self.dirty) {
                self.connections[slot as usize].dirty = false;
                self.start_send(slot)?;
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd()))
            .allocate_file_index(true)
            .build()
            .user_data(ACCEPT);
        // SAFETY: the entry points at nothing.
        unsafe { self.ring.push(&[entry]) }
    }

    fn on_accept(&mut self, c: Completion) -> io::Result<()> {
        if c.result >= 0 {
            let slot = c.result as u32;
            let connection = &mut self.connections[slot as usize];
            *connection = Connection { open: true, ..Connection::default() };
            // SAFETY: the entry points at nothing.
            unsafe { self.ring.push(&[recv_multi(slot, RECV | u64::from(slot))])? };
        }
        if c.more() { Ok(()) } else { self.accept() }
    }

    fn on_recv(&mut self, slot: u32, c: Completion) -> io::Result<()> {
        if let Some(buffer) = c.buffer() {
            if c.result > 0 {
                self.receive(slot, buffer, c.result as usize);
            }
            self.ring.recycle(buffer);
        }
        if c.more() {
            return Ok(());
        }
        if c.result > 0 || c.result == -libc::ENOBUFS {
            // SAFETY: the entry points at nothing.
            return unsafe { self.ring.push(&[recv_multi(slot, RECV | u64::from(slot))]) };
        }
        let connection = &mut self.connections[slot as usize];
        connection.open = false;
        connection.ended = true;
        if let Some(topic) = connection.topic.take()
            && let Entry::Occupied(mut slots) = self.topics.entry(topic)
        {
            slots.get_mut().retain(|&s| s != slot);
            if slots.get().is_empty() {
                slots.remove();
            }
        }
        self.close_if_idle(slot)
    }

    fn receive(&mut self, slot: u32, buffer: u16, len: usize) {
        let Self { ring, connections, dirty, topics, .. } = self;
        let bytes = ring.received(buffer, len);
        let mut mark = |connection: &mut Connection, slot: u32| {
            if connection.open && !connection.dirty {
                connection.dirty = true;
                dirty.push(slot);
            }
        };
        let is_publish = PacketType::from_bits(bytes[0] >> 4) == Some(PacketType::Publish);
        if is_publish && connections[slot as usize].targets.is_none() {
            let version = connections[slot as usize].version.unwrap_or(Version::V311);
            let topic = topic_of(bytes, version).unwrap_or_default();
            let targets = topics.get(topic).cloned().unwrap_or_default();
            connections[slot as usize].targets = Some(targets);
        }
        // DISCONNECT and PINGREQ come in buffers of their own, or their bytes go where the rest
        // goes: the floor does not look.
        let quiet = bytes == [0xE0, 0] || bytes == [0xC0, 0];
        match connections[slot as usize].targets.take() {
            Some(targets) if !quiet => {
                for &target in &targets {
                    let connection = &mut connections[target as usize];
                    if connection.open {
                        connection.pending.extend_from_slice(bytes);
                        mark(connection, target);
                    }
                }
                connections[slot as usize].targets = Some(targets);
            }
            Some(targets) => connections[slot as usize].targets = Some(targets),
            None => {
                let connection = &mut connections[slot as usize];
                if let Some(topic) = answer(connection, bytes) {
                    connection.topic = Some(topic.clone());
                    topics.entry(topic).or_default().push(slot);
                }
                mark(connection, slot);
            }
        }
    }

    fn start_send(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if connection.sending || !connection.open || connection.pending.is_empty() {
            return Ok(());
        }
        std::mem::swap(&mut connection.inflight, &mut connection.pending);
        connection.pending.clear();
        connection.sending = true;
        let (bytes, len) = (connection.inflight.as_ptr(), connection.inflight.len());
        // SAFETY: `inflight` rests until `on_send`, guarded by `sending`; a slot is used again only
        // after `close_if_idle`, which waits for it.
        unsafe { self.ring.push(&[send(slot, bytes, len, SEND | u64::from(slot))]) }
    }

    fn on_send(&mut self, slot: u32) -> io::Result<()> {
        self.connections[slot as usize].sending = false;
        if self.connections[slot as usize].ended {
            return self.close_if_idle(slot);
        }
        self.start_send(slot)
    }

    fn close_if_idle(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        if connection.sending || !connection.ended {
            return Ok(());
        }
        connection.ended = false;
        let entry = opcode::Close::new(types::Fixed(slot)).build().user_data(OTHER);
        // SAFETY: the entry points at nothing.
        unsafe { self.ring.push(&[entry]) }
    }
}

/// The options that the broker's listener has by default, which its connections inherit: answers
/// leave at once (TCP_NODELAY), and a connection is accepted when its first bytes are there
/// (TCP_DEFER_ACCEPT, after a second all the same).
fn as_the_broker_listens(listener: &TcpListener) -> io::Result<()> {
    for option in [libc::TCP_NODELAY, libc::TCP_DEFER_ACCEPT] {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int that lives on this stack.
        let done = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn topic_of(bytes: &[u8], version: Version) -> Option<&str> {
    let rules = Rules { strict_utf8: false };
    let h = header(bytes, false).ok()??;
    let body = bytes.get(usize::from(h.len)..h.total_len())?;
    Some(decode_publish(h, body, version, Role::Server, &rules).ok()?.topic)
}

/// Answers CONNECT, SUBSCRIBE and PINGREQ; gives the filter of a SUBSCRIBE.
fn answer(connection: &mut Connection, bytes: &[u8]) -> Option<String> {
    let rules = Rules { strict_utf8: false };
    let h = header(bytes, false).ok()??;
    let body = bytes.get(usize::from(h.len)..h.total_len())?;
    let version = connection.version.unwrap_or(Version::V5);
    match decode(h, body, version, Role::Server, &rules).ok()? {
        Packet::Connect(connect) => {
            connection.version = Some(connect.version);
            let answer: &[u8] =
                if connect.version.is_v5() { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] };
            connection.pending.extend_from_slice(answer);
            None
        }
        Packet::Subscribe(subscribe) => {
            let [hi, lo] = subscribe.packet_id.get().to_be_bytes();
            if version.is_v5() {
                connection.pending.extend_from_slice(&[0x90, 4, hi, lo, 0, 0]);
            } else {
                connection.pending.extend_from_slice(&[0x90, 3, hi, lo, 0]);
            }
            subscribe.filters.iter().next().map(|(filter, _)| filter.to_owned())
        }
        Packet::PingReq => {
            connection.pending.extend_from_slice(&[0xD0, 0]);
            None
        }
        _ => None,
    }
}
