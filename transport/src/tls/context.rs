//! What all connections of a listener share: read by every shard, changed by none.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ProducesTickets;

use super::failure::{Failure, FailureKind};
use super::names::Names;
use super::tickets::TicketKeys;

/// A loaded [`TlsConfig`](super::TlsConfig). Lives on: all shards, as an `Arc`. Never changes; a
/// reload makes another one.
pub struct TlsContext {
    pub(super) server: Arc<ServerConfig>,
    pub(super) names: Arc<Names>,
    /// None where tickets are switched off.
    pub(super) tickets: Option<Arc<TicketKeys>>,
    /// What tickets vouch for may change from one context to the next: certificates of clients.
    pub(super) asks_clients: bool,
    pub(super) certificates: Vec<CertificateInfo>,
    pub(super) warnings: Vec<String>,
}

/// A certificate in use, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Where it came from.
    pub file: PathBuf,
    /// Its subject as RFC 4514 writes it.
    pub subject: String,
    /// Names that it is given for.
    pub names: Vec<String>,
    /// Until when it is valid, in seconds since 1970. Row T07.
    pub not_after_s: u64,
}

impl TlsContext {
    /// The certificates of this listener.
    pub fn certificates(&self) -> &[CertificateInfo] {
        &self.certificates
    }

    /// What is wrong but no reason not to start: certificates and lists out of date.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same with a new key for tickets; what the last one sealed is still opened. To be called
    /// every [`TICKET_KEY_ROTATION_S`](super::TICKET_KEY_ROTATION_S).
    ///
    /// # Errors
    /// When the system has no random numbers: keep this one.
    pub fn with_new_ticket_key(&self) -> Result<Arc<TlsContext>, Failure> {
        let tickets = match &self.tickets {
            None => None,
            Some(keys) => Some(Arc::new(keys.rotated().map_err(|_| {
                Failure::new(FailureKind::Internal, "no random numbers for a new ticket key")
            })?)),
        };
        let mut server = ServerConfig::clone(&self.server);
        if let Some(tickets) = &tickets {
            server.ticketer = Arc::clone(tickets) as Arc<dyn ProducesTickets>;
        }
        Ok(Arc::new(TlsContext {
            server: Arc::new(server),
            names: Arc::clone(&self.names),
            tickets,
            asks_clients: self.asks_clients,
            certificates: self.certificates.clone(),
            warnings: self.warnings.clone(),
        }))
    }

    pub(super) fn server(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    pub(super) fn knows(&self, name: &str) -> bool {
        self.names.serves(name)
    }
}

impl fmt::Debug for TlsContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsContext").field("certificates", &self.certificates).finish()
    }
}

/// The one provider of cryptography (decision record 0023).
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}
