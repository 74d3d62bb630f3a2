//! A blocking client of the admin socket: one request, one connection.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::api::Failure;

/// Largest answer that is read, bytes: a recording of the turns of many shards is the largest there is.
pub const ANSWER_BYTES_MAX: usize = 1 << 30;
/// How long an answer may take, unless more is given with [`Client::waiting`].
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Read at a time, bytes.
const READ: usize = 64 * 1024;

/// Where a broker listens for its operator. Holds no connection.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    patience: Duration,
}

/// Why there is no answer, for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no such socket.
    #[error(
        "there is no admin socket {path}: is the broker running, and is this its socket? \
         (--socket PATH, or --config FILE with the broker's configuration)"
    )]
    NoSocket {
        /// Where it should be.
        path: PathBuf,
    },
    /// There is one, and nobody listens.
    #[error(
        "nobody listens on {path}: the broker that made it is gone; is another one running elsewhere? (--socket)"
    )]
    NobodyListens {
        /// Where it is.
        path: PathBuf,
    },
    /// It is somebody else's.
    #[error(
        "{path}: permission denied: only the user that the broker runs as, and root, may use its admin socket"
    )]
    Denied {
        /// Where it is.
        path: PathBuf,
    },
    /// The broker did not answer in time.
    #[error("{path}: no answer to {request} within {} s: the broker is stopped, or its host is overloaded", .after.as_secs_f64())]
    Timeout {
        /// Where it was asked.
        path: PathBuf,
        /// What it was asked.
        request: String,
        /// How long it had.
        after: Duration,
    },
    /// The broker says why not.
    #[error("{error}")]
    Failed {
        /// HTTP status, 400 or above.
        status: u16,
        /// What is wrong and what to do.
        error: String,
    },
    /// What listens there is no broker of this version.
    #[error(
        "{path}: the answer to {request} is not understood ({what}): is it a broker of this version?"
    )]
    Nonsense {
        /// Where it was asked.
        path: PathBuf,
        /// What it was asked.
        request: String,
        /// What is wrong with it.
        what: String,
    },
    /// The connection broke.
    #[error("{path}: {error}")]
    Io {
        /// Where it is.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

impl Client {
    /// Of the broker whose socket this is. Connects when it is asked something.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), patience: PATIENCE }
    }

    /// For requests that take so long by themselves.
    #[must_use]
    pub fn waiting(&self, for_request: Duration) -> Self {
        Self { path: self.path.clone(), patience: PATIENCE + for_request }
    }

    /// Where it connects to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks `GET target`, such as `/v1/slow?n=5`.
    ///
    /// # Errors
    /// As [`ClientError`]; an answer with a status of 400 or above is one.
    pub fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let body = self.get_bytes(target)?;
        serde_json::from_slice(&body).map_err(|e| self.nonsense(target, &e.to_string()))
    }

    /// As [`Self::get`], without looking at what the answer says.
    ///
    /// # Errors
    /// As [`ClientError`].
    pub fn get_bytes(&self, target: &str) -> Result<Vec<u8>, ClientError> {
        let until = Instant::now() + self.patience;
        let raw = self.exchange(target, until).map_err(|error| self.failed(target, error))?;
        let answer = Answer::read(&raw).map_err(|what| self.nonsense(target, what))?;
        if answer.status < 400 {
            return Ok(answer.body);
        }
        let told = serde_json::from_slice::<Failure>(&answer.body).map(|f| f.error);
        let error = told.unwrap_or_else(|_| format!("status {} for {target}", answer.status));
        Err(ClientError::Failed { status: answer.status, error })
    }

    fn exchange(&self, target: &str, until: Instant) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_write_timeout(Some(left(until)?))?;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: ringmain\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let mut raw = Vec::new();
        let mut piece = vec![0; READ];
        // The server closes after its answer; whoever does not is known by the length it gave.
        while !Answer::is_whole(&raw) {
            stream.set_read_timeout(Some(left(until)?))?;
            match stream.read(&mut piece) {
                Ok(0) => break,
                Ok(n) => raw.extend_from_slice(&piece[..n]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            if raw.len() > ANSWER_BYTES_MAX {
                return Err(io::Error::other("the answer is longer than 1 GiB"));
            }
        }
        Ok(raw)
    }

    fn failed(&self, target: &str, error: io::Error) -> ClientError {
        let path = self.path.clone();
        match error.kind() {
            ErrorKind::NotFound => ClientError::NoSocket { path },
            ErrorKind::ConnectionRefused => ClientError::NobodyListens { path },
            ErrorKind::PermissionDenied => ClientError::Denied { path },
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                ClientError::Timeout { path, request: target.to_owned(), after: self.patience }
            }
            _ => ClientError::Io { path, error },
        }
    }

    fn nonsense(&self, target: &str, what: &str) -> ClientError {
        let (path, request) = (self.path.clone(), target.to_owned());
        ClientError::Nonsense { path, request, what: what.to_owned() }
    }
}

/// Time left; a timeout when there is none.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// An answer of HTTP/1.1.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// How the end of a body is known.
enum Framing {
    Length(usize),
    Chunked,
    ToTheEnd,
}

struct Head<'a> {
    status: u16,
    framing: Framing,
    rest: &'a [u8],
}

