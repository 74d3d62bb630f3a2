//! Unix-domain sockets to listen on.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use libc::{c_int, sockaddr, sockaddr_un, socklen_t};

use super::config::{ListenerConfig, StartError};
use super::listen::{check, failed};

/// The file of a socket of ours. Dropping it removes the file, unless somebody has put another one there.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.id);
        if is_ours {
            // Whatever prevents it, the next start removes a socket that nobody listens on.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Opens the one socket of a listener for so many shards. Nobody can connect before its permissions are set.
pub(super) fn open(
    config: &ListenerConfig,
    path: &Path,
    shards: usize,
) -> Result<(OwnedFd, SocketFile), StartError> {
    let fail = |step| move |e| failed(&config.addr, step, e);
    // SAFETY: no memory involved.
    let fd = unsafe {
        libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0)
    };
    if fd < 0 {
        return Err(fail("socket")(io::Error::last_os_error()));
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let bound = match bind(&socket, path) {
        Err(e)
            if e.kind() == ErrorKind::AddrInUse
                && remove_stale(path).map_err(fail("remove"))? =>
        {
            bind(&socket, path)
        }
        result => result,
    };
    bound.map_err(fail("bind"))?;
    let found = std::fs::symlink_metadata(path).map_err(fail("stat"))?;
    let file = SocketFile { path: path.to_owned(), id: (found.dev(), found.ino()) };
    let (user, group) = config.unix_owner;
    if user.is_some() || group.is_some() {
        chown(path, user, group).map_err(fail("chown"))?;
    }
    if let Some(mode) = config.unix_mode {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).map_err(fail("chmod"))?;
    }
    // One queue for all: as long as those of the shards would be together.
    let backlog = config.backlog.saturating_mul(shards as u32);
    let backlog = c_int::try_from(backlog).unwrap_or(c_int::MAX);
    // SAFETY: no memory involved.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map_err(fail("listen"))?;
    Ok((socket, file))
}

fn bind(socket: &OwnedFd, path: &Path) -> io::Result<()> {
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut name: sockaddr_un = unsafe { std::mem::zeroed() };
    name.sun_family = libc::AF_UNIX as _;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= name.sun_path.len() {
        let text = format!("the path has more than {} bytes", name.sun_path.len() - 1);
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    for (to, from) in name.sun_path.iter_mut().zip(bytes) {
        *to = *from as _;
    }
    let len = size_of::<sockaddr_un>() as socklen_t;
    // SAFETY: `name` is a sockaddr_un, of this size.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const name).cast::<sockaddr>(), len) })
}

/// Removes a socket that nobody listens on, as a broker leaves behind that was killed. False: it is no such thing.
fn remove_stale(path: &Path) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "a file is there that is no socket"));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map(|()| true)
        }
        _ => Ok(false),
    }
}
