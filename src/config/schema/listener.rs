//! `[[listeners]]`: the sockets that clients connect to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ringmain_shards::engine::rates::Rate;

use super::Mqtt;
use crate::config::field::{Bounds, Field, Kind, Problem, choice};
use crate::config::raw::{Raw, RawValue, quote};
use crate::config::section::section;

section! {
    /// One table for each socket that clients connect to. Without any, the broker listens on
    /// loopback alone, as the two tables here say; a table of yours replaces both. To serve a
    /// network: `url = "tcp://0.0.0.0:1883"` and `url = "tcp://[::]:1883"`.
    /// `[listeners.mqtt]` below a listener sets any key of `[mqtt]` for its clients alone.
    pub struct Listener {
        /// Name in logs and metrics. Empty: scheme and address of the url.
        name: String = String::new(), [0..=255], Restart;
        /// Where to listen: tcp://ADDRESS:PORT, an IPv6 address in brackets. Without port: 1883.
        /// Port 0 takes any free one. The only key that a listener must have.
        url: ListenerUrl = ListenerUrl::default(), Restart;
        /// Whether the broker starts, with a warning, on a host that does not have this address.
        optional: bool = false, Restart;
        /// Connections that the kernel has completed and a shard has not accepted yet, for each
        /// shard; the kernel's net.core.somaxconn caps it.
        backlog: u32 = 1_024, [1..=65_535], Restart;
        /// Open connections on this listener. Further ones are closed at once. 0: no limit but
        /// `[limits]`.
        max_connections: u32 = 0, [0..=16_777_216], Live;
        /// New connections a second. 0: no limit.
        max_connection_rate_per_s: u32 = 0, [0..=1_000_000], Live;
        /// Open connections from one address. 0: no limit.
        max_connections_per_ip: u32 = 0, [0..=16_777_216], Live;
        /// New connections a second from one address. 0: no limit. Further ones are closed with RST.
        max_connection_rate_per_ip_per_s: u32 = 0, [0..=1_000_000], Live;
        /// What happens to a connection above max_connection_rate_per_s, the listener's or that of
        /// `[limits]`. "wait": it stays in the backlog until its turn; "reset": it is closed with
        /// RST.
        connection_rate_mode: ConnectionRateMode = ConnectionRateMode::Wait, Live;
        /// PUBLISH packets of all clients of this listener together, such as "10k/s". "0": no limit.
        message_rate: Rate = Rate::default(), Live;
        /// Bytes of these packets. "0": no limit.
        byte_rate: Rate = Rate::default(), Live;
        /// Filters in SUBSCRIBE packets of all its clients. "0": no limit.
        subscribe_rate: Rate = Rate::default(), Live;
        /// Messages to all its clients; further ones wait in their queues, as for a slow consumer. "0": no limit.
        delivery_rate: Rate = Rate::default(), Live;
        /// Topic and payload bytes of these messages. "0": no limit.
        delivery_byte_rate: Rate = Rate::default(), Live;
        /// MQTT versions served: 3 is 3.1, 4 is 3.1.1, 5 is 5.0.
        accept_protocol_versions: Vec<u8> = vec![3, 4, 5], [3..=5], Live;
        /// TCP_NODELAY: send small packets at once.
        nodelay: bool = true, Restart;
        /// TCP_DEFER_ACCEPT: the kernel accepts a connection when its first bytes are there, which
        /// makes connects cheaper and keeps those who say nothing out; after about this time it
        /// accepts them all the same. 0: at once.
        tcp_defer_accept_s: u32 = 1, [0..=60], Restart;
        /// SO_SNDBUF of each connection. 0: the kernel sizes it.
        send_buffer_bytes: u32 = 0, [0..=1_073_741_823], Restart;
        /// SO_RCVBUF of each connection. 0: the kernel sizes it.
        receive_buffer_bytes: u32 = 0, [0..=1_073_741_823], Restart;
        /// Silence before the kernel probes a connection; finds dead peers of clients that use
        /// keep alive 0. 0: no probes.
        tcp_keepalive_s: u32 = 120, [0..=32_767], Restart;
        /// Time between probes.
        tcp_keepalive_interval_s: u32 = 30, [1..=32_767], Restart;
        /// Probes without answer after which the connection is dead.
        tcp_keepalive_probes: u32 = 3, [1..=127], Restart;
        /// TCP_USER_TIMEOUT: time that sent data may stay unacknowledged before the kernel closes
        /// the connection. 0: the kernel's retry limit.
        tcp_user_timeout_ms: u32 = 0, [0..=2_147_483_647], Restart;
    }
    and {
        /// `[mqtt]` with the overrides of `[listeners.mqtt]`.
        mqtt: Mqtt,
        /// The keys of `[mqtt]` that `[listeners.mqtt]` set.
        mqtt_overrides: BTreeSet<String>,
    }
}