impl<'a> Head<'a> {
    /// `None` while it is not complete.
    fn read(raw: &'a [u8]) -> Option<Result<Self, &'static str>> {
        let end = raw.windows(4).position(|w| w == b"\r\n\r\n")?;
        Some(Self::parse(&raw[..end], &raw[end + 4..]))
    }

    fn parse(head: &[u8], rest: &'a [u8]) -> Result<Self, &'static str> {
        let head = std::str::from_utf8(head).map_err(|_| "its head is no text")?;
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        if !status.starts_with("HTTP/1.") {
            return Err("it is not HTTP/1.1");
        }
        let status =
            status.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("it has no status")?;
        let mut framing = Framing::ToTheEnd;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                framing = Framing::Length(value.parse().map_err(|_| "its length is no number")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
                break; // goes before a length
            }
        }
        Ok(Self { status, framing, rest })
    }
}

impl Answer {
    /// Whether all is there that the head speaks of.
    fn is_whole(raw: &[u8]) -> bool {
        match Head::read(raw) {
            None => false,
            Some(Err(_)) => true,
            Some(Ok(head)) => match head.framing {
                Framing::Length(length) => head.rest.len() >= length,
                Framing::Chunked => head.rest.ends_with(b"0\r\n\r\n"),
                Framing::ToTheEnd => false,
            },
        }
    }

    fn read(raw: &[u8]) -> Result<Self, &'static str> {
        let head = Head::read(raw).ok_or("it ends within its head")??;
        let body = match head.framing {
            Framing::Length(length) => head.rest.get(..length).ok_or("it ends too soon")?.to_vec(),
            Framing::Chunked => unchunked(head.rest)?,
            Framing::ToTheEnd => head.rest.to_vec(),
        };
        Ok(Self { status: head.status, body })
    }
}

fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>, &'static str> {
    const WRONG: &str = "its chunks are broken";
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").ok_or("it ends too soon")?;
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| WRONG)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| WRONG)?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).ok_or("it ends too soon")?);
        rest = rest[size..].strip_prefix(b"\r\n").ok_or(WRONG)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Audit;
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    /// Answers one request; gives it back.
    fn server(name: &str, answer: &'static [u8]) -> (Client, JoinHandle<String>) {
        let path =
            std::env::temp_dir().join(format!("ringmain-client-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let client = Client::new(&path);
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let _ = stream.write_all(answer);
            // Without an answer it stays open until the client has lost patience.
            while answer.is_empty() && stream.read(&mut byte).unwrap_or(0) > 0 {}
            let _ = std::fs::remove_file(&path);
            String::from_utf8(request).unwrap()
        });
        (client, thread)
    }

    #[test]
    fn an_answer_is_read_by_its_length_in_chunks_or_to_the_end() {
        for (name, answer) in [
            ("length", &b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"error\":\"no\"}trailing"[..]),
            (
                "chunks",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"err\r\n9;x=y\r\nor\":\"no\"}\r\n0\r\n\r\n",
            ),
            ("end", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{\"error\":\"no\"}"),
        ] {
            let (client, thread) = server(name, answer);
            let got: Failure = client.get("/v1/x").unwrap();
            assert_eq!(got.error, "no", "{name}");
            assert!(thread.join().unwrap().starts_with("GET /v1/x HTTP/1.1\r\nHost: "));
        }
    }

    #[test]
    fn the_brokers_own_words_are_shown_as_they_are() {
        let (client, thread) = server(
            "failure",
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 20\r\n\r\n{\"error\":\"n is 1..9\"}",
        );
        let error = client.get::<Audit>("/v1/slow?n=0").unwrap_err();
        thread.join().unwrap();
        // The length cuts the last brace: what is not understood is told by its status.
        assert_eq!(error.to_string(), "status 400 for /v1/slow?n=0");
        let (client, thread) = server(
            "failure",
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 21\r\n\r\n{\"error\":\"n is 1..9\"}",
        );
        let error = client.get::<Audit>("/v1/slow?n=0").unwrap_err();
        thread.join().unwrap();
        assert_eq!(error.to_string(), "n is 1..9");
    }

    #[test]
    fn who_is_not_there_is_told_apart_from_who_is_gone_and_who_does_not_answer() {
        let path =
            std::env::temp_dir().join(format!("ringmain-client-{}-none", std::process::id()));
        let error = Client::new(&path).get::<Audit>("/v1/audit").unwrap_err();
        assert!(error.to_string().contains("is the broker running"), "{error}");
        assert!(error.to_string().contains("--socket"), "{error}");

        drop(UnixListener::bind(&path).unwrap());
        let error = Client::new(&path).get::<Audit>("/v1/audit").unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert!(error.to_string().contains("nobody listens"), "{error}");

        let (mut client, thread) = server("silent", b"");
        client.patience = Duration::from_millis(50);
        let error = client.get::<Audit>("/v1/audit").unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
        assert!(error.to_string().contains("/v1/audit within 0.05 s"), "{error}");
        thread.join().unwrap();
    }

    #[test]
    fn what_is_no_broker_is_said_so() {
        for (name, answer) in [
            ("ssh", &b"SSH-2.0-OpenSSH\r\n\r\n"[..]),
            ("short", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
            ("nothing", b"HTTP/1.1 200"),
            ("json", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"),
            ("chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n0\r\n\r\n"),
        ] {
            let (client, thread) = server(name, answer);
            let error = client.get::<Numbers>("/v1/audit").unwrap_err();
            assert!(matches!(error, ClientError::Nonsense { .. }), "{name}: {error}");
            thread.join().unwrap();
        }
    }

    type Numbers = crate::api::Numbers;
}
