//! The thread of the control plane: an HTTP server on a unix socket and on a TCP listener.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ringmain_shards::observe::Question;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::ask::Asker;
use crate::http::{self, App, Door, Refusal};
use crate::socket::{self, SocketFile};

/// Connections of each listener that are served at a time: one operator and some scrapers need few, and each may
/// hold an answer of a megabyte.
const CONNECTIONS_MAX: usize = 64;
/// Connections beyond them that are told so at a time; further ones wait in the backlog.
const REFUSALS_MAX: usize = 16;
/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// Time for a request's line and headers.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Time for a connection, which has one request: recorded turns take 30 s, and a slow reader some time.
const CONNECTION_WAIT: Duration = Duration::from_secs(90);
/// The same for one that is refused.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);
/// Time until the next accept when one failed, as it does when descriptors are short.
const ACCEPT_AGAIN: Duration = Duration::from_millis(500);

/// Something that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place<T> {
    /// Where.
    pub at: T,
    /// Whether the broker must not start without it. Otherwise it starts with a warning.
    pub required: bool,
}

/// Where the unix socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPath {
    /// Its path, at most 90 bytes or so: the kernel takes 107, and it is made in a folder beside.
    pub path: PathBuf,
    /// Whether its folder is made, and removed at the end if nothing else is in it.
    pub make_folder: bool,
}

/// What the control plane listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The unix socket, with everything; `None`: none.
    pub socket: Option<Place<SocketPath>>,
    /// The address that serves `/metrics`, `/live` and `/ready`; `None`: none.
    pub metrics: Option<Place<SocketAddr>>,
}

/// Why the control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The unix socket is not to be had.
    #[error("{0} (admin.socket)")]
    Socket(String),
    /// The address is not to be had.
    #[error("cannot listen on {0} for metrics: {1} (admin.metrics_listen)")]
    Metrics(SocketAddr, String),
    /// The operating system refuses a thread, or what it needs.
    #[error("cannot start the control plane: {0}")]
    Thread(#[from] io::Error),
}

/// Opens what is listened on and serves it. See [`open`].
///
/// # Errors
/// See [`open`] and [`Opened::serve`].
pub fn start(config: Config, questions: flume::Sender<Question>) -> Result<Running, Error> {
    open(&config)?.serve(questions)
}

/// Opens what is listened on. Clients wait until it is served.
///
/// # Errors
/// When something that is required cannot be opened.
pub fn open(config: &Config) -> Result<Opened, Error> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    let socket = match &config.socket {
        None => None,
        Some(place) => {
            let listening = socket::listen(&place.at.path, place.at.make_folder);
            optional(runtime.block_on(listening).map_err(Error::Socket), place.required)?
        }
    };
    let metrics = match &config.metrics {
        None => None,
        Some(place) => {
            let listener = listen(place.at).map_err(|e| Error::Metrics(place.at, why(&e)));
            optional(listener, place.required)?
        }
    };
    Ok(Opened { runtime, socket, metrics })
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(at)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// In the words of the listeners. "Already in use" holds `ready`, which those who start brokers look for.
fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this host does not have the address".to_owned(),
        _ => error.to_string(),
    }
}

fn optional<T>(opened: Result<T, Error>, required: bool) -> Result<Option<T>, Error> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if required => Err(error),
        Err(error) => {
            tracing::warn!("{error}; going on without");
            Ok(None)
        }
    }
}

/// Sockets that are open and not served yet. Dropping it closes them and removes the unix socket.
#[derive(Debug)]
pub struct Opened {
    runtime: Runtime,
    socket: Option<(UnixListener, SocketFile)>,
    metrics: Option<TcpListener>,
}

