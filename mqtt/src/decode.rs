//! Reading packets.
use crate::*;

/// How strict decoding is, from a listener's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Refuse control characters and non-characters in strings (§1.5.4: MAY).
    pub strict_utf8: bool,
}

/// What the protocol name and level of a CONNECT say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectVersion {
    /// A version we speak.
    Supported(Version),
    /// The name is right, the level is not: answer in the form that [`refusal_version`] tells.
    UnsupportedLevel(u8),
    /// Not MQTT, or cut off: close.
    WrongName,
}

/// What the protocol name and level of a CONNECT say.
#[must_use]
pub fn connect_version(_body: &[u8]) -> ConnectVersion {
    todo!()
}

/// The version in which to answer a CONNECT of [`ConnectVersion::UnsupportedLevel`]:
/// `V5` for a CONNACK with 0x84, `V311` for one with return code 1.
#[must_use]
pub fn refusal_version(_body: &[u8]) -> Version {
    todo!()
}

/// Decodes the body of a packet.
///
/// # Errors
/// Any malformed packet or protocol error.
pub fn decode<'a>(
    _h: Header,
    _body: &'a [u8],
    _v: Version,
    _role: Role,
    _rules: &Rules,
) -> Result<Packet<'a>, DecodeError> {
    todo!()
}

/// Decodes the body of a PUBLISH.
///
/// # Errors
/// As [`decode`].
pub fn decode_publish<'a>(
    _h: Header,
    _body: &'a [u8],
    _v: Version,
    _role: Role,
    _rules: &Rules,
) -> Result<Publish<'a>, DecodeError> {
    todo!()
}
