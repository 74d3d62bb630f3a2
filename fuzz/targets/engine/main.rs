//! One to three engines with their mail, clients that send valid, mutated and arbitrary packets,
//! time that passes in jumps, sockets that end, orders of the control plane.
//!
//! Beyond "no panic, no failed assertion": operations name connections that exist, nothing is
//! written to one that is closed, a connection that moves was never written to, and at the end every
//! copy of a message is accounted for and every connection has left the admission tables.
#![no_main]

mod node;
mod packets;

use libfuzzer_sys::fuzz_target;
use ringmain_shards::boundary::{Control, Pressure};
use ringmain_shards::engine::config::{
    EngineConfig, Overlap, QueueDropPolicy, Redispatch, SlowConsumerPolicy, Strategy,
};
use ringmain_shards::engine::input::CloseCause;

use node::Node;
use packets::{Bytes, CLIENT_IDS, packet};

/// Steps of one input: longer ones find nothing that shorter ones do not.
const STEPS_MAX: usize = 400;

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let first = bytes.byte();
    let shards = usize::from(first % 3) + 1;
    let mut cfg = config(&mut bytes);
    cfg.listeners[0].authenticate = first & 0x80 != 0;
    let mut node = Node::new(shards, cfg);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        step(&mut node, &mut bytes);
    }
    node.end();
});

fn config(bytes: &mut Bytes<'_>) -> EngineConfig {
    let (a, b, c) = (bytes.byte(), bytes.byte(), bytes.byte());
    let mut cfg = EngineConfig::default();
    cfg.sys.interval_s = if a & 1 == 0 { 0 } else { 5 };
    cfg.sys.v4_dots = a & 2 != 0;
    let m = &mut cfg.mqtt;
    m.max_packet_size = if a & 4 == 0 { 1 << 20 } else { 256 };
    m.max_mqueue_len = if a & 8 == 0 { 1000 } else { 2 };
    m.max_inflight = if a & 16 == 0 { 32 } else { 1 };
    m.mqueue_store_qos0 = a & 32 != 0;
    m.upgrade_qos = a & 64 != 0;
    m.overlap = if a & 128 == 0 { Overlap::Merge } else { Overlap::Each };
    m.mqueue_drop_policy =
        [QueueDropPolicy::Oldest, QueueDropPolicy::Newest, QueueDropPolicy::Reject]
            [usize::from(b % 3)];
    m.retry_interval_s = if b & 4 == 0 { 0 } else { 2 };
    m.max_awaiting_rel = if b & 8 == 0 { 100 } else { 1 };
    m.receive_maximum = if b & 16 == 0 { 100 } else { 2 };
    m.max_connection_lifetime_s = if b & 32 == 0 { 0 } else { 60 };
    m.message_expiry_default_s = if b & 64 == 0 { 0 } else { 3 };
    m.ignore_loop_deliver = b & 128 != 0;
    cfg.limits.out_buffer_bytes = if c & 1 == 0 { 1 << 20 } else { 64 };
    cfg.limits.slow_consumer_grace_s = 5;
    if c & 2 != 0 {
        cfg.limits.slow_consumer_policy = SlowConsumerPolicy::Disconnect;
    }
    cfg.shared.max_group_queue_len = if c & 4 == 0 { 10_000 } else { 1 };
    if c & 8 != 0 {
        cfg.shared.redispatch = Redispatch::OnSessionEnd;
    }
    cfg.shared.strategy = [
        Strategy::Random,
        Strategy::RoundRobin,
        Strategy::RoundRobinPerGroup,
        Strategy::Sticky,
        Strategy::Local,
        Strategy::HashClientId,
        Strategy::HashTopic,
        Strategy::LeastInflight,
    ][usize::from(c >> 4) % 8];
    cfg.retained.max_messages = if c & 128 == 0 { 0 } else { 2 };
    cfg
}

fn step(node: &mut Node, bytes: &mut Bytes<'_>) {
    let what = bytes.byte();
    let which = usize::from(bytes.byte());
    if what & 0x40 != 0 {
        node.decide(which, bytes.byte());
    }
    match what % 16 {
        0 => node.open(which),
        // A connection with its CONNECT: without one nothing else happens.
        1 | 2 => {
            node.open(which);
            let connect = packets::connect(bytes);
            node.data_newest(&connect);
        }
        3..=8 => {
            let packet = packet(bytes);
            node.data(which, &packet);
        }
        // Packets in pieces and several at a time.
        9 => {
            let mut stream = packet(bytes);
            stream.extend(packet(bytes));
            let (head, tail) = stream.split_at(usize::from(bytes.byte()) % stream.len().max(1));
            node.data(which, head);
            node.data(which, tail);
        }
        10 => {
            let len = usize::from(bytes.byte() % 32);
            node.data(which, bytes.take(len));
        }
        11 => node.pass_ms([1, 50, 999, 1_000, 7_000, 60_000, 7_300_000][which % 7]),
        12 => {
            let causes = [CloseCause::PeerFin, CloseCause::Error(104)];
            node.hang_up(which, causes[usize::from(bytes.byte() % 2)]);
        }
        13 => node.sent(which, bytes.byte()),
        14 => node.lane(which, bytes.byte()),
        _ => node.control(which, order(bytes)),
    }
    // Some mail stays under way, so that things happen in between.
    if what & 0x80 == 0 {
        node.deliver_all();
    } else {
        node.deliver_one(which);
    }
}

fn order(bytes: &mut Bytes<'_>) -> Option<Control> {
    let which = bytes.byte();
    let client_id = || CLIENT_IDS[usize::from(which >> 4) % CLIENT_IDS.len()].into();
    Some(match which % 8 {
        0 => Control::Pressure(Pressure::Normal),
        1 => Control::Pressure(Pressure::High),
        2 => Control::Pressure(Pressure::Critical),
        3 => Control::Kick {
            client_id: client_id(),
            reason: 0x98,
            discard_session: which & 8 != 0,
            token: 1,
        },
        4 => Control::DumpSession { client_id: client_id(), token: 2 },
        5 => Control::Stats { token: 3 },
        // Rare: nothing comes after it.
        6 if which == 0xf6 => Control::Drain,
        7 => Control::DescriptorsScarce(which & 8 != 0),
        _ => return None,
    })
}
