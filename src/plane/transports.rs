//! What lies between the sockets of listeners and MQTT: certificates from their files, at the start, when files
//! change, and when the configuration does.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringmain_shards::observe::CertificateView;
use ringmain_shards::reactor::{Layers, LayersSwitch};
use ringmain_transport::proxy::Trusted;
use ringmain_transport::tls::{self, TICKET_KEY_ROTATION_S, TlsContext, load};
use ringmain_transport::ws::WsConfig;

use super::stamp::{Stamp, stamp};
use crate::config::{self, Config, Listener, nearest_of};

/// Files are looked at so often: with two looks that must agree, a new certificate is in use within a second (T07).
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Orders that wait; reloads are rare.
pub(super) const ORDERS: usize = 16;

/// Certificates in use, for metrics.
pub(super) type Certificates = Arc<Mutex<Vec<CertificateView>>>;

/// What may be asked of the thread that looks after certificates.
pub(super) enum Order {
    /// The configuration changed.
    Apply(Arc<Config>),
    /// Read all files again, changed or not.
    Refresh,
}

/// Whether all files of a configuration can be used.
///
/// # Errors
/// One sentence for each listener whose files cannot.
pub(super) fn check(config: &Config) -> Result<(), Vec<String>> {
    let errors: Vec<String> =
        config.listeners.iter().filter_map(|listener| tls_of(listener, None).err()).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Lives on: its own thread, "ringmain-tls". The listeners that are open, by their index at the reactor.
pub(super) struct Transports {
    listeners: Vec<Transport>,
    certificates: Certificates,
}

struct Transport {
    listener: Listener,
    context: Option<Arc<TlsContext>>,
    /// What the files were when they were read last, whatever came of it.
    read: Vec<Stamp>,
    /// What they were at the last look.
    seen: Vec<Stamp>,
    rotated: Instant,
}

impl Transports {
    /// Loads what the listeners need.
    ///
    /// # Errors
    /// The first thing that cannot be used.
    pub(super) fn load(listeners: &[Listener]) -> Result<Transports, String> {
        let open = |listener: &Listener| {
            let read = stamps(listener);
            let context = tls_of(listener, None)?;
            let listener = listener.clone();
            warn(&listener, context.as_deref());
            Ok(Transport { listener, context, seen: read.clone(), read, rotated: Instant::now() })
        };
        let listeners = listeners.iter().map(open).collect::<Result<_, String>>()?;
        let transports = Transports { listeners, certificates: Certificates::default() };
        transports.publish();
        Ok(transports)
    }

    /// What a listener has between socket and MQTT; `None`: nothing.
    pub(super) fn layers(&self, index: usize) -> Option<Arc<Layers>> {
        let transport = &self.listeners[index];
        let layers = layers(&transport.listener, transport.context.clone());
        let any = layers.proxy.is_some() || layers.tls.is_some() || layers.ws.is_some();
        any.then(|| Arc::new(layers))
    }

    /// Certificates in use, kept up to date.
    pub(super) fn certificates(&self) -> Certificates {
        Arc::clone(&self.certificates)
    }

    /// Looks after the files until nobody can order anything any more.
    pub(super) fn run(mut self, switch: LayersSwitch, orders: flume::Receiver<Order>) {
        let any = self.listeners.iter().any(|transport| transport.context.is_some());
        loop {
            let order = if any {
                match orders.recv_timeout(LOOK_EVERY) {
                    Ok(order) => Some(order),
                    Err(flume::RecvTimeoutError::Timeout) => None,
                    Err(flume::RecvTimeoutError::Disconnected) => return,
                }
            } else {
                let Ok(order) = orders.recv() else { return };
                Some(order)
            };
            match order {
                Some(Order::Apply(config)) => self.apply(&config, &switch),
                Some(Order::Refresh) => {
                    for index in 0..self.listeners.len() {
                        self.refresh(index, &switch);
                    }
                }
                None => self.look(&switch),
            }
        }
    }

    fn apply(&mut self, config: &Config, switch: &LayersSwitch) {
        for index in 0..self.listeners.len() {
            let name = &self.listeners[index].listener.name;
            let Some(listener) = config.listeners.iter().find(|l| l.name == *name) else {
                continue;
            };
            if *listener != self.listeners[index].listener {
                self.listeners[index].listener = listener.clone();
                self.refresh(index, switch);
            }
        }
    }

    /// Files that changed, and have not changed since the last look: who writes one is done with it.
    fn look(&mut self, switch: &LayersSwitch) {
        for index in 0..self.listeners.len() {
            let transport = &mut self.listeners[index];
            if transport.context.is_none() {
                continue;
            }
            let now = stamps(&transport.listener);
            let settled = now == transport.seen;
            transport.seen = now;
            if settled && transport.seen != transport.read {
                self.refresh(index, switch);
            } else if transport.rotated.elapsed() >= Duration::from_secs(TICKET_KEY_ROTATION_S) {
                self.rotate(index, switch);
            }
        }
    }

    /// Reads the files of a listener again. If they cannot be used, it keeps what it has.
    fn refresh(&mut self, index: usize, switch: &LayersSwitch) {
        let transport = &mut self.listeners[index];
        let name = transport.listener.name.clone();
        transport.read = stamps(&transport.listener);
        transport.seen.clone_from(&transport.read);
        match tls_of(&transport.listener, transport.context.as_deref()) {
            Ok(context) => {
                warn(&transport.listener, context.as_deref());
                let is_tls = context.is_some();
                transport.context = context;
                self.switch(index, switch);
                self.publish();
                if is_tls {
                    tracing::info!(listener = name, "certificates were read again");
                }
            }
            Err(why) => tracing::error!(
                listener = name,
                "{why}; new connections go on with the certificates from before"
            ),
        }
    }

    fn rotate(&mut self, index: usize, switch: &LayersSwitch) {
        let transport = &mut self.listeners[index];
        transport.rotated = Instant::now();
        match transport.context.as_ref().map(|context| context.with_new_ticket_key()) {
            Some(Ok(context)) => {
                transport.context = Some(context);
                self.switch(index, switch);
            }
            Some(Err(failure)) => tracing::error!("{}; the old key goes on", failure.sentence),
            None => {}
        }
    }

    fn switch(&self, index: usize, switch: &LayersSwitch) {
        if let Some(layers) = self.layers(index) {
            switch.set(index, layers);
        }
    }

    fn publish(&self) {
        let mut all = Vec::new();
        for Transport { listener, context, .. } in &self.listeners {
            for info in context.iter().flat_map(|context| context.certificates()) {
                all.push(CertificateView {
                    listener: listener.name.clone(),
                    file: info.file.display().to_string(),
                    subject: info.subject.clone(),
                    not_after_s: info.not_after_s,
                });
            }
        }
        *self.certificates.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = all;
    }
}

fn warn(listener: &Listener, context: Option<&TlsContext>) {
    for warning in context.map_or(&[][..], |context| context.warnings()) {
        tracing::warn!(listener = listener.name, "{warning}");
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn layers(l: &Listener, tls: Option<Arc<TlsContext>>) -> Layers {
    let ws = l.url.scheme.has_websocket().then(|| {
        Arc::new(WsConfig {
            path: l.url.path.clone(),
            origins: (!l.websocket_origins.is_empty()).then(|| l.websocket_origins.clone()),
            trusted_proxies: trusted(&l.websocket_trusted_proxies),
            subprotocol_optional: l.websocket_subprotocol_optional,
            frame_bytes_max: l.websocket_frame_bytes_max,
            message_bytes_max: l
                .websocket_frame_bytes_max
                .max(WsConfig::default().message_bytes_max),
        })
    });
    let proxies = &l.proxy_protocol_from;
    let proxy = (!proxies.is_empty()).then(|| Arc::new(trusted(proxies)));
    Layers { proxy, tls, ws }
}

fn trusted(networks: &[config::Network]) -> Trusted {
    let networks = networks.iter().map(|network| network.0).collect();
    Trusted::new(networks).expect("the relations of the configuration bound it")
}

/// The TLS of a listener, if it has any; `old` is what it takes the place of.
fn tls_of(l: &Listener, old: Option<&TlsContext>) -> Result<Option<Arc<TlsContext>>, String> {
    if !l.url.scheme.has_tls() {
        return Ok(None);
    }
    for (key, file) in files(l) {
        if !file.exists() {
            let nearest = nearest_file(&file).map(|name| format!("; nearest: {name}"));
            let (name, nearest) = (&l.name, nearest.unwrap_or_default());
            return Err(format!("listeners.{name}.{key}: there is no {}{nearest}", file.display()));
        }
    }
    let config = tls_config(l);
    let loaded = match old {
        None => load::load(&config, now_s()),
        Some(old) => load::reload(old, &config, now_s()),
    };
    loaded.map(Some).map_err(|error| format!("listeners.{}: {error}", l.name))
}

fn tls_config(l: &Listener) -> tls::TlsConfig {
    let path = |text: &String| PathBuf::from(text);
    let pairs = l.tls_certificate_files.iter().zip(&l.tls_key_files);
    tls::TlsConfig {
        certificates: pairs
            .map(|(certificate, key)| tls::CertificateFiles {
                certificate_file: path(certificate),
                key_file: path(key),
                names: Vec::new(),
            })
            .collect(),
        unknown_name: match l.tls_unknown_name {
            config::UnknownName::Default => tls::UnknownName::Default,
            config::UnknownName::Refuse => tls::UnknownName::Refuse,
        },
        client: tls::ClientAuth {
            verification: match l.tls_client_verification {
                config::ClientVerification::None => tls::ClientVerification::None,
                config::ClientVerification::Optional => tls::ClientVerification::Optional,
                config::ClientVerification::Required => tls::ClientVerification::Required,
            },
            ca_file: (!l.tls_client_ca_file.is_empty()).then(|| path(&l.tls_client_ca_file)),
            depth: l.tls_client_depth,
            crl_files: l.tls_crl_files.iter().map(path).collect(),
            crl_expiry: match l.tls_crl_expired {
                config::CrlExpired::Refuse => tls::CrlExpiry::Refuse,
                config::CrlExpired::Use => tls::CrlExpiry::Use,
            },
            crl_unknown: match l.tls_crl_unknown {
                config::CrlUnknown::Refuse => tls::CrlUnknown::Refuse,
                config::CrlUnknown::Accept => tls::CrlUnknown::Accept,
            },
        },
        versions: l
            .tls_versions
            .iter()
            .map(|version| match version {
                config::TlsVersion::V12 => tls::Version::V12,
                config::TlsVersion::V13 => tls::Version::V13,
            })
            .collect(),
        cipher_suites: l.tls_cipher_suites.clone(),
        alpn: match (l.tls_alpn, l.url.scheme.has_websocket()) {
            (config::TlsAlpn::Ignore, _) => tls::Alpn::Ignore,
            (config::TlsAlpn::Check, true) => tls::Alpn::Http11,
            (config::TlsAlpn::Check, false) => tls::Alpn::Mqtt,
        },
        tickets: l.tls_tickets,
    }
}

/// All files of a listener, with the keys that name them.
fn files(l: &Listener) -> Vec<(&'static str, PathBuf)> {
    let lists = [
        ("tls_certificate_files", &l.tls_certificate_files),
        ("tls_key_files", &l.tls_key_files),
        ("tls_crl_files", &l.tls_crl_files),
    ];
    let all = lists.into_iter().flat_map(|(key, list)| list.iter().map(move |file| (key, file)));
    let ca =
        (!l.tls_client_ca_file.is_empty()).then_some(("tls_client_ca_file", &l.tls_client_ca_file));
    all.chain(ca).map(|(key, file)| (key, PathBuf::from(file))).collect()
}

fn stamps(l: &Listener) -> Vec<Stamp> {
    files(l).iter().map(|(_, file)| stamp(file)).collect()
}

/// What of its folder is called most like a file that is not there.
fn nearest_file(file: &Path) -> Option<String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    let wanted = file.file_name()?.to_str()?;
    Some(nearest_of(wanted, names.iter().map(String::as_str))).filter(|name| !name.is_empty())
}
