//! Version 2: binary. Section 2.2.
//!
//! ```text
//!  0          12   13      14    16                                  16 + length
//!  | signature | 2c | family | length | addresses of the family | TLVs |
//!                 └ command: 0 LOCAL, 1 PROXY
//!  TLV: | type | length (2) | value |
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::crc32c::crc32c;
use super::{Header, Parsed, Refused, Ssl, V2_BODY_BYTES_MAX, V2_HEAD_BYTES};

const LOCAL: u8 = 0;
const PROXY: u8 = 1;

const PP2_TYPE_ALPN: u8 = 0x01;
const PP2_TYPE_AUTHORITY: u8 = 0x02;
const PP2_TYPE_CRC32C: u8 = 0x03;
const PP2_TYPE_UNIQUE_ID: u8 = 0x05;
const PP2_TYPE_SSL: u8 = 0x20;

const PP2_SUBTYPE_SSL_VERSION: u8 = 0x21;
const PP2_SUBTYPE_SSL_CN: u8 = 0x22;
const PP2_SUBTYPE_SSL_CIPHER: u8 = 0x23;

const PP2_CLIENT_SSL: u8 = 0x01;
const PP2_CLIENT_CERT_CONN: u8 = 0x02;
const PP2_CLIENT_CERT_SESS: u8 = 0x04;

/// Section 2.2.5: a unique id has at most so many bytes.
const UNIQUE_ID_BYTES_MAX: usize = 128;
/// RFC 1035: a server name.
const AUTHORITY_BYTES_MAX: usize = 255;
/// Two `sockaddr_un` paths.
const UNIX_BYTES: usize = 2 * 108;

/// `bytes` begin with the signature.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Refused> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD_BYTES>() else {
        return Ok(Parsed::Partial);
    };
    let [.., version_command, family, high, low] = *head;
    if version_command >> 4 != 2 {
        return Err(refuse("its version is not 2"));
    }
    let command = version_command & 0xF;
    if command > PROXY {
        return Err(refuse("its command is neither LOCAL nor PROXY"));
    }
    let len = usize::from(u16::from_be_bytes([high, low]));
    if len > V2_BODY_BYTES_MAX {
        return Err(refuse("it has more than 4096 bytes of addresses and TLVs"));
    }
    let Some(body) = rest.get(..len) else { return Ok(Parsed::Partial) };
    let whole = &bytes[..V2_HEAD_BYTES + len];
    if command == LOCAL {
        // "the receiver must discard the protocol block including the family which is ignored".
        let header = Header { local: true, ..Header::default() };
        return Ok(Parsed::Whole { len: whole.len(), header: Box::new(header) });
    }
    let (ends, tlvs) = addresses(family, body)?;
    let (source, destination) = ends.unzip();
    let mut header = Header { source, destination, ..Header::default() };
    read_tlvs(tlvs, whole, &mut header)?;
    Ok(Parsed::Whole { len: whole.len(), header: Box::new(header) })
}

type Ends = (SocketAddr, SocketAddr);

/// The addresses at the front, and the TLVs behind.
fn addresses(family: u8, body: &[u8]) -> Result<(Option<Ends>, &[u8]), Refused> {
    let short = || refuse("it is shorter than the addresses of its family");
    match family {
        // UNSPEC: the TLVs follow at once.
        0x00 => Ok((None, body)),
        0x11 => {
            let (ends, tlvs) = body.split_first_chunk::<12>().ok_or_else(short)?;
            let [a, b, c, d, e, f, g, h, p, q, r, s] = *ends;
            let end = |ip: [u8; 4], port| SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port);
            let source = end([a, b, c, d], u16::from_be_bytes([p, q]));
            let destination = end([e, f, g, h], u16::from_be_bytes([r, s]));
            Ok((Some((source, destination)), tlvs))
        }
        0x21 => {
            let (ends, tlvs) = body.split_first_chunk::<36>().ok_or_else(short)?;
            let ip = |at: usize| {
                let bytes: [u8; 16] = ends[at..at + 16].try_into().expect("16 bytes");
                IpAddr::V6(Ipv6Addr::from(bytes))
            };
            let port = |at: usize| u16::from_be_bytes([ends[at], ends[at + 1]]);
            let source = SocketAddr::new(ip(0), port(32));
            Ok((Some((source, SocketAddr::new(ip(16), port(34)))), tlvs))
        }
        0x31 => body.get(UNIX_BYTES..).map(|tlvs| (None, tlvs)).ok_or_else(short),
        0x12 | 0x22 | 0x32 => Err(refuse("it speaks of datagrams, and this is a stream")),
        _ => Err(refuse("its family does not exist")),
    }
}

