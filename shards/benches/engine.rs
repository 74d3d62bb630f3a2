//! The pure engine, from bytes in to bytes out, without a socket: what Ringmain itself adds to what
//! the kernel takes.
//!
//! ```sh
//! cargo bench -p ringmain-shards --bench engine                     # ns
//! cargo bench -p ringmain-shards --bench engine -- --instructions   # also instructions (valgrind)
//! cargo bench -p ringmain-shards --bench engine -- --counts         # instructions alone, as data
//! cargo bench -p ringmain-shards --bench engine -- --counts shards-8 # of these
//! ```
//!
//! Times depend on the machine and on who else uses it. Instruction counts do not: `cargo xtask ci
//! instructions` compares those with benches/instructions.toml.

mod sharded;
mod steps;

use std::hint::black_box;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use ringmain_acl::{Effect, Policy, Settings, Source};
use ringmain_mqtt::Version;
use ringmain_shards::engine::config::EngineConfig;
use ringmain_shards::engine::effects::{Effects, Op};
use ringmain_shards::engine::ids::{ConnId, Now, Peer, ShardId};
use ringmain_shards::engine::input::{CloseCause, Input};
use ringmain_shards::engine::node::NodeShared;
use ringmain_shards::engine::{Machine, Shard};

const HASH_SEED: u64 = 7;
/// Messages of one turn, as a busy ring hands them out.
const TURN: usize = 16;
/// Pairs of a publisher and a subscriber.
const PAIRS: usize = 100;
/// Rules of a node that has some.
const RULES: usize = 1000;
/// Subscribers of the fan-out.
const FAN: usize = 1000;
/// Operations of a measurement by time, and of one under valgrind.
const TIMED: usize = 400_000;
const COUNTED: usize = 8_000;

/// A scenario: its name, what one operation is, and how it is set up.
type Scenario = (&'static str, &'static str, fn() -> Bench);

const SCENARIOS: [Scenario; 23] = [
    ("p2p-qos0", "publish → deliver, QoS 0", || p2p(0, 1)),
    ("p2p-rules", "the same by one of 1,000 rules", || Bench::new(ruled_pairs(), in_turns)),
    ("burst-rules", "burst-qos0 by one of 1,000 rules", || burst_of(ruled_pairs())),
    ("p2p-qos1", "publish → deliver, QoS 1, with both PUBACKs", || p2p(1, 1)),
    ("cross-qos0", "publish → mail → deliver, QoS 0", || p2p(0, 2)),
    ("burst-qos0", "16 publishes in one receive, each", burst),
    ("fanout-qos0", "one delivery of 1,000", fan_out),
    ("connect", "connect, subscribe, disconnect", connects),
    ("decode-v311", "decode a PUBLISH, MQTT 3.1.1", || {
        step(1, steps::decode_publish(Version::V311))
    }),
    ("decode-v5", "decode a PUBLISH, MQTT 5", || step(1, steps::decode_publish(Version::V5))),
    ("encode-v5", "encode the head of a PUBLISH", || step(1, steps::encode_publish(Version::V5))),
    ("route-lookup", "shards for a topic, 20,000 routes", || {
        step(steps::TOPICS, steps::route_lookup())
    }),
    ("route-churn", "a route in and out", || step(1, steps::route_churn())),
    ("index-match", "subscriptions for a topic, 20,000 filters", || {
        step(steps::TOPICS, steps::index_matches())
    }),
    ("wheel-rearm", "a timer set anew among 100,000", || step(1, steps::wheel_rearm())),
    ("mail-hop-16", "a message in a batch of 16", || step(16, steps::mail_hop(16))),
    ("shards-1", "publish → deliver, 16 a turn", || sharded::crossing(1)),
    ("shards-2", "crossing, 16 publishes a turn of each of 2 shards", || sharded::crossing(2)),
    ("shards-4", "… of 4 shards", || sharded::crossing(4)),
    ("shards-8", "… of 8 shards", || sharded::crossing(8)),
    ("shards-16", "… of 16 shards", || sharded::crossing(16)),
    ("shards-32", "… of 32 shards", || sharded::crossing(32)),
    ("shards-64", "… of 64 shards", || sharded::crossing(64)),
];

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [flag, name] = args.as_slice()
        && flag == "--counted"
    {
        let (.., make) = SCENARIOS.iter().find(|(n, ..)| n == name).expect("a scenario");
        let mut bench = make();
        (bench.0)(COUNTED / 4); // warm
        println!("{}", measured(&mut bench, COUNTED));
        return;
    }
    if let Some((flag, names)) = args.split_first()
        && flag == "--counts"
    {
        let wanted = |name: &str| names.is_empty() || names.iter().any(|n| n == name);
        for (name, ..) in SCENARIOS.into_iter().filter(|(name, ..)| wanted(name)) {
            println!("{name} = {}", count(name));
        }
        return;
    }
    let instructions = args.iter().any(|a| a == "--instructions");
    println!("{:<14} {:>10} {:>14}  one operation", "scenario", "ns", "instructions");
    for (name, what, make) in SCENARIOS {
        let mut bench = make();
        measured(&mut bench, TIMED / 8); // warm
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = cpu_ns();
            let done = measured(&mut bench, TIMED);
            best = best.min((cpu_ns() - start) as f64 / done as f64);
        }
        let count = if instructions { count(name) } else { "-".to_owned() };
        println!("{name:<14} {best:>10.0} {count:>14}  {what}");
    }
}

