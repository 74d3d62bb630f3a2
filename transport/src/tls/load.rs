//! From files to a [`TlsContext`]. The only module that reads files; for the configuration loader
//! and the control plane, never for a shard.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, DnsName, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedCipherSuite};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::config::{
    Alpn, CertificateFiles, ClientAuth, ClientVerification, CrlExpiry, CrlUnknown, TlsConfig,
    Version,
};
use super::context::{CertificateInfo, TlsContext, provider};
use super::identity::Identity;
use super::names::Names;
use super::tickets::TicketKeys;
use super::verify::Verifier;
use super::{call, iana_name};

/// A file of certificates or a key; a bundle of all public CAs has 200 KiB.
const PEM_BYTES_MAX: u64 = 4 << 20;
/// A revocation list; the largest public ones have tens of megabytes.
const CRL_BYTES_MAX: u64 = 64 << 20;
/// Intermediates between a certificate and its CA that rustls looks at.
const DEPTH_MAX: u8 = 6;
/// RFC 8446 lets a server send any number; a client keeps few, and each costs 200 B and more.
const TICKETS_MAX: u8 = 2;

/// Why a configuration cannot be used: one sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError(String);

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LoadError {}

/// Reads all files of `config`. `now_s`, seconds since 1970, is for the warnings.
///
/// # Errors
/// The first thing that makes the configuration unusable.
pub fn load(config: &TlsConfig, now_s: u64) -> Result<Arc<TlsContext>, LoadError> {
    build(config, now_s, None)
}

/// Reads all files of `config` anew, for a context that takes the place of `old` for new
/// connections. Tickets of the old one stay good, unless clients are asked for certificates: what
/// a ticket vouches for may be revoked by now.
///
/// # Errors
/// As [`load`]; the caller goes on with `old`.
pub fn reload(
    old: &TlsContext,
    config: &TlsConfig,
    now_s: u64,
) -> Result<Arc<TlsContext>, LoadError> {
    build(config, now_s, Some(old))
}

fn build(
    config: &TlsConfig,
    now_s: u64,
    old: Option<&TlsContext>,
) -> Result<Arc<TlsContext>, LoadError> {
    let provider = Arc::new(with_suites(provider(), &config.cipher_suites)?);
    let mut warnings = Vec::new();
    let mut names = Names::new(config.unknown_name);
    let mut certificates = Vec::new();
    for files in &config.certificates {
        let (key, info) = certificate(files, &provider, now_s, &mut warnings)?;
        names.add(&Arc::new(key), &info.names);
        certificates.push(info);
    }
    if certificates.is_empty() {
        return Err(LoadError("TLS needs a certificate and its key: none is set".to_owned()));
    }
    let names = Arc::new(names);
    let versions: Vec<_> = config.versions.iter().map(|version| rustls_version(*version)).collect();
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), call::time_provider())
        .with_protocol_versions(&versions)
        .map_err(|error| {
            LoadError(format!("the versions and cipher suites of TLS do not fit: {error}"))
        })?;
    let builder = match verifier(&config.client, &provider, now_s, &mut warnings)? {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(Arc::new(verifier)),
    };
    let mut server = builder.with_cert_resolver(Arc::clone(&names) as _);
    server.alpn_protocols = match config.alpn {
        Alpn::Mqtt => vec![b"mqtt".to_vec()],
        Alpn::Http11 => vec![b"http/1.1".to_vec()],
        Alpn::Ignore => Vec::new(),
    };
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.max_early_data_size = 0;
    let asks_clients = config.client.verification != ClientVerification::None;
    let tickets =
        ticket_keys(config.tickets, old.filter(|old| !asks_clients && !old.asks_clients))?;
    server.send_tls13_tickets = usize::from(config.tickets);
    if let Some(tickets) = &tickets {
        server.ticketer = Arc::clone(tickets) as Arc<dyn ProducesTickets>;
    }
    let server = Arc::new(server);
    Ok(Arc::new(TlsContext { server, names, tickets, asks_clients, certificates, warnings }))
}

