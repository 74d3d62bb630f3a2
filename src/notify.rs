//! Tells the supervisor how the broker is, as sd_notify(3) describes it: systemd understands it, and others do.
//!
//! The words are those of the crate sd-notify. The socket is ours: the crate's sends may block for ever and know no
//! abstract addresses, and a supervisor that does not read must not stop the threads that watch and end the broker.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// Longest wait for a supervisor whose queue is full. What it does not take then is lost, and logged.
const SEND_MAX: Duration = Duration::from_secs(1);
/// Time that the process may take to end beyond the grace that clients have.
const END_MAX: Duration = Duration::from_secs(5);

/// Who started the process, if it wants to know how it is (`NOTIFY_SOCKET`). Without one nothing is sent.
///
/// Lives on: each thread that tells something has its own.
#[derive(Debug, Default)]
pub struct Supervisor(Option<(UnixDatagram, SocketAddr)>);

impl Supervisor {
    /// The one that the environment names. An address that makes no sense is logged: the broker serves without.
    #[must_use]
    pub fn from_env() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        Self::at(&address).unwrap_or_else(|error| {
            tracing::warn!(?address, %error, "NOTIFY_SOCKET is unusable: the supervisor is not told anything");
            Self::default()
        })
    }

    /// Whether anybody wants to know.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// The one at a path, or at an abstract address if it begins with `@`.
    ///
    /// # Errors
    /// When the address is too long, or no socket is to be had.
    fn at(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        Ok(Self(Some((socket, address))))
    }

    /// Clients can connect; also after [`reloading`](Self::reloading), when the reload is over.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// The configuration is being read again. [`ready`](Self::ready) follows.
    pub fn reloading(&self) {
        // systemd takes a READY=1 for the end of this reload by the time that is told here.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => {
                tracing::warn!(%error, "no clock: the supervisor is not told of the reload");
            }
        }
    }

    /// The broker ends, within `grace` and a little.
    pub fn stopping(&self, grace: Duration, status: &str) {
        let micros = u32::try_from((grace + END_MAX).as_micros()).unwrap_or(u32::MAX);
        let status = one_line(status);
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(micros),
            NotifyState::Status(&status),
        ]);
    }

    /// How it is, in a sentence for people.
    pub fn status(&self, status: &str) {
        self.tell(&[NotifyState::Status(&one_line(status))]);
    }

    /// The broker is alive.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.0 else { return };
        let mut text = String::new();
        for state in states {
            let _ = writeln!(text, "{state}"); // a String takes everything
        }
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            tracing::warn!(%error, said = text.trim_end(), "the supervisor was not told");
        }
    }
}

/// Without what would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A supervisor's end of an abstract address.
    fn listen(name: &str) -> (Supervisor, UnixDatagram) {
        let name = format!("ringmain-notify-{}-{name}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("short enough");
        let socket = UnixDatagram::bind_addr(&address).expect("nobody else has it");
        (Supervisor::at(OsStr::new(&format!("@{name}"))).expect("is an address"), socket)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let len = socket.recv(&mut buffer).expect("something was said");
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    #[test]
    fn what_is_told_is_what_systemd_reads() {
        let (supervisor, socket) = listen("words");
        supervisor.ready("listening on 127.0.0.1:1883");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=listening on 127.0.0.1:1883\n");
        supervisor.reloading();
        let said = heard(&socket);
        let time = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("systemd wants both");
        assert!(time.trim_end().parse::<u64>().expect("a number") > 0, "{said}");
        supervisor.stopping(Duration::from_secs(10), "ending");
        assert_eq!(heard(&socket), "STOPPING=1\nEXTEND_TIMEOUT_USEC=15000000\nSTATUS=ending\n");
        supervisor.alive();
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
    }

    #[test]
    fn a_status_cannot_say_anything_else() {
        let (supervisor, socket) = listen("status");
        supervisor.status("address in use\nREADY=1");
        assert_eq!(heard(&socket), "STATUS=address in use READY=1\n");
    }

    #[test]
    fn a_supervisor_that_is_not_there_is_no_fault() {
        let (supervisor, socket) = listen("gone");
        drop(socket);
        supervisor.alive();
        Supervisor::default().alive();
        let too_long = "/".repeat(200);
        assert!(Supervisor::at(OsStr::new(&too_long)).is_err());
    }

    #[test]
    fn a_supervisor_that_does_not_read_does_not_stop_the_broker() {
        let (supervisor, socket) = listen("deaf");
        // However many its queue holds, this thread comes back.
        let (other, address) = supervisor.0.as_ref().expect("has one");
        other.set_nonblocking(true).expect("a socket");
        while other.send_to_addr(b"STATUS=full", address).is_ok() {}
        other.set_nonblocking(false).expect("a socket");
        supervisor.alive();
        assert_eq!(heard(&socket), "STATUS=full");
    }
}
