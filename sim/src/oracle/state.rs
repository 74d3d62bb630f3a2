//! What the oracle remembers of connections, sessions, subscriptions and messages.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::{MsgId, SessionId};
use crate::wire::Connect;
use crate::world::{NetId, Stamp};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnState {
    /// No CONNACK yet.
    New,
    /// CONNACK 0x00 was written.
    Live,
    /// The server closes it.
    Closing,
    /// It is gone.
    Gone,
}

/// Whether a QoS 2 publish of a version 5 client has a packet id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InUse {
    No,
    /// A client that reads the CONNACKs of its own race in another order than they were written
    /// believes in another session than the server; and what became of a publish under memory
    /// pressure is not known before its answer.
    Maybe,
    Yes,
}

/// A SUBSCRIBE without SUBACK: its filters.
#[derive(Debug)]
pub(crate) struct SubRequest {
    pub(crate) pid: u16,
    pub(crate) in_use: InUse,
    pub(crate) filters: Vec<(String, u8)>,
}

/// An UNSUBSCRIBE without UNSUBACK, with what its codes have to be.
#[derive(Debug)]
pub(crate) struct UnsubRequest {
    pub(crate) pid: u16,
    pub(crate) in_use: InUse,
    pub(crate) filters: Vec<(String, Option<u8>)>,
}

/// A network connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) device: usize,
    pub(crate) state: ConnState,
    pub(crate) connect: Option<Box<Connect>>,
    pub(crate) session: Option<SessionId>,
    pub(crate) shard: usize,
    pub(crate) last_in_ms: u64,
    /// The server does not read it now.
    pub(crate) unread: bool,
    /// When it last began to.
    pub(crate) read_from_ms: u64,
    pub(crate) keep_alive_s: u16,
    pub(crate) disconnect_in: Option<u8>,
    pub(crate) disconnect_out: Option<u8>,
    pub(crate) ended: bool,
    pub(crate) pings_due: u32,
    pub(crate) pubacks_due: VecDeque<(u16, MsgId, InUse)>,
    pub(crate) pubrecs_due: VecDeque<(u16, MsgId, bool)>,
    pub(crate) pubcomps_due: Vec<(u16, Option<bool>)>,
    pub(crate) pubrels_due: VecDeque<u16>,
    pub(crate) subs_due: Vec<SubRequest>,
    pub(crate) unsubs_due: Vec<UnsubRequest>,
    pub(crate) aliases_in: HashMap<u16, String>,
    pub(crate) fresh_sent: bool,
    pub(crate) last_resent: Option<u64>,
    pub(crate) will: Option<usize>,
}

impl Conn {
    pub(crate) fn new(device: usize, now_ms: u64) -> Self {
        Self {
            device,
            state: ConnState::New,
            connect: None,
            session: None,
            shard: 0,
            last_in_ms: now_ms,
            unread: false,
            read_from_ms: now_ms,
            keep_alive_s: 0,
            disconnect_in: None,
            disconnect_out: None,
            ended: false,
            pings_due: 0,
            pubacks_due: VecDeque::new(),
            pubrecs_due: VecDeque::new(),
            pubcomps_due: Vec::new(),
            pubrels_due: VecDeque::new(),
            subs_due: Vec::new(),
            unsubs_due: Vec::new(),
            aliases_in: HashMap::new(),
            fresh_sent: false,
            last_resent: None,
            will: None,
        }
    }

    pub(crate) fn version(&self) -> u8 {
        self.connect.as_ref().map_or(0, |c| c.version)
    }

    /// When it must be closed at last, in ms, were nothing to arrive. Nothing can arrive from a
    /// publisher that is held back, and so its keep-alive rests. [S-90]
    pub(crate) fn closed_by_ms(&self) -> u64 {
        match self.keep_alive_s {
            0 => u64::MAX,
            _ if self.unread => u64::MAX,
            s => self.last_in_ms.max(self.read_from_ms) + 1500 * u64::from(s),
        }
    }

    /// When the keep-alive ends, in ms, were nothing to arrive. [S-90]
    pub(crate) fn dead_at_ms(&self) -> u64 {
        match self.keep_alive_s {
            0 => u64::MAX,
            s => self.last_in_ms + 1500 * u64::from(s),
        }
    }
}

/// One form of a subscription: a re-SUBSCRIBE makes another.
#[derive(Clone, Debug)]
pub(crate) struct Form {
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) rap: bool,
    pub(crate) id: Option<u32>,
    pub(crate) pid: u16,
    pub(crate) read: Stamp,
    pub(crate) acked: bool,
    /// Whether it may bring retained messages.
    pub(crate) replays: bool,
    /// Whether it must.
    pub(crate) must_replay: bool,
}

