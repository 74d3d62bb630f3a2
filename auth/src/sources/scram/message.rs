//! What a client says (RFC 5802 7), read without trust.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Longest message: a name of a kilobyte and a nonce of a kilobyte, with room.
pub const MESSAGE_BYTES_MAX: usize = 4096;

/// `client-first-message`.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientFirst<'a> {
    /// `n,,` or `y,,`, with an authorization identity at most.
    pub gs2_header: &'a str,
    /// What follows it.
    pub bare: &'a str,
    /// The name, decoded and prepared (SASLprep).
    pub username: String,
    /// The client's part of the nonce.
    pub nonce: &'a str,
}

/// `client-final-message`.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientFinal<'a> {
    /// All of it up to the proof.
    pub without_proof: &'a str,
    /// The header of the first message, decoded.
    pub binding: Vec<u8>,
    /// The whole nonce.
    pub nonce: &'a str,
    /// The proof, decoded.
    pub proof: Vec<u8>,
}

impl<'a> ClientFirst<'a> {
    /// Reads Authentication Data.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn parse(data: &'a [u8]) -> Result<Self, String> {
        let text = text(data)?;
        let (flag, rest) = text.split_once(',').ok_or("the first message has no header")?;
        match flag {
            "n" | "y" => {}
            _ if flag.starts_with("p=") => {
                return Err("it demands channel binding, which is not supported".to_owned());
            }
            _ => return Err("the first message begins with neither n nor y".to_owned()),
        }
        let (authzid, bare) = rest.split_once(',').ok_or("the header has no end")?;
        let gs2_header = text.get(..text.len() - bare.len()).unwrap_or_default();
        let mut attributes = bare.split(',');
        let username = attributes.next().and_then(|part| part.strip_prefix("n="));
        let username = username.ok_or("n= is missing, or an extension is mandatory (m=)")?;
        let nonce =
            attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or("r= is missing")?;
        check_nonce(nonce)?;
        check_extensions(attributes)?;
        if let Some(other) = authzid.strip_prefix("a=") {
            if other != username {
                return Err(
                    "it wants to act as somebody else (a=), which is not supported".to_owned()
                );
            }
        } else if !authzid.is_empty() {
            return Err("the header has something else than a=".to_owned());
        }
        Ok(Self { gs2_header, bare, username: name(username)?, nonce })
    }
}

impl<'a> ClientFinal<'a> {
    /// Reads Authentication Data.
    ///
    /// # Errors
    /// A sentence for the log.
    pub fn parse(data: &'a [u8]) -> Result<Self, String> {
        let text = text(data)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or("the proof (p=) is missing")?;
        let mut attributes = without_proof.split(',');
        let binding =
            attributes.next().and_then(|part| part.strip_prefix("c=")).ok_or("c= is missing")?;
        let nonce =
            attributes.next().and_then(|part| part.strip_prefix("r=")).ok_or("r= is missing")?;
        check_nonce(nonce)?;
        check_extensions(attributes)?;
        let decode = |what: &str, text: &str| {
            STANDARD.decode(text).map_err(|error| format!("{what} is not base64: {error}"))
        };
        let (binding, proof) = (decode("c=", binding)?, decode("p=", proof)?);
        Ok(Self { without_proof, binding, nonce, proof })
    }
}

fn text(data: &[u8]) -> Result<&str, String> {
    if data.len() > MESSAGE_BYTES_MAX {
        return Err(format!("the message is longer than {MESSAGE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(data).map_err(|_| "the message is not UTF-8")?;
    if text.contains('\0') {
        return Err("the message contains a 0".to_owned());
    }
    Ok(text)
}

/// `saslname`: `=2C` is a comma, `=3D` is `=`, and nothing else follows `=`.
fn name(encoded: &str) -> Result<String, String> {
    let mut pieces = encoded.split('=');
    let mut name = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err("in the name, = is not followed by 2C or 3D".to_owned()),
        };
        name.push(sign);
        name.push_str(rest);
    }
    let prepared = stringprep::saslprep(&name)
        .map_err(|_| "the name has characters that SASLprep forbids (RFC 4013)")?;
    if prepared.is_empty() {
        return Err("the name is empty".to_owned());
    }
    Ok(prepared.into_owned())
}

fn check_nonce(nonce: &str) -> Result<(), String> {
    match !nonce.is_empty() && nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
        true => Ok(()),
        false => Err("the nonce is empty or not printable".to_owned()),
    }
}

/// Optional ones are ignored, as RFC 5802 7 wants; each is a letter, `=` and a value.
fn check_extensions<'a>(mut attributes: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let fits = attributes.all(|attribute| {
        let mut chars = attribute.chars();
        chars.next().is_some_and(|letter| letter.is_ascii_alphabetic() && letter != 'm')
            && chars.next() == Some('=')
            && chars.next().is_some()
    });
    if fits { Ok(()) } else { Err("an extension is mandatory (m=) or malformed".to_owned()) }
}
