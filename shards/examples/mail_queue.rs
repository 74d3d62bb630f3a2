//! What a mail between shards costs in the queue alone: decision record 0003.
//!
//! ```text
//! cargo run --release -p ringmain-shards --example mail_queue
//! ```
//!
//! One thread plays all senders and the receiver in turns, so that the numbers are of instructions
//! and memory, not of contention or of the scheduler.

use std::hint::black_box;
use std::time::Instant;

use crossbeam::queue::ArrayQueue;

/// As large as a mail.
type Item = [u64; 4];

const ROUNDS: u64 = 200_000;

fn count(item: Item) -> u64 {
    black_box(item);
    1
}

/// A node's queues to one receiver.
trait Lanes {
    const NAME: &'static str;
    fn new(senders: usize) -> Self;
    fn send(&mut self, sender: usize, batch: usize);
    /// Takes all there is; how many items.
    fn receive(&mut self) -> u64;
}

struct OneArrayOfBatches(ArrayQueue<Vec<Item>>, Vec<Vec<Item>>);

impl Lanes for OneArrayOfBatches {
    const NAME: &'static str = "one ArrayQueue of batches";
    fn new(_: usize) -> Self {
        Self(ArrayQueue::new(1024), Vec::new())
    }
    fn send(&mut self, sender: usize, batch: usize) {
        let mut mail = self.1.pop().unwrap_or_default();
        mail.extend((0..batch).map(|_| [sender as u64; 4]));
        self.0.push(mail).expect("room");
    }
    fn receive(&mut self) -> u64 {
        let mut n = 0;
        while let Some(mut mail) = self.0.pop() {
            n += mail.drain(..).map(count).sum::<u64>();
            self.1.push(mail);
        }
        n
    }
}

struct OneArrayOfMails(ArrayQueue<Item>);

impl Lanes for OneArrayOfMails {
    const NAME: &'static str = "one ArrayQueue of mails";
    fn new(_: usize) -> Self {
        Self(ArrayQueue::new(4096))
    }
    fn send(&mut self, sender: usize, batch: usize) {
        (0..batch).for_each(|_| self.0.push([sender as u64; 4]).expect("room"));
    }
    fn receive(&mut self) -> u64 {
        std::iter::from_fn(|| self.0.pop()).map(count).sum()
    }
}

struct SpscPerPair(Vec<(rtrb::Producer<Item>, rtrb::Consumer<Item>)>);

impl Lanes for SpscPerPair {
    const NAME: &'static str = "SPSC ring per pair";
    fn new(senders: usize) -> Self {
        Self((0..senders).map(|_| rtrb::RingBuffer::new(1024)).collect())
    }
    fn send(&mut self, sender: usize, batch: usize) {
        (0..batch).for_each(|_| self.0[sender].0.push([sender as u64; 4]).expect("room"));
    }
    fn receive(&mut self) -> u64 {
        let mut n = 0;
        for (_, lane) in &mut self.0 {
            while let Ok(m) = lane.pop() {
                n += count(m);
            }
        }
        n
    }
}

struct FlumeOfBatches((flume::Sender<Vec<Item>>, flume::Receiver<Vec<Item>>), Vec<Vec<Item>>);

impl Lanes for FlumeOfBatches {
    const NAME: &'static str = "one flume channel of batches";
    fn new(_: usize) -> Self {
        Self(flume::bounded(1024), Vec::new())
    }
    fn send(&mut self, sender: usize, batch: usize) {
        let mut mail = self.1.pop().unwrap_or_default();
        mail.extend((0..batch).map(|_| [sender as u64; 4]));
        self.0.0.try_send(mail).expect("room");
    }
    fn receive(&mut self) -> u64 {
        let mut n = 0;
        while let Ok(mut mail) = self.0.1.try_recv() {
            n += mail.drain(..).map(count).sum::<u64>();
            self.1.push(mail);
        }
        n
    }
}

fn measure<L: Lanes>(senders: usize, active: usize, batch: usize) {
    let best = (0..5)
        .map(|_| {
            let mut lanes = L::new(senders);
            let (start, mut n) = (Instant::now(), 0);
            for round in 0..ROUNDS / (active * batch) as u64 {
                for a in 0..active {
                    lanes.send((round as usize + a * 7) % senders, batch);
                }
                n += lanes.receive();
            }
            start.elapsed().as_nanos() as f64 / n as f64
        })
        .fold(f64::MAX, f64::min);
    println!(
        "{:<30} shards {senders:>3}  active {active:>2}  batch {batch:>2}: {best:>6.1} ns a mail",
        L::NAME
    );
}

fn main() {
    for (senders, active, batch) in
        [(2, 1, 1), (2, 1, 16), (16, 4, 1), (16, 4, 16), (64, 4, 1), (64, 4, 16), (256, 4, 4)]
    {
        measure::<OneArrayOfBatches>(senders, active, batch);
        measure::<OneArrayOfMails>(senders, active, batch);
        measure::<SpscPerPair>(senders, active, batch);
        measure::<FlumeOfBatches>(senders, active, batch);
        println!();
    }
}
