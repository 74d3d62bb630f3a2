//! Clients that nobody would wish for, many at a time, against the real binary. Each test says what
//! they get, that others do not notice, and that nothing of them stays.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringmain_limits::Broker;

/// Longest wait for an answer. Not a claim about speed: an answer that never comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A v3.1.1 client made of bytes.
struct Raw(TcpStream);

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let more = len >= 128;
        out.push((len % 128) as u8 | if more { 128 } else { 0 });
        len /= 128;
        if !more {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(s: &str) -> Vec<u8> {
    [&(s.len() as u16).to_be_bytes(), s.as_bytes()].concat()
}

fn connect(id: &str, keep_alive_s: u16) -> Vec<u8> {
    let head = [&text("MQTT")[..], &[4, 2], &keep_alive_s.to_be_bytes(), &text(id)].concat();
    packet(0x10, &head)
}

fn subscribe(filters: &[String], qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    for filter in filters {
        body.extend(text(filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&text(topic), payload].concat())
}

impl Raw {
    fn open(broker: &Broker) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", broker.port())).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket option");
        Self(stream)
    }

    fn connected(broker: &Broker, id: &str) -> Self {
        let mut client = Self::open(broker);
        client.send(&connect(id, 600));
        assert_eq!(client.next().expect("CONNACK"), (0x20, vec![0, 0]));
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the broker reads");
    }

    /// First byte and body of the next packet.
    fn next(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        let first = byte[0];
        let (mut len, mut shift) = (0usize, 0);
        loop {
            self.0.read_exact(&mut byte)?;
            len |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body)?;
        Ok((first, body))
    }

    /// Subscribes; all filters must be granted.
    fn subscribed(&mut self, filters: &[String], qos: u8) {
        self.send(&subscribe(filters, qos));
        let (first, body) = self.next().expect("SUBACK");
        assert_eq!((first, body.len()), (0x90, 2 + filters.len()));
        assert!(body[2..].iter().all(|granted| *granted == qos), "all are granted");
    }

    /// The payload of the next PUBLISH of QoS 0.
    fn message(&mut self) -> Vec<u8> {
        let (first, body) = self.next().expect("a message");
        assert_eq!(first, 0x30);
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        body[2 + topic..].to_vec()
    }

    /// The broker answers, and nothing else came before.
    fn ping(&mut self) {
        self.send(&[0xc0, 0]);
        assert_eq!(self.next().expect("PINGRESP"), (0xd0, vec![]));
    }

    /// Whether the broker has closed, whatever it said before.
    fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 512];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return e.kind() == io::ErrorKind::ConnectionReset,
            }
        }
    }
}

