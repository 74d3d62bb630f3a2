"""The MQTT 5 reason codes that a black box can produce, and the table of properties by packet."""

from __future__ import annotations

import pytest

import config_keys as keys
import wire

C, P, W = "CONNECT", "PUBLISH", "will"
ACKS = ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP")
# Which packets from a client may carry each property (MQTT 5.0 table 2-4).
LEGAL = {
    "payload_format_indicator": (P, W),
    "message_expiry_interval": (P, W),
    "content_type": (P, W),
    "response_topic": (P, W),
    "correlation_data": (P, W),
    "subscription_identifier": ("SUBSCRIBE",),
    "session_expiry_interval": (C, "DISCONNECT"),
    "authentication_method": (C, "AUTH"),
    "authentication_data": (C, "AUTH"),
    "request_problem_information": (C,),
    "will_delay_interval": (W,),
    "request_response_information": (C,),
    "reason_string": (*ACKS, "DISCONNECT", "AUTH"),
    "receive_maximum": (C,),
    "topic_alias_maximum": (C,),
    "topic_alias": (P,),
    "user_property": (C, P, W, *ACKS, "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT", "AUTH"),
    "maximum_packet_size": (C,),
}
PACKETS = [C, W, P, *ACKS, "SUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT", "AUTH"]
VALUES = {"byte": 1, "u16": 10, "u32": 1_000, "var": 7, "utf8": "text", "bin": b"data", "pair": ("key", "value")}


def value(prop):
    return VALUES[wire.PROPERTIES[prop][1]]


def packet_with(packet, props, name):
    if packet == C:
        return wire.connect(name, props=props)
    if packet == W:
        return wire.connect(name, will=wire.Will(f"{name}/w", b"", props=props))
    if packet == P:
        return wire.publish(f"{name}/a", b"text", 1, 9, props=props)
    if packet in ACKS:
        return wire.ack(getattr(wire, packet), 9, 0, props)
    if packet == "SUBSCRIBE":
        return wire.subscribe(9, [(f"{name}/a", 0)], props)
    if packet == "UNSUBSCRIBE":
        return wire.unsubscribe(9, [f"{name}/a"], props)
    return wire.disconnect(0, props) if packet == "DISCONNECT" else wire.auth(0x19, props)


def answer(broker, packet, props, name, session_expiry=100):
    """What the broker does with the packet: "served", or the reason of its refusal, None for a bare close."""
    with wire.RawClient(broker) as raw:
        if packet not in (C, W):
            raw.open(name, props={"session_expiry_interval": session_expiry})
        raw.send(packet_with(packet, props, name))
        if packet != "DISCONNECT":
            raw.send_lossy(wire.pingreq())
        got = []
        try:
            while not got or got[-1].kind not in (wire.PINGRESP, wire.DISCONNECT):
                got.append(raw.recv())
                if got[-1].kind == wire.CONNACK and got[-1].reason:
                    return got[-1].reason
        except wire.Closed:
            return "served" if packet == "DISCONNECT" else None
        return "served" if got[-1].kind == wire.PINGRESP else got[-1].reason


@pytest.mark.parametrize("packet", PACKETS)
def test_c17_a_property_in_a_wrong_packet_is_refused(broker, name, packet):
    """C17: every illegal pair of the 27 properties with this packet: 0x81 or 0x82, and close."""
    wrong = {}
    for prop in wire.PROPERTIES:
        if packet in LEGAL.get(prop, ()):
            continue
        got = answer(broker, packet, {prop: value(prop)}, name)
        if got not in (0x81, 0x82):
            wrong[prop] = got
    assert not wrong


@pytest.mark.parametrize("packet", [p for p in PACKETS if p != "AUTH"])
def test_c17_a_property_in_a_right_packet_is_accepted(broker, name, packet):
    """C17: every legal pair is served (authentication apart: no method is set up here)."""
    wrong = {}
    for prop, packets in LEGAL.items():
        if packet not in packets or prop.startswith("authentication"):
            continue
        got = answer(broker, packet, {prop: value(prop)}, name)
        if got != "served":
            wrong[prop] = got
    assert not wrong


@pytest.mark.parametrize("packet", [p for p in PACKETS if p != "AUTH"])
def test_c16_a_property_twice_is_a_protocol_error(broker, name, packet):
    """C16: 0x82 (or 0x81), User Property exempt."""
    wrong = {}
    for prop, packets in LEGAL.items():
        if packet not in packets:
            continue
        got = answer(broker, packet, [(prop, value(prop)), (prop, value(prop))], name)
        if got != "served" if prop == "user_property" else got not in (0x81, 0x82):
            wrong[prop] = got
    assert not wrong


