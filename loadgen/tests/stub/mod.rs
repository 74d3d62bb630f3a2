//! A server that speaks just enough MQTT to be wrong in chosen ways: topics are compared as text,
//! messages go on as they came, and sessions, retained messages and wills do not exist.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ringmain_mqtt::{Header, Packet, PacketType, Role, Rules, Version, decode, encode, header};

/// What the server does wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Every so many messages one is dropped.
    pub(crate) drop_each: Option<u64>,
    /// Every so many messages one is delivered twice.
    pub(crate) double_each: Option<u64>,
    /// Every so many messages one changes places with its successor.
    pub(crate) swap_each: Option<u64>,
    /// The first connections are closed without a word.
    pub(crate) refuse_first: u64,
    /// Message number and how long the server sleeps before it.
    pub(crate) stall: Option<(u64, Duration)>,
    /// How long a silent connection is kept.
    pub(crate) patience: Option<Duration>,
}

#[derive(Default)]
struct Shared {
    subscribers: HashMap<String, Vec<TcpStream>>,
    messages: u64,
    held_back: Option<Vec<u8>>,
    connections: u64,
}

/// Starts a server and says where it listens. It ends with the process.
pub(crate) fn serve(faults: Faults) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let shared = Arc::new(Mutex::new(Shared::default()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = shared.clone();
            thread::spawn(move || {
                let _ = talk(stream, &shared, faults);
            });
        }
    });
    address
}

fn talk(mut stream: TcpStream, shared: &Mutex<Shared>, faults: Faults) -> io::Result<()> {
    {
        let mut shared = shared.lock().expect("no thread panics");
        shared.connections += 1;
        if shared.connections <= faults.refuse_first {
            return Ok(());
        }
    }
    stream.set_nodelay(true)?;
    stream.set_read_timeout(faults.patience)?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 65_536]);
    loop {
        while let Some(h) = header(&bytes, false).ok().flatten() {
            if bytes.len() < h.total_len() {
                break;
            }
            let packet: Vec<u8> = bytes.drain(..h.total_len()).collect();
            answer(&mut stream, h, &packet, shared, faults)?;
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

fn answer(
    stream: &mut TcpStream,
    h: Header,
    packet: &[u8],
    shared: &Mutex<Shared>,
    faults: Faults,
) -> io::Result<()> {
    let body = &packet[usize::from(h.len)..];
    let rules = Rules { strict_utf8: false };
    let mut out = Vec::new();
    match decode(h, body, Version::V5, Role::Server, &rules) {
        Ok(Packet::Connect(_)) => out.extend_from_slice(&[0x20, 3, 0, 0, 0]),
        Ok(Packet::Subscribe(s)) => {
            let mut shared = shared.lock().expect("no thread panics");
            let mut reasons = Vec::new();
            for (filter, options) in s.filters.iter() {
                // A group's members all get everything: that is wrong, too.
                let bare = filter.strip_prefix("$share/").and_then(|f| f.split_once('/'));
                let topic = bare.map_or(filter, |(_, topic)| topic).to_owned();
                shared.subscribers.entry(topic).or_default().push(stream.try_clone()?);
                reasons.push(options.qos as u8);
            }
            encode::suback(&mut out, Version::V5, s.packet_id, &reasons);
        }
        Ok(Packet::Publish(p)) => {
            if let Some(id) = p.packet_id {
                let success = ringmain_mqtt::ReasonCode::SUCCESS;
                encode::ack(&mut out, Version::V5, PacketType::PubAck, id, success, None);
            }
            deliver(p.topic, packet, &mut shared.lock().expect("no thread panics"), faults);
        }
        Ok(Packet::PingReq) => encode::pingresp(&mut out),
        _ => {}
    }
    stream.write_all(&out)
}

fn deliver(topic: &str, packet: &[u8], shared: &mut Shared, faults: Faults) {
    shared.messages += 1;
    let n = shared.messages;
    let is = |each: Option<u64>| each.is_some_and(|each| n.is_multiple_of(each));
    if let Some((_, pause)) = faults.stall.filter(|&(at, _)| at == n) {
        thread::sleep(pause);
    }
    let before = shared.held_back.take();
    let mut all: Vec<&[u8]> = Vec::new();
    if is(faults.swap_each) && before.is_none() {
        shared.held_back = Some(packet.to_vec());
        return;
    }
    if !is(faults.drop_each) {
        all.push(packet);
    }
    if is(faults.double_each) {
        all.push(packet);
    }
    all.extend(before.as_deref());
    for subscriber in shared.subscribers.get_mut(topic).into_iter().flatten() {
        for bytes in &all {
            let _ = subscriber.write_all(bytes);
        }
    }
}