/// Time that this thread ran on a core.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds")
}

/// Instructions of one operation, by running this program under callgrind.
fn count(name: &str) -> String {
    let me = std::env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*measured*", "--callgrind-out-file=/dev/null"])
        .arg(me)
        .args(["--counted", name])
        .output();
    let Ok(output) = output else { return "no valgrind".to_owned() };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let total =
        text.lines().find_map(|l| l.split("Collected :").nth(1)?.trim().parse::<f64>().ok());
    // Steps that do many at a time do a few more than asked for.
    let done: Option<f64> = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    total.zip(done).map_or("?".to_owned(), |(n, done)| format!("{:.0}", n / done))
}

/// What callgrind counts. Operations done.
#[inline(never)]
fn measured(bench: &mut Bench, operations: usize) -> usize {
    (bench.0)(operations)
}

/// Does so many operations, or a few more; says how many.
struct Bench(Box<dyn FnMut(usize) -> usize>);

impl Bench {
    fn new(mut world: World, round: fn(&mut World, usize) -> usize) -> Self {
        Self(Box::new(move |operations| round(&mut world, operations)))
    }
}

/// A step that does `each` operations at a time.
fn step(each: usize, mut once: impl FnMut() + 'static) -> Bench {
    Bench(Box::new(move |operations| {
        let rounds = operations.div_ceil(each);
        (0..rounds).for_each(|_| once());
        rounds * each
    }))
}

/// Shards, their scratch, and what clients have to say.
struct World {
    shards: Vec<Shard>,
    fx: Vec<Effects>,
    now: Now,
    /// What each publisher sends: shard, connection, packet.
    publishes: Vec<(usize, ConnId, Vec<u8>)>,
    next_conn: Vec<u32>,
    sent: Vec<(ConnId, u32)>,
    acks: Vec<(ConnId, [u8; 4])>,
    serial: u32,
}

impl World {
    fn new(shards: usize) -> Self {
        Self::with(shards, EngineConfig::default())
    }

    fn with(shards: usize, mut cfg: EngineConfig) -> Self {
        cfg.sys.interval_s = 0;
        cfg.sys.heartbeat_s = 0;
        let shared = Arc::new(NodeShared::new(shards, HASH_SEED, 1_700_000_000_000, &cfg));
        let cfg = Arc::new(cfg);
        let now = Now { mono_ns: 1_000_000_000, unix_ms: 1_700_000_001_000 };
        let shard = |i| Shard::new(ShardId(i), Arc::clone(&cfg), Arc::clone(&shared), 42, now);
        Self {
            shards: (0..shards as u16).map(shard).collect(),
            fx: (0..shards).map(|_| Effects::new(shards)).collect(),
            now,
            publishes: Vec::new(),
            next_conn: vec![0; shards],
            sent: Vec::new(),
            acks: Vec::new(),
            serial: 0,
        }
    }