@pytest.mark.parametrize(
    ("packet", "props"),
    [
        (C, {"receive_maximum": 0}),
        (C, {"maximum_packet_size": 0}),
        (C, {"request_problem_information": 2}),
        (C, {"request_response_information": 2}),
        (C, {"authentication_data": b"without a method"}),
        (P, {"payload_format_indicator": 2}),
        (P, {"response_topic": "a/#"}),
        (P, {"subscription_identifier": 1}),
        ("SUBSCRIBE", {"subscription_identifier": 0}),
        (C, b"\x7f\x00"),
        (P, b"\x00"),
        (P, b"\x80\x80\x80\x80\x01"),
        (P, b"\x02\x00\x00"),
        (P, b"\x26\x00\x01k"),
    ],
)
def test_c03_c04_p07_p11_a_forbidden_property_value_is_refused(broker, name, packet, props):
    """C03, C04, C06, C07, C17, P07, P11: values that are no values, unknown and truncated properties."""
    assert answer(broker, packet, props, name) in (0x81, 0x82, 0x90)


def test_w20_sixty_thousand_user_properties_in_one_packet_are_served(broker_with, name):
    """W20: no time is asserted; a quadratic parser meets the test's timeout."""
    broker = broker_with({keys.MAX_PACKET_SIZE: 2_097_152})
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.subscribe(f"{name}/a", qos=1)
        for _ in range(10):
            raw.publish(f"{name}/a", b"x", 1, props=b"\x26\x00\x01k\x00\x01v" * 60_000)
            assert len(raw.messages(1)[0].props["user_property"]) == 60_000


# CONNACK


def refused_connect(broker, packet):
    with wire.RawClient(broker) as raw:
        raw.send_lossy(packet)
        got = raw.closed()
        assert len(got) == 1 and got[0].kind == wire.CONNACK and not got[0].session_present, got
        return got[0].reason


def test_connack_0x8c_for_an_unknown_authentication_method(broker, name):
    """C09. [MQTT-4.12.0-1]"""
    assert refused_connect(broker, wire.connect(name, props={"authentication_method": "NO-SUCH-METHOD"})) == 0x8C


@pytest.mark.parametrize("topic", ["a/#", "+", ""])
def test_connack_0x90_for_an_invalid_will_topic(broker, name, topic):
    """Reason codes: 0x90 (0x81 and 0x82 for what is malformed)."""
    assert refused_connect(broker, wire.connect(name, will=wire.Will(topic))) in (0x90, 0x81, 0x82)


def test_connack_0x85_for_a_client_id_over_the_limit(broker_with, name):
    """W17: 0x85, and 0x02 on 3.1.1; the limit itself is accepted."""
    broker = broker_with({keys.MAX_CLIENTID_LEN: 64})
    assert refused_connect(broker, wire.connect("x" * 65)) == 0x85
    with wire.RawClient(broker, 4) as raw:
        assert raw.connect("x" * 65).reason == 2
        assert raw.closed() == []
    with wire.RawClient(broker) as raw:
        raw.open("x" * 64)


def test_connack_0x95_for_a_connect_over_the_packet_size(broker_with, name):
    """W16, reason codes."""
    broker = broker_with({keys.MAX_PACKET_SIZE: 1_000})
    assert refused_connect(broker, wire.connect(name, will=wire.Will("a", b"." * 1_000))) == 0x95


def test_c12_retain_switched_off(broker_with, name):
    """C12: announced; 0x9A for a retained will and PUBLISH. [MQTT-3.2.2-13] [MQTT-3.2.2-14]"""
    broker = broker_with({keys.RETAIN_AVAILABLE: False})
    assert refused_connect(broker, wire.connect(name, will=wire.Will("a", retain=True))) == 0x9A
    with wire.RawClient(broker) as raw:
        assert raw.open(name).prop("retain_available") == 0
        raw.send(wire.publish(f"{name}/a", b"x", 1, 1, retain=True))
        raw.refused(0x9A)


@pytest.mark.parametrize("maximum", [0, 1])
def test_c12_a_maximum_qos(broker_with, name, maximum):
    """C12: announced; 0x9B above it; SUBSCRIBE is granted no more. [MQTT-3.2.2-9] [MQTT-3.2.2-11] [MQTT-3.2.2-12]"""
    broker = broker_with({keys.MAX_QOS: maximum})
    assert refused_connect(broker, wire.connect(name, will=wire.Will("a", qos=maximum + 1))) == 0x9B
    with wire.RawClient(broker) as raw:
        assert raw.open(name).prop("maximum_qos") == maximum
        assert raw.subscribe((f"{name}/a", 2)).reasons == [maximum]
        raw.send(wire.publish(f"{name}/a", b"x", maximum + 1, 1))
        raw.refused(0x9B)


