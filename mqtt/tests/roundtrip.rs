//! What is encoded is decoded to the same, for every packet in each version, and no bytes make the
//! decoder panic (W18).

mod common;

use common::one;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use ringmain_mqtt::{
    Ack, Auth, ConnAck, Connect, ConnectProps, Disconnect, Forward, Packet, PacketId, PacketType,
    Publish, PublishProps, QoS, ReasonCode, RetainHandling, Role, Rules, SubAck, SubscribeOptions,
    UserProps, Version, Will, decode, encode, header, header_v31, property::PropertyWriter,
};

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Zé€\u{FEFF}\u{10FFFF} /$]{0,12}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zé/$]{1,12}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn users() -> impl Strategy<Value = Vec<u8>> {
    vec((text(), text()), 0..3).prop_map(|pairs| {
        let mut out = Vec::new();
        for (name, value) in pairs {
            PropertyWriter::new(&mut out).user(&name, &value);
        }
        out
    })
}

#[derive(Clone, Debug)]
struct Forwarded {
    format: Option<bool>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation: Option<Vec<u8>>,
    wire: Vec<u8>,
}

fn forward() -> impl Strategy<Value = Forwarded> {
    let fields = (
        option::of(any::<bool>()),
        option::of(text()),
        option::of(topic()),
        option::of(bytes()),
        users(),
    );
    fields.prop_map(|(format, content_type, response_topic, correlation, users)| {
        let mut wire = Vec::new();
        let mut writer = PropertyWriter::new(&mut wire);
        if let Some(value) = format {
            writer.payload_format(value);
        }
        if let Some(value) = &content_type {
            writer.content_type(value);
        }
        if let Some(value) = &response_topic {
            writer.response_topic(value);
        }
        if let Some(value) = &correlation {
            writer.correlation(value);
        }
        wire.extend(users);
        Forwarded { format, content_type, response_topic, correlation, wire }
    })
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

fn qos() -> impl Strategy<Value = QoS> {
    (0..3u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

fn id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|value| PacketId::new(value).unwrap())
}

fn code(packet_type: PacketType, receiver: Role) -> impl Strategy<Value = ReasonCode> {
    let legal: Vec<ReasonCode> =
        (0..=0xFF).map(ReasonCode).filter(|code| code.legal_to(packet_type, receiver)).collect();
    proptest::sample::select(legal)
}

fn options() -> impl Strategy<Value = SubscribeOptions> {
    (qos(), any::<bool>(), any::<bool>(), 0..3u8).prop_map(
        |(qos, no_local, retain_as_published, handling)| SubscribeOptions {
            qos,
            no_local,
            retain_as_published,
            retain_handling: [
                RetainHandling::Send,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ][usize::from(handling)],
        },
    )
}

/// `packet` survives the wire, and a second encoding gives the same bytes.
fn survives(packet: Packet<'_>, v: Version, role: Role) {
    let mut wire = Vec::new();
    packet.encode(&mut wire, v);
    let decoded = one(&wire, v, role).unwrap_or_else(|e| panic!("{packet:?}: {e}"));
    assert_eq!(decoded, packet);
    let mut again = Vec::new();
    decoded.encode(&mut again, v);
    assert_eq!(again, wire);
}

proptest! {
    #[test]
    fn connect(
        (version, clean_start, keep_alive_s) in (version(), any::<bool>(), any::<u16>()),
        (client_id, username, password) in (text(), option::of(text()), option::of(bytes())),
        will in option::of((qos(), any::<bool>(), topic(), bytes(), forward())),
        (delay_s, message_expiry_s) in (option::of(any::<u32>()), option::of(any::<u32>())),
        (session_expiry_s, receive_maximum) in (option::of(any::<u32>()), option::of(1u16..)),
        (maximum_packet_size, topic_alias_maximum) in
            (option::of(1u32..), option::of(any::<u16>())),
        (response, problem) in any::<(bool, bool)>(),
        auth in option::of((text(), option::of(bytes()))),
        users in users(),
    ) {
        let v5 = version.is_v5();
        let props = ConnectProps {
            session_expiry_s,
            receive_maximum,
            maximum_packet_size,
            topic_alias_maximum,
            request_response_info: response,
            request_problem_info: problem,
            auth_method: auth.as_ref().map(|a| a.0.as_str()),
            auth_data: auth.as_ref().and_then(|a| a.1.as_deref()),
            user: UserProps::from_wire(&users),
        };
        let will = will.as_ref().map(|(qos, retain, topic, payload, forward)| Will {
            qos: *qos,
            retain: *retain,
            topic,
            payload,
            delay_s: delay_s.filter(|_| v5),
            message_expiry_s: message_expiry_s.filter(|_| v5),
            payload_format: forward.format.filter(|_| v5),
            forward: if v5 { Forward::from_wire(&forward.wire) } else { Forward::EMPTY },
        });
        let packet = Connect {
            version,
            bridge: !v5 && clean_start,
            clean_start,
            keep_alive_s,
            client_id: &client_id,
            password: password.as_deref().filter(|_| v5 || username.is_some()),
            username: username.as_deref(),
            will,
            props: if v5 { props } else { ConnectProps::default() },
        };
        survives(Packet::Connect(packet), Version::V311, Role::Server);
        let mut wire = Vec::new();
        packet.encode(&mut wire);
        prop_assert_eq!(wire.len(), packet.wire_len());
    }

    #[test]
    fn connack(
        v in version(),
        session_present in any::<bool>(),
        code in code(PacketType::ConnAck, Role::Client),
        (session_expiry_s, receive_maximum) in (option::of(any::<u32>()), option::of(1u16..)),
        (maximum_packet_size, topic_alias_maximum) in
            (option::of(1u32..), option::of(any::<u16>())),
        flags in any::<[Option<bool>; 5]>(),
        server_keep_alive_s in option::of(any::<u16>()),
        texts in [option::of(text()), option::of(text()), option::of(text()), option::of(text()),
            option::of(text())],
        auth_data in option::of(bytes()),
        users in users(),
    ) {
        let full = ConnAck {
            session_present: session_present && code == ReasonCode::SUCCESS,
            code,
            session_expiry_s,
            receive_maximum,
            maximum_qos: flags[0].map(|f| QoS::from_bits(u8::from(f)).unwrap()),
            retain_available: flags[1],
            maximum_packet_size,
            assigned_client_id: texts[0].as_deref(),
            topic_alias_maximum,
            reason_string: texts[1].as_deref(),
            user: UserProps::from_wire(&users),
            wildcard_available: flags[2],
            subscription_ids_available: flags[3],
            shared_available: flags[4],
            server_keep_alive_s,
            response_information: texts[2].as_deref(),
            server_reference: texts[3].as_deref(),
            auth_method: texts[4].as_deref(),
            auth_data: auth_data.as_deref(),
        };
        let packet = if v.is_v5() {
            full
        } else {
            ConnAck {
                session_present: full.session_present && v == Version::V311,
                code: ReasonCode::from_v3_connack(code.to_v3_connack()).unwrap(),
                ..ConnAck::default()
            }
        };
        survives(Packet::ConnAck(packet), v, Role::Client);
    }

    #[test]
    fn publish(
        v in version(),
        (dup, qos, retain, topic) in (any::<bool>(), qos(), any::<bool>(), topic()),
        id in id(),
        (message_expiry_s, topic_alias) in (option::of(any::<u32>()), option::of(1u16..)),
        forward in forward(),
        payload in vec(any::<u8>(), 0..300),
    ) {
        let props = PublishProps {
            payload_format: forward.format,
            message_expiry_s,
            topic_alias,
            response_topic: forward.response_topic.as_deref(),
            content_type: forward.content_type.as_deref(),
            correlation: forward.correlation.as_deref(),
            forward: Forward::from_wire(&forward.wire),
            ..PublishProps::default()
        };
        let packet = Packet::Publish(Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic: &topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(id),
            props: if v.is_v5() { props } else { PublishProps::default() },
            payload: &payload,
        });
        survives(packet, v, Role::Server);
        survives(packet, v, Role::Client);
    }

    #[test]
    fn acknowledgements(
        v in version(),
        packet_id in id(),
        codes in (
            code(PacketType::PubAck, Role::Server),
            code(PacketType::PubRel, Role::Server),
        ),
        why in option::of(text()),
        users in users(),
    ) {
        let ack = |reason| if v.is_v5() {
            let user = UserProps::from_wire(&users);
            Ack { packet_id, reason, reason_string: why.as_deref(), user }
        } else {
            Ack {
                packet_id,
                reason: ReasonCode::SUCCESS,
                reason_string: None,
                user: UserProps::EMPTY,
            }
        };
        for role in [Role::Server, Role::Client] {
            survives(Packet::PubAck(ack(codes.0)), v, role);
            survives(Packet::PubRec(ack(codes.0)), v, role);
            survives(Packet::PubRel(ack(codes.1)), v, role);
            survives(Packet::PubComp(ack(codes.1)), v, role);
        }
    }

    #[test]
    fn subscribe_and_unsubscribe(
        v in version(),
        packet_id in id(),
        subscription_id in option::of(1..=268_435_455u32),
        users in users(),
        filters in vec((text(), options()), 1..5),
    ) {
        let v5 = v.is_v5();
        let user = if v5 { UserProps::from_wire(&users) } else { UserProps::EMPTY };
        let subscription_id = subscription_id.filter(|_| v5);
        let pairs: Vec<_> = filters.iter().map(|(f, o)| (f.as_str(), *o)).collect();
        let names: Vec<_> = filters.iter().map(|(f, _)| f.as_str()).collect();
        let expected: Vec<_> = pairs
            .iter()
            .map(|&(f, o)| {
                (f, if v5 { o } else { SubscribeOptions { qos: o.qos, ..Default::default() } })
            })
            .collect();

        let mut wire = Vec::new();
        encode::subscribe(&mut wire, v, packet_id, subscription_id, &pairs);
        let Ok(Packet::Subscribe(p)) = one(&wire, v, Role::Server) else { panic!() };
        prop_assert_eq!((p.packet_id, p.subscription_id), (packet_id, subscription_id));
        prop_assert_eq!(p.filters.iter().collect::<Vec<_>>(), expected);
        prop_assert_eq!(p.filters.len(), filters.len());
        prop_assert_eq!(p.wire_len(v), wire.len());
        survives(Packet::Subscribe(ringmain_mqtt::Subscribe { user, ..p }), v, Role::Server);

        let mut wire = Vec::new();
        encode::unsubscribe(&mut wire, v, packet_id, &names);
        let Ok(Packet::Unsubscribe(p)) = one(&wire, v, Role::Server) else { panic!() };
        prop_assert_eq!(p.filters.iter().collect::<Vec<_>>(), names);
        prop_assert_eq!(p.wire_len(v), wire.len());
        survives(Packet::Unsubscribe(ringmain_mqtt::Unsubscribe { user, ..p }), v, Role::Server);
    }

    #[test]
    fn suback_and_unsuback(
        v in version(),
        packet_id in id(),
        codes in vec(code(PacketType::SubAck, Role::Client), 1..5),
        uncodes in vec(code(PacketType::UnsubAck, Role::Client), 1..5),
        why in option::of(text()),
        users in users(),
    ) {
        let raw = |codes: &[ReasonCode]| codes.iter().map(|code| code.0).collect::<Vec<_>>();
        let (mut codes, mut uncodes) = (raw(&codes), raw(&uncodes));
        let (mut why, mut user) = (why.as_deref(), UserProps::from_wire(&users));
        if !v.is_v5() {
            let failure = if v == Version::V311 { 0x80 } else { 0 };
            codes.iter_mut().filter(|code| **code >= 0x80).for_each(|code| *code = failure);
            uncodes.clear();
            (why, user) = (None, UserProps::EMPTY);
        }
        let ack = SubAck { packet_id, reasons: &codes, reason_string: why, user };
        survives(Packet::SubAck(ack), v, Role::Client);
        survives(Packet::UnsubAck(SubAck { reasons: &uncodes, ..ack }), v, Role::Client);
    }

    #[test]
    fn disconnect_and_auth(
        codes in (
            code(PacketType::Disconnect, Role::Server),
            code(PacketType::Disconnect, Role::Client),
            code(PacketType::Auth, Role::Server),
            code(PacketType::Auth, Role::Client),
        ),
        session_expiry_s in option::of(any::<u32>()),
        texts in [option::of(text()), option::of(text())],
        (method, data) in (text(), option::of(bytes())),
        users in users(),
    ) {
        let v = Version::V5;
        let user = UserProps::from_wire(&users);
        let packet = Disconnect {
            reason: codes.0,
            session_expiry_s,
            reason_string: texts[0].as_deref(),
            server_reference: None,
            user,
        };
        survives(Packet::Disconnect(packet), v, Role::Server);
        let packet = Disconnect {
            reason: codes.1,
            session_expiry_s: None,
            server_reference: texts[1].as_deref(),
            ..packet
        };
        survives(Packet::Disconnect(packet), v, Role::Client);
        let packet = Auth {
            reason: codes.2,
            method: Some(&method),
            data: data.as_deref(),
            reason_string: texts[0].as_deref(),
            user,
        };
        survives(Packet::Auth(packet), v, Role::Server);
        survives(Packet::Auth(Auth { reason: codes.3, ..packet }), v, Role::Client);
    }

    #[test]
    fn w18_no_bytes_make_the_decoder_panic(
        first in any::<u8>(),
        body in vec(prop_oneof![any::<u8>(), 0..8u8, 0x20..0x2Bu8], 0..80),
        v in version(),
        strict_utf8 in any::<bool>(),
    ) {
        let bytes = common::packet(first, &body);
        for bytes in [&bytes[..], &body] {
            let _ = header_v31(bytes, true);
            if let Ok(Some(h)) = header(bytes, false)
                && let Some(body) = bytes.get(usize::from(h.len)..h.total_len())
            {
                for role in [Role::Server, Role::Client] {
                    let _ = decode(h, body, v, role, &Rules { strict_utf8 });
                }
            }
        }
    }
}

#[test]
fn pings() {
    for v in [Version::V31, Version::V311, Version::V5] {
        survives(Packet::PingReq, v, Role::Server);
        survives(Packet::PingResp, v, Role::Client);
    }
}