    fn feed(&mut self, shard: usize, input: Input<'_>) {
        self.shards[shard].handle(self.now, input, &mut self.fx[shard]);
    }

    /// Ends the turn of a shard: sockets take all they get, subscribers acknowledge QoS 1, mail is
    /// handed over.
    fn end_turn(&mut self, shard: usize) {
        self.feed(shard, Input::TurnEnd);
        let fx = &mut self.fx[shard];
        for op in &fx.ops {
            if let Op::Write { conn, at, len } = *op {
                let bytes = &fx.arena[at as usize..(at + len) as usize];
                black_box(bytes.as_ptr());
                // A PUBLISH with QoS 1: its packet id lies behind the topic.
                if bytes[0] & 0xF6 == 0x32 {
                    let topic = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                    let id = [bytes[4 + topic], bytes[5 + topic]];
                    self.acks.push((conn, [0x40, 2, id[0], id[1]]));
                }
                self.sent.push((conn, len));
            }
        }
        let mut mail: Vec<_> = fx.mail.iter_mut().map(std::mem::take).collect();
        fx.clear();
        for (to, mail) in mail.iter_mut().enumerate().filter(|(_, m)| !m.is_empty()) {
            let from = ShardId(shard as u16);
            for one in mail.mail.drain(..) {
                self.feed(to, Input::Mail { from, mail: one, packed: &mail.packed });
            }
            mail.clear();
            self.end_turn(to);
        }
        for (list, mail) in self.fx[shard].mail.iter_mut().zip(mail) {
            *list = mail;
        }
        while let Some((conn, bytes)) = self.sent.pop() {
            self.feed(shard, Input::Sent { conn, bytes });
        }
        while let Some((conn, bytes)) = self.acks.pop() {
            self.feed(shard, Input::Data { conn, bytes: &bytes });
        }
        self.fx[shard].clear();
    }

    /// A connected client whose home is `shard`.
    fn connect(&mut self, shard: usize) -> ConnId {
        let id = loop {
            self.serial += 1;
            let id = format!("client-{:08}", self.serial);
            if Shard::home(&id, HASH_SEED, self.shards.len()).index() == shard {
                break id;
            }
        };
        let conn = ConnId { index: self.next_conn[shard], generation: 0 };
        self.next_conn[shard] += 1;
        self.open(shard, conn, &id);
        conn
    }

    fn open(&mut self, shard: usize, conn: ConnId, client_id: &str) {
        let addr = SocketAddr::from(([127, 0, 0, 1], 40_000));
        self.feed(shard, Input::Open { conn, peer: Peer { addr, listener: 0 }, proxied: false });
        let body = [b"\0\x04MQTT\x04\x02\0\x3c", &field(client_id)[..]].concat();
        self.feed(shard, Input::Data { conn, bytes: &packet(0x10, &body) });
    }

    fn subscribe(&mut self, shard: usize, conn: ConnId, filter: &str, qos: u8) {
        let body = [&[0, 1][..], &field(filter), &[qos]].concat();
        self.feed(shard, Input::Data { conn, bytes: &packet(0x82, &body) });
    }
}

fn field(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128, "one byte of length");
    [&[first, body.len() as u8], body].concat()
}

fn publish(topic: &str, qos: u8) -> Vec<u8> {
    let id: &[u8] = if qos > 0 { &[0, 7] } else { &[] };
    packet(0x30 | qos << 1, &[&field(topic)[..], id, &[b'x'; 42]].concat())
}

/// Pairs; with two shards each pair crosses.
fn p2p(qos: u8, shards: usize) -> Bench {
    Bench::new(pairs(qos, shards), in_turns)
}