fn ticket_keys(number: u8, old: Option<&TlsContext>) -> Result<Option<Arc<TicketKeys>>, LoadError> {
    if number > TICKETS_MAX {
        return Err(LoadError(format!("tickets: {number} is more than {TICKETS_MAX}")));
    }
    if number == 0 {
        return Ok(None);
    }
    if let Some(keys) = old.and_then(|old| old.tickets.as_ref()) {
        return Ok(Some(Arc::clone(keys)));
    }
    let keys = TicketKeys::new()
        .map_err(|_| LoadError("the system has no random numbers for a ticket key".to_owned()))?;
    Ok(Some(Arc::new(keys)))
}

fn rustls_version(version: Version) -> &'static rustls::SupportedProtocolVersion {
    match version {
        Version::V12 => &rustls::version::TLS12,
        Version::V13 => &rustls::version::TLS13,
    }
}

fn with_suites(
    mut provider: CryptoProvider,
    names: &[String],
) -> Result<CryptoProvider, LoadError> {
    if names.is_empty() {
        return Ok(provider);
    }
    let all = provider.cipher_suites;
    let find = |name: &String| -> Result<SupportedCipherSuite, LoadError> {
        all.iter().find(|suite| iana_name(suite.suite()) == name.as_str()).copied().ok_or_else(
            || {
                let known: Vec<_> = all.iter().map(|suite| iana_name(suite.suite())).collect();
                LoadError(format!(
                    "there is no cipher suite {name:?}; there are {}",
                    known.join(", ")
                ))
            },
        )
    };
    provider.cipher_suites = names.iter().map(find).collect::<Result<_, _>>()?;
    Ok(provider)
}

fn certificate(
    files: &CertificateFiles,
    provider: &CryptoProvider,
    now_s: u64,
    warnings: &mut Vec<String>,
) -> Result<(CertifiedKey, CertificateInfo), LoadError> {
    let (file, key_file) = (files.certificate_file.display(), files.key_file.display());
    let chain = certificates(&files.certificate_file)?;
    let identity = Identity::of(&chain[0]).map_err(|why| LoadError(format!("{file}: {why}")))?;
    let key = private_key(&files.key_file)?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        LoadError(format!(
            "{key_file}: this kind of key cannot be used (RSA from 2048 bits, ECDSA P-256 and \
             P-384, Ed25519 can): {error}"
        ))
    })?;
    let certified = CertifiedKey::new(chain, key);
    if let Err(error) = certified.keys_match() {
        if error != Error::InconsistentKeys(InconsistentKeys::KeyMismatch) {
            return Err(LoadError(format!("{file} and {key_file}: {error}")));
        }
        return Err(LoadError(format!(
            "the key in {key_file} does not belong to the first certificate in {file} (the \
             server's own certificate comes first, then those that lead to its CA)"
        )));
    }
    if identity.not_after_s < now_s {
        warnings.push(format!("{file}: the certificate has expired: clients will refuse it"));
    }
    if identity.not_before_s > now_s {
        warnings.push(format!("{file}: the certificate is not valid yet: is the clock right?"));
    }
    let names = if files.names.is_empty() { &identity.dns_names } else { &files.names };
    let names = names.iter().map(|name| server_name(name)).collect::<Result<_, _>>()?;
    let info = CertificateInfo {
        file: files.certificate_file.clone(),
        subject: identity.subject,
        names,
        not_after_s: identity.not_after_s,
    };
    Ok((certified, info))
}

fn server_name(name: &str) -> Result<String, LoadError> {
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    match DnsName::try_from(lower.strip_prefix("*.").unwrap_or(&lower)) {
        Ok(_) => Ok(lower),
        Err(_) => Err(LoadError(format!(
            "{name:?} is no server name: it is \"host.example\", or \"*.example\" for one label"
        ))),
    }
}

