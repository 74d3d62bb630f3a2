//! Listening sockets: one per shard and address.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_void, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t};

use super::config::{Address, ListenerConfig, StartError};
use super::unix;
pub(super) use super::unix::SocketFile;

/// What [`open_all`] opened.
pub(super) struct Opened {
    /// By shard, then by listener.
    pub by_shard: Vec<Vec<OwnedFd>>,
    /// With real ports.
    pub addrs: Vec<Address>,
    /// Of unix-domain sockets; dropping one removes it.
    pub files: Vec<SocketFile>,
}

/// Opens one socket per shard on each address. With `probe_all` the kernel probes all accepted connections, otherwise
/// those that are chosen later.
pub(super) fn open_all(
    listeners: &[ListenerConfig],
    shards: usize,
    probe_all: bool,
) -> Result<Opened, StartError> {
    let mut by_shard: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    let (mut addrs, mut files) = (Vec::new(), Vec::new());
    for config in listeners {
        let mut addr = match &config.addr {
            Address::Inet(addr) => *addr,
            Address::Unix(path) => {
                let (socket, file) = unix::open(config, path, shards)?;
                files.push(file);
                for sockets in &mut by_shard {
                    let clone = socket.try_clone();
                    sockets.push(clone.map_err(|e| failed(&config.addr, "dup", e))?);
                }
                addrs.push(config.addr.clone());
                continue;
            }
        };
        for (ix, sockets) in by_shard.iter_mut().enumerate() {
            // With SO_REUSEPORT a second broker on the same port would steal half of the
            // connections in silence: so the first bind is tried without it.
            if ix == 0 && addr.port() != 0 {
                drop(open(config, addr, false, probe_all)?);
            }
            let socket = open(config, addr, true, probe_all)?;
            addr = local_addr(socket.as_raw_fd())
                .map_err(|e| failed(&addr.into(), "getsockname", e))?;
            sockets.push(socket);
        }
        addrs.push(addr.into());
    }
    Ok(Opened { by_shard, addrs, files })
}

/// Stops listening: queued connections are reset, new ones refused.
pub(super) fn shut(listener: RawFd) {
    // SAFETY: no memory involved; the descriptor is ours.
    unsafe { libc::shutdown(listener, libc::SHUT_RD) };
}

/// Remote address of a connected socket.
pub(super) fn peer_addr(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: passes a sockaddr_storage with its size, see `addr_of`.
    addr_of(|addr, len| unsafe { libc::getpeername(fd, addr, len) })
}

fn local_addr(fd: RawFd) -> io::Result<SocketAddr> {
    // SAFETY: as above.
    addr_of(|addr, len| unsafe { libc::getsockname(fd, addr, len) })
}

