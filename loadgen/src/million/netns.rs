//! A network namespace of its own, in which the kernel finds connections in a table made for them.
//!
//! The table in which Linux looks up the connection of each packet is sized at boot (`thash_entries`), from
//! memory: 262,144 chains on a host of 24 GiB. Two million ends of connections make chains of seven or
//! eight, each of its entries a cache line that was not used for long, walked several times for each connect.
//! From Linux 6.1 on a namespace can have a table of its own, as long as its creator says.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;

use libc::{c_int, c_short};

/// `net.ipv4.tcp_child_ehash_entries`, for namespaces made from now on; 0: they share their creator's.
const CHILD_TABLE: &str = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
/// `net.ipv4.tcp_ehash_entries`: chains of the namespace's table, negative where it is the host's.
const TABLE: &str = "/proc/sys/net/ipv4/tcp_ehash_entries";
/// The most that the kernel takes.
const ENTRIES_MAX: u64 = 16 << 20;

/// Chains of a table for so many connections with both ends on this host: half an end on each.
pub(super) fn entries(connections: u64) -> u64 {
    (4 * connections).next_power_of_two().min(ENTRIES_MAX)
}

/// Moves the calling thread, and what it starts from now on, into a new namespace with a loopback interface
/// and a table for `connections`. It goes when the last process in it ends.
///
/// # Errors
/// A sentence for the user: without CAP_SYS_ADMIN and CAP_NET_ADMIN, before Linux 6.1, without memory.
pub(super) fn enter(connections: u64) -> Result<(), String> {
    let wrong = |what: &str, e: io::Error| format!("--netns: {what}: {e}");
    // Opened here, it stays the setting of the namespace that is left.
    let mut setting = OpenOptions::new().read(true).write(true).open(CHILD_TABLE).map_err(|e| {
        wrong("net.ipv4.tcp_child_ehash_entries needs root and Linux 6.1, and was not opened", e)
    })?;
    let mut before = String::new();
    setting.read_to_string(&mut before).map_err(|e| wrong(CHILD_TABLE, e))?;
    let asked = entries(connections);
    write(&mut setting, &asked.to_string()).map_err(|e| wrong(CHILD_TABLE, e))?;
    // SAFETY: takes flags only.
    let entered = match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(wrong("no new network namespace", io::Error::last_os_error())),
    };
    write(&mut setting, before.trim()).map_err(|e| wrong(CHILD_TABLE, e))?;
    entered?;
    raise_loopback().map_err(|e| wrong("the loopback interface", e))?;
    // Below /proc/sys/net everybody sees the namespace of the thread that looks.
    let table = std::fs::read_to_string(TABLE).map_err(|e| wrong(TABLE, e))?;
    match table.trim().parse::<i64>() {
        Ok(n) if n >= asked as i64 => Ok(()),
        // Negative: the kernel had no memory for it, and shares the host's.
        _ => Err(format!("--netns: the kernel made no table of {asked} chains")),
    }
}

/// A sysctl takes its value in one write, at the beginning.
fn write(setting: &mut File, value: &str) -> io::Result<()> {
    setting.rewind()?;
    setting.write_all(value.as_bytes())
}

fn raise_loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: all zeroes is a valid request; the name below is shorter than its field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as c_short;
    // SAFETY: the request lives until the call returns, and is of the type that SIOCSIFFLAGS reads.
    let done: c_int =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_two_chains_for_each_end_of_a_connection_up_to_what_the_kernel_takes() {
        assert_eq!(entries(1_000_000), 4 << 20);
        assert_eq!(entries(300_000), 2 << 20);
        assert_eq!(entries(100_000_000), ENTRIES_MAX);
    }

    #[test]
    fn the_namespace_has_its_loopback_and_its_table_and_the_host_keeps_its_setting() {
        let setting = || std::fs::read_to_string(CHILD_TABLE).unwrap_or_default();
        let before = setting();
        // A thread of its own: the others stay where they are.
        let entered = std::thread::spawn(|| {
            enter(50_000).map(|()| {
                let listener = std::net::TcpListener::bind("127.0.0.1:1883").unwrap();
                std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            })
        });
        match entered.join().unwrap() {
            Ok(()) => {}
            // SAFETY: has no arguments.
            Err(why) if unsafe { libc::geteuid() } != 0 => {
                assert!(why.contains("needs root"), "{why}");
            }
            Err(why) => panic!("{why}"),
        }
        assert_eq!(setting(), before);
    }
}
