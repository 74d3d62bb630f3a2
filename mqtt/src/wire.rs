//! Reading and writing the data types of MQTT 5 §1.5.

use crate::DecodeError;

/// Largest value of a Variable Byte Integer.
pub(crate) const VARINT_MAX: u32 = 268_435_455;

/// Longest UTF-8 string or binary field, in bytes: its length has two bytes.
pub(crate) const FIELD_MAX: usize = u16::MAX as usize;

type Result<T> = std::result::Result<T, DecodeError>;

/// A cursor over the bytes of one packet.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) const fn len(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(DecodeError::short())?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        let (&byte, rest) = self.rest.split_first().ok_or(DecodeError::short())?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16> {
        let (bytes, rest) = self.rest.split_first_chunk::<2>().ok_or(DecodeError::short())?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(DecodeError::short())?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A Variable Byte Integer in its shortest form. [MQTT-1.5.5-1]
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32> {
        match varint(self.rest, false)? {
            Some((value, len)) => {
                self.rest = &self.rest[usize::from(len)..];
                Ok(value)
            }
            None => Err(DecodeError::short()),
        }
    }

    /// Binary Data: a two-byte length, then as many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 Encoded String.
    #[inline]
    pub(crate) fn string(&mut self, strict: bool) -> Result<&'a str> {
        crate::utf8::string(self.binary()?, strict)
    }

    /// Nothing may follow.
    #[inline]
    pub(crate) fn finish(&self) -> Result<()> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("", "bytes follow the last field"))
        }
    }
}

/// Reads a Variable Byte Integer and says how many bytes it took; `None` when `bytes` ends first.
#[inline]
pub(crate) fn varint(bytes: &[u8], lenient: bool) -> Result<Option<(u32, u8)>> {
    let mut value = 0u32;
    for (i, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            // [MQTT-1.5.5-1] The encoded value MUST use the minimum number of bytes.
            if byte == 0 && i > 0 && !lenient {
                return Err(DecodeError::malformed(
                    "MQTT-1.5.5-1",
                    "a variable byte integer is longer than it must be",
                ));
            }
            return Ok(Some((value, i as u8 + 1)));
        }
    }
    if bytes.len() < 4 {
        return Ok(None);
    }
    Err(DecodeError::malformed("", "a variable byte integer has more than four bytes"))
}

/// Bytes that [`put_varint`] writes.
#[inline]
pub(crate) const fn varint_len(value: u32) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// The longest prefix of `s` that fits a UTF-8 Encoded String.
#[inline]
fn clip(s: &str) -> &[u8] {
    if s.len() <= FIELD_MAX {
        return s.as_bytes();
    }
    let mut end = FIELD_MAX;
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    &s.as_bytes()[..end]
}

/// Where packets are written: a buffer, or a [`Count`] that only measures. One body of code thus
/// both sizes and writes a packet, and the two cannot disagree.
pub(crate) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    #[inline]
    fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    #[inline]
    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    #[inline]
    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// A Variable Byte Integer of at most [`VARINT_MAX`].
    #[inline]
    fn varint(&mut self, value: u32) {
        debug_assert!(value <= VARINT_MAX, "a length is larger than MQTT can say");
        let mut value = value;
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    /// Binary Data, cut to what its length can say.
    #[inline]
    fn binary(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(FIELD_MAX)];
        self.u16(bytes.len() as u16);
        self.bytes(bytes);
    }

    /// A UTF-8 Encoded String, cut to what its length can say.
    #[inline]
    fn string(&mut self, text: &str) {
        self.binary(clip(text));
    }

    #[inline]
    fn byte_property(&mut self, id: u8, value: Option<u8>) {
        if let Some(value) = value {
            self.bytes(&[id, value]);
        }
    }

    #[inline]
    fn bool_property(&mut self, id: u8, value: Option<bool>) {
        self.byte_property(id, value.map(u8::from));
    }

    #[inline]
    fn u16_property(&mut self, id: u8, value: Option<u16>) {
        if let Some(value) = value {
            self.u8(id);
            self.u16(value);
        }
    }

    #[inline]
    fn u32_property(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.u8(id);
            self.u32(value);
        }
    }

    #[inline]
    fn str_property(&mut self, id: u8, value: Option<&str>) {
        if let Some(value) = value {
            self.u8(id);
            self.string(value);
        }
    }

    #[inline]
    fn binary_property(&mut self, id: u8, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.u8(id);
            self.binary(value);
        }
    }
}

impl Sink for Vec<u8> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[inline]
    fn u8(&mut self, value: u8) {
        self.push(value);
    }
}

/// Counts the bytes that would be written.
#[derive(Default)]
pub(crate) struct Count(pub(crate) usize);

impl Sink for Count {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}
