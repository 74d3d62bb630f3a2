//! What the keys of `[[listeners]]` hold about transports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use ringmain_transport::proxy::Cidr;

use crate::config::field::{Bounds, Field, Kind, Problem, choice};
use crate::config::load::nearest_of;
use crate::config::raw::{Raw, RawValue, quote};

/// Transport of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// MQTT over TCP.
    Tcp,
    /// MQTT over TLS.
    Tls,
    /// MQTT over WebSocket.
    Ws,
    /// MQTT over WebSocket over TLS.
    Wss,
    /// MQTT over a unix-domain socket.
    Unix,
}

impl Scheme {
    const ALL: [Scheme; 5] = [Scheme::Tcp, Scheme::Tls, Scheme::Ws, Scheme::Wss, Scheme::Unix];

    /// As in urls.
    pub fn name(self) -> &'static str {
        match self {
            Scheme::Tcp => "tcp",
            Scheme::Tls => "tls",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
            Scheme::Unix => "unix",
        }
    }

    /// Whether certificates are needed.
    pub fn has_tls(self) -> bool {
        matches!(self, Scheme::Tls | Scheme::Wss)
    }

    /// Whether WebSocket is spoken.
    pub fn has_websocket(self) -> bool {
        matches!(self, Scheme::Ws | Scheme::Wss)
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Tcp | Scheme::Unix => 1_883,
            Scheme::Tls => 8_883,
            Scheme::Ws => 8_083,
            Scheme::Wss => 8_084,
        }
    }
}

/// Where a listener listens. Addresses are literal: a name could mean another host tomorrow.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerUrl {
    /// Transport.
    pub scheme: Scheme,
    /// Address; unspecified for all interfaces. Of no meaning for a unix-domain socket.
    pub ip: IpAddr,
    /// Port; 0 for any free one.
    pub port: u16,
    /// Of WebSocket, or of the unix-domain socket; empty otherwise.
    pub path: String,
}

impl ListenerUrl {
    /// Port of MQTT over TCP.
    pub const DEFAULT_PORT: u16 = 1_883;
    const WEBSOCKET_PATH: &str = "/mqtt";

    /// MQTT over TCP at this address.
    pub fn tcp(ip: IpAddr, port: u16) -> ListenerUrl {
        ListenerUrl { scheme: Scheme::Tcp, ip, port, path: String::new() }
    }

    /// Address and port; `None` for a unix-domain socket.
    pub fn addr(&self) -> Option<SocketAddr> {
        (self.scheme != Scheme::Unix).then(|| (self.ip, self.port).into())
    }

    /// Whether only this host can reach it.
    pub fn is_local(&self) -> bool {
        self.addr().is_none_or(|addr| addr.ip().is_loopback())
    }

    /// The name of a listener that has none.
    pub fn name(&self) -> String {
        match self.addr() {
            Some(addr) => format!("{}:{addr}", self.scheme.name()),
            None => format!("unix:{}", self.path),
        }
    }

    /// Parses a url as `[[listeners]]` explains it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<ListenerUrl, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("{} is not a listener url: write tcp://ADDRESS:PORT", quote(text)));
        };
        let Some(scheme) = Scheme::ALL.into_iter().find(|known| known.name() == scheme) else {
            let nearest = match scheme {
                "ssl" | "mqtts" => "tls".to_owned(),
                "mqtt" => "tcp".to_owned(),
                _ => nearest_of(scheme, Scheme::ALL.map(Scheme::name)),
            };
            return Err(format!(
                "unknown scheme {}: there are tcp, tls, ws, wss and unix; nearest: {nearest}://",
                quote(scheme)
            ));
        };
        if scheme == Scheme::Unix {
            if !Path::new(rest).is_absolute() {
                return Err(format!("{} is no absolute path: write unix:///PATH", quote(rest)));
            }
            let ip = Ipv4Addr::LOCALHOST.into();
            return Ok(ListenerUrl { scheme, ip, port: 0, path: rest.to_owned() });
        }
        let (rest, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = match (scheme.has_websocket(), path) {
            (true, "" | "/") => Self::WEBSOCKET_PATH,
            (true, path) if path.contains(['?', '#', ' ']) => {
                return Err(format!("{} is no path: it has no `?`, `#` or space", quote(path)));
            }
            (true, path) => path,
            (false, "" | "/") => "",
            (false, path) => {
                return Err(format!("{} belongs to no {}:// url", quote(path), scheme.name()));
            }
        };
        let (ip, port) = address(text, rest)?;
        let port = port.unwrap_or(scheme.default_port());
        Ok(ListenerUrl { scheme, ip, port, path: path.to_owned() })
    }
}

