//! Who may not come: the node's table of bans (L03), and clients that come and go too often (L04).

use std::sync::Arc;

use hashbrown::HashMap;
use ringmain_acl::BanTable;
use ringmain_mqtt::ReasonCode;

use super::access::subject;
use super::config::FlappingConfig;
use super::connect::Refused;
use super::core::Core;
use super::effects::{CloseHow, Effects};
use super::shard::Shard;

/// Clients whose ends are counted; 32 bytes each. When there are more in a window, the new ones are not.
const COUNTED_MAX: usize = 1 << 16;
/// Time between two searches for clients that need not be counted any more, when all places are taken.
const LOOK_EVERY_MS: u64 = 1000;

/// Clients that went lately, and how often. Lives on: each shard, for the clients whose home it is.
#[derive(Debug, Default)]
pub(crate) struct Flapping {
    by_client: HashMap<u64, Ends>,
    /// It was full, and is not looked through again before then, ms: that takes as long as some thousand packets.
    full_until_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    count: u32,
    /// When the first of them was, ms.
    since_ms: u64,
    /// It is banned until then, ms; 0 = it is not.
    banned_until_ms: u64,
}

impl Flapping {
    /// A connection of a client ended. Whether the client is banned from now on.
    fn ended(&mut self, client_hash: u64, now_ms: u64, cfg: &FlappingConfig) -> bool {
        let window_ms = u64::from(cfg.window_s) * 1000;
        let is_over = |e: &Ends| now_ms >= e.banned_until_ms && now_ms - e.since_ms > window_ms;
        if self.by_client.len() >= COUNTED_MAX && !self.by_client.contains_key(&client_hash) {
            if now_ms < self.full_until_ms {
                return false;
            }
            self.by_client.retain(|_, ends| !is_over(ends));
            if self.by_client.len() >= COUNTED_MAX {
                self.full_until_ms = now_ms + LOOK_EVERY_MS;
                return false;
            }
        }
        let fresh = Ends { count: 0, since_ms: now_ms, banned_until_ms: 0 };
        let ends = self.by_client.entry(client_hash).or_insert(fresh);
        if is_over(ends) {
            *ends = fresh;
        }
        ends.count += 1;
        if ends.count < cfg.max_count || ends.banned_until_ms > now_ms {
            return false;
        }
        let banned_until_ms = now_ms + u64::from(cfg.ban_s) * 1000;
        *ends = Ends { count: 0, since_ms: now_ms, banned_until_ms };
        true
    }

    fn is_banned(&self, client_hash: u64, now_ms: u64) -> bool {
        self.by_client.get(&client_hash).is_some_and(|ends| now_ms < ends.banned_until_ms)
    }
}

impl Core {
    /// Whether the table bans a client. CONNACK 0x8A. (L03)
    pub(crate) fn check_bans(
        &self,
        ci: u32,
        client_id: &str,
        username: Option<&str>,
    ) -> Result<(), Refused> {
        match self.is_banned(ci, client_id, username) {
            true => Err(Refused { reason: ReasonCode::BANNED, text: "banned" }),
            false => Ok(()),
        }
    }

    fn is_banned(&self, ci: u32, client_id: &str, username: Option<&str>) -> bool {
        if self.bans.is_empty() {
            return false;
        }
        let Some(conn) = self.conns.get(ci) else { return false };
        let subject = ringmain_acl::Subject { username, ..subject(&self.cfg, conn, client_id) };
        self.bans.find(&subject, self.unix_ms / 1000).is_some()
    }

    /// Whether a client came and went too often. Its home alone knows. (L04)
    pub(crate) fn check_flapping(&self, client_hash: u64) -> Result<(), Refused> {
        if self.cfg.flapping.max_count != 0 && self.flapping.is_banned(client_hash, self.now_ms) {
            let text = "banned for a while: connected and disconnected too often";
            return Err(Refused { reason: ReasonCode::BANNED, text });
        }
        Ok(())
    }

    /// A connection of this client ended.
    pub(crate) fn count_end(&mut self, client_hash: u64) {
        let cfg = self.cfg.flapping;
        if cfg.max_count != 0 && self.flapping.ended(client_hash, self.now_ms, &cfg) {
            self.counters.clients_flapping += 1;
        }
    }

    /// Another table holds. Who it bans is disconnected within half a second. (L03)
    pub(crate) fn set_bans(&mut self, bans: Arc<BanTable>) {
        let was_empty = self.bans.is_empty();
        self.bans = bans;
        if !(was_empty && self.bans.is_empty()) {
            self.start_sweep();
        }
    }
}

impl Shard {
    /// Who is banned from the start; later ones come with [`Control::Bans`](crate::boundary::Control::Bans).
    pub fn set_bans(&mut self, bans: Arc<BanTable>) {
        self.core.set_bans(bans);
    }

    /// Disconnects a live client if it is banned; whether it was.
    pub(crate) fn end_if_banned(&mut self, ci: u32, fx: &mut Effects) -> bool {
        let core = &mut self.core;
        let Some(conn) = core.conns.get(ci) else { return false };
        let Some(session) = core.sessions.get(conn.session) else { return false };
        let username = conn.known().and_then(|known| known.username());
        let banned = core.is_banned(ci, &session.client_id, username);
        if banned {
            core.counters.clients_banned += 1;
            // 0x8A is for CONNACK alone.
            let (code, text) = (ReasonCode::ADMINISTRATIVE_ACTION, Some("banned"));
            core.close_with(ci, Some(code), text, CloseHow::Flush, fx);
        }
        banned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CFG: FlappingConfig = FlappingConfig { max_count: 3, window_s: 60, ban_s: 300 };

    #[test]
    fn who_goes_often_enough_within_the_window_is_banned_and_only_for_so_long() {
        // L04
        let mut flapping = Flapping::default();
        let ended: Vec<bool> = [0, 10_000, 20_000].map(|now| flapping.ended(1, now, &CFG)).to_vec();
        assert_eq!(ended, [false, false, true]);
        assert!(flapping.is_banned(1, 20_000) && flapping.is_banned(1, 319_999));
        assert!(!flapping.is_banned(1, 320_000) && !flapping.is_banned(2, 20_000));
    }

    #[test]
    fn who_goes_seldom_is_not() {
        // L04
        let mut flapping = Flapping::default();
        assert!((0..100).all(|n| !flapping.ended(1, n * 40_000, &CFG)));
    }

    #[test]
    fn clients_that_go_once_make_room_for_others() {
        let mut flapping = Flapping::default();
        for client in 0..2 * COUNTED_MAX as u64 {
            flapping.ended(client, client, &CFG);
        }
        assert!(flapping.by_client.len() <= COUNTED_MAX);
        let late = 1_000_000;
        assert!([1, 2, 3].map(|n| flapping.ended(u64::MAX, late + n, &CFG))[2]);
    }

    #[test]
    fn when_all_places_are_taken_they_are_not_searched_for_each_end() {
        let mut flapping = Flapping::default();
        let full = COUNTED_MAX as u64;
        assert!((0..full).all(|client| !flapping.ended(client, 0, &CFG)));
        let over = 60_001;
        assert!(!flapping.ended(full, over - 500, &CFG), "nobody's time is over");
        assert!(!flapping.ended(full, over, &CFG));
        assert_eq!(flapping.by_client.len(), COUNTED_MAX, "not searched again so soon");
        flapping.ended(full, over + 500, &CFG);
        assert_eq!(flapping.by_client.len(), 1);
    }
}