/// A subscription of a session, from SUBSCRIBE read to UNSUBACK written.
#[derive(Clone, Debug)]
pub(crate) struct Sub {
    pub(crate) text: String,
    pub(crate) shared: bool,
    pub(crate) filter: String,
    pub(crate) forms: Vec<Form>,
    pub(crate) leaving: bool,
    /// The step in which these forms were over for certain.
    pub(crate) until: Option<u64>,
}

impl Sub {
    /// It exists for certain.
    pub(crate) fn certain(&self) -> bool {
        !self.leaving && self.forms.iter().any(|f| f.acked)
    }
}

/// State of an outgoing message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Published,
    Received,
    Released,
}

/// An outgoing message that the client has not finished.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) msg: MsgId,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) state: Sent,
    /// The connection of its last PUBLISH.
    pub(crate) on: NetId,
    /// The connection of its last PUBREL.
    pub(crate) released_on: Option<NetId>,
    /// Order of first sending.
    pub(crate) order: u64,
    /// A later connection of the client takes no packet of its size: it may have been given up.
    pub(crate) given_up: bool,
}

/// Which copies of a message by way of a shared group a session may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupPart {
    pub(crate) group: String,
    pub(crate) qos_mask: u8,
    pub(crate) ids: Vec<Option<u32>>,
    pub(crate) rap: [bool; 2],
}

/// The copies of one message that one session gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Copies {
    /// At least one by way of ordinary subscriptions.
    pub(crate) must: bool,
    /// With QoS 0 it may be lost: the client was away meanwhile.
    pub(crate) away: bool,
    /// At most so many by way of them.
    pub(crate) plain_max: u32,
    /// Granted QoS that the copy may follow, one bit each.
    pub(crate) qos_mask: u8,
    pub(crate) ids_must: Vec<u32>,
    pub(crate) ids_may: Vec<u32>,
    /// Whether RETAIN may be forwarded as 0, as 1.
    pub(crate) rap: [bool; 2],
    pub(crate) groups: Vec<GroupPart>,
    /// For each copy that came, its number and the ways by which it may have: 0 = ordinary
    /// subscriptions, 1.. = groups, [`REPLAY`].. = replays.
    pub(crate) received: Vec<(u64, Vec<usize>)>,
}

impl Copies {
    /// None came that may have come by way of ordinary subscriptions.
    pub(crate) fn none_plain(&self) -> bool {
        !self.received.iter().any(|(_, ways)| ways.contains(&0))
    }

    /// Whether all copies that came, and one more, can have come by different ways, when each group
    /// is good for `each`.
    pub(crate) fn has_room(&self, more: &[usize], each: u32) -> bool {
        let room = |way: usize| match way {
            0 => self.plain_max,
            way if way <= self.groups.len() => each,
            _ => 1,
        };
        let came = self.received.iter().map(|(_, ways)| ways.as_slice());
        let all: Vec<&[usize]> = came.chain([more]).collect();
        fits(&all, &room)
    }
}

/// From here on ways are replays, each good for one copy.
pub(crate) const REPLAY: usize = 1 << 16;

/// Whether each copy can have a way with room for it: a matching, found by augmenting paths.
fn fits(copies: &[&[usize]], room: &impl Fn(usize) -> u32) -> bool {
    let mut taken: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    (0..copies.len()).all(|copy| place(copy, copies, room, &mut taken, &mut Vec::new()))
}

/// Gives a copy a way, if need be by giving another one another way.
fn place(
    copy: usize,
    copies: &[&[usize]],
    room: &impl Fn(usize) -> u32,
    taken: &mut BTreeMap<usize, Vec<usize>>,
    tried: &mut Vec<usize>,
) -> bool {
    for way in copies[copy] {
        if tried.contains(way) {
            continue;
        }
        tried.push(*way);
        let by = taken.entry(*way).or_default().clone();
        if by.len() < room(*way) as usize {
            taken.entry(*way).or_default().push(copy);
            return true;
        }
        for (at, other) in by.into_iter().enumerate() {
            if place(other, copies, room, taken, tried) {
                taken.entry(*way).or_default()[at] = copy;
                return true;
            }
        }
    }
    false
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) device: usize,
    pub(crate) conn: Option<NetId>,
    pub(crate) expiry_s: u32,
    pub(crate) offline_ms: Option<u64>,
    /// It is over for certain.
    pub(crate) ended: bool,
    /// An administrator may have ended it.
    pub(crate) doubtful: bool,
    pub(crate) small: bool,
    /// The step in which it last lost a connection.
    pub(crate) cut_step: u64,
    /// Groups that it left in the turn under way: what is written in that turn may be of before.
    pub(crate) lapsing: Vec<String>,
    pub(crate) subs: Vec<Sub>,
    /// Forms of memberships that are over or replaced: what came by way of them may still wait.
    pub(crate) left: Vec<Sub>,
    pub(crate) copies: BTreeMap<MsgId, Copies>,
    pub(crate) inflight: BTreeMap<u16, InFlight>,
    pub(crate) next_order: u64,
    /// QoS 2 packet ids that the server holds for the client, and whether it does for certain.
    pub(crate) in_qos2: HashMap<u16, bool>,
    /// Last in the publisher's order, by publisher, its QoS, that of the copy, and topic (or all).
    pub(crate) last_seq: HashMap<(usize, u8, u8, String), u64>,
    /// Last copy with QoS 1 or 2, by publisher.
    pub(crate) last_acked_seq: HashMap<usize, u64>,
    /// Retained messages last seen, by topic and QoS.
    pub(crate) last_retained: HashMap<(String, u8), MsgId>,
    pub(crate) replays_due: Vec<ReplayDue>,
    pub(crate) replays: Vec<Replay>,
}

