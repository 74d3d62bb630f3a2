//! The fixed header (§2.1): type, flags and Remaining Length.

use crate::wire;
use crate::{DecodeError, PacketType};

/// Largest Remaining Length, in bytes.
pub const REMAINING_LENGTH_MAX: u32 = wire::VARINT_MAX;

/// A fixed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Control packet type.
    pub packet_type: PacketType,
    /// The low four bits of the first byte.
    pub flags: u8,
    /// Remaining Length: bytes of the packet after this header.
    pub remaining: u32,
    /// Bytes of this header itself, 2..=5.
    pub len: u8,
}

impl Header {
    /// Bytes of the whole packet.
    #[inline]
    #[must_use]
    pub const fn total_len(&self) -> usize {
        self.len as usize + self.remaining as usize
    }
}

/// Reads a fixed header from the front of `buf`; `Ok(None)` when more bytes are needed.
///
/// `lenient_length` accepts a Remaining Length that is not in its shortest form.
///
/// # Errors
/// 0x81 as soon as it is certain: a reserved type, a wrong flag, a length above four bytes or
/// (unless lenient) not minimal. [MQTT-2.1.3-1] [MQTT-1.5.5-1]
#[inline]
pub fn header(buf: &[u8], lenient_length: bool) -> Result<Option<Header>, DecodeError> {
    parse(buf, lenient_length, false)
}

/// [`header`] for a connection whose CONNECT was MQTT 3.1, where a client may set DUP when it
/// sends PUBREL, SUBSCRIBE or UNSUBSCRIBE again.
///
/// # Errors
/// As [`header`].
pub fn header_v31(buf: &[u8], lenient_length: bool) -> Result<Option<Header>, DecodeError> {
    parse(buf, lenient_length, true)
}

#[inline]
fn parse(buf: &[u8], lenient_length: bool, dup_31: bool) -> Result<Option<Header>, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else { return Ok(None) };
    let Some(packet_type) = PacketType::from_bits(first >> 4) else {
        return Err(DecodeError::malformed("", "packet type 0 is reserved"));
    };
    let flags = first & 0x0F;
    check_flags(packet_type, flags, dup_31)?;
    Ok(wire::varint(rest, lenient_length)?.map(|(remaining, len)| Header {
        packet_type,
        flags,
        remaining,
        len: len + 1,
    }))
}

#[inline]
fn check_flags(packet_type: PacketType, flags: u8, dup_31: bool) -> Result<(), DecodeError> {
    if packet_type == PacketType::Publish {
        let qos = (flags >> 1) & 3;
        if qos == 3 {
            // [MQTT-3.3.1-4] A PUBLISH MUST NOT have both QoS bits set to 1.
            return Err(DecodeError::malformed("MQTT-3.3.1-4", "PUBLISH has QoS 3"));
        }
        if qos == 0 && flags & 0b1000 != 0 {
            // [MQTT-3.3.1-2] DUP MUST be 0 for all QoS 0 messages.
            return Err(DecodeError::malformed("MQTT-3.3.1-2", "PUBLISH has DUP and QoS 0"));
        }
        return Ok(());
    }
    let required = packet_type.required_flags();
    if flags == required || (dup_31 && required != 0 && flags & 0b0111 == required) {
        return Ok(());
    }
    // [MQTT-2.1.3-1] Reserved bits MUST be as the table says; for PUBREL, SUBSCRIBE, UNSUBSCRIBE
    // the same is said in [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1].
    let statement = match packet_type {
        PacketType::PubRel => "MQTT-3.6.1-1",
        PacketType::Subscribe => "MQTT-3.8.1-1",
        PacketType::Unsubscribe => "MQTT-3.10.1-1",
        PacketType::Disconnect => "MQTT-3.14.1-1",
        PacketType::Auth => "MQTT-3.15.1-1",
        _ => "MQTT-2.1.3-1",
    };
    Err(DecodeError::malformed(statement, "reserved flags of the fixed header are not as required"))
}
