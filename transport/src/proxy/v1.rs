//! Version 1: a line of text. Section 2.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Header, Parsed, Refused, V1_BYTES_MAX};

/// `bytes` begin with `PROXY `.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, Refused> {
    let window = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let end = window.iter().position(|byte| *byte == b'\n');
    let line = &window[..end.unwrap_or(window.len())];
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    if text.iter().any(|byte| !matches!(byte, b' '..=b'~')) {
        return Err(refuse("it holds a character that no address has"));
    }
    let Some(end) = end else {
        if bytes.len() < V1_BYTES_MAX {
            return Ok(Parsed::Partial);
        }
        return Err(refuse("the line has more than 107 bytes"));
    };
    let line = line.strip_suffix(b"\r").ok_or_else(|| refuse("it ends without a CR"))?;
    let line = std::str::from_utf8(line).map_err(|_| refuse("it is no text"))?;
    Ok(Parsed::Whole { len: end + 1, header: Box::new(header(line)?) })
}

fn header(line: &str) -> Result<Header, Refused> {
    let mut words = line.split(' ');
    words.next();
    let address: fn(&str) -> Option<IpAddr> = match words.next() {
        // What follows is for people: "the receiver must ignore anything presented before the CRLF".
        Some("UNKNOWN") => return Ok(Header::default()),
        Some("TCP4") => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some("TCP6") => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(refuse("its family is not TCP4, TCP6 or UNKNOWN")),
    };
    let mut next = || words.next().ok_or_else(|| refuse("it has too few parts"));
    let parts = [next()?, next()?, next()?, next()?];
    if words.next().is_some() {
        return Err(refuse("it has too many parts"));
    }
    let address = |text| address(text).ok_or_else(|| refuse("an address is not of its family"));
    let source = SocketAddr::new(address(parts[0])?, port(parts[2])?);
    let destination = SocketAddr::new(address(parts[1])?, port(parts[3])?);
    Ok(Header { source: Some(source), destination: Some(destination), ..Header::default() })
}

/// Decimal, at most 65535, without leading zeros.
fn port(text: &str) -> Result<u16, Refused> {
    let plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let port = if plain { text.parse().ok() } else { None };
    port.ok_or_else(|| refuse("a port is no number from 0 to 65535"))
}

fn refuse(why: &str) -> Refused {
    Refused::new(format!("a PROXY header of version 1 is refused: {why}"))
}
