//! Clients for tests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use ringmain_mqtt::Version;

use crate::source::{Ask, Context};
use crate::{Identity, Request};

pub(crate) const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// A client with user name and password; empty ones are absent.
pub(crate) fn client(client_id: &str, username: &str, password: &str) -> Request {
    let mut request = Request::connect(1, 0, PEER, Version::V5);
    request.client_id = client_id.into();
    request.username = Some(username).filter(|name| !name.is_empty()).map(Box::from);
    request.password =
        Some(password).filter(|word| !word.is_empty()).map(|word| word.as_bytes().into());
    request
}

/// The same as a source sees it, in the year 2023.
pub(crate) fn ask(request: &Request) -> Ask<'_> {
    static NOBODY: LazyLock<Identity> = LazyLock::new(Identity::default);
    Ask { request, so_far: &NOBODY, now_s: 1_700_000_100 }
}

pub(crate) fn context() -> Context {
    let hashing = crate::config::Hashing::default();
    Context::new(crate::hashers::Hashers::start(&hashing).expect("threads").into())
}

/// Runs a test whose clock jumps to the next timer when all wait.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime").block_on(test)
}

/// The same with the real clock: for what other threads do.
pub(crate) fn run_real<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime").block_on(test)
}