fn open(
    config: &ListenerConfig,
    addr: SocketAddr,
    reuse_port: bool,
    probe_all: bool,
) -> Result<OwnedFd, StartError> {
    let family = if addr.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory involved.
    let fd = unsafe {
        libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    if fd < 0 {
        return Err(failed(&addr.into(), "socket", io::Error::last_os_error()));
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_options(&socket, config, addr.is_ipv6(), reuse_port, probe_all)
        .map_err(|(step, e)| failed(&addr.into(), step, e))?;
    let (storage, len) = to_sockaddr(addr);
    // SAFETY: `storage` holds a socket address of `len` bytes.
    check(unsafe { libc::bind(fd, (&raw const storage).cast::<sockaddr>(), len) })
        .map_err(|e| failed(&addr.into(), "bind", e))?;
    if reuse_port {
        let backlog = c_int::try_from(config.backlog).unwrap_or(c_int::MAX);
        // SAFETY: no memory involved.
        check(unsafe { libc::listen(fd, backlog) })
            .map_err(|e| failed(&addr.into(), "listen", e))?;
    }
    Ok(socket)
}

/// Accepted sockets inherit all of these from the listener.
fn set_options(
    socket: &OwnedFd,
    config: &ListenerConfig,
    v6: bool,
    reuse_port: bool,
    probe_all: bool,
) -> Result<(), (&'static str, io::Error)> {
    use libc::{IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};
    let keepalive = config.keepalive_idle_s;
    let options: [(&'static str, c_int, c_int, Option<u32>); 12] = [
        ("SO_REUSEADDR", SOL_SOCKET, libc::SO_REUSEADDR, Some(1)),
        ("SO_REUSEPORT", SOL_SOCKET, libc::SO_REUSEPORT, reuse_port.then_some(1)),
        ("TCP_NODELAY", IPPROTO_TCP, libc::TCP_NODELAY, config.nodelay.then_some(1)),
        ("TCP_DEFER_ACCEPT", IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, config.defer_accept_s),
        ("SO_SNDBUF", SOL_SOCKET, libc::SO_SNDBUF, config.send_buffer_bytes),
        ("SO_RCVBUF", SOL_SOCKET, libc::SO_RCVBUF, config.recv_buffer_bytes),
        (
            "SO_KEEPALIVE",
            SOL_SOCKET,
            libc::SO_KEEPALIVE,
            keepalive.filter(|_| probe_all).map(|_| 1),
        ),
        ("TCP_KEEPIDLE", IPPROTO_TCP, libc::TCP_KEEPIDLE, keepalive),
        (
            "TCP_KEEPINTVL",
            IPPROTO_TCP,
            libc::TCP_KEEPINTVL,
            keepalive.map(|_| config.keepalive_interval_s),
        ),
        ("TCP_KEEPCNT", IPPROTO_TCP, libc::TCP_KEEPCNT, keepalive.map(|_| config.keepalive_probes)),
        ("TCP_USER_TIMEOUT", IPPROTO_TCP, libc::TCP_USER_TIMEOUT, config.user_timeout_ms),
        ("IPV6_V6ONLY", IPPROTO_IPV6, libc::IPV6_V6ONLY, v6.then_some(u32::from(config.v6_only))),
    ];
    for (name, level, option, value) in options {
        if let Some(value) = value {
            let value = c_int::try_from(value).unwrap_or(c_int::MAX);
            // SAFETY: passes a c_int with its size.
            check(unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    level,
                    option,
                    (&raw const value).cast::<c_void>(),
                    size_of::<c_int>() as socklen_t,
                )
            })
            .map_err(|e| (name, e))?;
        }
    }
    Ok(())
}

pub(super) fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(super) fn failed(addr: &Address, step: &'static str, source: io::Error) -> StartError {
    let addr = addr.clone();
    match source.raw_os_error() {
        Some(libc::EADDRINUSE) => StartError::AddressInUse { addr },
        Some(libc::EACCES) => StartError::Privilege { addr },
        _ => StartError::Listen { addr, step, source },
    }
}

fn to_sockaddr(addr: SocketAddr) -> (sockaddr_storage, socklen_t) {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut storage: sockaddr_storage = unsafe { zeroed() };
    let to = &raw mut storage;
    let len = match addr {
        // SAFETY: sockaddr_storage is large enough and aligned for every socket address.
        SocketAddr::V4(v4) => unsafe {
            to.cast::<sockaddr_in>().write(sockaddr_in {
                sin_family: libc::AF_INET as _,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            });
            size_of::<sockaddr_in>()
        },
        // SAFETY: as above.
        SocketAddr::V6(v6) => unsafe {
            to.cast::<sockaddr_in6>().write(sockaddr_in6 {
                sin6_family: libc::AF_INET6 as _,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            });
            size_of::<sockaddr_in6>()
        },
    };
    (storage, len as socklen_t)
}

fn addr_of(ask: impl FnOnce(*mut sockaddr, *mut socklen_t) -> c_int) -> io::Result<SocketAddr> {
    // SAFETY: all zeroes is a valid sockaddr_storage.
    let mut storage: sockaddr_storage = unsafe { zeroed() };
    let mut len = size_of::<sockaddr_storage>() as socklen_t;
    check(ask((&raw mut storage).cast(), &raw mut len))?;
    let from = &raw const storage;
    match c_int::from(storage.ss_family) {
        // SAFETY: the family says that it is a sockaddr_in.
        libc::AF_INET => Ok(unsafe {
            let v4 = from.cast::<sockaddr_in>().read();
            (v4.sin_addr.s_addr.to_ne_bytes(), u16::from_be(v4.sin_port)).into()
        }),
        // SAFETY: the family says that it is a sockaddr_in6.
        libc::AF_INET6 => Ok(unsafe {
            let v6 = from.cast::<sockaddr_in6>().read();
            (v6.sin6_addr.s6_addr, u16::from_be(v6.sin6_port)).into()
        }),
        // A client of a unix-domain socket is on this host.
        libc::AF_UNIX => Ok((Ipv4Addr::LOCALHOST, 0).into()),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}
