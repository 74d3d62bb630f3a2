//! What keys must be together.

use std::collections::HashMap;
use std::net::SocketAddr;

use ringmain_transport::proxy::TRUSTED_MAX;

use super::error::ConfigError;
use super::load::Places;
use super::schema::{ClientVerification, Listener, Mqtt};
use super::section::Section;
use super::{Config, Scheme};

/// All relations that do not hold.
pub(super) fn check(config: &Config, places: &Places) -> Vec<ConfigError> {
    let mut check = Check { places, errors: Vec::new() };
    check.node(config);
    check.limits(config);
    check.reactor(config);
    check.mqtt("mqtt", &config.mqtt, &|_| true);
    check.listeners(config);
    check.errors
}

struct Check<'a> {
    places: &'a Places,
    errors: Vec<ConfigError>,
}

impl Check<'_> {
    /// Demands that `holds`; else the error stands where the last of `keys` that was written is.
    fn demand(&mut self, holds: bool, keys: &[String], message: String) {
        let Some(origin) = self.places.of(keys).filter(|_| !holds) else { return };
        let written = keys
            .iter()
            .rev()
            .find(|key| self.places.of(std::slice::from_ref(*key)).as_ref() == Some(&origin));
        let key = written.or(keys.last()).cloned().unwrap_or_default();
        self.errors.push(ConfigError::Value { origin, key, message });
    }

    /// Demands that the first is at most the second.
    fn at_most(&mut self, section: &str, low: (&str, u64), high: (&str, u64)) {
        let keys = [format!("{section}.{}", low.0), format!("{section}.{}", high.0)];
        let message = format!("{} ({}) must not be above {} ({})", low.0, low.1, high.0, high.1);
        self.demand(low.1 <= high.1, &keys, message);
    }

    fn node(&mut self, config: &Config) {
        let valid = !config.node.name.contains(['/', '+', '#', '\0']);
        let message = "a node name holds no `/`, `+`, `#` or NUL: it is a topic level".to_owned();
        self.demand(valid, &["node.name".to_owned()], message);
    }

    fn limits(&mut self, config: &Config) {
        let (limits, overload) = (&config.limits, &config.overload);
        if limits.memory_high_bytes > 0 && limits.memory_critical_bytes > 0 {
            self.at_most(
                "limits",
                ("memory_high_bytes", limits.memory_high_bytes),
                ("memory_critical_bytes", limits.memory_critical_bytes),
            );
        }
        let refuse = ("lag_refuse_ms", u64::from(overload.lag_refuse_ms));
        let drop = ("lag_drop_qos0_ms", u64::from(overload.lag_drop_qos0_ms));
        let pause = ("lag_pause_ms", u64::from(overload.lag_pause_ms));
        self.at_most("overload", refuse, drop);
        self.at_most("overload", drop, pause);
    }

    fn reactor(&mut self, config: &Config) {
        let reactor = &config.reactor;
        self.power_of_two("reactor.recv_buffers_per_ring", reactor.recv_buffers_per_ring);
        self.power_of_two("reactor.cq_entries", reactor.cq_entries);
        let [shards, rings, each, wanted] = [
            config.node.shards,
            reactor.rings_per_shard,
            reactor.max_connections_per_ring,
            config.limits.max_connections,
        ]
        .map(u64::from);
        let room = shards * rings * each;
        let keys = [
            "node.shards",
            "reactor.rings_per_shard",
            "reactor.max_connections_per_ring",
            "limits.max_connections",
        ]
        .map(str::to_owned);
        let message = format!(
            "{wanted} connections do not fit: {shards} shards of {rings} rings of {each} \
             connections hold {room}"
        );
        self.demand(room == 0 || wanted <= room, &keys, message);
    }

    fn power_of_two(&mut self, key: &str, value: u32) {
        let (low, high) = (previous_power_of_two(value), u64::from(value).next_power_of_two());
        let message = format!("{value} is not a power of two: {low} and {high} are the nearest");
        self.demand(value.is_power_of_two(), &[key.to_owned()], message);
    }

    /// `relevant` says for which keys an error is reported: a listener repeats only its own.
    fn mqtt(&mut self, section: &str, mqtt: &Mqtt, relevant: &dyn Fn(&str) -> bool) {
        let keep_alive = |key, value: u16| (key, u64::from(value));
        let min = keep_alive("keep_alive_min_s", mqtt.keep_alive_min_s);
        let max = keep_alive("keep_alive_max_s", mqtt.keep_alive_max_s);
        let server = keep_alive("server_keep_alive_s", mqtt.server_keep_alive_s);
        let message_default =
            ("message_expiry_default_s", u64::from(mqtt.message_expiry_default_s));
        let message_max = ("message_expiry_max_s", u64::from(mqtt.message_expiry_max_s));
        let pairs = [
            (true, min, max),
            (server.1 > 0, min, server),
            (server.1 > 0, server, max),
            (message_max.1 > 0, message_default, message_max),
        ];
        for (applies, low, high) in pairs {
            if applies && (relevant(low.0) || relevant(high.0)) {
                self.at_most(section, low, high);
            }
        }
    }

    fn listeners(&mut self, config: &Config) {
        let mut names: HashMap<&str, usize> = HashMap::new();
        let mut addresses: HashMap<_, usize> = HashMap::new();
        for (at, listener) in config.listeners.iter().enumerate() {
            let key = |name: &str| format!("listeners.{at}.{name}");
            // One address can be taken once; port 0 is another one each time.
            let address = listener.url.addr();
            let place = address.ok_or(&listener.url.path);
            let free = address.is_some_and(|address| address.port() == 0);
            let taken = addresses.insert(place, at).filter(|_| !free);
            if let Some(first) = taken {
                let keys = [format!("listeners.{first}.url"), key("url")];
                let message = format!("{} is the address of listener {first} too", listener.url);
                self.demand(false, &keys, message);
            } else if let Some(first) = names.insert(&listener.name, at) {
                let keys = [format!("listeners.{first}.name"), key("url"), key("name")];
                let message = format!("\"{}\" is the name of listener {first} too", listener.name);
                self.demand(false, &keys, message);
            }
            let metrics = config.admin.metrics_listen.0;
            let collides = metrics.zip(address).is_some_and(|(m, address)| collide(m, address));
            let text = address.map(|address| address.to_string()).unwrap_or_default();
            let message = format!("{text} is taken for metrics: change admin.metrics_listen");
            let keys = [key("url"), "admin.metrics_listen".to_owned()];
            self.demand(!collides, &keys, message);
            self.transport(at, listener);
            let message = "a listener must accept at least one of 3, 4, 5".to_owned();
            let versions = &listener.accept_protocol_versions;
            self.demand(!versions.is_empty(), &[key("accept_protocol_versions")], message);
            let own = |name: &str| listener.mqtt_overrides.contains(name);
            self.mqtt(&format!("listeners.{at}.mqtt"), &listener.mqtt, &own);
        }
    }
}

