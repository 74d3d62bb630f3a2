//! What the first bytes of a connection say when they are not what the listener expects. Row W19.
//!
//! Each answer is one sentence for the operator: what came, and what to change.

/// Whether bytes can begin a TLS connection: a record of type handshake, version 3.x.
/// `None` if there are too few to tell. RFC 8446, section 5.1.
pub fn looks_like_tls(first: &[u8]) -> Option<bool> {
    match first {
        [] => None,
        [0x16, 0x03, ..] => Some(true),
        [0x16] => None,
        _ => Some(false),
    }
}

/// Whether bytes can begin an HTTP request: a method of RFC 9110 and a space.
pub fn looks_like_http(first: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"POST ",
        b"PUT ",
        b"HEAD ",
        b"OPTIONS ",
        b"DELETE ",
        b"PATCH ",
        b"CONNECT ",
        b"TRACE ",
    ];
    METHODS.iter().any(|method| first.starts_with(method))
}

/// Whether bytes can begin an MQTT connection: CONNECT, a length, and the name of the protocol
/// [MQTT-3.1.2-1], of which what is there must fit.
pub fn looks_like_mqtt(first: &[u8]) -> bool {
    let [0x10, rest @ ..] = first else { return false };
    let length = rest.iter().take(4).take_while(|byte| **byte & 0x80 != 0).count() + 1;
    let name = rest.get(length..).unwrap_or_default();
    let begins = |whole: &[u8]| name.starts_with(whole) || whole.starts_with(name);
    !name.is_empty() && (begins(b"\0\x04MQTT") || begins(b"\0\x06MQIsdp"))
}

/// For a listener that expects MQTT without TLS: what else this is, or `None` if it may be MQTT.
pub fn on_mqtt_port(first: &[u8]) -> Option<&'static str> {
    if first.first() == Some(&0x10) {
        return None;
    }
    if looks_like_tls(first) == Some(true) {
        return Some(
            "TLS on a plain listener: let the client use the TLS port, or set up TLS here",
        );
    }
    if looks_like_http(first) {
        return Some(
            "HTTP on an MQTT listener: a WebSocket client needs a listener with WebSocket, and \
             health checks belong to the admin address",
        );
    }
    if crate::proxy::looks_like_proxy(first) {
        return Some(
            "a PROXY protocol header on a listener that expects none: switch it on here, or off at \
             the load balancer",
        );
    }
    None
}

/// For a TLS listener that got something else.
pub fn on_tls_port(first: &[u8]) -> &'static str {
    if looks_like_mqtt(first) {
        "MQTT without TLS on a TLS listener: let the client use TLS (mqtts://), or the plain port"
    } else if looks_like_http(first) {
        "HTTP without TLS on a TLS listener: let the client use https:// or wss://"
    } else if crate::proxy::looks_like_proxy(first) {
        "a PROXY protocol header on a listener that expects none: switch it on here, or off at the \
         load balancer"
    } else {
        "what came on a TLS listener is not TLS: a port scan, or a client set up for another protocol"
    }
}

/// For a WebSocket listener that got something that is no HTTP.
pub fn on_websocket_port(first: &[u8]) -> &'static str {
    if looks_like_tls(first) == Some(true) {
        "TLS on a plain WebSocket listener: let the client use ws://, or set up TLS here"
    } else if looks_like_mqtt(first) {
        "MQTT on a WebSocket listener: let the client use the WebSocket transport, or the MQTT port"
    } else if crate::proxy::looks_like_proxy(first) {
        "a PROXY protocol header on a listener that expects none: switch it on here, or off at the \
         load balancer"
    } else {
        "what came on a WebSocket listener is no HTTP/1.1 request"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECT: &[u8] = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd";
    const HELLO: &[u8] = b"\x16\x03\x01\x02\0\x01";

    // W19
    #[test]
    fn each_protocol_on_each_others_port_has_its_sentence() {
        assert!(on_mqtt_port(HELLO).unwrap().starts_with("TLS on a plain listener"));
        assert!(on_mqtt_port(b"GET / HTTP/1.1\r\n").unwrap().starts_with("HTTP on an MQTT"));
        assert!(on_mqtt_port(b"PROXY TCP4 ").unwrap().starts_with("a PROXY"));
        assert_eq!(on_mqtt_port(CONNECT), None);
        assert!(on_tls_port(CONNECT).starts_with("MQTT without TLS"));
        assert!(on_tls_port(b"GET / HTTP/1.1\r\n").starts_with("HTTP without TLS"));
        assert!(on_tls_port(b"\0\0\0").starts_with("what came"));
        assert!(on_websocket_port(HELLO).starts_with("TLS on a plain WebSocket"));
        assert!(on_websocket_port(CONNECT).starts_with("MQTT on a WebSocket"));
    }

    #[test]
    fn mqtt_is_known_by_its_name_whatever_the_length_before_it() {
        assert!(looks_like_mqtt(b"\x10\x80\x01\0\x04MQTT"));
        assert!(looks_like_mqtt(b"\x10\x20\0\x06MQIsdp"));
        assert!(looks_like_mqtt(b"\x10\x20\0\x04M"));
        assert!(!looks_like_mqtt(b"\x10\x20\0\x04HTTP"));
        assert!(!looks_like_mqtt(b"\x10"));
    }
}