fn verifier(
    client: &ClientAuth,
    provider: &Arc<CryptoProvider>,
    now_s: u64,
    warnings: &mut Vec<String>,
) -> Result<Option<Verifier>, LoadError> {
    if client.verification == ClientVerification::None {
        return Ok(None);
    }
    if client.depth > DEPTH_MAX {
        let depth = client.depth;
        return Err(LoadError(format!("a depth of {depth} is more than {DEPTH_MAX}")));
    }
    let Some(ca_file) = &client.ca_file else {
        return Err(LoadError(
            "verification of clients needs the file with the CAs that may issue their certificates"
                .to_owned(),
        ));
    };
    let mut roots = RootCertStore::empty();
    for ca in certificates(ca_file)? {
        roots.add(ca).map_err(|error| LoadError(format!("{}: {error}", ca_file.display())))?;
    }
    let roots = Arc::new(roots);
    let mut crls = Vec::new();
    for file in &client.crl_files {
        crls.extend(revocations(file, client.crl_expiry, now_s, warnings)?);
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
            .with_crls(crls);
    if client.verification == ClientVerification::Optional {
        builder = builder.allow_unauthenticated();
    }
    if client.crl_unknown == CrlUnknown::Accept {
        builder = builder.allow_unknown_revocation_status();
    }
    if client.crl_expiry == CrlExpiry::Refuse {
        builder = builder.enforce_revocation_expiration();
    }
    let inner =
        builder.build().map_err(|error| LoadError(format!("{}: {error}", ca_file.display())))?;
    Ok(Some(Verifier { inner, roots, depth: usize::from(client.depth) }))
}

fn revocations(
    file: &Path,
    expiry: CrlExpiry,
    now_s: u64,
    warnings: &mut Vec<String>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, LoadError> {
    let name = file.display();
    let text = read(file, CRL_BYTES_MAX)?;
    let lists = CertificateRevocationListDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| LoadError(format!("{name}: {error}")))?;
    if lists.is_empty() {
        return Err(LoadError(format!("{name} holds no revocation list in PEM (\"X509 CRL\")")));
    }
    for list in &lists {
        webpki::BorrowedCertRevocationList::from_der(list)
            .map_err(|error| LoadError(format!("{name}: the list cannot be used: {error}")))?;
        let parsed: CertificateList = CertificateList::from_der(list)
            .map_err(|error| LoadError(format!("{name}: the list cannot be read: {error}")))?;
        let next = parsed.tbs_cert_list.next_update;
        if next.is_some_and(|next| next.to_unix_duration().as_secs() < now_s) {
            let what = match expiry {
                CrlExpiry::Refuse => "all clients of its CA will be refused",
                CrlExpiry::Use => "it is used all the same",
            };
            warnings.push(format!("{name}: the revocation list is past its next update: {what}"));
        }
    }
    Ok(lists)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let text = read(file, PEM_BYTES_MAX)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| LoadError(format!("{}: {error}", file.display())))?;
    if chain.is_empty() {
        return Err(LoadError(format!(
            "{} holds no certificate in PEM (from DER: openssl x509 -inform der)",
            file.display()
        )));
    }
    Ok(chain)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, LoadError> {
    let text = read(file, PEM_BYTES_MAX)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let name = file.display();
        let encrypted = [&b"BEGIN ENCRYPTED PRIVATE KEY"[..], b"Proc-Type: 4,ENCRYPTED"];
        if encrypted.iter().any(|mark| text.windows(mark.len()).any(|part| part == *mark)) {
            return LoadError(format!(
                "the key in {name} is encrypted; store it plain, readable by Ringmain alone \
                 (openssl pkey -in {name})"
            ));
        }
        LoadError(format!("{name} holds no private key in PEM (PKCS#8, PKCS#1 or SEC1): {error}"))
    })
}

fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>, LoadError> {
    let failed = |error| LoadError(format!("cannot read {}: {error}", file.display()));
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        return Err(LoadError(format!("{} has more than {bytes_max} bytes", file.display())));
    }
    Ok(bytes)
}