/// Two clients that talk while `trouble` happens; all of their messages arrive, in order.
fn others_talk_during<T>(broker: &Broker, trouble: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    let mut listener = Raw::connected(broker, "bystander-listens");
    listener.subscribed(&["bystander/+".to_owned()], 0);
    let mut speaker = Raw::connected(broker, "bystander-speaks");
    std::thread::scope(|s| {
        let talk = s.spawn(|| {
            let mut n = 0u64;
            while !done.load(Ordering::Relaxed) || n < 20 {
                speaker.send(&publish("bystander/said", n.to_string().as_bytes()));
                assert_eq!(listener.message(), n.to_string().as_bytes());
                n += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            n
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(trouble));
        done.store(true, Ordering::Relaxed);
        println!("{} messages between others", talk.join().expect("others are not disturbed"));
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Runs `trouble` twice; what the second leaves is growth. (The first leaves what is used again.)
fn nothing_stays(broker: &Broker, growth_max: u64, mut trouble: impl FnMut()) {
    warm_up(broker);
    others_talk_during(broker, &mut trouble);
    assert_eq!(broker.connections(1).expect("$SYS answers"), 1);
    let before = broker.sample();
    others_talk_during(broker, &mut trouble);
    assert_eq!(broker.connections(1).expect("$SYS answers"), 1);
    let after = broker.sample();
    assert_eq!(after.descriptors, before.descriptors, "descriptors come back");
    let grown = after.anonymous.saturating_sub(before.anonymous);
    println!("{grown} bytes more, CPU {} ms", (after.cpu_ns - before.cpu_ns) / 1_000_000);
    assert!(grown <= growth_max, "anonymous memory grew by {grown} bytes");
}

/// Has each shard touch all of its 4096 receive buffers: twice as many pings, one a receive.
fn warm_up(broker: &Broker) {
    let mut clients: Vec<_> =
        (0..16).map(|n| Raw::connected(broker, &format!("warm-{n}"))).collect();
    for _ in 0..1200 {
        clients.iter_mut().for_each(|c| c.send(&[0xc0, 0]));
        for client in &mut clients {
            assert_eq!(client.next().expect("PINGRESP").0, 0xd0);
        }
    }
}

#[test]
#[ignore = "15,000 clients: run tests/limits/run.sh"]
fn one_publish_reaches_fifteen_thousand_subscribers_who_then_leave_at_once() {
    let broker = Broker::start(24_101, 2);
    let filter = ["crowd/+".to_owned()];
    nothing_stays(&broker, 8 << 20, || {
        let mut crowd: Vec<Raw> = (0..15_000)
            .map(|n| {
                let mut client = Raw::open(&broker);
                client.send(&[connect(&format!("crowd-{n}"), 600), subscribe(&filter, 0)].concat());
                client
            })
            .collect();
        for client in &mut crowd {
            assert_eq!(client.next().expect("CONNACK").0, 0x20);
            assert_eq!(client.next().expect("SUBACK"), (0x90, vec![0, 1, 0]));
        }
        Raw::connected(&broker, "crowd-speaker").send(&publish("crowd/all", b"one for each"));
        for client in &mut crowd {
            assert_eq!(client.message(), b"one for each");
        }
        drop(crowd);
    });
    broker.stop();
}

#[test]
#[ignore = "minutes with the others: run tests/limits/run.sh"]
fn ten_thousand_subscriptions_of_one_client_are_granted_served_and_forgotten() {
    let broker = Broker::start(24_102, 2);
    nothing_stays(&broker, 8 << 20, || {
        let mut client = Raw::connected(&broker, "collector");
        for part in 0..10 {
            let filters: Vec<_> = (0..1000).map(|n| format!("collect/{part}/{n}")).collect();
            client.subscribed(&filters, 0);
        }
        let mut speaker = Raw::connected(&broker, "speaker");
        for n in (0..10_000).step_by(37) {
            let topic = format!("collect/{}/{}", n / 1000, n % 1000);
            speaker.send(&publish(&topic, topic.as_bytes()));
            assert_eq!(client.message(), topic.as_bytes());
        }
        speaker.send(&publish("collect/10/0", b"nobody asked"));
        speaker.ping();
        client.ping();
    });
    broker.stop();
}

/// Filters of thousands of different shapes: which levels are `+`, and whether it ends in `#`.
fn shapes() -> Vec<String> {
    (0..2048u32)
        .flat_map(|bits| {
            let levels: Vec<_> =
                (0..11).map(|l| if bits >> l & 1 == 1 { "+" } else { "x" }).collect();
            let filter = levels.join("/");
            [format!("{filter}/#"), filter]
        })
        .collect()
}

#[test]
#[ignore = "minutes with the others: run tests/limits/run.sh"]
fn four_thousand_wildcard_shapes_and_topics_of_128_levels_are_matched() {
    let broker = Broker::start(24_103, 2);
    nothing_stays(&broker, 8 << 20, || {
        let mut client = Raw::connected(&broker, "shapes");
        for filters in shapes().chunks(512) {
            client.subscribed(filters, 0);
        }
        let deep = vec!["d"; 128].join("/");
        let plus = vec!["+"; 128].join("/");
        let mut diver = Raw::connected(&broker, "diver");
        diver.subscribed(&[plus, deep.clone()], 0);
        let mut speaker = Raw::connected(&broker, "speaker");
        // Every filter matches it, and a client gets a copy once (overlap = merge).
        speaker.send(&publish(&["x"; 11].join("/"), b"all"));
        assert_eq!(client.message(), b"all");
        // None but the filters whose first level is `+` do, and those that have more levels don't.
        speaker.send(&publish(&["y", "x", "x"].join("/"), b"none"));
        client.ping();
        speaker.send(&publish(&deep, b"deep"));
        assert_eq!(diver.message(), b"deep");
        diver.ping();
        // One level more than is allowed: closed, and only the sender.
        let mut wrong = Raw::connected(&broker, "too-deep");
        wrong.send(&publish(&vec!["d"; 129].join("/"), b""));
        assert!(wrong.is_closed());
        diver.ping();
    });
    broker.stop();
}

#[test]
#[ignore = "10,000 sockets: run tests/limits/run.sh"]
fn ten_thousand_sockets_that_say_nothing_are_closed_and_counted() {
    // W12, L08
    let broker = Broker::start_with(24_104, 2, &["mqtt.connect_timeout_ms=3000"]);
    nothing_stays(&broker, 8 << 20, || {
        let mut silent: Vec<_> = (0..10_000).map(|_| Raw::open(&broker)).collect();
        assert!(silent.iter_mut().all(Raw::is_closed), "each is closed by the broker");
    });
    let counted = broker.sys("metrics/connections/connect_timeout", |n| n >= 20_000);
    assert_eq!(counted.expect("$SYS answers"), 20_000);
    broker.stop();
}

#[test]
#[ignore = "5000 clients: run tests/limits/run.sh"]
fn five_thousand_clients_that_fall_silent_are_closed_by_keep_alive() {
    let broker = Broker::start(24_105, 2);
    nothing_stays(&broker, 8 << 20, || {
        let start = Instant::now();
        let mut gone: Vec<_> = (0..5000)
            .map(|n| {
                let mut client = Raw::open(&broker);
                client.send(&connect(&format!("gone-{n}"), 2));
                client
            })
            .collect();
        for client in &mut gone {
            assert_eq!(client.next().expect("CONNACK").0, 0x20);
        }
        // [MQTT-3.1.2-22]: one and a half times the keep alive, not before.
        let mut last = gone.pop().expect("there are some");
        let asked = Instant::now();
        last.send(&[0xc0, 0]);
        assert_eq!(last.next().expect("PINGRESP").0, 0xd0);
        assert!(gone.iter_mut().all(Raw::is_closed), "each is closed by the broker");
        assert!(last.is_closed());
        let silent = asked.elapsed();
        assert!(silent >= Duration::from_secs(3), "closed after {silent:?}, before its time");
        println!("5000 were closed {:?} after the first connected", start.elapsed());
    });
    broker.stop();
}

#[test]
#[ignore = "minutes with the others: run tests/limits/run.sh"]
fn a_rate_of_a_thousand_connections_a_second_holds_in_a_burst_and_loses_none() {
    // T15
    let rate = "listeners.0.max_connection_rate_per_s=1000";
    let broker = Broker::start_with(24_106, 2, &[rate]);
    let start = Instant::now();
    let mut burst: Vec<_> = (0..4000)
        .map(|n| {
            let mut client = Raw::open(&broker);
            client.send(&connect(&format!("burst-{n}"), 600));
            client
        })
        .collect();
    for client in &mut burst {
        assert_eq!(client.next().expect("CONNACK"), (0x20, vec![0, 0]));
    }
    // Not faster than it may be; how much slower depends on the machine.
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(2900), "4000 connections in {took:?}");
    println!("4000 connections in {took:?}");
    drop(burst);
    broker.stop();
}

/// xorshift64*: bytes that look random, the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x >> 12;
            x ^= x << 25;
            x ^= x >> 27;
            (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        })
        .collect()
}

#[test]
#[ignore = "minutes with the others: run tests/limits/run.sh"]
fn noise_on_four_thousand_connections_and_every_cut_of_a_session_disturb_nobody() {
    // W18
    let broker = Broker::start(24_107, 2);
    let session = [
        connect("cut", 600),
        subscribe(&["cut/#".to_owned()], 2),
        publish("cut/a", &[7; 300]),
        vec![0xc0, 0],
    ]
    .concat();
    nothing_stays(&broker, 8 << 20, || {
        let mut open = Vec::new();
        for seed in 0..4000u64 {
            let mut client = Raw::open(&broker);
            if seed % 2 == 0 {
                client.send(&connect(&format!("noise-{seed}"), 600));
            }
            // The broker may have closed before all is written.
            let _ = client.0.write_all(&noise(seed + 1, 16 + seed as usize % 2000));
            open.push(client);
            if open.len() == 500 {
                open.clear();
            }
        }
        for cut in 0..session.len() {
            let _ = Raw::open(&broker).0.write_all(&session[..cut]);
        }
    });
    broker.stop();
}

#[test]
#[ignore = "minutes with the others: run tests/limits/run.sh"]
fn a_hundred_clients_that_send_a_byte_a_second_are_served_and_delay_nobody() {
    let broker = Broker::start(24_108, 2);
    others_talk_during(&broker, || {
        let mut slow: Vec<_> =
            (0..100).map(|n| Raw::connected(&broker, &format!("slow-{n}"))).collect();
        slow.iter_mut().for_each(|c| c.subscribed(&["slow/own".to_owned()], 0));
        for byte in publish("slow/own", b"-") {
            slow.iter_mut().for_each(|c| c.send(&[byte]));
            std::thread::sleep(Duration::from_secs(1));
        }
        for client in &mut slow {
            (0..100).for_each(|_| assert_eq!(client.message(), b"-"));
        }
    });
    broker.stop();
}
