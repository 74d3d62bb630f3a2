//! The unix socket of the operator: never open to others, never taken from a broker that lives.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

/// Who may connect: the user that the broker runs as.
const MODE: u32 = 0o600;
/// Folders that are made.
const FOLDER_MODE: u32 = 0o700;
/// Whoever does not take a connection by then is there all the same.
const PROBE: Duration = Duration::from_secs(1);

/// A listening socket's file; dropping it removes the file, if it is this one still.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The folder, if it was made for the socket.
    made: Option<PathBuf>,
}

impl SocketFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode));
        if ours {
            let _ = std::fs::remove_file(&self.path);
        }
        if let Some(folder) = &self.made {
            // Stays if anything was stored in it.
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Listens at `path`. A socket that nobody listens on any more is replaced. With `make_folder` the folder
/// is made if it is not there.
///
/// # Errors
/// Why it cannot be, in words.
pub(crate) async fn listen(
    path: &Path,
    make_folder: bool,
) -> Result<(UnixListener, SocketFile), String> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = if make_folder && !folder.exists() {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(FOLDER_MODE).create(folder);
        made.map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        Some(folder.to_owned())
    } else {
        None
    };
    let listening = listen_in(folder, path).await;
    match listening {
        Ok((listener, metadata)) => {
            let (device, inode) = (metadata.dev(), metadata.ino());
            Ok((listener, SocketFile { path: path.to_owned(), device, inode, made }))
        }
        Err(error) => {
            if let Some(folder) = made {
                let _ = std::fs::remove_dir(folder);
            }
            Err(error)
        }
    }
}

async fn listen_in(
    folder: &Path,
    path: &Path,
) -> Result<(UnixListener, std::fs::Metadata), String> {
    let failed = |e: io::Error| format!("cannot listen on {}: {e}", path.display());
    // Of two brokers that start at once, one looks first, and the other one finds its socket.
    let lock = File::open(folder).map_err(failed)?;
    lock.lock().map_err(failed)?;
    free(path).await?;
    // Made in a folder that nobody else can enter, and moved when its permissions are right.
    let private = folder.join(format!(".ringmain-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&private);
    DirBuilder::new().mode(FOLDER_MODE).create(&private).map_err(failed)?;
    let listening = (|| {
        let inside = private.join("s");
        let listener = UnixListener::bind(&inside)?;
        listener.set_nonblocking(true)?;
        std::fs::set_permissions(&inside, Permissions::from_mode(MODE))?;
        let metadata = std::fs::symlink_metadata(&inside)?;
        std::fs::rename(&inside, path)?;
        Ok((listener, metadata))
    })();
    let _ = std::fs::remove_dir_all(&private);
    listening.map_err(failed)
}

/// Whether the path may be taken.
async fn free(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(format!("cannot look at {shown}: {e}")),
    };
    if !metadata.file_type().is_socket() {
        return Err(format!("{shown} is there and is no socket: remove it or name another path"));
    }
    match timeout(PROBE, UnixStream::connect(path)).await {
        Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(e)) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(format!("{shown} belongs to somebody else: name another path"))
        }
        // Connected, or its queue is full: somebody listens.
        _ => Err(format!("another broker listens on {shown}: give each its own node.data_dir")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let name = format!("ringmain-socket-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        folder
    }

    fn try_listen(path: &Path) -> Result<(UnixListener, SocketFile), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(listen(path, true))
    }

    #[test]
    fn only_the_own_user_may_enter_and_nothing_is_left_behind() {
        let folder = folder("mode");
        let path = folder.join("admin.sock");
        let (_listener, file) = try_listen(&path).expect("listens");
        let mode = |path: &Path| std::fs::metadata(path).expect("is there").mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder)), (0o600, 0o700));
        let names = || std::fs::read_dir(&folder).expect("a folder").count();
        assert_eq!(names(), 1, "the place where it was made is gone");
        drop(file);
        assert!(!folder.exists());
    }

    #[test]
    fn a_socket_that_nobody_listens_on_is_replaced() {
        let folder = folder("stale");
        std::fs::create_dir(&folder).expect("a folder");
        let path = folder.join("admin.sock");
        drop(UnixListener::bind(&path).expect("listens"));
        let (_listener, file) = try_listen(&path).expect("replaces it");
        std::os::unix::net::UnixStream::connect(&path).expect("somebody listens");
        drop(file);
        assert!(folder.exists() && !path.exists(), "it did not make the folder");
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn a_socket_that_somebody_listens_on_or_another_file_stays() {
        let folder = folder("taken");
        std::fs::create_dir(&folder).expect("a folder");
        let path = folder.join("admin.sock");
        let (listener, file) = try_listen(&path).expect("listens");
        // Nobody accepts: that alone does not make it dead.
        let error = try_listen(&path).expect_err("it is taken");
        assert!(error.starts_with("another broker listens on "), "{error}");
        drop((listener, file));
        std::fs::write(&path, "precious").expect("writes");
        let error = try_listen(&path).expect_err("it is no socket");
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("is there"), "precious");
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn who_ends_late_does_not_remove_the_socket_of_who_came_after() {
        let folder = folder("late");
        let path = folder.join("admin.sock");
        let (listener, first) = try_listen(&path).expect("listens");
        drop(listener);
        let (_listener, _second) = try_listen(&path).expect("replaces it");
        drop(first);
        assert!(path.exists());
        let _ = std::fs::remove_dir_all(folder);
    }

    #[test]
    fn a_path_that_cannot_be_is_named() {
        let folder = folder(&"x".repeat(100));
        let error = try_listen(&folder.join("admin.sock")).expect_err("it is too long");
        assert!(error.starts_with("cannot listen on "), "{error}");
        assert!(!folder.exists(), "nothing is left");
    }
}