/// `ADDRESS[:PORT]`, of the url `text`.
fn address(text: &str, rest: &str) -> Result<(IpAddr, Option<u16>), String> {
    let (host, port) = match rest.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, port)) => (host, port),
            None => return Err(format!("{}: the bracket is not closed", quote(text))),
        },
        None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => Some(port.parse().map_err(|_| format!("{} is not a port", quote(port)))?),
        None if port.is_empty() => None,
        None => return Err(format!("{} is not a port", quote(port))),
    };
    let ip: Option<IpAddr> = match host {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        _ if rest.starts_with('[') => host.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => host.parse::<Ipv4Addr>().ok().map(IpAddr::from),
    };
    match ip {
        Some(ip) => Ok((ip, port)),
        None => Err(format!(
            "{} is not an address: write 127.0.0.1, 0.0.0.0 for all, or [::1], [::]",
            quote(host)
        )),
    }
}

impl Default for ListenerUrl {
    fn default() -> Self {
        ListenerUrl::tcp(Ipv4Addr::LOCALHOST.into(), ListenerUrl::DEFAULT_PORT)
    }
}

impl std::fmt::Display for ListenerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://", self.scheme.name())?;
        if let Some(addr) = self.addr() {
            write!(f, "{addr}")?;
        }
        f.write_str(&self.path)
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

choice! {
    /// What a client gets that asks for a name no certificate is for.
    pub enum UnknownName {
        /// The first certificate.
        Default = "default",
        /// An alert.
        Refuse = "refuse",
    }
}

choice! {
    /// Whether clients are asked for certificates.
    pub enum ClientVerification {
        /// Not asked for.
        None = "none",
        /// Asked for; who has none may come in.
        Optional = "optional",
        /// Who has none may not come in.
        Required = "required",
    }
}

choice! {
    /// What a revocation list past its next update is worth.
    pub enum CrlExpired {
        /// Who it would judge is refused.
        Refuse = "refuse",
        /// It is used all the same.
        Use = "use",
    }
}

choice! {
    /// What becomes of certificates that no list judges.
    pub enum CrlUnknown {
        /// They are refused.
        Refuse = "refuse",
        /// They are taken.
        Accept = "accept",
    }
}

choice! {
    /// Versions of TLS.
    pub enum TlsVersion {
        /// RFC 5246.
        V12 = "1.2",
        /// RFC 8446.
        V13 = "1.3",
    }
}

choice! {
    /// What becomes of the application protocols that a client names.
    pub enum TlsAlpn {
        /// One of them must be ours.
        Check = "check",
        /// Nothing.
        Ignore = "ignore",
    }
}

/// A network such as `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(pub Cidr);

impl Field for Network {
    const KIND: Kind = Kind::Text("a network such as \"10.0.0.0/8\"");

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let RawValue::Text(text) = &raw.value else {
            let message = format!("expected {}, found {}", Self::KIND, raw.describe());
            return Err(vec![Problem::new(raw, message)]);
        };
        let network: Result<Cidr, _> = text.parse();
        network.map(Network).map_err(|error| vec![Problem::new(raw, error.to_string())])
    }

    fn toml(&self) -> String {
        quote(&self.0.to_string())
    }
}

/// Permissions of a file, in octal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Field for FileMode {
    const KIND: Kind = Kind::Text("permissions such as \"0660\"");

    fn read(raw: &Raw, _: Option<Bounds>) -> Result<Self, Vec<Problem>> {
        let mode = match &raw.value {
            RawValue::Text(text) => u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o777),
            _ => None,
        };
        mode.map(FileMode).ok_or_else(|| {
            let message = format!("expected {}, found {}", Self::KIND, raw.describe());
            vec![Problem::new(raw, message)]
        })
    }

    fn toml(&self) -> String {
        quote(&format!("{:04o}", self.0))
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
        assert_eq!(parsed("tls://[::1]"), Ok("tls://[::1]:8883".into()));
        assert_eq!(parsed("ws://0.0.0.0"), Ok("ws://0.0.0.0:8083/mqtt".into()));
        assert_eq!(parsed("wss://0.0.0.0:443/a/b"), Ok("wss://0.0.0.0:443/a/b".into()));
        assert_eq!(parsed("unix:///run/a b"), Ok("unix:///run/a b".into()));
        let wrong = ListenerUrl::parse("mqtts://127.0.0.1").unwrap_err();
        assert!(wrong.ends_with("nearest: tls://"), "{wrong}");
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
            "tcp://127.0.0.1:1883/mqtt",
            "ws://127.0.0.1:80/a?b",
            "unix://relative",
            "unix://",
        ] {
            assert!(ListenerUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
