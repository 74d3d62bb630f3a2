//! What must be true when nothing moves any more and all clients are connected and satisfied.

use super::matching::lowest_qos;
use super::state::ConnState;
use super::wills::Fate;
use super::{Oracle, Verdict, insist};

/// What the engine says of itself at that moment, summed over shards.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts {
    /// Copies that matching produced.
    pub matched: u64,
    /// Copies whose delivery is complete.
    pub completed: u64,
    /// Copies that went back to their shared group, to be matched again.
    pub returned: u64,
    /// Copies dropped, any reason.
    pub dropped: u64,
    /// Copies waiting in sessions.
    pub queued: u64,
    /// Connections with a session.
    pub connections: u64,
    /// Unacknowledged messages.
    pub inflight: u64,
}

/// How long after its time a will is certain to be there.
const WILL_SLACK_MS: u64 = 2000;

/// Payloads above this do not fit clients with a Maximum Packet Size, others do.
pub(super) const SMALL: usize = 150;

impl Oracle {
    /// Checks all of it, then forgets what can matter no more.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn at_quiet(&mut self, facts: Option<&Facts>) -> Verdict {
        self.check_answers()?;
        let missing = self.check_copies()?;
        self.check_groups()?;
        self.check_wills()?;
        if let Some(facts) = facts {
            self.check_facts(facts, missing)?;
        }
        self.forget();
        Ok(())
    }

    fn check_answers(&self) -> Verdict {
        for (net, c) in self.conns.iter().filter(|(_, c)| c.state == ConnState::Live) {
            let device = c.device;
            insist!(
                c.pubacks_due.is_empty() && c.pubrecs_due.is_empty() && c.pubcomps_due.is_empty(),
                "unanswered-publish",
                "connection #{net} of device {device} waits for PUBACK {:?}, PUBREC {:?}, PUBCOMP {:?}",
                c.pubacks_due,
                c.pubrecs_due,
                c.pubcomps_due
            );
            insist!(
                c.subs_due.is_empty() && c.unsubs_due.is_empty() && c.pings_due == 0,
                "unanswered-request",
                "connection #{net} of device {device} waits for {:?} {:?} {} PINGRESP",
                c.subs_due,
                c.unsubs_due,
                c.pings_due
            );
            insist!(
                c.pubrels_due.is_empty(),
                "pubrel-missing",
                "connection #{net} of device {device} waits for PUBREL {:?}",
                c.pubrels_due
            );
            let Some(s) = c.session.map(|sid| &self.sessions[sid]) else { continue };
            insist!(
                s.inflight.values().all(|f| f.given_up),
                "unfinished",
                "device {device} is connected, and not finished: {:?}",
                s.inflight
            );
        }
        Ok(())
    }

    /// Returns how many copies with QoS 0, or of bounded queues, are missing.
    fn check_copies(&self) -> Result<u64, super::Violation> {
        let mut missing = 0;
        for s in self.current.iter().flatten().map(|sid| &self.sessions[*sid]) {
            for (id, c) in s.copies.iter().filter(|(_, c)| c.must && c.none_plain()) {
                let msg = &self.msgs[id];
                if msg.expiry_s.is_some() || msg.payload.len() > SMALL {
                    continue;
                }
                missing += 1;
                insist!(
                    self.rules.queue_bound
                        || lowest_qos(msg.qos, c.qos_mask) == 0 && (c.away || !self.rules.roomy),
                    "lost S-55",
                    "device {} never got message {id}: {c:?}; {msg:?}",
                    s.device
                );
            }
            for due in &s.replays_due {
                // [S-30] A later connection of the client may take none of their size.
                let big = |id| self.msgs.get(id).is_some_and(|m| m.payload.len() > SMALL);
                if due.any_of.iter().any(big) {
                    continue;
                }
                missing += 1;
                insist!(
                    self.rules.queue_bound || (due.qos == 0 && !self.rules.roomy),
                    "replay-incomplete S-44",
                    "device {} never got what {} holds: {due:?}",
                    s.device,
                    due.topic
                );
            }
        }
        Ok(missing)
    }

    /// [S-15] [S-16] [S-18]
    fn check_wills(&self) -> Verdict {
        for will in &self.wills {
            let Fate::Due(at_ms) = will.fate else { continue };
            if at_ms + WILL_SLACK_MS > self.now.ms || self.draining {
                continue;
            }
            for watcher in self.watchers.iter().filter_map(|d| self.current[*d]) {
                let count = will.sent.get(&watcher).copied().unwrap_or(0);
                insist!(
                    count == 1 || count == 0 && self.rules.queue_bound,
                    "will-missing S-15",
                    "a watcher got {count} copies of will {} of device {}, due at {at_ms}",
                    will.id,
                    will.device
                );
            }
        }
        Ok(())
    }

    /// Conservation: what matched is completed, dropped with a reason, returned, queued or in flight.
    fn check_facts(&self, facts: &Facts, missing: u64) -> Verdict {
        let ends = facts.completed + facts.dropped + facts.returned + facts.queued + facts.inflight;
        insist!(
            facts.matched == ends,
            "conservation",
            "matched is not completed + dropped + returned + queued + in flight: {facts:?}"
        );
        insist!(
            missing <= facts.dropped,
            "uncounted-drop",
            "{missing} copies are missing, and counted as dropped are {}",
            facts.dropped
        );
        insist!(
            facts.queued == 0 && facts.inflight == 0,
            "stuck-queue",
            "everybody is connected and satisfied, and yet {facts:?}"
        );
        let live = self.conns.values().filter(|c| c.state == ConnState::Live).count() as u64;
        insist!(
            facts.connections == live,
            "connections-gauge",
            "{live} connections are live: {facts:?}"
        );
        Ok(())
    }

    fn forget(&mut self) {
        let now_ms = self.now.ms;
        for s in &mut self.sessions {
            s.copies.clear();
            s.left.clear();
            s.inflight.retain(|_, f| !f.given_up);
            s.replays.clear();
            s.replays_due.clear();
        }
        self.groups.clear();
        self.recent.clear();
        self.conns.retain(|_, c| c.state != ConnState::Gone);
        let conns = &self.conns;
        self.kept_alive.retain(|net| conns.contains_key(net));
        for will in &mut self.wills {
            if matches!(will.fate, Fate::Due(at) | Fate::Maybe(at) if at + WILL_SLACK_MS <= now_ms)
            {
                will.fate = Fate::Maybe(now_ms);
            }
        }
        let keep = self.retained.settle();
        self.msgs.retain(|id, msg| msg.will.is_some() || keep.contains(id));
    }
}
