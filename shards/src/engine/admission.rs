//! Who may connect: limits and rates of the node, its listeners and remote addresses. (T15)
//!
//! Shared by all shards, without locks: a rate is one atomic in the form of GCRA (the time at which
//! the next arrival conforms), a count one atomic.

use core::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::config::{EngineConfig, RateMode};
use super::hash::hash64;

/// Slots of the table of remote addresses. Two addresses that share a slot share its limits, so it
/// is sized well above the addresses that one host serves at once.
const IP_SLOTS: usize = 1 << 16;

/// A burst of a rate: this many ms worth of arrivals may come at once.
const BURST_MS: u64 = 50;

/// Counts and rates.
#[derive(Debug)]
pub struct Admission {
    connections: AtomicU32,
    next_us: AtomicU64,
    listeners: Box<[ListenerState]>,
    ips: Box<[IpSlot]>,
    seed: u64,
}

#[derive(Debug, Default)]
struct ListenerState {
    connections: AtomicU32,
    next_us: AtomicU64,
}

#[derive(Debug, Default)]
struct IpSlot {
    connections: AtomicU32,
    next_us: AtomicU64,
}

/// What to do with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on; it is counted until [`Admission::leave`].
    Admit,
    /// It may go on at this monotonic ms.
    Wait(u64),
    /// Close it.
    Refuse,
}

impl Admission {
    /// Tables for the listeners of a configuration.
    #[must_use]
    pub fn new(cfg: &EngineConfig) -> Self {
        Self {
            connections: AtomicU32::new(0),
            next_us: AtomicU64::new(0),
            listeners: cfg.listeners.iter().map(|_| ListenerState::default()).collect(),
            ips: (0..IP_SLOTS).map(|_| IpSlot::default()).collect(),
            seed: 0x5eed_1d0a_44d5_1075,
        }
    }

    fn slot(&self, ip: IpAddr) -> Option<&IpSlot> {
        let hash = match ip {
            IpAddr::V4(v4) => hash64(self.seed, &v4.octets()),
            IpAddr::V6(v6) => hash64(self.seed, &v6.octets()),
        };
        self.ips.get(hash as usize % IP_SLOTS)
    }

    /// Connections counted on the node.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Asks for a new connection at `now_us` (monotonic microseconds). One that is `proxied` is counted for the address
    /// of its proxy, but what is allowed to one address does not bind it.
    pub fn enter(
        &self,
        cfg: &EngineConfig,
        listener: u16,
        ip: IpAddr,
        proxied: bool,
        now_us: u64,
    ) -> Verdict {
        let Some(l) = cfg.listeners.get(usize::from(listener)) else { return Verdict::Refuse };
        let Some(state) = self.listeners.get(usize::from(listener)) else {
            return Verdict::Refuse;
        };
        let slot = self.slot(ip);
        let (rate, node_rate) = (l.max_connection_rate_per_s, cfg.limits.max_connection_rate_per_s);
        if l.connection_rate_mode == RateMode::Reset
            && !(conforms_now(&state.next_us, rate, now_us)
                && conforms_now(&self.next_us, node_rate, now_us))
        {
            return Verdict::Refuse;
        }
        let (ip_rate, ip_max) = match proxied {
            true => (0, 0),
            false => (l.max_connection_rate_per_ip_per_s, l.max_connections_per_ip),
        };
        if let Some(slot) = slot
            && !conforms_now(&slot.next_us, ip_rate, now_us)
        {
            return Verdict::Refuse;
        }
        if !take(&self.connections, cfg.limits.max_connections) {
            return Verdict::Refuse;
        }
        if !take(&state.connections, l.max_connections) {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return Verdict::Refuse;
        }
        if let Some(slot) = slot
            && !take(&slot.connections, ip_max)
        {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            state.connections.fetch_sub(1, Ordering::Relaxed);
            return Verdict::Refuse;
        }
        if l.connection_rate_mode == RateMode::Reset {
            return Verdict::Admit;
        }
        let at_us = book(&state.next_us, rate, now_us).max(book(&self.next_us, node_rate, now_us));
        if at_us <= now_us { Verdict::Admit } else { Verdict::Wait(at_us.div_ceil(1000)) }
    }

    /// A connection comes from elsewhere than it seemed. False: too many come from there; it stays counted
    /// where it was.
    pub fn moves(
        &self,
        cfg: &EngineConfig,
        listener: u16,
        from: IpAddr,
        to: IpAddr,
        now_us: u64,
    ) -> bool {
        let Some(l) = cfg.listeners.get(usize::from(listener)) else { return false };
        let (Some(old), Some(new)) = (self.slot(from), self.slot(to)) else { return false };
        let may = conforms_now(&new.next_us, l.max_connection_rate_per_ip_per_s, now_us)
            && take(&new.connections, l.max_connections_per_ip);
        if may {
            old.connections.fetch_sub(1, Ordering::Relaxed);
        }
        may
    }

