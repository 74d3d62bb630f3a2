//! Wills. [S-15] to [S-18]

use std::collections::{HashMap, HashSet};

use super::matching::qos_fits;
use super::state::Msg;
use super::{Oracle, SessionId, Verdict, insist};
use crate::topics;
use crate::wire::{Connect, Publish};
use crate::world::NetId;

/// What becomes of a will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its connection is up.
    Armed,
    /// It is to be published at this time, in ms.
    Due(u64),
    /// It may be published, not before this time.
    Maybe(u64),
    /// It must not be published.
    Never,
}

/// A will that a CONNECT left.
#[derive(Debug)]
pub(super) struct WillRecord {
    pub(super) id: u64,
    pub(super) device: usize,
    pub(super) net: NetId,
    pub(super) delay_s: u32,
    pub(super) fate: Fate,
    pub(super) sent: HashMap<SessionId, u32>,
}

impl Oracle {
    /// A CONNECT with a will was read.
    pub(super) fn arm_will(&mut self, net: NetId, connect: &Connect) {
        let Some(will) = &connect.will else { return };
        let probe = Publish { payload: will.payload.clone(), ..Publish::default() };
        let Some(id) = super::publish::number(&probe) else { return };
        let device = self.conn(net).device;
        self.msgs.insert(
            id,
            Msg {
                device,
                topic: will.topic.clone(),
                qos: will.qos,
                retain: will.retain,
                payload: will.payload.clone(),
                expiry_s: None,
                ingress: Vec::new(),
                seq: 0,
                refusals: 0,
                varies: false,
                will: Some(self.wills.len()),
            },
        );
        self.conn_mut(net).will = Some(self.wills.len());
        self.wills.push(WillRecord {
            id,
            device,
            net,
            delay_s: will.delay_s,
            fate: Fate::Armed,
            sent: HashMap::new(),
        });
    }

    /// A connection with a will ended.
    pub(super) fn will_at_end(&mut self, net: NetId, expiry_s: u32) {
        let conn = self.conn(net);
        let Some(will) = conn.will else { return };
        // [MQTT-3.1.2-10] [MQTT-3.14.4-3] Only DISCONNECT 0x00 takes it back.
        let fate = if conn.disconnect_in == Some(0) {
            Fate::Never
        } else {
            // [S-16] At the end of the delay or of the session.
            let delay_s = self.wills[will].delay_s.min(expiry_s);
            match self.is_discarded(self.conn(net).device) {
                true if delay_s > 0 => Fate::Maybe(self.now.ms),
                _ => Fate::Due(self.now.ms + 1000 * u64::from(delay_s)),
            }
        };
        self.wills[will].fate = fate;
    }

    /// The session of a device goes on with a new connection, or ends. [MQTT-3.1.3-9]
    pub(super) fn wills_at_connack(&mut self, device: usize, resumed: bool, clean: bool) {
        let now_ms = self.now.ms;
        for will in self.wills.iter_mut().filter(|w| w.device == device) {
            let Fate::Due(at_ms) = will.fate else { continue };
            if at_ms > now_ms {
                will.fate = match (resumed, clean) {
                    (true, _) => Fate::Never,
                    (false, true) => Fate::Due(now_ms),
                    (false, false) => Fate::Maybe(now_ms),
                };
            } else if will.delay_s > 0 && resumed {
                // The timer and the CONNECT raced.
                will.fate = Fate::Maybe(at_ms);
            }
        }
    }

    /// A will was written to a subscriber.
    pub(super) fn will_out(&mut self, sid: SessionId, will: usize, p: &Publish) -> Verdict {
        let now_ms = self.now.real_ms;
        let record = &mut self.wills[will];
        let (device, id) = (record.device, record.id);
        match record.fate {
            // What allows it may be written later in the same turn.
            Fate::Armed => self.early_wills.push(will),
            Fate::Due(at) if at > now_ms => self.early_wills.push(will),
            Fate::Never => {
                insist!(false, "will-cancelled S-18", "will {id} of device {device} was cancelled");
            }
            Fate::Due(_) | Fate::Maybe(_) => {}
        }
        let count = record.sent.entry(sid).or_insert(0);
        *count += 1;
        let count = *count;
        let msg = &self.msgs[&id];
        let s = &self.sessions[sid];
        // Ordinary subscriptions bring it once, and each group does, whatever forms its membership
        // had.
        let shared = s.subs.iter().chain(&s.left).filter(|sub| sub.shared);
        let matching = shared.filter(|sub| topics::matches(&sub.filter, &msg.topic));
        let more = matching.map(|sub| &sub.text).collect::<HashSet<_>>().len() as u32;
        let watches = self.watchers.contains(&s.device);
        let mask = s.subs.iter().flat_map(|s| &s.forms).fold(0, |mask, f| mask | 1 << f.qos);
        insist!(
            !watches || qos_fits(p.qos, msg.qos, mask),
            "will-qos S-42",
            "will {id} came with QoS {} for {mask:#b}",
            p.qos
        );
        if msg.retain {
            return Ok(()); // a replay may bring it again
        }
        insist!(
            count <= 1 + more,
            "will-twice S-18",
            "will {id} of device {device} came {count} times to session {sid}"
        );
        Ok(())
    }

    /// Wills that came early: the turn that sent them must have ended their connection, or their
    /// session. Called at the end of each turn.
    pub(super) fn check_early_wills(&mut self, shard: usize) -> Verdict {
        for will in std::mem::take(&mut self.early_wills) {
            let record = &self.wills[will];
            let conn = self.conn(record.net);
            // Before CONNACK it is not known which shard has it.
            if conn.session.is_none() || conn.shard != shard {
                self.early_wills.push(will);
                continue;
            }
            match record.fate {
                // [S-20] A drain publishes what is delayed too.
                Fate::Due(at) | Fate::Maybe(at) => insist!(
                    self.draining || at <= self.now.real_ms,
                    "will-early S-16",
                    "it came by {}: {record:?}",
                    self.now.real_ms
                ),
                Fate::Armed | Fate::Never => insist!(
                    false,
                    "will-early S-15",
                    "it came, and its client is connected: {record:?}"
                ),
            }
        }
        Ok(())
    }
}
