//! Socket addresses as the kernel wants them, and the sources that a run connects from.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Connections from one source address to one destination: a sixth of the default range of local
/// ports (28,232), so that the kernel finds a free one at once.
const PER_SOURCE: usize = 4_000;
/// Source addresses: 127.1.0.1 and on, 16 Mi less what looks like a broker's.
const FIRST: u32 = u32::from_be_bytes([127, 1, 0, 1]);
pub(crate) const SOURCES: u32 = u32::from_be_bytes([127, 254, 0, 0]) - FIRST;

/// A `sockaddr` with its length. Stays where it is while a submission points at it.
#[derive(Clone, Copy)]
pub(crate) struct RawAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

impl RawAddress {
    pub(crate) fn new(address: SocketAddr) -> Self {
        // SAFETY: all zeroes is a valid sockaddr_storage.
        let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
        let len = match address {
            SocketAddr::V4(v4) => {
                let raw = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: sockaddr_storage is at least as large and aligned as any sockaddr.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                let raw = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
                size_of::<libc::sockaddr_in6>()
            }
        };
        Self { storage, len: len as libc::socklen_t }
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        self.len
    }

    pub(crate) fn family(&self) -> i32 {
        i32::from(self.storage.ss_family)
    }
}

/// Sources for `connections` connections to `target`: addresses of 127.0.0.0/8 when the target is
/// one, since each has ports of its own; otherwise the kernel chooses.
///
/// A closed connection keeps its port for a minute (TIME_WAIT), so count every connection of the
/// run, and give each run another `seed` (the time, say): it will hardly meet the ports of the last.
#[must_use]
pub fn automatic_sources(target: SocketAddr, connections: usize, seed: u64) -> Vec<SocketAddr> {
    let IpAddr::V4(ip) = target.ip() else { return Vec::new() };
    if !ip.is_loopback() {
        return Vec::new();
    }
    let count = connections.div_ceil(PER_SOURCE).min(SOURCES as usize) as u32;
    let start = (seed % u64::from(SOURCES)) as u32;
    let nth = |i: u32| {
        let offset = (u64::from(start) + u64::from(i)) % u64::from(SOURCES);
        SocketAddr::new(Ipv4Addr::from(FIRST + offset as u32).into(), 0)
    };
    (0..count).map(nth).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_runs_get_a_source_for_every_4000_connections() {
        let target = "127.0.0.1:1883".parse().unwrap();
        let sources = automatic_sources(target, 8_001, 5);
        assert_eq!(sources.len(), 3);
        assert_eq!(sources[2], "127.1.0.8:0".parse().unwrap());
    }

    #[test]
    fn sources_wrap_around_inside_their_range() {
        let target = "127.0.0.1:1883".parse().unwrap();
        let sources = automatic_sources(target, 8_000, u64::from(SOURCES) - 1);
        assert_eq!(sources[0], "127.253.255.255:0".parse().unwrap());
        assert_eq!(sources[1], "127.1.0.1:0".parse().unwrap());
    }

    #[test]
    fn other_targets_leave_the_source_to_the_kernel() {
        assert!(automatic_sources("192.0.2.1:1883".parse().unwrap(), 1_000_000, 0).is_empty());
        assert!(automatic_sources("[::1]:1883".parse().unwrap(), 1_000_000, 0).is_empty());
    }
}
