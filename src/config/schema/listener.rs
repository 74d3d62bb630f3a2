//! `[[listeners]]`: the sockets that clients connect to.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ringmain_shards::engine::rates::Rate;

use super::Mqtt;
use super::transport::{
    ClientVerification, CrlExpired, CrlUnknown, FileMode, ListenerUrl, Network, TlsAlpn,
    TlsVersion, UnknownName,
};
use crate::config::field::choice;
use crate::config::section::section;

section! {
    /// One table for each socket that clients connect to. Without any, the broker listens on
    /// loopback alone, as the two tables here say; a table of yours replaces both. To serve a
    /// network: `url = "tcp://0.0.0.0:1883"` and `url = "tcp://[::]:1883"`.
    /// `[listeners.mqtt]` below a listener sets any key of `[mqtt]` for its clients alone.
    pub struct Listener {
        /// Name in logs and metrics. Empty: scheme and address of the url.
        name: String = String::new(), [0..=255], Restart;
        /// Where to listen, an IPv6 address in brackets: tcp://ADDRESS:PORT (port 1883 if it is left
        /// out), tls://ADDRESS:PORT (8883), ws://ADDRESS:PORT/PATH (8083; without path, /mqtt),
        /// wss://ADDRESS:PORT/PATH (8084), unix:///PATH. Port 0 takes any free one. The only key that a
        /// listener must have.
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
        /// PEM files for tls:// and wss://: a certificate each, then those that lead to its CA. Several
        /// serve several server names (SNI), those that each certificate is for, or one name with several
        /// kinds of keys. A changed file is read within a second; new connections get what is in it.
        tls_certificate_files: Vec<String> = Vec::new(), Live;
        /// PEM files with the keys of tls_certificate_files, in the same order; not encrypted.
        tls_key_files: Vec<String> = Vec::new(), Live;
        /// What a client gets that asks for a name no certificate is for. "default": the first
        /// certificate; "refuse": an alert.
        tls_unknown_name: UnknownName = UnknownName::Default, Live;
        /// Whether clients are asked for certificates. "none": no; "optional": who has none may come in,
        /// who has a bad one may not; "required": who has none may not come in.
        tls_client_verification: ClientVerification = ClientVerification::None, Live;
        /// PEM file: the CAs that may issue certificates of clients. Empty: none.
        tls_client_ca_file: String = String::new(), Live;
        /// Intermediate certificates that may lie between that of a client and its CA.
        tls_client_depth: u8 = 3, [0..=6], Live;
        /// PEM files: revocation lists. Without any, nothing is revoked.
        tls_crl_files: Vec<String> = Vec::new(), Live;
        /// What a list past its next update is worth. "refuse": who it would judge is refused; "use": it
        /// is used all the same.
        tls_crl_expired: CrlExpired = CrlExpired::Refuse, Live;
        /// Whether a certificate is refused whose issuer has no list: "refuse" or "accept".
        tls_crl_unknown: CrlUnknown = CrlUnknown::Refuse, Live;
        /// Versions of TLS.
        tls_versions: Vec<TlsVersion> = vec![TlsVersion::V12, TlsVersion::V13], Live;
        /// Cipher suites by their IANA names, most wanted first. Empty: all that are safe.
        tls_cipher_suites: Vec<String> = Vec::new(), Live;
        /// Application protocol (ALPN). "check": a client that names protocols must name `mqtt`, or
        /// `http/1.1` on wss://; "ignore": whatever it names.
        tls_alpn: TlsAlpn = TlsAlpn::Check, Live;
        /// Tickets that a TLS 1.3 client gets to come back with, which saves both sides most of the
        /// handshake. 0: no resumption, with TLS 1.2 neither.
        tls_tickets: u8 = 1, [0..=2], Live;
        /// Web pages that may connect to ws:// and wss://, such as `https://app.example`. Empty: all.
        websocket_origins: Vec<String> = Vec::new(), Live;
        /// Whether clients may leave out the subprotocol `mqtt`, which the specification demands.
        websocket_subprotocol_optional: bool = false, Live;
        /// Payload of one frame of a client.
        websocket_frame_bytes_max: u64 = 16_777_216, [1..=4_294_967_296], Live;
        /// Networks of proxies whose X-Forwarded-For is believed.
        websocket_trusted_proxies: Vec<Network> = Vec::new(), Live;
        /// Networks of load balancers that send a PROXY header (version 1 or 2) first: they must, all
        /// others must not. Empty: there are none.
        proxy_protocol_from: Vec<Network> = Vec::new(), Restart;
        /// Permissions of the socket of unix://, in octal.
        unix_mode: FileMode = FileMode(0o660), Restart;
        /// User that the socket of unix:// belongs to, by name or number. Empty: who the broker runs as.
        unix_user: String = String::new(), Restart;
        /// Group that the socket of unix:// belongs to, by name or number. Empty: that of the broker.
        unix_group: String = String::new(), Restart;
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