    /// The connection is gone.
    pub fn leave(&self, listener: u16, ip: IpAddr) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(state) = self.listeners.get(usize::from(listener)) {
            state.connections.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(slot) = self.slot(ip) {
            slot.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Counts one more, up to `max`; 0 = no limit.
fn take(count: &AtomicU32, max: u32) -> bool {
    let before = count.fetch_add(1, Ordering::Relaxed);
    if max != 0 && before >= max {
        count.fetch_sub(1, Ordering::Relaxed);
        return false;
    }
    true
}

/// Books one arrival at a rate, 0 = no limit: the time when it may go on, perhaps in the future.
fn book(next_us: &AtomicU64, rate_per_s: u32, now_us: u64) -> u64 {
    if rate_per_s == 0 {
        return now_us;
    }
    let earliest = now_us.saturating_sub(BURST_MS * 1000);
    let step_us = 1_000_000 / u64::from(rate_per_s);
    let booked = next_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
        Some(next.max(earliest) + step_us)
    });
    booked.map_or(now_us, |next| next.max(earliest))
}

/// Books one arrival if it may go on now; 0 = no limit.
fn conforms_now(next_us: &AtomicU64, rate_per_s: u32, now_us: u64) -> bool {
    if rate_per_s == 0 {
        return true;
    }
    let step_us = 1_000_000 / u64::from(rate_per_s);
    // A slow rate still admits one arrival at once.
    let earliest = now_us.saturating_sub(BURST_MS * 1000);
    let booked = next_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
        let at = next.max(earliest);
        (at <= now_us).then_some(at + step_us)
    });
    booked.is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::config::ListenerConfig;
    use super::*;

    fn config(l: ListenerConfig) -> EngineConfig {
        EngineConfig { listeners: vec![l], ..EngineConfig::default() }
    }
    const IP: IpAddr = IpAddr::V4(core::net::Ipv4Addr::LOCALHOST);

    /// How many of a burst of 10,000, spread over `listeners`, are let in within a second.
    fn admitted_in_a_second(cfg: &EngineConfig, listeners: u16) -> usize {
        let admission = Admission::new(cfg);
        let start = 5_000_000;
        let admitted = |i: &u16| match admission.enter(cfg, i % listeners, IP, false, start) {
            Verdict::Admit => true,
            Verdict::Wait(ms) => ms * 1000 <= start + 1_000_000,
            Verdict::Refuse => false,
        };
        (0..10_000).filter(admitted).count()
    }

    #[test]
    fn a_rate_of_1000_admits_1000_in_a_second_of_a_burst_of_10000() {
        // T15
        let cfg = config(ListenerConfig { max_connection_rate_per_s: 1000, ..Default::default() });
        let within = admitted_in_a_second(&cfg, 1);
        assert!((1000..=1051).contains(&within), "{within}");
    }

    #[test]
    fn the_rate_of_the_node_holds_over_all_listeners() {
        // T15
        let mut cfg = config(ListenerConfig::default());
        cfg.listeners.push(ListenerConfig::default());
        cfg.limits.max_connection_rate_per_s = 1000;
        let within = admitted_in_a_second(&cfg, 2);
        assert!((1000..=1051).contains(&within), "{within}");
    }

    #[test]
    fn in_reset_mode_what_is_above_a_rate_is_refused_and_not_counted() {
        // T15
        let mut cfg = config(ListenerConfig {
            max_connection_rate_per_s: 1000,
            connection_rate_mode: RateMode::Reset,
            ..Default::default()
        });
        for node in [0, 1000] {
            cfg.limits.max_connection_rate_per_s = node;
            let admission = Admission::new(&cfg);
            let admitted = |now_us| {
                let all = (0..10_000).map(|_| admission.enter(&cfg, 0, IP, false, now_us));
                all.filter(|v| *v == Verdict::Admit).count() as u32
            };
            let at_once = admitted(5_000_000);
            assert!((50..=51).contains(&at_once), "{at_once}");
            assert_eq!(admission.connections(), at_once);
            assert!((50..=51).contains(&admitted(6_000_000)));
        }
    }

    #[test]
    fn who_comes_by_way_of_a_proxy_is_counted_where_it_comes_from() {
        // T12, T15
        let cfg = config(ListenerConfig { max_connections_per_ip: 1, ..Default::default() });
        let admission = Admission::new(&cfg);
        let clients = [1, 2, 3].map(|n| IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, n)));
        // All of them are there before the proxy says whose they are.
        for _ in clients {
            assert_eq!(admission.enter(&cfg, 0, IP, true, 0), Verdict::Admit);
        }
        assert_eq!(admission.enter(&cfg, 0, IP, false, 0), Verdict::Refuse, "this is no proxy");
        for client in clients {
            assert!(admission.moves(&cfg, 0, IP, client, 0));
        }
        assert_eq!(admission.enter(&cfg, 0, IP, true, 0), Verdict::Admit);
        assert!(!admission.moves(&cfg, 0, IP, clients[0], 0), "one from there is all");
        admission.leave(0, clients[0]);
        assert!(admission.moves(&cfg, 0, IP, clients[0], 0));
    }

    #[test]
    fn counts_come_back_when_connections_leave() {
        let cfg = config(ListenerConfig { max_connections_per_ip: 2, ..Default::default() });
        let admission = Admission::new(&cfg);
        assert_eq!(admission.enter(&cfg, 0, IP, false, 0), Verdict::Admit);
        assert_eq!(admission.enter(&cfg, 0, IP, false, 0), Verdict::Admit);
        assert_eq!(admission.enter(&cfg, 0, IP, false, 0), Verdict::Refuse);
        assert_eq!(admission.connections(), 2);
        admission.leave(0, IP);
        assert_eq!(admission.enter(&cfg, 0, IP, false, 0), Verdict::Admit);
    }
}