impl Check<'_> {
    /// Keys that belong to the transport of a listener are there, and no others.
    fn transport(&mut self, at: usize, listener: &Listener) {
        let key = |name: &str| format!("listeners.{at}.{name}");
        let (scheme, default) = (listener.url.scheme, Listener::default());
        for info in Listener::INFO.keys {
            let (fits, where_to) = match info.name.split('_').next() {
                Some("tls") => (scheme.has_tls(), "tls:// and wss://"),
                Some("websocket") => (scheme.has_websocket(), "ws:// and wss://"),
                Some("unix") => (scheme == Scheme::Unix, "unix://"),
                Some("proxy") => (scheme != Scheme::Unix, "tcp://, tls://, ws:// and wss://"),
                _ => continue,
            };
            let message =
                format!("this key is for {where_to}, and the listener is {}", listener.url);
            let is_default = listener.toml(info.name) == default.toml(info.name);
            self.demand(fits || is_default, &[key(info.name)], message);
        }
        for (name, networks) in [
            ("websocket_trusted_proxies", &listener.websocket_trusted_proxies),
            ("proxy_protocol_from", &listener.proxy_protocol_from),
        ] {
            let message = format!("{} networks are more than {TRUSTED_MAX}", networks.len());
            self.demand(networks.len() <= TRUSTED_MAX, &[key(name)], message);
        }
        if !scheme.has_tls() {
            return;
        }
        let (files, keys) = (&listener.tls_certificate_files, &listener.tls_key_files);
        let both = [key("url"), key("tls_certificate_files"), key("tls_key_files")];
        if files.is_empty() && keys.is_empty() {
            let message = format!(
                "{}:// needs tls_certificate_files and tls_key_files (in --listen: \
                 ?cert=FILE&key=FILE)",
                scheme.name()
            );
            return self.demand(false, &both[..1], message);
        }
        let message = format!(
            "{} certificates and {} keys: each certificate has its key, in the same order",
            files.len(),
            keys.len()
        );
        self.demand(files.len() == keys.len(), &both, message);
        let asks = listener.tls_client_verification != ClientVerification::None;
        let message =
            "certificates of clients need tls_client_ca_file: the CAs that may issue them";
        let keys = [key("tls_client_verification"), key("tls_client_ca_file")];
        self.demand(!asks || !listener.tls_client_ca_file.is_empty(), &keys, message.to_owned());
        let message = "TLS needs a version: \"1.2\", \"1.3\" or both".to_owned();
        self.demand(!listener.tls_versions.is_empty(), &[key("tls_versions")], message);
    }
}

/// Whether two listening sockets cannot be open at once.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let everywhere = same_family && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || everywhere)
}

fn previous_power_of_two(value: u32) -> u32 {
    1 << value.max(1).ilog2()
}
