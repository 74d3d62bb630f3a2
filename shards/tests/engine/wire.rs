//! Bytes that are no good, and bytes in odd portions.

use ringmain_shards::boundary::{Event, LogLevel};

use crate::support::*;

// W06. [MQTT-1.5.5-1]
#[test]
fn a_fifth_length_byte_and_an_overlong_length_are_malformed() {
    let mut n = Node::new(1);
    let a = n.join(V5, "a");
    n.send_raw(a, &[0x30, 0x80, 0x80, 0x80, 0x80]);
    assert_eq!(n.closed(a), Some(0x81));
    let a = n.join(V5, "a");
    n.send_raw(a, &[0xC0, 0x80, 0x00]);
    assert_eq!(n.closed(a), Some(0x81));
    let mut n = Node::mqtt(1, |m| m.lenient_remaining_length = true);
    let a = n.join(V5, "a");
    n.send_raw(a, &[0xC0, 0x80, 0x00]);
    assert_eq!(n.recv(a).name(), "PINGRESP");
}

// W07. [MQTT-2.1.3-1] [MQTT-3.14.1-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
// [MQTT-3.3.1-4] [MQTT-3.3.1-2] [MQTT311-2.2.2-2]
#[test]
fn wrong_fixed_header_flags_are_malformed() {
    for version in [V311, V5] {
        for first in 0..=255_u8 {
            let (kind, flags) = (first >> 4, first & 15);
            let right = match kind {
                3 => (flags >> 1) & 3 != 3 && (flags & 6 != 0 || flags & 8 == 0),
                6 | 8 | 10 => flags == 2,
                0 => false,
                _ => flags == 0,
            };
            if right {
                continue;
            }
            let mut n = Node::new(1);
            let a = n.join(version, "a");
            n.send_raw(a, &[first, 0]);
            assert_eq!(n.closed(a), (version == V5).then_some(0x81), "{first:02x}");
        }
    }
}

// What only a server sends. [MQTT-4.13.1-1]
#[test]
fn packets_of_a_server_end_the_connection() {
    for bytes in
        [&[0x20, 3, 0, 0, 0][..], &[0x90, 4, 0, 1, 0, 0], &[0xB0, 4, 0, 1, 0, 0], &[0xD0, 0]]
    {
        let mut n = Node::new(1);
        let a = n.join(V5, "a");
        n.send_raw(a, bytes);
        assert!(matches!(n.closed(a), Some(0x81 | 0x82)), "{bytes:02x?}");
    }
}

// W08, S-52. [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.3.2-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19]
// [MQTT-1.5.7-1]
#[test]
fn ill_formed_strings_of_publish_are_malformed() {
    for bad in [&b"a\xED\xA0\x80"[..], b"a\0b", b"\xFF", b"\xC0\x80"] {
        let string = |id: u8| raw::cat(&[&[id], &raw::field(bad)]);
        let pair = raw::cat(&[&[0x26], &raw::field(b"k"), &raw::field(bad)]);
        let riap = raw::cat(&[&[0x26], &raw::field(bad), &raw::field(b"v")]);
        for (topic, properties) in [
            (bad, Vec::new()),
            (b"t", string(0x03)),
            (b"t", string(0x08)),
            (b"t", pair),
            (b"t", riap),
        ] {
            let mut n = Node::new(1);
            let a = n.join(V5, "a");
            let body = raw::cat(&[&raw::field(topic), &raw::block(&properties)]);
            n.send_raw(a, &raw::packet(0x30, &body));
            assert!(
                matches!(n.closed(a), Some(0x81 | 0x82 | 0x90)),
                "{topic:02x?} {properties:02x?}"
            );
        }
        let mut n = Node::new(1);
        let a = n.join(V311, "a");
        n.send_raw(a, &raw::packet(0x30, &raw::field(bad)));
        assert_eq!(n.closed(a), None);
    }
}