fn read_tlvs(mut rest: &[u8], whole: &[u8], header: &mut Header) -> Result<(), Refused> {
    let mut sums = 0;
    while let Some((kind, value, after)) = tlv(rest)? {
        match kind {
            PP2_TYPE_ALPN => once(&mut header.alpn, value.to_vec(), "ALPN")?,
            PP2_TYPE_AUTHORITY => {
                if value.len() > AUTHORITY_BYTES_MAX {
                    return Err(refuse("its authority has more than 255 bytes"));
                }
                once(&mut header.authority, text(value, "authority")?, "authority")?;
            }
            PP2_TYPE_CRC32C => {
                sums += 1;
                check_sum(value, whole)?;
            }
            PP2_TYPE_UNIQUE_ID if value.len() > UNIQUE_ID_BYTES_MAX => {
                return Err(refuse("its unique id has more than 128 bytes"));
            }
            PP2_TYPE_SSL => once(&mut header.ssl, ssl(value)?, "SSL")?,
            // NOOP, the namespace, what is for private use, and what is yet to come.
            _ => {}
        }
        rest = after;
    }
    if sums > 1 {
        return Err(refuse("it has two checksums"));
    }
    Ok(())
}

/// Type, value, and what follows.
type Tlv<'a> = (u8, &'a [u8], &'a [u8]);

/// The next one; none at the end.
fn tlv(bytes: &[u8]) -> Result<Option<Tlv<'_>>, Refused> {
    let cut = || refuse("a TLV is longer than the header");
    match bytes {
        [] => Ok(None),
        [kind, high, low, rest @ ..] => {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let (value, after) = rest.split_at_checked(len).ok_or_else(cut)?;
            Ok(Some((*kind, value, after)))
        }
        _ => Err(cut()),
    }
}

/// Section 2.2.4: the sum of the whole header with zeros for the sum.
fn check_sum(value: &[u8], whole: &[u8]) -> Result<(), Refused> {
    let said: [u8; 4] = value.try_into().map_err(|_| refuse("its checksum has not 4 bytes"))?;
    // Where the sum lies in the header: both are slices of the same bytes.
    let at = value.as_ptr().addr() - whole.as_ptr().addr();
    let zeroed = whole
        .iter()
        .enumerate()
        .map(|(i, byte)| if (at..at + said.len()).contains(&i) { 0 } else { *byte });
    if crc32c(zeroed) == u32::from_be_bytes(said) {
        return Ok(());
    }
    Err(refuse("its checksum is wrong"))
}

fn ssl(value: &[u8]) -> Result<Ssl, Refused> {
    let Some(([client, v0, v1, v2, v3], mut rest)) = value.split_first_chunk::<5>() else {
        return Err(refuse("its SSL part is too short"));
    };
    let verify = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
    let has = |flag: u8| client & flag != 0;
    let certificate = has(PP2_CLIENT_CERT_CONN) || has(PP2_CLIENT_CERT_SESS);
    let mut ssl = Ssl {
        // 0 is success, and also what there is without a certificate.
        verified: has(PP2_CLIENT_SSL) && certificate && verify == 0,
        ..Ssl::default()
    };
    while let Some((kind, value, after)) = tlv(rest)? {
        match kind {
            PP2_SUBTYPE_SSL_VERSION => once(&mut ssl.version, text(value, "version")?, "version")?,
            PP2_SUBTYPE_SSL_CN => once(&mut ssl.common_name, text(value, "CN")?, "CN")?,
            PP2_SUBTYPE_SSL_CIPHER => once(&mut ssl.cipher, text(value, "cipher")?, "cipher")?,
            _ => {}
        }
        rest = after;
    }
    Ok(ssl)
}

fn once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<(), Refused> {
    if place.replace(value).is_some() {
        return Err(refuse(&format!("it has two parts {what}")));
    }
    Ok(())
}

fn text(value: &[u8], what: &str) -> Result<String, Refused> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned).ok_or_else(|| refuse(&format!("its {what} is no UTF-8 text")))
}

fn refuse(why: &str) -> Refused {
    Refused::new(format!("a PROXY header of version 2 is refused: {why}"))
}
