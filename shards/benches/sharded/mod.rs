//! What a message costs by how many shards there are: engines and mesh of a node, on one thread.
//!
//! Each shard has [`EACH`] publishers, whose subscribers are on the other shards in turn. So in each
//! turn a shard takes [`EACH`] publishes from its sockets and as many from its mailbox; what grows
//! with the shards is into how many batches these fall, and what a turn looks at for each shard.

use std::hint::black_box;
use std::sync::Arc;

use ringmain_shards::engine::effects::Op;
use ringmain_shards::engine::ids::ShardId;
use ringmain_shards::engine::input::Input;
use ringmain_shards::mesh::{Delivery, Lanes, Mailbox};

use super::{Bench, World, publish};

/// Publishers of a shard, and publishes that it takes in a turn.
const EACH: usize = 16;
/// Room in a mailbox: batches of all the other shards.
const BATCHES: usize = 256;

/// One operation is a publish with its delivery; with two or more shards each crosses.
pub(crate) fn crossing(shards: usize) -> Bench {
    let mut world = World::new(shards);
    for from in 0..shards {
        for i in 0..EACH {
            let step = if shards == 1 { 0 } else { 1 + i % (shards - 1) };
            let home = (from + step) % shards;
            let topic = format!("bench/pair/{:05}/data", from * EACH + i);
            let subscriber = world.connect(home);
            world.subscribe(home, subscriber, &topic, 0);
            let publisher = world.connect(from);
            world.publishes.push((from, publisher, publish(&topic, 0)));
            world.end_turn(home);
            world.end_turn(from);
        }
    }
    let mailboxes: Arc<[Mailbox]> = (0..shards).map(|_| Mailbox::new(BATCHES)).collect();
    let lanes = (0..shards as u16).map(|s| Lanes::new(ShardId(s), Arc::clone(&mailboxes)));
    let mut lanes: Vec<Lanes> = lanes.collect();
    Bench(Box::new(move |operations| {
        let publishes = std::mem::take(&mut world.publishes);
        let mut done = 0;
        while done < operations {
            for (shard, turn) in publishes.chunks(EACH).enumerate() {
                for (_, conn, bytes) in turn {
                    world.feed(shard, Input::Data { conn: *conn, bytes });
                }
                end_turn(&mut world, shard, &mut lanes[shard]);
            }
            done += publishes.len();
        }
        world.publishes = publishes;
        done
    }))
}

/// The rest of a turn: mail of others comes in, ours goes out, sockets take all they get.
fn end_turn(world: &mut World, shard: usize, lanes: &mut Lanes) {
    while let Some(Delivery::Batch { from, mut batch, .. }) = lanes.pop() {
        for mail in batch.mail.drain(..) {
            world.feed(shard, Input::Mail { from, mail, packed: &batch.packed });
        }
        lanes.recycle(batch);
    }
    world.feed(shard, Input::TurnEnd);
    lanes.send_turn(&mut world.fx[shard]);
    assert!(lanes.pop_wake().is_none() && !lanes.is_waiting(), "nobody sleeps, all have room");
    for op in &world.fx[shard].ops {
        if let Op::Write { conn, at, len } = *op {
            black_box(&world.fx[shard].arena[at as usize..(at + len) as usize]);
            world.sent.push((conn, len));
        }
    }
    world.fx[shard].clear();
    while let Some((conn, bytes)) = world.sent.pop() {
        world.feed(shard, Input::Sent { conn, bytes });
    }
}
