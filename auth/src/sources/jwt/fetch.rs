//! Reads a small document over http or https.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Largest key set: hundreds of keys.
pub(super) const BODY_BYTES_MAX: usize = 256 * 1024;
/// For all of it: name, connection, handshake, answer. Less than a client is given.
const WITHIN: Duration = Duration::from_secs(4);

/// Lives on: the service. Follows no redirections, so that nobody else decides where keys come from.
pub(super) struct Fetcher {
    url: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Fetcher {
    /// For a URL; `ca_file` replaces the certification authorities of the system.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, String> {
        let parsed: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let (secure, port) = match parsed.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(format!("{url}: begins with neither http:// nor https://")),
        };
        let host = parsed.host().ok_or_else(|| format!("{url}: names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = match secure {
            true => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|error| format!("{url}: {error}"))?;
                Some((connector(ca_file)?, name))
            }
            false if ca_file.is_some() => return Err(format!("{url}: ca_file is for https://")),
            false => None,
        };
        let port = parsed.port_u16().unwrap_or(port);
        Ok(Self { url: parsed, host, port, tls })
    }

    pub(super) fn url(&self) -> &Uri {
        &self.url
    }

    /// The document.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) async fn get(&self) -> Result<Bytes, String> {
        match timeout(WITHIN, self.ask()).await {
            Ok(result) => result.map_err(|error| format!("{}: {error}", self.url)),
            Err(_) => Err(format!("{}: no answer within {} s", self.url, WITHIN.as_secs())),
        }
    }

    async fn ask(&self) -> Result<Bytes, String> {
        let stream =
            TcpStream::connect((&*self.host, self.port)).await.map_err(|e| e.to_string())?;
        match &self.tls {
            None => self.exchange(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.exchange(stream.map_err(|error| error.to_string())?).await
            }
        }
    }

    async fn exchange<S>(&self, stream: S) -> Result<Bytes, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let host = self.url.authority().map_or("", |authority| authority.as_str());
        let host = host.rsplit('@').next().unwrap_or_default();
        let request = Request::get(path)
            .header(HOST, host)
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
            if answer.status() != StatusCode::OK {
                return Err(format!("answers {}", answer.status()));
            }
            let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
        };
        // The connection ends with this function, whatever happens.
        tokio::pin!(connection);
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = &mut connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(file) => {
            let wrong = |error: String| format!("{}: {error}", file.display());
            let certificates =
                CertificateDer::pem_file_iter(file).map_err(|e| wrong(e.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(wrong("has no certificate in PEM".to_owned()));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let text = "the system lists no certification authorities: install ca-certificates, or set ca_file";
                return Err(text.to_owned());
            }
        }
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetcher({})", self.url)
    }
}