// W08. [MQTT-1.5.4-3]
#[test]
fn a_byte_order_mark_passes_through_unchanged() {
    let mut n = Node::new(2);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    let topic = "\u{FEFF}a/\u{FEFF}";
    n.sub(s, topic, 0);
    let forward = props(|p| {
        p.user("\u{FEFF}", "\u{FEFF}v").content_type("\u{FEFF}");
    });
    let mut packet = publish(topic, 0, "x");
    packet.props.forward = ringmain_mqtt::Forward::from_wire(&forward);
    n.put(p, &packet);
    let got = n.msgs(s);
    assert_eq!((got[0].topic.as_str(), &got[0].forward), (topic, &forward));
    assert_eq!(n.put(p, &publish("a/\u{FEFF}", 1, "x")), 0x10);
}

// W09
#[test]
fn control_characters_pass_unless_strict() {
    for strict in [false, true] {
        let mut n = Node::mqtt(1, |m| m.strict_utf8 = strict);
        let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
        n.sub(s, "#", 0);
        n.publish(p, &publish("a\u{1}", 0, "x"));
        assert_eq!(n.is_open(p), !strict);
        assert_eq!(n.msgs(s).len(), usize::from(!strict));
    }
}

// W19
#[test]
fn tls_and_http_on_the_port_are_named_in_the_log() {
    let mut n = Node::new(2);
    for (bytes, hint) in [
        (&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3][..], "TLS on plain listener"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP"),
    ] {
        let wire = n.open();
        n.write(wire, bytes);
        assert!(n.wires[wire].closed.is_some() && n.wires[wire].to_client.is_empty());
        let text = n.events.iter().rev().find_map(|e| match e {
            Event::Log { level: LogLevel::Info, text, .. } => Some(text.to_string()),
            _ => None,
        });
        assert!(text.is_some_and(|t| t.contains(hint)), "{hint}");
    }
    assert_eq!((n.counters().tls_on_plain, n.counters().http_on_mqtt), (1, 1));
}

// W20
#[test]
fn sixty_thousand_user_properties_pass() {
    let mut n = Node::mqtt(2, |m| m.max_packet_size = 4 << 20);
    let (s, p) = (n.join(V5, "s"), n.join(V5, "p"));
    n.sub(s, "t", 1);
    let forward = props(|p| {
        for i in 0..60_000 {
            p.user("k", &i.to_string());
        }
    });
    let mut packet = publish("t", 1, "x");
    packet.props.forward = ringmain_mqtt::Forward::from_wire(&forward);
    n.put(p, &packet);
    assert_eq!(n.msgs(s)[0].forward, forward);
}

// W18: random bytes behind a good CONNECT: no panic, and others are served.
#[test]
fn garbage_hurts_nobody_else() {
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut n = Node::new(2);
    let (s, p) = (n.join(V5, "watch"), n.join(V311, "pub"));
    n.sub(s, "ok", 1);
    for round in 0..3_000 {
        let version = VERSIONS[round % 3];
        let wire = if round % 4 == 0 {
            n.open()
        } else {
            let id = format!("g{}", round % 7);
            let c = n.join(version, &id);
            n.clients[c].wire
        };
        let kind = (random() % 16) as u8;
        let len = (random() % 40) as u8;
        let mut bytes = vec![
            kind << 4 | if matches!(kind, 6 | 8 | 10) { 2 } else { (random() % 2) as u8 },
            len,
        ];
        bytes.extend((0..len).map(|i| if i % 3 == 0 { 0 } else { (random() % 12) as u8 }));
        n.write(wire, &bytes);
        n.hang_up(wire, ringmain_shards::engine::input::CloseCause::PeerFin);
        if round % 500 == 0 {
            n.put(p, &publish("ok", 1, "x"));
            assert_eq!(n.msgs(s).len(), 1);
        }
    }
    n.pass_s(10_000);
    let g = n.gauges();
    assert_eq!((g.sessions, g.sockets), (2, 2));
}
