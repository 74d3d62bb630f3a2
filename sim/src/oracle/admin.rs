//! What an administrator does: ends connections and sessions, looks at sessions. (Q14)

use std::collections::BTreeMap;

use ringmain_shards::boundary::SessionInfo;

use super::state::ConnState;
use super::wills::Fate;
use super::{Oracle, SessionId, Verdict, insist};
use crate::world::NetId;

/// An order to end something.
#[derive(Debug)]
struct Kick {
    device: usize,
    discard: bool,
    /// The connection that was live then.
    net: Option<NetId>,
    /// Whether a session was there for certain.
    certain: bool,
}

/// Questions and orders without answer.
#[derive(Debug, Default)]
pub(super) struct Admin {
    next: u64,
    kicks: BTreeMap<u64, Kick>,
    /// Device, and its subscriptions if its session was there for certain.
    dumps: BTreeMap<u64, (usize, Option<Vec<String>>)>,
}

impl Oracle {
    /// An administrator ends the connection of a device, perhaps its session too.
    pub fn kick_ordered(&mut self, device: usize, discard: bool) -> u64 {
        self.admin.next += 1;
        let sid = self.current[device];
        let certain = sid.is_some_and(|sid| self.is_certain(sid));
        let net = sid.and_then(|sid| self.sessions[sid].conn);
        let net = net.filter(|n| self.conns.get(n).is_some_and(|c| c.state == ConnState::Live));
        self.admin.kicks.insert(self.admin.next, Kick { device, discard, net, certain });
        if let Some(sid) = sid.filter(|_| discard) {
            self.doubt(sid);
        }
        self.admin.next
    }

    /// An administrator looks at the session of a device.
    pub fn dump_ordered(&mut self, device: usize) -> u64 {
        self.admin.next += 1;
        let sid = self.current[device].filter(|sid| self.is_certain(*sid));
        let subs = sid.map(|sid| {
            let subs = self.sessions[sid].subs.iter().filter(|s| s.certain());
            subs.map(|s| s.text.clone()).collect()
        });
        self.admin.dumps.insert(self.admin.next, (device, subs));
        self.admin.next
    }

    /// Whether a device may be thrown out now.
    pub(super) fn is_kicked(&self, device: usize) -> bool {
        self.admin.kicks.values().any(|k| k.device == device)
    }

    /// Whether the session of a device may be ended now.
    pub(super) fn is_discarded(&self, device: usize) -> bool {
        self.admin.kicks.values().any(|k| k.device == device && k.discard)
    }

    /// Whether a session is over is open until the next CONNACK.
    fn doubt(&mut self, sid: SessionId) {
        let now_ms = self.now.ms;
        let s = &mut self.sessions[sid];
        s.doubtful = true;
        s.replays_due.clear();
        s.copies.values_mut().for_each(|c| c.must = false);
        let device = s.device;
        let names: Vec<_> = s.subs.iter().filter(|s| s.shared).map(|s| s.text.clone()).collect();
        for name in names {
            self.group_left(sid, &name);
        }
        for will in self.wills.iter_mut().filter(|w| w.device == device) {
            if matches!(will.fate, Fate::Due(_)) {
                will.fate = Fate::Maybe(now_ms); // [S-16] at the end of the session
            }
        }
    }

    pub(super) fn kicked(&mut self, token: u64, found: bool) -> Verdict {
        let kick = self.admin.kicks.remove(&token);
        insist!(kick.is_some(), "kick Q14", "an unknown kick {token} is answered");
        let Some(Kick { device, discard, net, certain }) = kick else { return Ok(()) };
        let sid = self.current[device];
        let still = sid.is_some_and(|sid| !discard && self.is_certain(sid));
        insist!(found || !(certain && still), "kick Q14", "device {device} was not found");
        let open = net.is_some_and(|net| {
            self.conns.get(&net).is_some_and(|c| c.state == ConnState::Live)
        });
        insist!(!open, "kick Q14", "device {device} was kicked and #{net:?} is still live");
        // One that is connected now came after it.
        let connected = sid.and_then(|sid| self.sessions[sid].conn).is_some_and(|net| {
            self.conns.get(&net).is_some_and(|c| c.state == ConnState::Live)
        });
        if let Some(sid) = sid {
            if discard && !connected {
                self.doubt(sid);
            } else if connected && !self.is_discarded(device) {
                self.sessions[sid].doubtful = false;
            }
        }
        Ok(())
    }

    pub(super) fn dumped(&mut self, token: u64, session: Option<&SessionInfo>) -> Verdict {
        let dump = self.admin.dumps.remove(&token);
        insist!(dump.is_some(), "dump Q14", "an unknown question {token} is answered");
        let Some((device, Some(subs))) = dump else { return Ok(()) };
        let Some(sid) = self.current[device].filter(|sid| self.is_certain(*sid)) else {
            return Ok(());
        };
        let s = &self.sessions[sid];
        insist!(session.is_some(), "dump Q14", "device {device} has a session, and none was found");
        let Some(info) = session else { return Ok(()) };
        let mut there = s.subs.iter().filter(|sub| sub.certain() && subs.contains(&sub.text));
        let missing = there.find(|sub| {
            let known = |(text, qos): &(String, u8)| {
                *text == sub.text && sub.forms.iter().any(|f| f.qos == *qos)
            };
            !info.subscriptions.iter().any(known)
        });
        insist!(missing.is_none(), "dump Q14", "device {device} has {missing:?}, not in {info:?}");
        Ok(())
    }
}
