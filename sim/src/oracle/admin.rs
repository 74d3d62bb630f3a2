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
    /// The session that was there for certain.
    session: Option<SessionId>,
}

/// A session that was there for certain when somebody asked, and its subscriptions: text, QoS, step
/// of the SUBSCRIBE.
type Known = (SessionId, Vec<(String, u8, u64)>);

/// Questions and orders without answer.
#[derive(Debug, Default)]
pub(super) struct Admin {
    next: u64,
    kicks: BTreeMap<u64, Kick>,
    dumps: BTreeMap<u64, (usize, Option<Known>)>,
}

impl Oracle {
    /// An administrator ends the connection of a device, perhaps its session too.
    pub fn kick_ordered(&mut self, device: usize, discard: bool) -> u64 {
        self.admin.next += 1;
        let sid = self.current[device];
        let session = sid.filter(|sid| self.is_certain(*sid));
        let net = sid.and_then(|sid| self.sessions[sid].conn);
        let net = net.filter(|n| self.conns.get(n).is_some_and(|c| c.state == ConnState::Live));
        self.admin.kicks.insert(self.admin.next, Kick { device, discard, net, session });
        if let Some(sid) = sid.filter(|_| discard) {
            self.doubt(sid);
        }
        self.admin.next
    }

    /// An administrator looks at the session of a device.
    pub fn dump_ordered(&mut self, device: usize) -> u64 {
        self.admin.next += 1;
        let sid = self.current[device].filter(|sid| self.is_certain(*sid));
        let known = sid.map(|sid| (sid, self.sure_subs(sid)));
        self.admin.dumps.insert(self.admin.next, (device, known));
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
        let Some(Kick { device, discard, net, session }) = kick else { return Ok(()) };
        let sid = self.current[device];
        let still = session.is_some() && session == sid && !discard;
        let still = still && session.is_some_and(|sid| self.is_certain(sid));
        insist!(found || !still, "kick Q14", "device {device} was not found");
        let open =
            net.is_some_and(|net| self.conns.get(&net).is_some_and(|c| c.state == ConnState::Live));
        insist!(!open, "kick Q14", "device {device} was kicked and #{net:?} is still live");
        // One that is connected now came after it.
        let connected = sid
            .and_then(|sid| self.sessions[sid].conn)
            .is_some_and(|net| self.conns.get(&net).is_some_and(|c| c.state == ConnState::Live));
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
        let Some((device, Some((sid, before)))) = dump else { return Ok(()) };
        if self.current[device] != Some(sid) || !self.is_certain(sid) {
            return Ok(());
        }
        insist!(session.is_some(), "dump Q14", "device {device} has a session, and none was found");
        let Some(info) = session else { return Ok(()) };
        // Those that were there all the time.
        let missing = self.sure_subs(sid).into_iter().find(|sub| {
            let (text, qos, _) = sub;
            before.contains(sub) && !info.subscriptions.contains(&(text.clone(), *qos))
        });
        insist!(missing.is_none(), "dump Q14", "device {device} has {missing:?}, not in {info:?}");
        Ok(())
    }

    fn sure_subs(&self, sid: SessionId) -> Vec<(String, u8, u64)> {
        let subs = self.sessions[sid].subs.iter().filter(|s| s.certain() && s.forms.len() == 1);
        subs.map(|s| (s.text.clone(), s.forms[0].qos, s.forms[0].read.step)).collect()
    }
}
