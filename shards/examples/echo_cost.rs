//! What an echoed message costs the server in CPU, and what an idle node costs.
//!
//! ```text
//! cargo run --release -p ringmain-shards --example echo_cost -- ring    CONNECTIONS WINDOW BYTES SECONDS
//! cargo run --release -p ringmain-shards --example echo_cost -- glommio CONNECTIONS WINDOW BYTES SECONDS
//! cargo run --release -p ringmain-shards --example echo_cost -- idle    SHARDS SECONDS
//! ```
//!
//! `ring` is the reactor with a machine that echoes; `glommio` is glommio's `TcpStream`. The client
//! is one thread that writes WINDOW messages on each connection, each with a write of its own, and
//! then reads all answers. CPU is what the kernel accounts to the server's thread
//! (`/proc/self/task/*/schedstat`), so a busy machine disturbs it little.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use glommio::net::TcpListener;
use glommio::{LocalExecutorBuilder, Placement};
use ringmain_shards::engine::Machine;
use ringmain_shards::engine::effects::{Effects, Op};
use ringmain_shards::engine::ids::Now;
use ringmain_shards::engine::input::Input;
use ringmain_shards::reactor::{self, NodeConfig};

struct Echo {
    established: Vec<bool>,
}

impl Machine for Echo {
    fn handle(&mut self, _: Now, input: Input<'_>, fx: &mut Effects) {
        match input {
            Input::Open { conn, .. } => {
                let at = conn.index as usize;
                self.established.resize(self.established.len().max(at + 1), false);
                self.established[at] = false;
            }
            Input::Data { conn, bytes } => {
                if !std::mem::replace(&mut self.established[conn.index as usize], true) {
                    fx.ops.push(Op::Established { conn });
                }
                let at = fx.arena.len() as u32;
                fx.arena.extend_from_slice(bytes);
                fx.ops.push(Op::Write { conn, at, len: bytes.len() as u32 });
            }
            _ => {}
        }
    }

    fn deadline_ms(&self) -> u64 {
        u64::MAX
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |ix: usize| -> usize {
        args.get(ix)
            .and_then(|a| a.parse().ok())
            .unwrap_or_else(|| panic!("see the top of the file"))
    };
    match args.first().map(String::as_str) {
        Some("idle") => idle(number(1), number(2)),
        Some("ring") => {
            let node = start_ring(1);
            drive(
                "ring",
                node.local_addrs()[0].inet().expect("TCP"),
                number(1),
                number(2),
                number(3),
                number(4),
            );
            let s = node.stats()[0];
            let messages = s.bytes_received as f64 / number(3) as f64;
            println!(
                "      enters/message {:.3}  turns/message {:.3}  sends/message {:.3}",
                s.enters as f64 / messages,
                s.turns as f64 / messages,
                s.sends as f64 / messages
            );
        }
        Some("glommio") => {
            let addr = start_glommio();
            drive("glommio", addr, number(1), number(2), number(3), number(4));
        }
        _ => panic!("see the top of the file"),
    }
}

fn start_ring(shards: usize) -> reactor::Node {
    let config = NodeConfig::new(shards, &[SocketAddr::from(([127, 0, 0, 1], 0))]);
    reactor::run(&config, |_| Echo { established: Vec::new() }).unwrap_or_else(|e| panic!("{e}"))
}

fn start_glommio() -> SocketAddr {
    use futures_lite::{AsyncReadExt, AsyncWriteExt};
    let (tx, rx) = flume::bounded(1);
    LocalExecutorBuilder::new(Placement::Unbound)
        .name("shard-0")
        .io_memory(1 << 20)
        .preempt_timer(Duration::from_millis(1))
        .spawn(move || async move {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            tx.send(listener.local_addr().expect("address")).expect("main waits");
            loop {
                let mut stream = listener.accept().await.expect("accept");
                stream.set_nodelay(true).expect("nodelay");
                glommio::spawn_local(async move {
                    let mut buffer = vec![0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                        if stream.write_all(&buffer[..n]).await.is_err() {
                            return;
                        }
                    }
                })
                .detach();
            }
        })
        .expect("executor");
    rx.recv().expect("address")
}

fn drive(
    name: &str,
    addr: SocketAddr,
    connections: usize,
    window: usize,
    bytes: usize,
    seconds: usize,
) {
    let mut streams: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let stream = TcpStream::connect(addr).expect("connect");
            stream.set_nodelay(true).expect("nodelay");
            stream
        })
        .collect();
    let message = vec![b'x'; bytes];
    let mut answers = vec![0; bytes * window];
    let mut round = || {
        for stream in &mut streams {
            for _ in 0..window {
                stream.write_all(&message).expect("write");
            }
        }
        for stream in &mut streams {
            stream.read_exact(&mut answers).expect("read");
        }
    };
    (0..20).for_each(|_| round()); // warm
    let (cpu, start, mut rounds) = (shard_cpu_ns(), Instant::now(), 0u64);
    while start.elapsed() < Duration::from_secs(seconds as u64) {
        round();
        rounds += 1;
    }
    let messages = rounds * (connections * window) as u64;
    let spent = shard_cpu_ns() - cpu;
    println!(
        "{name:<8} connections {connections:>5}  window {window:>3}  {bytes} B: {:>6.0} ns CPU a \
         message, {:.0} messages/s",
        spent as f64 / messages as f64,
        messages as f64 / start.elapsed().as_secs_f64()
    );
}

fn idle(shards: usize, seconds: usize) {
    let node = start_ring(shards);
    std::thread::sleep(Duration::from_millis(500));
    let (cpu, start) = (shard_cpu_ns(), Instant::now());
    std::thread::sleep(Duration::from_secs(seconds as u64));
    let share = (shard_cpu_ns() - cpu) as f64 / start.elapsed().as_nanos() as f64;
    println!("idle: {:.4} % of a core per shard", 100.0 * share / shards as f64);
    drop(node);
}

/// CPU time of all threads named `shard-*`.
fn shard_cpu_ns() -> u64 {
    std::fs::read_dir("/proc/self/task")
        .expect("proc")
        .filter_map(|task| {
            let path = task.ok()?.path();
            let name = std::fs::read_to_string(path.join("comm")).ok()?;
            if !name.starts_with("shard-") {
                return None;
            }
            let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}
