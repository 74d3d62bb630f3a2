//! User name and client identifier from a verified client certificate. // AU10

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmain_acl::ClientCertificate;
use serde::Deserialize;

use super::registry::Build;
use crate::source::{Ask, Context, Decision, Pending, Source, Takes};
use crate::{Denial, Identity};

/// `type = "certificate"`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What becomes the user name.
    #[serde(default)]
    pub username: Option<Part>,
    /// What becomes the client identifier, whatever the client sent.
    #[serde(default)]
    pub client_id: Option<Part>,
    /// What the client identifier must be: a valid certificate is no licence for the sessions of others.
    #[serde(default)]
    pub require_client_id: Option<Part>,
    /// What the user name that the client sent must be.
    #[serde(default)]
    pub require_username: Option<Part>,
    /// Attributes from parts.
    #[serde(default)]
    pub attributes: BTreeMap<Box<str>, Part>,
    /// Whether a certificate is enough, or the next authenticator is asked too.
    #[serde(default)]
    pub then: Then,
}

/// A part of a certificate; of several alternative names the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Common Name of the subject.
    CommonName,
    /// The whole subject (RFC 4514).
    Subject,
    /// Alternative name: DNS.
    SanDns,
    /// Alternative name: URI.
    SanUri,
    /// Alternative name: e-mail address.
    SanEmail,
    /// Serial number, hexadecimal.
    Serial,
    /// SHA-256 of the certificate, hexadecimal.
    Fingerprint,
}

/// What follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The client is admitted.
    #[default]
    Allow,
    /// The next authenticator is asked.
    Ignore,
}

impl Part {
    fn of(self, certificate: &ClientCertificate) -> Option<&str> {
        let part = match self {
            Self::CommonName => certificate.common_name.as_deref(),
            Self::Subject => Some(&*certificate.subject),
            Self::SanDns => certificate.dns_names.first().map(|name| &**name),
            Self::SanUri => certificate.uris.first().map(|name| &**name),
            Self::SanEmail => certificate.emails.first().map(|name| &**name),
            Self::Serial => Some(&*certificate.serial),
            Self::Fingerprint => Some(&*certificate.fingerprint),
        };
        part.filter(|part| !part.is_empty())
    }
}

impl Build for Config {
    fn build(&self, _: &Context) -> Result<Arc<dyn Source>, String> {
        if self.client_id.is_some() && self.require_client_id.is_some() {
            return Err(
                "set client_id or require_client_id: the first replaces what the second checks"
                    .to_owned(),
            );
        }
        Ok(Arc::new(Certificate(self.clone())))
    }
}

/// Lives on: the service. Clients without a certificate are not its matter.
#[derive(Debug)]
struct Certificate(Config);

impl Source for Certificate {
    fn takes(&self) -> Takes {
        Takes::Facts
    }

    fn decide<'a>(&'a self, ask: Ask<'a>) -> Pending<'a, Decision> {
        let decision = match ask.request.certificate.as_deref() {
            Some(certificate) => self.judge(certificate, ask).unwrap_or_else(Decision::Deny),
            None => Decision::Ignore,
        };
        Box::pin(std::future::ready(decision))
    }
}

impl Certificate {
    fn judge(&self, certificate: &ClientCertificate, ask: Ask<'_>) -> Result<Decision, Denial> {
        let part = |part: Part| {
            part.of(certificate).ok_or_else(|| {
                Denial::not_authorized(format!(
                    "the certificate has no {part:?}, which is asked for"
                ))
            })
        };
        let config = &self.0;
        if let Some(required) = config.require_client_id
            && part(required)? != ask.client_id()
        {
            return Err(Denial::not_authorized(format!(
                "the client identifier is not its {required:?}"
            )));
        }
        if let Some(required) = config.require_username
            && Some(part(required)?) != ask.username()
        {
            return Err(Denial::not_authorized(format!("the user name is not its {required:?}")));
        }
        let mut identity = Identity {
            username: config.username.map(part).transpose()?.map(Box::from),
            client_id: config.client_id.map(part).transpose()?.map(Box::from),
            ..Identity::default()
        };
        for (name, from) in &config.attributes {
            if let Some(value) = from.of(certificate) {
                identity.set_attribute(name, value).map_err(Denial::not_authorized)?;
            }
        }
        let identity = Box::new(identity);
        Ok(match config.then {
            Then::Allow => Decision::Allow(identity),
            Then::Ignore => Decision::Add(identity),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, ask};

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            common_name: Some("device-a".into()),
            subject: "CN=device-a,O=Example".into(),
            uris: vec!["urn:device:a".into(), "urn:other".into()],
            serial: "0a".into(),
            ..ClientCertificate::default()
        }
    }

    fn decide(text: &str, client_id: &str, shown: Option<ClientCertificate>) -> Decision {
        let config: Config = toml::from_str(text).expect(text);
        let source = config.build(&fixture::context()).expect(text);
        let mut request = fixture::client(client_id, "u", "");
        request.certificate = shown.map(Arc::new);
        fixture::run(source.decide(ask(&request)))
    }

    // AU10 C18
    #[test]
    fn parts_of_the_certificate_become_the_identity() {
        let text = "username = \"common_name\"\nclient_id = \"san_uri\"\nattributes = { serial = \"serial\", \
                    mail = \"san_email\" }";
        let Decision::Allow(identity) = decide(text, "sent", Some(certificate())) else {
            panic!("refused")
        };
        assert_eq!(identity.username.as_deref(), Some("device-a"));
        assert_eq!(identity.client_id.as_deref(), Some("urn:device:a"));
        assert_eq!(identity.attribute("serial"), Some("0a"));
        assert_eq!(identity.attribute("mail"), None);
    }

    // AU10: a valid certificate with the client identifier of somebody else
    #[test]
    fn a_bound_client_identifier_cannot_be_taken_over() {
        let text = "require_client_id = \"common_name\"\nthen = \"ignore\"";
        assert!(matches!(decide(text, "device-a", Some(certificate())), Decision::Add(_)));
        assert!(matches!(decide(text, "device-b", Some(certificate())), Decision::Deny(_)));
        let nameless = ClientCertificate { common_name: None, ..certificate() };
        assert!(matches!(decide(text, "device-a", Some(nameless)), Decision::Deny(_)));
    }

    #[test]
    fn a_client_without_a_certificate_is_for_others_to_judge() {
        assert!(matches!(decide("username = \"common_name\"", "a", None), Decision::Ignore));
    }

    #[test]
    fn a_certificate_without_what_is_asked_for_is_refused() {
        assert!(matches!(
            decide("username = \"san_dns\"", "a", Some(certificate())),
            Decision::Deny(_)
        ));
    }
}
