//! The broker of a run: started here, or running already.

use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ringmain_kernel_params::Host;

/// The broker may take this long until it accepts connections: its rings are allocated first.
const START_MAX: Duration = Duration::from_secs(30);
/// It may take this long to end a million sessions.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Connections that the broker may hold beyond those of the run.
const SPARE_CONNECTIONS: u64 = 10_000;

/// A broker that was started here. Dropping it ends it.
#[derive(Debug)]
pub struct Broker {
    child: Child,
}

impl Broker {
    /// Starts Ringmain for `connections` on `address`, and waits until it accepts.
    ///
    /// # Errors
    /// When it cannot be started, or ends before it accepts.
    pub fn start(
        binary: &Path,
        address: SocketAddr,
        connections: u64,
        settings: &[String],
    ) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command.arg("--listen").arg(format!("tcp://{address}")).args(["--log", "warn"]).args([
            "--set",
            &format!("limits.max_connections={}", connections + SPARE_CONNECTIONS),
        ]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        // Whoever listens there would be taken for the broker that is about to fail.
        if TcpStream::connect(address).is_ok() {
            return Err(io::Error::other(format!(
                "something listens on {address} already: --host and --port name a broker that runs, \
                 --port alone another port to start one on"
            )));
        }
        let child = command.stdin(Stdio::null()).spawn().map_err(|e| {
            io::Error::new(e.kind(), format!("cannot start {}: {e}", binary.display()))
        })?;
        let mut broker = Self { child };
        broker.wait_until_it_accepts(address)?;
        Ok(broker)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_it_accepts(&mut self, address: SocketAddr) -> io::Result<()> {
        let since = Instant::now();
        while since.elapsed() < START_MAX {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("the broker ended: {status}")));
            }
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            sleep(Duration::from_millis(20));
        }
        Err(io::Error::other("the broker did not accept connections in 30 s"))
    }

    /// Asks it to end, waits, and says how it ended.
    ///
    /// # Errors
    /// When it does not end in a minute, or not with success.
    pub fn stop(mut self) -> io::Result<()> {
        // SAFETY: a signal to a child that was not waited for.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let since = Instant::now();
        while since.elapsed() < STOP_MAX {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("the broker: {status}"))),
                None => sleep(Duration::from_millis(20)),
            }
        }
        Err(io::Error::other("the broker did not end in a minute"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Where Ringmain's binary is: as told, beside this program, or in PATH.
///
/// # Errors
/// A sentence for the user.
pub fn find_binary(told: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = told {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(format!("{}: there is no such file", path.display()))
        };
    }
    let here = std::env::current_exe().ok().and_then(|p| Some(p.parent()?.join("ringmain")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("ringmain"));
    here.into_iter().chain(in_path).find(|p| p.is_file()).ok_or_else(|| {
        "the broker `ringmain` is neither beside this program nor in PATH: give --broker FILE, or \
         --host and --port of one that runs"
            .to_owned()
    })
}

/// Which process listens on a TCP port of this host, and may be looked at.
#[must_use]
pub fn listener_of(port: u16) -> Option<u32> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|path| {
            let table = fs::read_to_string(path).unwrap_or_default();
            table.lines().filter_map(|line| listening_inode(line, port)).collect::<Vec<_>>()
        })
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds_any(*pid, &inodes))
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode`
fn listening_inode(line: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    let at = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
    (state == LISTEN && at == port).then(|| format!("socket:[{inode}]"))
}

fn holds_any(pid: u32, inodes: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|fd| {
        fs::read_link(fd.path()).is_ok_and(|to| inodes.iter().any(|i| to.as_os_str() == i.as_str()))
    })
}

/// Descriptors that process `pid` may open, unless it is Ringmain, which has none for a connection.
#[must_use]
pub fn descriptors_of(pid: u32) -> Option<u64> {
    let mut name = String::new();
    fs::File::open(format!("/proc/{pid}/comm")).ok()?.read_to_string(&mut name).ok()?;
    if name.trim().starts_with("ringmain") {
        return None;
    }
    Some(Host::here().of_process(pid).limit("Max open files")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_listens_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listener_of(port), Some(std::process::id()));
    }

    #[test]
    fn no_broker_is_started_where_somebody_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let started = Broker::start(Path::new("/nowhere/ringmain"), at, 1, &[]);
        let said = started.err().unwrap().to_string();
        assert!(said.contains("listens on") && said.contains(&at.to_string()), "{said}");
    }

    #[test]
    fn only_listening_sockets_of_that_port_count() {
        let head = "0100007F:075B 00000000:0000";
        let tail = "00000000:00000000 00:00000000 00000000 0 0 4711 1 0";
        let listening = format!("0: {head} 0A {tail}");
        assert_eq!(listening_inode(&listening, 1883).as_deref(), Some("socket:[4711]"));
        assert_eq!(listening_inode(&listening, 1884), None);
        assert_eq!(listening_inode(&format!("0: {head} 01 {tail}"), 1883), None);
        assert_eq!(listening_inode("  sl  local_address rem_address", 1883), None);
    }

    #[test]
    fn another_broker_has_a_descriptor_for_each_connection() {
        assert_eq!(descriptors_of(u32::MAX), None);
        assert!(descriptors_of(std::process::id()).is_none_or(|n| n > 0));
    }

    #[test]
    fn a_binary_that_is_not_there_is_refused() {
        assert!(find_binary(Some(Path::new("/nowhere/ringmain"))).unwrap_err().contains("no such"));
    }
}
