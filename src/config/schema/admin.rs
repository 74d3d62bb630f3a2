//! `[admin]`: where the broker answers questions about itself.

use std::net::SocketAddr;

use crate::config::field::{Bounds, Field, Kind, Problem};
use crate::config::raw::{Raw, RawValue, quote};
use crate::config::section::section;

section! {
    /// Where the broker answers questions about itself, in HTTP. At their defaults these two are
    /// left out with a warning if something else has them; set by you, the broker does not start
    /// without them.
    pub struct Admin {
        /// The unix socket of the operator, which serves everything. Only the user that the broker
        /// runs as may connect. A relative path starts at node.data_dir. Empty: none.
        socket: String = "admin.sock".to_owned(), [0..=90], Restart;
        /// Address that serves `/metrics` to Prometheus, and the probes `/live` and `/ready`. No
        /// secret is needed to read them: think before opening it to a network. Empty: none.
        metrics_listen: MetricsListen = MetricsListen::default(), Restart;
    }
}

/// Where metrics are served: ADDRESS:PORT, or nowhere. The address is literal, as those of listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsListen(pub Option<SocketAddr>);

impl MetricsListen {
    /// Its port when nothing is said.
    pub const DEFAULT_PORT: u16 = 9_883;
}

impl Default for MetricsListen {
    fn default() -> Self {
        Self(Some(([127, 0, 0, 1], Self::DEFAULT_PORT).into()))
    }
}

impl Field for MetricsListen {
    const KIND: Kind = Kind::Text("an address such as \"127.0.0.1:9883\", or \"\"");

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let parsed = match &raw.value {
            RawValue::Text(text) if text.is_empty() => Some(Self(None)),
            RawValue::Text(text) => text.parse().ok().map(|address| Self(Some(address))),
            _ => None,
        };
        parsed.ok_or_else(|| {
            let message = format!("expected {}, found {}", Self::KIND, raw.describe());
            vec![Problem::new(raw, message)]
        })
    }

    fn toml(&self) -> String {
        quote(&self.0.map(|address| address.to_string()).unwrap_or_default())
    }
}