/// Each pair may have its topic by a rule of its own, and nothing else. What was decided is kept. (AZ05)
fn ruled_pairs() -> World {
    let rule = |n: usize| format!("{{allow, all, all, [\"bench/pair/{n:05}/+\"]}}.\n");
    let rules: String = (0..RULES).rev().map(rule).collect();
    let source = Source::emqx("rules", &rules).expect("valid");
    let policy = Policy::compile(1, vec![source], Settings::new(Effect::Deny));
    let cfg = EngineConfig { policy, ..EngineConfig::default() };
    pairs_in(World::with(1, cfg), 0)
}

fn pairs(qos: u8, shards: usize) -> World {
    pairs_in(World::new(shards), qos)
}

fn pairs_in(mut world: World, qos: u8) -> World {
    let shards = world.shards.len();
    for pair in 0..PAIRS {
        let (home, from) = (pair % shards, (pair + 1) % shards);
        let topic = format!("bench/pair/{pair:05}/data");
        let subscriber = world.connect(home);
        world.subscribe(home, subscriber, &topic, qos);
        let publisher = world.connect(from);
        world.publishes.push((from, publisher, publish(&topic, qos)));
        (0..shards).for_each(|s| world.end_turn(s));
    }
    world.publishes.sort_by_key(|(shard, ..)| *shard);
    world
}

/// All publish once, so many in a turn, until it is enough.
fn in_turns(world: &mut World, operations: usize) -> usize {
    let publishes = std::mem::take(&mut world.publishes);
    let mut done = 0;
    while done < operations {
        for turn in publishes.chunks(TURN) {
            for (shard, conn, bytes) in turn {
                world.feed(*shard, Input::Data { conn: *conn, bytes });
            }
            done += turn.len();
            (0..world.shards.len()).for_each(|s| world.end_turn(s));
        }
    }
    world.publishes = publishes;
    done
}

/// Pairs whose publishers have 16 packets in one receive.
fn burst() -> Bench {
    burst_of(pairs(0, 1))
}

fn burst_of(mut world: World) -> Bench {
    world.publishes.iter_mut().for_each(|(.., bytes)| *bytes = bytes.repeat(TURN));
    Bench::new(world, |world, operations| {
        let publishes = std::mem::take(&mut world.publishes);
        let mut done = 0;
        while done < operations {
            for turn in publishes.chunks(4) {
                for (shard, conn, bytes) in turn {
                    world.feed(*shard, Input::Data { conn: *conn, bytes });
                }
                done += turn.len() * TURN;
                world.end_turn(0);
            }
        }
        world.publishes = publishes;
        done
    })
}

fn fan_out() -> Bench {
    let mut world = World::new(1);
    for _ in 0..FAN {
        let subscriber = world.connect(0);
        world.subscribe(0, subscriber, "bench/fan", 0);
        world.end_turn(0);
    }
    let publisher = world.connect(0);
    world.end_turn(0);
    world.publishes.push((0, publisher, publish("bench/fan", 0)));
    let round = |world: &mut World, operations: usize| {
        let (shard, conn, bytes) = world.publishes.pop().expect("one publisher");
        let mut done = 0;
        while done < operations {
            world.feed(shard, Input::Data { conn, bytes: &bytes });
            world.end_turn(shard);
            done += FAN;
        }
        world.publishes.push((shard, conn, bytes));
        done
    };
    Bench::new(world, round)
}

fn connects() -> Bench {
    let round = |world: &mut World, operations: usize| {
        let mut done = 0;
        while done < operations {
            let generation = world.serial;
            world.serial += 1;
            for index in 0..TURN as u32 {
                let conn = ConnId { index, generation };
                world.open(0, conn, &format!("client-{index:05}"));
                world.subscribe(0, conn, &format!("bench/idle/{index}/all"), 0);
            }
            world.end_turn(0);
            for index in 0..TURN as u32 {
                let conn = ConnId { index, generation };
                world.feed(0, Input::Data { conn, bytes: &[0xE0, 0] });
                world.feed(0, Input::Closed { conn, cause: CloseCause::PeerFin });
            }
            world.end_turn(0);
            done += TURN;
        }
        done
    };
    Bench::new(World::new(1), round)
}
