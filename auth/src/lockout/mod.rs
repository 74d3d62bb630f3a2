//! Who guesses has to wait. // AU16

use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::config;
use crate::password::{Mac, random};

/// Lives on: the service. Counts failures within a window, for a user name from an address and for the address.
///
/// The table has a bound: who fills it makes it forget the ones that failed longest ago.
#[derive(Debug)]
pub(crate) struct Lockout {
    config: config::Lockout,
    secret: [u8; 32],
    table: Mutex<LruCache<Key, Failures>>,
}

/// A keyed hash: no two thousand bytes of user name are kept for a stranger, and nobody can make two collide.
type Key = [u8; 16];

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    since_ms: u64,
    locked_until_ms: u64,
}

impl Lockout {
    /// An empty table.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(crate) fn new(config: config::Lockout) -> Result<Self, String> {
        Ok(Self { config, secret: random()?, table: Mutex::new(LruCache::unbounded()) })
    }

    /// Seconds that somebody has to wait, rounded up; `None` if nothing.
    pub(crate) fn locked_s(&self, user: Option<&str>, peer: IpAddr, now_ms: u64) -> Option<u64> {
        let table = self.lock();
        let until =
            self.keys(user, peer).map(|(key, _)| table.peek(&key).map(|f| f.locked_until_ms));
        let wait_ms = until.flatten().max()?.checked_sub(now_ms).filter(|wait| *wait > 0)?;
        Some(wait_ms.div_ceil(1000))
    }

    /// Counts a failure. Returns whether it was the one too many.
    pub(crate) fn failed(&self, user: Option<&str>, peer: IpAddr, now_ms: u64) -> bool {
        let mut table = self.lock();
        let mut locked = false;
        for (key, max) in self.keys(user, peer) {
            let mut failures = table.get(&key).copied().unwrap_or_default();
            if failures.count == 0 || now_ms >= failures.since_ms + self.config.window_s * 1000 {
                failures = Failures { since_ms: now_ms, ..Failures::default() };
            }
            failures.count += 1;
            if failures.count >= max {
                failures = Failures {
                    locked_until_ms: now_ms + self.config.lock_s * 1000,
                    ..Failures::default()
                };
                locked = true;
            }
            while !table.contains(&key) && table.len() >= self.config.max_entries {
                table.pop_lru();
            }
            table.put(key, failures);
        }
        locked
    }

    /// A success clears the count of this user from this address, and of nobody else.
    pub(crate) fn succeeded(&self, user: Option<&str>, peer: IpAddr) {
        if user.is_some() && self.config.failures_per_user > 0 {
            self.lock().pop(&self.key(user, peer));
        }
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// What counts, with its limit.
    fn keys(&self, user: Option<&str>, peer: IpAddr) -> impl Iterator<Item = (Key, u32)> {
        let exempt = self.config.exempt.iter().any(|net| net.contains(&peer.to_canonical()));
        let by_user = user.map(|user| (self.key(Some(user), peer), self.config.failures_per_user));
        let by_address = (self.key(None, peer), self.config.failures_per_address);
        let all = [by_user, Some(by_address)].into_iter().flatten();
        all.filter(move |(_, max)| *max > 0 && !exempt)
    }

    fn key(&self, user: Option<&str>, peer: IpAddr) -> Key {
        let address = match peer.to_canonical() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            // A household has a /64: counting single addresses would count nobody.
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)),
        };
        let kind = [u8::from(user.is_some())];
        let user = user.unwrap_or_default().as_bytes();
        let code = Mac::Sha256.code(&self.secret, &[&kind, &address.octets(), user]);
        let mut key = Key::default();
        key.copy_from_slice(code.get(..16).unwrap_or(&[0; 16]));
        key
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<Key, Failures>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn lockout(change: impl FnOnce(&mut config::Lockout)) -> Lockout {
        let mut config = config::Lockout::default();
        change(&mut config);
        Lockout::new(config).expect("a table")
    }

    // AU16
    #[test]
    fn too_many_failures_lock_the_user_at_that_address_only() {
        let lockout = lockout(|_| {});
        for n in 1..=10 {
            assert_eq!(lockout.locked_s(Some("a"), A, 0), None);
            assert_eq!(lockout.failed(Some("a"), A, 0), n == 10);
        }
        assert_eq!(lockout.locked_s(Some("a"), A, 1), Some(60));
        assert_eq!(lockout.locked_s(Some("a"), B, 1), None, "others cannot lock a user out");
        assert_eq!(lockout.locked_s(Some("b"), A, 1), None);
        assert_eq!(lockout.locked_s(Some("a"), A, 60_000), None);
    }

    // AU16: 100 bad passwords
    #[test]
    fn an_address_that_tries_many_names_is_locked() {
        let lockout = lockout(|_| {});
        for n in 1..=100 {
            assert_eq!(lockout.failed(Some(&format!("user{n}")), A, 0), n == 100, "{n}");
        }
        assert!(lockout.locked_s(Some("new"), A, 1).is_some());
        assert!(lockout.locked_s(None, A, 1).is_some());
        assert!(lockout.locked_s(Some("new"), B, 1).is_none());
    }

    #[test]
    fn failures_outside_of_the_window_and_before_a_success_do_not_count() {
        let lockout = lockout(|config| config.failures_per_user = 2);
        assert!(!lockout.failed(Some("a"), A, 0));
        assert!(!lockout.failed(Some("a"), A, 60_000));
        lockout.succeeded(Some("a"), A);
        assert!(!lockout.failed(Some("a"), A, 60_001));
        assert!(lockout.failed(Some("a"), A, 60_002));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let lockout = lockout(|config| config.failures_per_address = 3);
        for host in 1..=3_u128 {
            lockout.failed(None, Ipv6Addr::from_bits((0x2001_0db8 << 96) | host).into(), 0);
        }
        assert!(lockout.locked_s(None, "2001:db8::ffff".parse().expect("an address"), 1).is_some());
        assert!(
            lockout.locked_s(None, "2001:db8:0:1::1".parse().expect("an address"), 1).is_none()
        );
    }

    #[test]
    fn the_table_has_a_bound_and_exempt_addresses_are_not_in_it() {
        let lockout = lockout(|config| {
            config.max_entries = 5;
            config.exempt = vec!["192.0.2.2/32".parse().expect("a network")];
        });
        for n in 0..50 {
            lockout.failed(Some(&n.to_string()), A, 0);
        }
        assert_eq!(lockout.len(), 5);
        for _ in 0..1000 {
            assert!(!lockout.failed(Some("a"), B, 0));
        }
    }
}
