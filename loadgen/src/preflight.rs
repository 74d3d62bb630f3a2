//! Whether this host can hold the connections of a run, found out before the first one is opened.

use std::net::{SocketAddr, TcpListener, TcpStream};

use ringmain_kernel_params::{Facts, Host, Side};

/// Asks the kernel, for connections from `sources` (0 where the kernel or we choose) to `target`.
#[must_use]
pub fn facts(target: SocketAddr, sources: usize) -> Facts {
    let remote = !target.ip().is_loopback();
    let automatic = if remote || target.is_ipv6() { 1 } else { crate::address::SOURCES.into() };
    // A connection that the kernel tracks for a moment, if it tracks those on loopback.
    let listener = TcpListener::bind("127.0.0.1:0").ok();
    let address = listener.as_ref().and_then(|l| l.local_addr().ok());
    let _tracked = address.and_then(|a| TcpStream::connect(a).ok());
    Facts {
        sources: if sources == 0 { automatic } else { sources as u64 },
        ..Facts::of(&Host::here(), if remote { Side::Generator } else { Side::Both })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_a_source_address_for_everybody_and_another_host_has_one() {
        let here = facts("127.0.0.1:1883".parse().unwrap(), 0);
        assert!(here.sources > 1_000_000 && here.side == Side::Both);
        let there = facts("192.0.2.1:1883".parse().unwrap(), 0);
        assert_eq!((there.sources, there.side), (1, Side::Generator));
        assert_eq!(facts("192.0.2.1:1883".parse().unwrap(), 4).sources, 4);
    }
}
