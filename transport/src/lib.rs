//! What lies between the bytes of a socket and MQTT: the PROXY protocol ([`proxy`]), TLS ([`tls`])
//! and WebSocket ([`ws`]), joined by [`Stack`].
//!
//! Sans-I/O: whoever owns the socket hands in what it received, takes out what is to be sent, and
//! says what time it is. Only [`tls::load`] reads files. Everything is `Send` and nothing is shared
//! but what never changes, so a connection moves between shards in the middle of anything.
//!
//! Bytes are decoded in place: what a layer leaves for the next one lies at the front of the slice
//! that was handed in.

pub mod hints;
pub mod proxy;
mod stack;
pub mod tls;
pub mod ws;

pub use stack::{Cause, Closing, End, Layers, Received, STACK_KEEP_BYTES_MAX, Secured, Stack};
