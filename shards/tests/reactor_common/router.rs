//! A machine that answers by way of other shards.

use std::collections::HashMap;
use std::sync::Arc;

use ringmain_shards::boundary::{Control, Event};
use ringmain_shards::engine::Machine;
use ringmain_shards::engine::effects::{Effects, Op};
use ringmain_shards::engine::ids::{ConnId, Now, ShardId};
use ringmain_shards::engine::input::Input;
use ringmain_shards::engine::message::Outgoing;
use ringmain_shards::reactor::{self, Node, NodeConfig};

use super::{Checked, Seen, write};

/// What a mail is about, in `created_ms`.
const REQUEST: u64 = 0;
const REPLY: u64 = 1;
const BOUNCE: u64 = 2;

fn letter(what: u64, number: u64, payload: &[u8]) -> Outgoing<'_> {
    Outgoing { publisher: number, ..Outgoing::internal("", payload, what, false) }
}

/// Sends what it gets to the shard that the first byte of the connection's stream names; that shard
/// sends it back, and it goes to the client. So each byte crosses the mesh twice. With
/// `Control::Stats{token}` it bounces a mail with the next shard `token` times.
#[derive(Debug)]
pub struct Router {
    me: ShardId,
    shards: u16,
    checked: Checked,
    targets: HashMap<ConnId, ShardId>,
}

impl Router {
    fn send_on(&mut self, conn: ConnId, bytes: &[u8], fx: &mut Effects) {
        let bytes = match self.targets.entry(conn) {
            std::collections::hash_map::Entry::Occupied(_) => bytes,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(ShardId(u16::from(bytes[0] - b'0')));
                fx.ops.push(Op::Established { conn });
                &bytes[1..]
            }
        };
        let number = u64::from(conn.generation) << 32 | u64::from(conn.index);
        fx.send_publish(self.targets[&conn], &mut letter(REQUEST, number, bytes));
    }

    fn on_mail(&mut self, from: ShardId, m: &Outgoing<'_>, fx: &mut Effects) {
        match m.created_ms {
            REQUEST => fx.send_publish(from, &mut letter(REPLY, m.publisher, m.payload)),
            REPLY => {
                let conn =
                    ConnId { index: m.publisher as u32, generation: (m.publisher >> 32) as u32 };
                write(fx, conn, m.payload);
            }
            BOUNCE if m.publisher == 0 => fx.events.push(Event::Drained { shard: self.me }),
            _ => fx.send_publish(from, &mut letter(BOUNCE, m.publisher - 1, b"")),
        }
    }
}

impl Machine for Router {
    fn handle(&mut self, _: Now, input: Input<'_>, fx: &mut Effects) {
        self.checked.check(&input);
        match input {
            Input::Data { conn, bytes } => self.send_on(conn, bytes, fx),
            Input::Mail { from, mail, packed } => {
                let m = mail.publish(packed).expect("routers only send publishes");
                self.on_mail(from, &m, fx);
            }
            Input::Closed { conn, .. } => {
                self.targets.remove(&conn);
            }
            Input::Control(Control::Stats { token }) => {
                let peer = ShardId((self.me.0 + 1) % self.shards);
                fx.send_publish(peer, &mut letter(BOUNCE, token, b""));
            }
            _ => {}
        }
    }

    fn deadline_ms(&self) -> u64 {
        u64::MAX
    }
}

/// A node of routers.
pub fn router_node(config: &NodeConfig) -> (Node, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let for_factory = Arc::clone(&seen);
    let shards = config.shards.len() as u16;
    let node = reactor::run(config, move |me| Router {
        me,
        shards,
        checked: Checked::new(Arc::clone(&for_factory)),
        targets: HashMap::new(),
    })
    .unwrap_or_else(|e| panic!("start: {e}"));
    (node, seen)
}