@pytest.mark.parametrize(
    ("key", "announced", "topic_filter", "props", "reason"),
    [
        (keys.WILDCARD_SUBSCRIPTION, "wildcard_subscription_available", "{n}/+", None, 0xA2),
        (keys.SHARED_SUBSCRIPTION, "shared_subscription_available", "$share/g/{n}", None, 0x9E),
        (
            keys.SUBSCRIPTION_IDENTIFIERS,
            "subscription_identifier_available",
            "{n}/a",
            {"subscription_identifier": 1},
            0xA1,
        ),
    ],
)
def test_c12_a_kind_of_subscription_switched_off(broker_with, name, key, announced, topic_filter, props, reason):
    """C12: announced, and refused in SUBACK with its own code; plain ones are served."""
    broker = broker_with({key: False})
    with wire.RawClient(broker) as raw:
        assert raw.open(name).prop(announced) == 0
        assert raw.subscribe(f"{name}/plain", qos=1).reasons == [1]
        raw.send(wire.subscribe(9, [(topic_filter.replace("{n}", name), 0)], props))
        got = raw.recv()
        assert (got.kind, got.reasons) == (wire.SUBACK, [reason]) or (got.kind, got.reason) == (wire.DISCONNECT, reason)


def test_suback_0x97_over_the_subscription_limit(broker_with, name):
    """P15: the n+1-th; replacing one of the n is no new one; giving one up makes room."""
    broker = broker_with({keys.MAX_SUBSCRIPTIONS: 3})
    with wire.RawClient(broker) as raw:
        raw.open(name)
        assert raw.subscribe("a", "b", "c", "d").reasons == [0, 0, 0, 0x97]
        assert raw.subscribe("a", qos=1).reasons == [1]
        raw.unsubscribe("a")
        assert raw.subscribe("d").reasons == [0]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_suback_grants_the_requested_qos(broker, name, qos):
    """SUBACK 00, 01, 02. [MQTT-3.8.4-7]"""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        assert raw.subscribe(f"{name}/a", qos=qos).reasons == [qos]


@pytest.mark.parametrize("byte", [0x03, 0x30, 0x40, 0x80, 0xC0])
def test_s49_wrong_subscription_options_are_refused(broker, name, byte):
    """S-49, S-40: QoS 3, retain handling 3, reserved bits. [MQTT-3.8.3-5]"""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.send(wire.subscribe(1, [(f"{name}/a", byte)]))
        raw.refused(0x81, 0x82)


def test_s49_no_local_on_a_shared_subscription_is_a_protocol_error(broker, name):
    """S-49: 0x82. [MQTT-3.8.3-4]"""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.send(wire.subscribe(1, [(f"$share/g/{name}", wire.options(1, no_local=True))]))
        raw.refused(0x82)


@pytest.mark.parametrize("qos", [1, 2])
def test_p03_no_matching_subscribers(broker, name, qos):
    """P03: 0x10 in PUBACK and PUBREC, success once there is one."""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        assert raw.publish(f"{name}/a", b"x", qos).reason == 0x10
        raw.subscribe(f"{name}/+")
        assert raw.publish(f"{name}/a", b"x", qos).reason == 0


def test_pubcomp_0x92_for_an_unknown_identifier_in_both_directions(broker, name):
    """S-35, and a PUBREC for nothing is answered with PUBREL 0x92."""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.send(wire.ack(wire.PUBREL, 77))
        assert raw.take(wire.PUBCOMP).reason == 0x92
        raw.send(wire.ack(wire.PUBREC, 78))
        assert raw.take(wire.PUBREL).reason == 0x92
        raw.ping()


@pytest.mark.parametrize("kind", ["PUBACK", "PUBCOMP"])
def test_an_acknowledgement_of_nothing_does_no_harm(broker, name, kind):
    """A PUBACK or PUBCOMP that answers nothing may come late after a resume: ignored or refused, never more."""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.send(wire.ack(getattr(wire, kind), 99), wire.pingreq())
        got = raw.recv()
        assert got.kind == wire.PINGRESP or got.reason in (0x82, 0x92)


def test_s34_after_a_refusing_pubrec_the_identifier_is_free(broker, name):
    """S-34, S-53. [MQTT-4.3.3-9]"""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.subscribe(f"{name}/a")
        raw.send(wire.publish(f"$SYS/{name}", b"no", 2, 5))
        assert raw.take(wire.PUBREC).reason >= 0x80
        raw.send(wire.publish(f"{name}/a", b"yes", 2, 5))
        assert raw.take(wire.PUBREC).reason == 0
        raw.send(wire.ack(wire.PUBREL, 5))
        assert raw.take(wire.PUBCOMP).reason == 0
        assert raw.messages(1)[0].payload == b"yes"


@pytest.mark.parametrize("when", ["before CONNECT", "after CONNACK"])
def test_s95_auth_without_a_method_in_connect_is_a_protocol_error(broker, name, when):
    """S-95."""
    with wire.RawClient(broker) as raw:
        if when == "after CONNACK":
            raw.open(name)
            raw.send(wire.auth(0x19, {"authentication_method": "X"}))
            raw.refused(0x82)
        else:
            raw.send(wire.auth(0x18, {"authentication_method": "X"}))
            assert [p.kind for p in raw.closed()] in ([], [wire.DISCONNECT])