impl Listener {
    /// A listener at `url`, all else default.
    pub fn at(url: ListenerUrl) -> Listener {
        Listener { name: url.name(), url, ..Listener::default() }
    }

    /// The listeners of a broker without configuration: loopback, and IPv6 where there is any.
    pub fn loopback() -> Vec<Listener> {
        let v4 = ListenerUrl::tcp(Ipv4Addr::LOCALHOST.into(), ListenerUrl::DEFAULT_PORT);
        let v6 = ListenerUrl::tcp(Ipv6Addr::LOCALHOST.into(), ListenerUrl::DEFAULT_PORT);
        vec![Listener::at(v4), Listener { optional: true, ..Listener::at(v6) }]
    }
}

choice! {
    /// What happens to a connection above the listener's rate.
    pub enum ConnectionRateMode {
        /// It waits in the backlog.
        Wait = "wait",
        /// It is closed with RST.
        Reset = "reset",
    }
}

/// Transport of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// MQTT over TCP.
    Tcp,
}

/// Where a listener listens. Addresses are literal: a name could mean another host tomorrow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerUrl {
    /// Transport.
    pub scheme: Scheme,
    /// Address; unspecified for all interfaces.
    pub ip: IpAddr,
    /// Port; 0 for any free one.
    pub port: u16,
}

impl ListenerUrl {
    /// Port of MQTT over TCP.
    pub const DEFAULT_PORT: u16 = 1_883;

    /// MQTT over TCP at this address.
    pub fn tcp(ip: IpAddr, port: u16) -> ListenerUrl {
        ListenerUrl { scheme: Scheme::Tcp, ip, port }
    }

    /// Address and port.
    pub fn addr(&self) -> std::net::SocketAddr {
        (self.ip, self.port).into()
    }

    /// The name of a listener that has none.
    pub fn name(&self) -> String {
        format!("tcp:{}", self.addr())
    }

    /// Parses `tcp://ADDRESS[:PORT]`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<ListenerUrl, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("{} is not a listener url: write tcp://ADDRESS:PORT", quote(text)));
        };
        if scheme != "tcp" {
            return Err(format!("unknown scheme {}: only tcp:// is served", quote(scheme)));
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => match bracketed.split_once(']') {
                Some((host, port)) => (host, port),
                None => return Err(format!("{}: the bracket is not closed", quote(text))),
            },
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| format!("{} is not a port", quote(port)))?,
            None if port.is_empty() => ListenerUrl::DEFAULT_PORT,
            None => return Err(format!("{} is not a port", quote(port))),
        };
        let ip: Option<IpAddr> = match host {
            "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
            _ if rest.starts_with('[') => host.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => host.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        };
        match ip {
            Some(ip) => Ok(ListenerUrl::tcp(ip, port)),
            None => Err(format!(
                "{} is not an address: write 127.0.0.1, 0.0.0.0 for all, or [::1], [::]",
                quote(host)
            )),
        }
    }
}

impl Default for ListenerUrl {
    fn default() -> Self {
        ListenerUrl::tcp(Ipv4Addr::LOCALHOST.into(), ListenerUrl::DEFAULT_PORT)
    }
}

impl std::fmt::Display for ListenerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tcp://{}", self.addr())
    }
}

impl Field for ListenerUrl {
    const KIND: Kind = Kind::Text("a url such as \"tcp://127.0.0.1:1883\"");

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let RawValue::Text(text) = &raw.value else {
            let message = format!("expected {}, found {}", Self::KIND, raw.describe());
            return Err(vec![Problem::new(raw, message)]);
        };
        ListenerUrl::parse(text).map_err(|message| vec![Problem::new(raw, message)])
    }

    fn toml(&self) -> String {
        quote(&self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_literal_addresses_with_an_optional_port() {
        let parsed = |text| ListenerUrl::parse(text).map(|url| url.to_string());
        assert_eq!(parsed("tcp://127.0.0.1:1884"), Ok("tcp://127.0.0.1:1884".into()));
        assert_eq!(parsed("tcp://0.0.0.0"), Ok("tcp://0.0.0.0:1883".into()));
        assert_eq!(parsed("tcp://[::]:0/"), Ok("tcp://[::]:0".into()));
        assert_eq!(parsed("tcp://[::1]"), Ok("tcp://[::1]:1883".into()));
        assert_eq!(parsed("tcp://localhost:1"), Ok("tcp://127.0.0.1:1".into()));
        for bad in [
            "",
            "1883",
            "tcp://",
            "tcp://:1883",
            "tcp://broker.example:1883",
            "tcp://127.0.0.1:65536",
            "tcp://127.0.0.1:",
            "tcp://[127.0.0.1]:1883",
            "tcp://::1:1883",
            "tcp://[::1",
            "tcp://[::1]1883",
            "ssl://127.0.0.1:8883",
        ] {
            assert!(ListenerUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
