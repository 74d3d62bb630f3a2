//! UTF-8 Encoded Strings (§1.5.4).

use crate::DecodeError;

/// Checks a UTF-8 Encoded String. `strict` also refuses what §1.5.4 says a receiver MAY refuse:
/// control characters and non-characters.
#[inline]
pub(crate) fn string(bytes: &[u8], strict: bool) -> Result<&str, DecodeError> {
    // [MQTT-1.5.4-1] Ill-formed UTF-8, surrogates included. U+FEFF is an ordinary character and
    // is kept. [MQTT-1.5.4-3]
    let text = str::from_utf8(bytes)
        .map_err(|_| DecodeError::malformed("MQTT-1.5.4-1", "a string is not well-formed UTF-8"))?;
    if memchr::memchr(0, bytes).is_some() {
        return Err(DecodeError::malformed("MQTT-1.5.4-2", "a string contains U+0000"));
    }
    if strict && text.chars().any(is_disallowed) {
        return Err(DecodeError::malformed(
            "",
            "a string contains a control character or a non-character",
        ));
    }
    Ok(text)
}

/// C0 and C1 controls, and the 66 code points that Unicode sets aside as non-characters.
fn is_disallowed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{FDD0}'..='\u{FDEF}') || (c as u32) & 0xFFFE == 0xFFFE
}
