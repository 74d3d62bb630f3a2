//! What the service answers, as plain data.

use ringmain_acl::ClientRules;
use ringmain_mqtt::ReasonCode;

use crate::sources::scram::Exchange;

/// Most attributes that a client has: they travel with every session.
pub const ATTRIBUTES_MAX: usize = 32;
/// Longest name or value of an attribute, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// The verdict on a [`Request`](crate::Request).
#[derive(Clone, Debug)]
pub struct Answer {
    /// The token of the request.
    pub token: u128,
    /// What to do.
    pub verdict: Verdict,
}

/// What becomes of a connection.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is welcome, as this.
    Allow(Box<Identity>),
    /// It is not.
    Deny(Denial),
    /// AUTH with reason 0x18 and this data goes to the client; its answer comes back with the exchange.
    Challenge {
        /// Authentication Data.
        data: Box<[u8]>,
        /// The state, for [`Phase::Continue`](crate::Phase::Continue).
        exchange: Box<Exchange>,
    },
    /// Too much to do: 0x89 Server busy, or 0x03 for version 3. Nothing was decided.
    Busy,
}

/// Why somebody is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// For CONNACK, or for DISCONNECT after a re-authentication; see [`ReasonCode::to_v3_connack`].
    pub reason: ReasonCode,
    /// For the log of the operator, never for the client: it may tell which of user and password is wrong.
    pub text: String,
}

impl Denial {
    /// A refusal with a sentence for the log.
    #[must_use]
    pub fn new(reason: ReasonCode, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// 0x86.
    pub(crate) fn credentials(text: impl Into<String>) -> Self {
        Self::new(ReasonCode::BAD_USER_NAME_OR_PASSWORD, text)
    }

    /// 0x87.
    pub(crate) fn not_authorized(text: impl Into<String>) -> Self {
        Self::new(ReasonCode::NOT_AUTHORIZED, text)
    }
}

/// Who a client is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// User name to go on with; `None` is an anonymous client.
    pub username: Option<Box<str>>,
    /// Client identifier to use instead of the one that the client sent.
    pub client_id: Option<Box<str>>,
    /// Whether access rules do not bind it.
    pub superuser: bool,
    /// Attributes in the order of their names, at most [`ATTRIBUTES_MAX`].
    pub attributes: Vec<(Box<str>, Box<str>)>,
    /// Unix seconds at which the connection ends with 0x87 (a token's `exp`).
    pub expires_at: Option<u64>,
    /// Rules for this client alone.
    pub rules: Option<ClientRules>,
    /// Authentication Data for CONNACK or AUTH with reason 0x00: the server's last word of SCRAM.
    pub data: Option<Box<[u8]>>,
    /// Name of the authenticator that said so; empty if none did.
    pub authenticator: Box<str>,
}

impl Identity {
    /// Sets an attribute; beyond the bounds it says which one did not fit.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn set_attribute(&mut self, name: &str, value: &str) -> Result<(), String> {
        if name.len() > ATTRIBUTE_BYTES_MAX || value.len() > ATTRIBUTE_BYTES_MAX {
            return Err(format!("an attribute is longer than {ATTRIBUTE_BYTES_MAX} bytes"));
        }
        match self.attributes.binary_search_by(|(known, _)| (**known).cmp(name)) {
            Ok(at) => {
                if let Some((_, old)) = self.attributes.get_mut(at) {
                    *old = value.into();
                }
            }
            Err(_) if self.attributes.len() >= ATTRIBUTES_MAX => {
                return Err(format!("there are more than {ATTRIBUTES_MAX} attributes"));
            }
            Err(at) => self.attributes.insert(at, (name.into(), value.into())),
        }
        Ok(())
    }

    /// The value of an attribute.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let at = self.attributes.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.attributes.get(at).map(|(_, value)| &**value)
    }
}
