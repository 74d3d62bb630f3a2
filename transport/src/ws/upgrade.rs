//! The handshake: RFC 6455, section 4.2, over HTTP/1.1.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use base64ct::{Base64, Encoding};
use httparse::{EMPTY_HEADER, Error, Header, Request, Status};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::{Failure, FailureKind, HEADERS_MAX, WsConfig};

/// Section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What this speaks, RFC 6455 and the name of MQTT 3.1.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// A handshake that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Where the client is, by the `X-Forwarded-For` of a trusted proxy.
    pub forwarded_for: Option<IpAddr>,
    /// `mqtt` or `mqttv3.1`; none where the client named none and may do so.
    pub subprotocol: Option<&'static str>,
    /// The web page, if it is one.
    pub origin: Option<String>,
}

/// Reads a whole head and appends the answer.
pub(super) fn answer(
    head: &[u8],
    config: &WsConfig,
    peer: IpAddr,
    out: &mut Vec<u8>,
) -> Result<Upgrade, Failure> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Complete(_)) => {}
        Err(Error::TooManyHeaders) => {
            let sentence = "the WebSocket handshake has more than 64 headers";
            return Err(refuse(431, sentence, out));
        }
        Ok(Status::Partial) | Err(_) => {
            return Err(refuse(400, "the WebSocket handshake is no HTTP/1.1 request", out));
        }
    }
    let granted = grant(&request, config, peer);
    let (upgrade, key) = granted.map_err(|(status, why)| refuse(status, &why, out))?;
    accept(&key, upgrade.subprotocol, out);
    Ok(upgrade)
}

type Granted = (Upgrade, String);
type Denied = (u16, String);

fn grant(request: &Request<'_, '_>, config: &WsConfig, peer: IpAddr) -> Result<Granted, Denied> {
    let deny = |status, why: &str| Err((status, why.to_owned()));
    if request.method != Some("GET") {
        return deny(405, "a WebSocket handshake is a GET");
    }
    if request.version != Some(1) {
        return deny(400, "a WebSocket handshake needs HTTP/1.1");
    }
    let path = request.path.unwrap_or_default();
    if path.split('?').next() != Some(config.path.as_str()) {
        return Err((404, format!("there is no MQTT at this path, it is at {}", config.path)));
    }
    let headers = &*request.headers;
    if all(headers, "Host").count() != 1 {
        return deny(400, "a request has one Host header");
    }
    if all(headers, "Transfer-Encoding").next().is_some()
        || all(headers, "Content-Length").any(|len| len != "0")
    {
        return deny(400, "a WebSocket handshake has no body");
    }
    if !has_token(headers, "Upgrade", "websocket") || !has_token(headers, "Connection", "upgrade") {
        return deny(
            426,
            "this is a WebSocket for MQTT: Upgrade: websocket and Connection: Upgrade are missing",
        );
    }
    if one(headers, "Sec-WebSocket-Version") != Some("13") {
        return deny(426, "Sec-WebSocket-Version is 13 here");
    }
    let key = one(headers, "Sec-WebSocket-Key").filter(|key| is_nonce(key));
    let Some(key) = key else {
        return deny(400, "Sec-WebSocket-Key is no nonce of 16 bytes in base64");
    };
    let subprotocol = subprotocol(headers);
    let must_offer = !config.subprotocol_optional || offers_subprotocol(headers);
    if subprotocol.is_none() && must_offer {
        // [MQTT-6.0.0-3]
        return deny(400, "the client must offer the WebSocket subprotocol \"mqtt\"");
    }
    let origin = all(headers, "Origin").next();
    if let (Some(allowed), Some(origin)) = (&config.origins, origin)
        && !allowed.iter().any(|one| one.eq_ignore_ascii_case(origin))
    {
        return deny(
            403,
            "web pages of this origin may not connect: add it to the allowed origins",
        );
    }
    let forwarded_for = forwarded_for(headers, config, peer)?;
    let origin = origin.map(str::to_owned);
    Ok((Upgrade { forwarded_for, subprotocol, origin }, key.to_owned()))
}

/// Values of a header that are text, without spaces around.
fn all<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| std::str::from_utf8(header.value).unwrap_or("?").trim())
}

fn one<'a>(headers: &'a [Header<'_>], name: &'a str) -> Option<&'a str> {
    let mut values = all(headers, name);
    values.next().filter(|_| values.next().is_none())
}

/// The parts of a header that is a list, RFC 9110 section 5.6.1.
fn tokens<'a>(headers: &'a [Header<'_>], name: &'a str) -> impl Iterator<Item = &'a str> {
    all(headers, name).flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    tokens(headers, name).any(|one| one.eq_ignore_ascii_case(token))
}

fn is_nonce(key: &str) -> bool {
    let mut nonce = [0; 18];
    Base64::decode(key, &mut nonce).is_ok_and(|bytes| bytes.len() == 16)
}

/// The client's first choice that is spoken here. Names are compared by case, section 4.1.
fn subprotocol(headers: &[Header<'_>]) -> Option<&'static str> {
    tokens(headers, "Sec-WebSocket-Protocol")
        .find_map(|offered| SUBPROTOCOLS.into_iter().find(|known| *known == offered))
}

fn offers_subprotocol(headers: &[Header<'_>]) -> bool {
    all(headers, "Sec-WebSocket-Protocol").next().is_some()
}

/// The last address in the list that is no trusted proxy: each proxy appends who it got the request
/// from, so what is before that may be made up by the client.
fn forwarded_for(
    headers: &[Header<'_>],
    config: &WsConfig,
    peer: IpAddr,
) -> Result<Option<IpAddr>, Denied> {
    if !config.trusted_proxies.must_send(peer) {
        return Ok(None);
    }
    let list: Vec<&str> =
        tokens(headers, "X-Forwarded-For").filter(|one| !one.is_empty()).collect();
    for text in list.iter().rev() {
        let Some(address) = forwarded_address(text) else {
            return Err((400, "X-Forwarded-For holds something that is no address".to_owned()));
        };
        if !config.trusted_proxies.must_send(address) {
            return Ok(Some(address));
        }
    }
    // All of them proxies: the first is where it came from.
    Ok(list.first().and_then(|text| forwarded_address(text)))
}

/// `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`, and these with a port, as some balancers write it.
fn forwarded_address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    address.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

fn accept(key: &str, subprotocol: Option<&str>, out: &mut Vec<u8>) {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    let mut answer = String::from(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    let accept = Base64::encode_string(hash.as_ref());
    let _ = write!(answer, "Sec-WebSocket-Accept: {accept}\r\n");
    if let Some(subprotocol) = subprotocol {
        let _ = write!(answer, "Sec-WebSocket-Protocol: {subprotocol}\r\n");
    }
    answer.push_str("\r\n");
    out.extend_from_slice(answer.as_bytes());
}

/// Appends an HTTP answer that says why, and closes.
pub(super) fn refuse(status: u16, sentence: &str, out: &mut Vec<u8>) -> Failure {
    let reason = match status {
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        _ => "Bad Request",
    };
    let more = match status {
        405 => "Allow: GET\r\n",
        426 => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        _ => "",
    };
    let connection = if status == 426 { "Upgrade, close" } else { "close" };
    let len = sentence.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\n{more}Connection: {connection}\r\nContent-Type: text/plain; \
         charset=utf-8\r\nContent-Length: {len}\r\n\r\n{sentence}\n"
    );
    out.extend_from_slice(answer.as_bytes());
    Failure {
        kind: FailureKind::Status(status),
        sentence: format!("the WebSocket handshake is refused with {status}: {sentence}"),
    }
}
