//! TLS: a client of rustls and a server in memory. Rows T02 to T04, T06, T07, T10, C18.

mod certificates;
mod clients;
mod files;
mod handshake;
mod openssl;
mod traffic;

#[path = "../support/mod.rs"]
mod support;
