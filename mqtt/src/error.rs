//! Why a packet was refused.

use crate::ReasonCode;
use std::fmt;

/// A malformed packet or a protocol error: the peer's fault, to be answered with `reason` and a
/// close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The reason code to close with (0x81, 0x82, 0x84, 0x90, 0x94).
    pub reason: ReasonCode,
    /// The conformance statement that the packet breaks (`"MQTT-3.1.2-3"`), or `""`.
    pub statement: &'static str,
    /// What is wrong, for the log and the Reason String.
    pub detail: &'static str,
}

impl DecodeError {
    /// 0x81 Malformed Packet.
    #[cold]
    pub(crate) const fn malformed(statement: &'static str, detail: &'static str) -> Self {
        Self { reason: ReasonCode::MALFORMED_PACKET, statement, detail }
    }

    /// 0x82 Protocol Error.
    #[cold]
    pub(crate) const fn protocol(statement: &'static str, detail: &'static str) -> Self {
        Self { reason: ReasonCode::PROTOCOL_ERROR, statement, detail }
    }

    /// Any other reason.
    #[cold]
    pub(crate) const fn with(
        reason: ReasonCode,
        statement: &'static str,
        detail: &'static str,
    ) -> Self {
        Self { reason, statement, detail }
    }

    /// The packet ends before its fields do.
    #[cold]
    pub(crate) const fn short() -> Self {
        Self::malformed("", "the packet ends inside a field")
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02X}): {}", self.reason.name(), self.reason.0, self.detail)?;
        if !self.statement.is_empty() {
            write!(f, " [{}]", self.statement)?;
        }
        Ok(())
    }
}

impl std::error::Error for DecodeError {}
