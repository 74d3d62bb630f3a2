//! Sockets that are only held, such as those of a test that counts how many fit.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::IoUring;

use super::shard::nofile_limit;

/// Holds sockets in tables of direct descriptors, so that they need no descriptor each: a process holds more
/// of them than RLIMIT_NOFILE. Dropping it closes them.
#[derive(Default)]
pub struct Keeper {
    rings: Vec<IoUring>,
    /// Sockets in the last ring.
    used: u32,
}

/// The kernel's bound of one table.
const TABLE_MAX: u64 = 1 << 20;
/// Completions that a ring without submissions needs.
const ENTRIES: u32 = 2;

impl Keeper {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a socket.
    ///
    /// # Errors
    /// No memory or no descriptor for another table.
    pub fn keep(&mut self, socket: OwnedFd) -> io::Result<()> {
        // RLIMIT_NOFILE bounds each table.
        let table = nofile_limit().min(TABLE_MAX) as u32;
        if self.rings.is_empty() || self.used == table {
            let ring = IoUring::new(ENTRIES)?;
            ring.submitter().register_files_sparse(table)?;
            self.rings.push(ring);
            self.used = 0;
        }
        let Some(ring) = self.rings.last() else { return Err(io::ErrorKind::OutOfMemory.into()) };
        ring.submitter().register_files_update(self.used, &[socket.as_raw_fd()])?;
        self.used += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_kept_socket_stays_open_without_a_descriptor_until_the_keeper_goes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut keeper = Keeper::new();
        keeper.keep(client.into()).unwrap();
        server.set_nonblocking(true).unwrap();
        let open = server.read(&mut [0]).unwrap_err();
        assert_eq!(open.kind(), io::ErrorKind::WouldBlock);
        drop(keeper);
        server.set_nonblocking(false).unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    }
}