impl Opened {
    /// Serves them, from a thread of its own, which asks `questions` of the node.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn serve(self, questions: flume::Sender<Question>) -> Result<Running, Error> {
        self.serve_with(Asker::new(questions))
    }

    fn serve_with(self, asker: Asker) -> Result<Running, Error> {
        let Self { runtime, socket, metrics } = self;
        let app = Arc::new(App {
            asker,
            started: SystemTime::now(),
            listening: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        });
        let address = metrics.as_ref().map(TcpListener::local_addr).transpose()?;
        let (listener, file) = socket.unzip();
        let (stop, stopped) = oneshot::channel();
        let of_thread = Arc::clone(&app);
        let thread =
            std::thread::Builder::new().name("ringmain-admin".to_owned()).spawn(move || {
                let served = serve(of_thread, listener, metrics, stopped);
                if let Err(error) = runtime.block_on(served) {
                    tracing::error!(%error, "the control plane has ended");
                }
            })?;
        Ok(Running { app, stop: Some(stop), thread: Some(thread), address, file })
    }
}

/// A control plane that serves. Dropping it ends it, with all requests, and removes the unix socket.
#[derive(Debug)]
pub struct Running {
    app: Arc<App>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    address: Option<SocketAddr>,
    file: Option<SocketFile>,
}

impl Running {
    /// Tells `/ready` whether clients of MQTT can connect. At first they cannot.
    pub fn set_listening(&self, listening: bool) {
        self.app.listening.store(listening, Ordering::Relaxed);
    }

    /// Path of the unix socket, if there is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.file.as_ref().map(SocketFile::path)
    }

    /// Address that serves metrics, if there is one.
    #[must_use]
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It waits for nothing but its own clients, and stops at once.
            let _ = thread.join();
        }
    }
}

async fn serve(
    app: Arc<App>,
    socket: Option<UnixListener>,
    metrics: Option<TcpListener>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    if let Some(listener) = socket {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        let app = Arc::clone(&app);
        tokio::spawn(accept(app, Door::Socket, move |cx| {
            listener.poll_accept(cx).map_ok(|(stream, _)| stream)
        }));
    }
    if let Some(listener) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(accept(app, Door::Metrics, move |cx| {
            listener.poll_accept(cx).map_ok(|(stream, _)| stream)
        }));
    }
    // An error is the same message: nobody is there to send it any more.
    let _ = stopped.await;
    Ok(())
}

/// Accepts for ever.
async fn accept<S>(
    app: Arc<App>,
    door: Door,
    mut next: impl FnMut(&mut Context<'_>) -> Poll<io::Result<S>>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let served = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let refused = Arc::new(Semaphore::new(REFUSALS_MAX));
    let mut failed = false;
    loop {
        let stream = match poll_fn(&mut next).await {
            Ok(stream) => stream,
            Err(error) => {
                if !failed {
                    tracing::warn!(%error, ?door, "the control plane cannot accept; trying again");
                }
                failed = true;
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        failed = false;
        let app = Arc::clone(&app);
        if let Ok(permit) = Arc::clone(&served).try_acquire_owned() {
            tokio::spawn(async move {
                let _ = timeout(CONNECTION_WAIT, connection(stream, app, door, false)).await;
                drop(permit);
            });
            continue;
        }
        app.refused.fetch_add(1, Ordering::Relaxed);
        let Ok(permit) = Arc::clone(&refused).acquire_owned().await else { return };
        tokio::spawn(async move {
            let _ = timeout(REFUSAL_WAIT, connection(stream, app, door, true)).await;
            drop(permit);
        });
    }
}

/// Serves the one request of a connection, or refuses it.
async fn connection<S>(stream: S, app: Arc<App>, door: Door, refuse: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let app = Arc::clone(&app);
        async move {
            Ok::<_, Infallible>(if refuse {
                let text = format!("{CONNECTIONS_MAX} connections are served already: try again");
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, &text).into_response()
            } else {
                http::answer(app, door, &request).await
            })
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, ?door, "a connection of the control plane ended early");
    }
}

#[cfg(test)]
mod tests;
