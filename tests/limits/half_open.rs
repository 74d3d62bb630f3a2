//! Peers that vanish: the cable is pulled, nobody says FIN or RST. In network namespaces of the
//! test's own, so it needs CAP_SYS_ADMIN and CAP_NET_ADMIN (and says so where it has them not).

use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use ringmain_limits::Broker;

const PORT: u16 = 24_030;
const CLIENTS: u64 = 10_000;
/// Until the last of them must be gone. Not a claim about speed: they never go if nothing reaps them.
const PATIENCE: Duration = Duration::from_secs(120);

/// Puts the calling thread, and what it starts from now on, into a network namespace of its own.
fn leave_the_network() -> std::io::Result<()> {
    // SAFETY: takes flags only.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// Runs `ip` in the namespace of the calling thread.
fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status().expect("iproute2 is there");
    assert!(status.success(), "ip {args}");
}

/// Connections as `$SYS` counts them, this question's own apart, once they are `expected`.
fn connections(broker: &Broker, expected: u64) -> u64 {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = broker.connections(expected + 1).expect("$SYS answers") - 1;
        if now == expected || Instant::now() > until {
            return now;
        }
    }
}

#[test]
#[ignore = "10,000 connections: run tests/limits/run.sh"]
fn peers_that_vanish_are_reaped_by_their_keep_alive_and_leave_nothing() {
    // T16, S-90
    if let Err(error) = leave_the_network() {
        println!("skipped: no network namespace of its own: {error}");
        return;
    }
    ip("link set lo up");
    let (told, clients) = channel();
    let (linked, link) = channel::<()>();
    let load = std::thread::spawn(move || {
        leave_the_network().expect("it worked before");
        // SAFETY: has no arguments.
        told.send(unsafe { libc::gettid() }).expect("the test waits");
        link.recv().expect("the test lives");
        ip("addr add 10.213.77.2/24 dev clients");
        ip("link set clients up");
        link.recv().expect("the test lives");
        // Keep-alive 10 s: the broker waits 15 s for a PINGREQ. All subscribe to the same topic.
        let load = format!(
            "conn -h 10.213.77.1 -p {PORT} -c {CLIENTS} -k 10 -t half/open --in-flight 256 --hold 30 --quiet"
        );
        ringmain_limits::try_load(&load)
    });
    let clients = clients.recv().expect("a thread");
    ip(&format!("link add broker type veth peer name clients netns {clients}"));
    ip("addr add 10.213.77.1/24 dev broker");
    ip("link set broker up");
    linked.send(()).expect("the thread lives");
    let url = format!("listeners.1.url=\"tcp://10.213.77.1:{PORT}\"");
    let broker = Broker::start_with(PORT, 2, &[&url]);
    if broker.is_peer() {
        println!("skipped: the configuration of another broker is not known here");
        return;
    }
    let before = broker.sample();
    linked.send(()).expect("the thread lives");
    assert_eq!(connections(&broker, CLIENTS), CLIENTS);
    // The cable is pulled, and something is said to all of them: it waits in their sockets.
    ip("link set broker down");
    broker.publish("half/open", &[b'.'; 1000]).expect("others are served");
    assert_eq!(connections(&broker, 0), 0, "nobody reaped them");
    let closed = broker.sys("metrics/connections/keepalive_timeout", |n| n >= CLIENTS);
    assert_eq!(closed.expect("$SYS answers"), CLIENTS, "closed for their keep-alive");
    assert_eq!(broker.sample().descriptors, before.descriptors, "descriptors come back");
    broker.stop();
    // It lost its connections, as it should.
    let _ = load.join().expect("the load generator");
}