/// The retained messages that one SUBSCRIBE may bring.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    pub(crate) filter: String,
    pub(crate) qos: u8,
    pub(crate) id: Option<u32>,
    pub(crate) read: Stamp,
}

/// A retained message that a subscription must bring.
#[derive(Clone, Debug)]
pub(crate) struct ReplayDue {
    pub(crate) topic: String,
    pub(crate) text: String,
    pub(crate) qos: u8,
    pub(crate) any_of: Vec<MsgId>,
}

impl Session {
    pub(crate) fn new(device: usize) -> Self {
        Self {
            device,
            conn: None,
            expiry_s: 0,
            offline_ms: None,
            ended: false,
            doubtful: false,
            small: false,
            cut_step: 0,
            lapsing: Vec::new(),
            subs: Vec::new(),
            left: Vec::new(),
            copies: BTreeMap::new(),
            inflight: BTreeMap::new(),
            next_order: 0,
            in_qos2: HashMap::new(),
            last_seq: HashMap::new(),
            last_acked_seq: HashMap::new(),
            last_retained: HashMap::new(),
            replays_due: Vec::new(),
            replays: Vec::new(),
        }
    }

    /// Remembers forms of a membership that are over.
    pub(crate) fn leave(&mut self, gone: Sub, step: u64) {
        if gone.shared && !gone.forms.is_empty() {
            self.left.push(Sub { until: Some(step), ..gone });
        }
    }

    /// When it expires, in ms.
    pub(crate) fn expires_ms(&self) -> u64 {
        match (self.offline_ms, self.expiry_s) {
            (None, _) | (_, u32::MAX) => u64::MAX,
            (Some(at), s) => at + 1000 * u64::from(s),
        }
    }
}

/// An application message.
#[derive(Clone, Debug)]
pub(crate) struct Msg {
    pub(crate) device: usize,
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) payload: Vec<u8>,
    pub(crate) expiry_s: Option<u32>,
    /// When the server read it; more than once when the publisher had to repeat it.
    pub(crate) ingress: Vec<Stamp>,
    /// Place in its publisher's order.
    pub(crate) seq: u64,
    /// How many of those the server refused.
    pub(crate) refusals: usize,
    /// Its expiry is not the same each time.
    pub(crate) varies: bool,
    /// Its will record, if it is a will.
    pub(crate) will: Option<usize>,
}

impl Msg {
    /// The server took none of it.
    pub(crate) fn is_refused(&self) -> bool {
        self.refusals > 0 && self.refusals >= self.ingress.len()
    }
}

/// Whether a copy goes back to its group when the session of its member ends with it
/// unacknowledged. [S-63]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// It does.
    Yes,
    /// The member left, or joined again, in the turn that sent it.
    Maybe,
    /// The member left the group after it.
    No,
}

/// A copy that was sent for the first time, and may have come by way of a group.
#[derive(Clone, Debug)]
pub(crate) struct GroupSend {
    /// Number of the copy, the same in all groups that it may have come by.
    pub(crate) copy: u64,
    pub(crate) to: SessionId,
    pub(crate) qos: u8,
    /// [`InFlight::order`] of this copy: a session may have several copies of one message.
    pub(crate) order: u64,
    pub(crate) bound: Bound,
    /// Its session ended, and it may have gone back or not.
    pub(crate) doubtful: bool,
    /// It came by way of the group for certain.
    pub(crate) sure: bool,
}

/// A message in a shared group.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupMsg {
    /// Some member must get it.
    pub(crate) must: bool,
    /// First sends, without those that went back to the group.
    pub(crate) sent: Vec<GroupSend>,
    /// Sessions that may have it.
    pub(crate) members: HashSet<SessionId>,
    /// Sessions that may get it with QoS 0, which is lost with their connection.
    pub(crate) lossy: HashSet<SessionId>,
    /// Those that need not be members when it comes.
    pub(crate) unsure: HashSet<SessionId>,
}
