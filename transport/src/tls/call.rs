//! What a call of [`Tls`](super::Tls) and rustls' hooks tell each other: the time in, the server name out.
//!
//! rustls asks a time provider that all connections of a configuration share, and tells a server's
//! name only to the certificate resolver. Both run inside of the call that handed bytes in, on its
//! thread, so what is theirs for the length of one call lies in a cell of the thread: nothing is
//! shared between shards, and nothing is left behind.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

thread_local! {
    static NOW_S: Cell<Option<u64>> = const { Cell::new(None) };
    static SERVER_NAME: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

/// While it lives, rustls is told this time.
pub(super) struct Call(());

impl Call {
    pub(super) fn at(now_s: u64) -> Call {
        NOW_S.set(Some(now_s));
        Call(())
    }

    /// The server name that the client asked for in this call, if its ClientHello came in it.
    pub(super) fn take_server_name(&self) -> Option<Box<str>> {
        SERVER_NAME.take()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        NOW_S.set(None);
        SERVER_NAME.set(None);
    }
}

/// The time of the call under way, in seconds since 1970; none outside of one.
pub(super) fn now_s() -> Option<u64> {
    NOW_S.get()
}

pub(super) fn note_server_name(name: &str) {
    SERVER_NAME.set(Some(name.into()));
}

/// Tells rustls the time that the caller gave.
#[derive(Debug)]
struct Given;

impl TimeProvider for Given {
    fn current_time(&self) -> Option<UnixTime> {
        now_s().map(|s| UnixTime::since_unix_epoch(Duration::from_secs(s)))
    }
}

pub(super) fn time_provider() -> Arc<dyn TimeProvider> {
    Arc::new(Given)
}
