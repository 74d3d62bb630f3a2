//! What a shard does when something fails: no descriptor numbers, slots that are used again at once,
//! a fault of its own. A binary of its own: one test changes the limits of the process.

mod reactor_common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reactor_common::*;
use ringmain_shards::engine::Machine;
use ringmain_shards::engine::effects::Effects;
use ringmain_shards::engine::ids::Now;
use ringmain_shards::engine::input::Input;
use ringmain_shards::reactor::{self, Feature};

/// The limits of a process are one: tests here run one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An echo that has a fault: it panics when it reads an `X`.
struct Faulty(Echo);

impl Machine for Faulty {
    fn handle(&mut self, now: Now, input: Input<'_>, fx: &mut Effects) {
        if let Input::Data { bytes: [b'X', ..], .. } = input {
            panic!("an invariant does not hold");
        }
        self.0.handle(now, input, fx);
    }

    fn deadline_ms(&self) -> u64 {
        self.0.deadline_ms()
    }
}

#[test]
fn a_shard_that_panics_ends_the_node_and_says_why() {
    let _alone = alone();
    let seen = Arc::new(Seen::default());
    let node =
        reactor::run(&config(2), move |me| Faulty(Echo::new(me, Arc::clone(&seen)))).unwrap();
    let mut other = connect(&node);
    exchange(&mut other, b"in use");
    assert!(node.ready());
    connect(&node).write_all(b"X").unwrap();
    eventually("no longer ready", || !node.ready());
    eventually("all shards have ended", || node.stopped());
    let why = node.join().expect_err("one failed");
    assert!(why.starts_with("shard ") && why.ends_with("an invariant does not hold"), "{why}");
}

/// IORING_OP_SHUTDOWN runs on a thread of the kernel and looks the slot up when it runs: had the slot
/// been closed and used again by then, another connection would lose its sending half.
#[test]
fn ending_a_connection_never_ends_the_next_one_in_its_slot() {
    let _alone = alone();
    for disable in [vec![], vec![Feature::FixedFdInstall]] {
        let mut config = config(2);
        config.disable = disable;
        let (node, _) = echo_node(&config);
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            let enders: Vec<_> = (0..2u8)
                .map(|ender| {
                    s.spawn({
                        let node = &node;
                        move || end_again_and_again(node, ender)
                    })
                })
                .collect();
            for _ in 0..2 {
                s.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        // In a slot that was just left; long enough for a late shutdown to hit it.
                        let mut stream = connect(&node);
                        for n in 0..8u8 {
                            exchange(&mut stream, &[n]);
                        }
                    }
                });
            }
            let ended: Vec<_> = enders.into_iter().map(|e| e.join()).collect();
            done.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|e| e.expect("an ender"));
        });
        finish(node);
    }
}

/// Connections that both sides end at the same time, in all orders.
fn end_again_and_again(node: &reactor::Node, ender: u8) {
    for n in 0..4000u32 {
        let mut stream = connect(node);
        stream.write_all(b"Q").unwrap();
        match (n + u32::from(ender)) % 4 {
            0 => {}                                                   // the peer closes first
            1 => stream.shutdown(std::net::Shutdown::Write).unwrap(), // its FIN comes first
            2 => reset_on_drop(&stream),
            _ => expect(&mut stream, b"bye"),
        }
        drop(stream);
        if n % 256 == 0 {
            eventually("drained", || total(node).connections < 200);
        }
    }
}

fn limit(soft: u64) -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one rlimit is written, then read.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit), 0);
        let before = std::mem::replace(&mut limit.rlim_cur, soft);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit), 0);
        before
    }
}

/// A socket that is not connected yet: connecting it takes no descriptor number.
fn socket() -> TcpStream {
    // SAFETY: a fresh descriptor, owned by the stream.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        TcpStream::from_raw_fd(fd)
    }
}

fn connect_to(stream: &TcpStream, addr: SocketAddr) {
    let SocketAddr::V4(v4) = addr else { unreachable!("tests listen on IPv4") };
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: passes one sockaddr_in with its size.
    let result = unsafe {
        libc::connect(
            stream.as_raw_fd(),
            (&raw const to).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
}

#[test]
fn without_descriptor_numbers_new_connections_wait_and_are_given_up_in_the_end() {
    let _alone = alone();
    let (node, seen) = echo_node(&config(1));
    exchange(&mut connect(&node), b"warm");
    eventually("idle", || total(&node).connections == 0);
    let (mut patient, mut hopeless) = (socket(), socket());
    let before = limit(0);
    connect_to(&patient, addr(&node));
    eventually("asked in vain", || total(&node).accept_no_descriptors >= 3);
    let (asked, turns) = (total(&node).accept_no_descriptors, total(&node).enters);
    let since = Instant::now();
    std::thread::sleep(Duration::from_millis(500));
    let now = total(&node);
    // However long this thread slept: one question in 10 ms, a late shard means fewer. Without a
    // pause it would be one a turn.
    let pauses = since.elapsed().as_millis() as u64 / 10 + 1;
    limit(before);
    let (asked, turns) = (now.accept_no_descriptors - asked, now.enters - turns);
    assert!(asked <= pauses + pauses / 5, "{asked} questions in {pauses} pauses");
    assert!(turns <= 8 * pauses, "{turns} turns in {pauses} pauses");
    exchange(&mut patient, b"numbers are back");
    limit(0);
    connect_to(&hopeless, addr(&node));
    let end = hopeless.read(&mut [0; 1]);
    limit(before);
    assert_eq!(end.unwrap(), 0, "it is closed");
    assert_eq!(seen.get(|s| &s.opened), 2, "the machine never saw it");
    assert_eq!(total(&node).gone_at_open, 1);
    exchange(&mut patient, b"not disturbed");
    drop((patient, hopeless));
    finish(node);
}
