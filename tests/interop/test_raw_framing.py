"""Raw sockets: the same bytes in any segmentation, pipelining, and everything that is not well-formed MQTT."""

from __future__ import annotations

import random
import socket
import struct
import time

import pytest

import config_keys as keys
import wire


def script(name: str, version: int) -> list[bytes]:
    """A session of its own: its answers depend on nothing but these bytes."""
    topic = f"{name}/seg"
    props = {"content_type": "x", "user_property": [("a", "b")]} if version == 5 else None
    more = {"props": props} if props else {}
    return [
        wire.connect(f"{name}seg", version, keepalive=600, username="user", password=b"secret"),
        wire.subscribe(1, [(topic, 2), (f"{name}/none/+", 0)], version=version),
        wire.publish(topic, b"zero", 0, version=version, **more),
        wire.pingreq(),
        wire.publish(topic, b"one" * 100, 1, 10, version=version, **more),
        wire.publish(topic, b"two" * 10_000, 2, 11, version=version, **more),
        wire.ack(wire.PUBREL, 11),
        wire.unsubscribe(2, [topic], version=version),
        wire.pingreq(),
    ]


def summary(packets: list[wire.Packet]) -> tuple:
    """What the broker said, less the order between answers and deliveries, which two shards may settle either way."""
    answers = [p.raw for p in packets if p.kind != wire.PUBLISH]
    return answers, [(p.topic, p.payload, p.qos, p.dup, p.retain, p.props) for p in packets if p.kind == wire.PUBLISH]


def play(broker, name, version, segments) -> tuple:
    with wire.RawClient(broker, version) as raw:
        for segment in segments:
            raw.send(segment)
        pings = 0
        got = []
        # The script's own acknowledgements of deliveries are not part of it: the QoS 2 message stays half-way.
        while pings < 2 or sum(p.kind == wire.PUBLISH for p in got) < 3:
            got.append(raw.recv())
            pings += got[-1].kind == wire.PINGRESP
        return summary(got)


def test_w13_w14_any_segmentation_gives_identical_output(broker, name, version):
    """W13, W14: one segment, a packet a segment, odd sizes, one byte at a time."""
    packets = script(name, version)
    stream = b"".join(packets)
    expected = play(broker, name, version, [stream])
    assert [raw[0] >> 4 for raw in expected[0]][:2] == [wire.CONNACK, wire.SUBACK]
    assert [m[1][:4] for m in expected[1]] == [b"zero", b"oneo", b"twot"]
    for size in (65_536, 1_000, 7):
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert play(broker, name, version, pieces) == expected, f"segments of {size} bytes"
    assert play(broker, name, version, packets) == expected


def test_w14_one_byte_at_a_time_gives_identical_output(broker, name, version):
    """W14, with a payload short enough to send byte by byte."""
    packets = script(name, version)
    packets[5] = wire.publish(f"{name}/seg", b"two" * 50, 2, 11, version=version)
    stream = b"".join(packets)
    expected = play(broker, name, version, [stream])
    assert play(broker, name, version, [bytes([b]) for b in stream]) == expected


def test_w13_connect_subscribe_and_publish_in_one_segment_are_served_in_order(broker, name, version):
    """W13."""
    with wire.RawClient(broker, version) as raw:
        raw.send(
            wire.connect(name, version)
            + wire.subscribe(1, [(f"{name}/a", 1)], version=version)
            + b"".join(wire.publish(f"{name}/a", b"%d" % n, 1, n + 1, version=version) for n in range(50))
        )
        assert raw.recv().kind == wire.CONNACK
        assert raw.recv().kind == wire.SUBACK
        assert [raw.take(wire.PUBACK).packet_id for _ in range(50)] == list(range(1, 51))
        deliveries = []
        while len(deliveries) < 50:
            got = raw.take(wire.PUBLISH)
            deliveries.append(int(got.payload))
            raw.send(wire.ack(wire.PUBACK, got.packet_id))
        assert deliveries == list(range(50))


def test_w13_nothing_behind_a_refused_connect_is_processed(broker, name):
    """W13. [MQTT-3.1.4-6]"""
    with wire.RawClient(broker) as watch:
        watch.open(f"{name}w")
        watch.subscribe(f"{name}/a")
        with wire.RawClient(broker, 4) as raw:
            raw.send(wire.connect("", 4, clean=False) + wire.publish(f"{name}/a", b"no", version=4))
            assert [p.reason for p in raw.closed()] == [2]
        assert watch.drain() == []


@pytest.mark.parametrize(
    "first",
    [
        wire.publish("a", b"x", version=4),
        wire.publish("a", b"x", 1, 1, version=5),
        wire.subscribe(1, [("a", 0)], version=4),
        wire.unsubscribe(1, ["a"], version=4),
        wire.pingreq(),
        wire.disconnect(),
        wire.ack(wire.PUBACK, 1),
        wire.ack(wire.PUBREL, 1),
        wire.auth(0x18),
        bytes([wire.CONNACK << 4, 2, 0, 0]),
        b"\x00\x00",
    ],
    ids="publish publish5 subscribe unsubscribe pingreq disconnect puback pubrel auth connack reserved".split(),
)
def test_w11_the_first_packet_must_be_connect(broker, first):
    """W11: closed without a CONNACK. [MQTT-3.1.0-1]"""
    with wire.RawClient(broker, 5) as raw:
        raw.send(first)
        assert [p.kind for p in raw.closed()] in ([], [wire.DISCONNECT])


def test_w11_a_second_connect_is_a_protocol_error(broker, name, version):
    """W11. [MQTT-3.1.0-2]"""
    with wire.RawClient(broker, version) as raw:
        raw.open(name)
        raw.send(wire.connect(name, version))
        raw.refused(0x82)


@pytest.mark.parametrize(("level", "reason"), [(6, 0x84), (7, 0x84), (9, 0x84), (2, 0x84), (0, 0x84), (255, 0x84)])
def test_w04_an_unknown_level_in_a_v5_shaped_connect_is_refused(broker, name, level, reason):
    """W04: 0x84, or 3.1.1's 0x01 for levels that have no other shape; never a session. [MQTT-3.1.2-2]"""
    with wire.RawClient(broker, 5) as raw:
        raw.send(wire.connect(name, 5, level=level))
        got = raw.closed()
        assert got and got[0].kind == wire.CONNACK
        assert got[0].reason in ((reason,) if level == 6 else (reason, 0x01))
        assert not got[0].session_present and len(got) == 1


def test_w04_level_9_from_a_v3_shaped_packet_is_refused_with_1(broker, name):
    """W04. [MQTT-3.1.2-2] of 3.1.1."""
    with wire.RawClient(broker, 4) as raw:
        raw.send(wire.connect(name, 4, level=9))
        got = raw.closed()
        assert [(p.kind, p.reason) for p in got] == [(wire.CONNACK, 1)]


@pytest.mark.parametrize(
    ("protocol", "level"),
    [("mqtt", 4), ("MQTTX", 4), ("", 4), ("MQIsdp", 4), ("MQTT", 3), ("MQIsdp", 5), ("HTTP", 4)],
)
def test_w04_a_wrong_protocol_name_closes(broker, name, protocol, level):
    """W04: no bytes, 0x84 or 0x01; never a session. [MQTT-3.1.2-1]"""
    with wire.RawClient(broker, 4) as raw:
        raw.send(wire.connect(name, level, name=protocol))
        got = raw.closed()
        assert not got or (len(got) == 1 and got[0].reason in (0x84, 0x01))


FLAGGED = {
    wire.CONNECT: wire.connect("x"),
    wire.PUBACK: wire.ack(wire.PUBACK, 1),
    wire.PUBREC: wire.ack(wire.PUBREC, 1),
    wire.PUBREL: wire.ack(wire.PUBREL, 1),
    wire.PUBCOMP: wire.ack(wire.PUBCOMP, 1),
    wire.SUBSCRIBE: wire.subscribe(1, [("a", 0)]),
    wire.UNSUBSCRIBE: wire.unsubscribe(1, ["a"]),
    wire.PINGREQ: wire.pingreq(),
    wire.DISCONNECT: wire.disconnect(),
    wire.AUTH: wire.auth(0x18),
}


@pytest.mark.parametrize("kind", FLAGGED, ids=[wire.NAMES[k] for k in FLAGGED])
def test_w07_wrong_fixed_header_flags_are_malformed(broker, name, kind):
    """W07: each of the fifteen wrong values. [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]"""
    good = 2 if kind in (wire.PUBREL, wire.SUBSCRIBE, wire.UNSUBSCRIBE) else 0
    for flags in set(range(16)) - {good}:
        packet = bytes([kind << 4 | flags]) + FLAGGED[kind][1:]
        with wire.RawClient(broker) as raw:
            if kind == wire.CONNECT:
                raw.send(packet)
                assert [p.reason for p in raw.closed() if p.kind == wire.CONNACK] in ([], [0x81])
            else:
                raw.open(name)
                raw.send(packet)
                raw.refused(0x81, *([0x82] if kind == wire.AUTH else []))


def test_w07_qos_3_is_malformed(broker, name, version):
    """W07. [MQTT-3.3.1-4]"""
    with wire.RawClient(broker, version) as raw:
        raw.open(name)
        raw.send(wire.publish("a", b"x", 3, 1, version=version))
        raw.refused(0x81)


def test_a_qos_0_publish_with_dup_is_malformed(broker, name, version):
    """W07. [MQTT-3.3.1-2]"""
    with wire.RawClient(broker, version) as raw:
        raw.open(name)
        raw.send(wire.publish("a", b"x", 0, dup=True, version=version))
        raw.refused(0x81, 0x82)


@pytest.mark.parametrize("kind", [0, wire.CONNACK, wire.SUBACK, wire.UNSUBACK, wire.PINGRESP])
def test_a_packet_type_that_no_client_sends_is_refused(broker, name, version, kind):
    """W07, W18."""
    bodies = {wire.CONNACK: b"\0\0\0", wire.SUBACK: b"\0\1\0\0", wire.UNSUBACK: b"\0\1\0\0"}
    with wire.RawClient(broker, version) as raw:
        raw.open(name)
        raw.send(wire.packet(kind, 0, bodies.get(kind, b"")))
        raw.refused(0x81, 0x82)


@pytest.mark.parametrize("kind", [wire.PUBLISH, wire.SUBSCRIBE, wire.UNSUBSCRIBE, wire.PUBACK, wire.PUBREL])
def test_a_packet_identifier_of_zero_is_refused(broker, name, version, kind):
    """[MQTT-2.2.1-3] [MQTT-2.2.1-2]"""
    packets = {
        wire.PUBLISH: wire.publish("a", b"x", 1, 0, version=version),
        wire.SUBSCRIBE: wire.subscribe(0, [("a", 0)], version=version),
        wire.UNSUBSCRIBE: wire.unsubscribe(0, ["a"], version=version),
        wire.PUBACK: wire.ack(wire.PUBACK, 0),
        wire.PUBREL: wire.ack(wire.PUBREL, 0),
    }
    with wire.RawClient(broker, version) as raw:
        raw.open(name)
        raw.send(packets[kind])
        raw.refused(0x81, 0x82)


def test_w06_a_remaining_length_of_five_bytes_is_malformed(broker, name, version):
    """W06: before and after CONNECT. [MQTT-1.5.5-1]"""
    for opened in (False, True):
        with wire.RawClient(broker, version) as raw:
            if opened:
                raw.open(name)
                raw.send(b"\x30\xff\xff\xff\xff\x01")
                raw.refused(0x81)
            else:
                raw.send(b"\x10\x80\x80\x80\x80\x01")
                assert [p.reason for p in raw.closed()] in ([], [0x81])


@pytest.mark.parametrize("encoding", [b"\x80\x00", b"\x80\x80\x00", b"\x80\x80\x80\x00"])
def test_w06_an_overlong_remaining_length_is_malformed(broker, name, encoding):
    """W06: PINGREQ with a zero of two to four bytes. [MQTT-1.5.5-1]"""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.send(b"\xc0" + encoding)
        raw.refused(0x81)


@pytest.mark.parametrize("kind", [k for k in FLAGGED if k not in (wire.PINGREQ, wire.DISCONNECT, wire.AUTH)])
def test_w06_a_body_cut_short_is_malformed(broker, name, kind):
    """W06, W18: every shorter remaining length of the packet."""
    whole = FLAGGED[kind]
    for length in range(len(whole) - 2):
        with wire.RawClient(broker) as raw:
            if kind != wire.CONNECT:
                raw.open(name)
            raw.send(whole[:1] + bytes([length]) + whole[2 : 2 + length])
            got = raw.closed()
            assert all(p.kind in (wire.DISCONNECT, wire.CONNACK) and p.reason in (0x81, 0x82) for p in got), got


@pytest.mark.parametrize("kind", [wire.PINGREQ, wire.SUBSCRIBE, wire.CONNECT, wire.UNSUBSCRIBE])
def test_w06_bytes_behind_the_body_are_malformed(broker, name, version, kind):
    """W06, W18: PINGREQ with a body, others with one byte too many."""
    whole = {
        wire.PINGREQ: wire.pingreq(),
        wire.SUBSCRIBE: wire.subscribe(1, [("a", 0)], version=version),
        wire.CONNECT: wire.connect(name, version),
        wire.UNSUBSCRIBE: wire.unsubscribe(1, ["a"], version=version),
    }[kind]
    with wire.RawClient(broker, version) as raw:
        if kind != wire.CONNECT:
            raw.open(name)
        raw.send(whole[:1] + bytes([whole[1] + 1]) + whole[2:] + b"\0")
        got = raw.closed()
        assert all(p.kind in (wire.DISCONNECT, wire.CONNACK) and p.reason >= 0x01 for p in got), got


@pytest.mark.parametrize("kind", [wire.SUBSCRIBE, wire.UNSUBSCRIBE])
def test_a_subscribe_or_unsubscribe_without_filters_is_a_protocol_error(broker, name, version, kind):
    """[MQTT-3.8.3-2] [MQTT-3.10.3-2]"""
    with wire.RawClient(broker, version) as raw:
        raw.open(name)
        build = wire.subscribe if kind == wire.SUBSCRIBE else wire.unsubscribe
        raw.send(build(1, [], version=version))
        raw.refused(0x81, 0x82)


@pytest.mark.parametrize("flags", [0x03, 0x0A, 0x22, 0x1E, 0x1A, 0x2A], ids=lambda f: f"{f:#04x}")
def test_w10_inconsistent_connect_flags_are_malformed(broker, name, version, flags):
    """W10: reserved bit; will QoS or retain without will; will QoS 3. [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]"""
    will = wire.Will("a", b"x") if flags & 4 else None
    with wire.RawClient(broker, version) as raw:
        raw.send(wire.connect(name, version, flags=flags, will=will))
        got = raw.closed()
        assert [p.reason for p in got] in ([], [0x81], [0x82]) and not (version == 4 and got)


def test_w10_a_password_without_a_user_name_is_legal_only_in_v5(broker, name, version):
    """W10. [MQTT-3.1.2-22] of 3.1.1"""
    with wire.RawClient(broker, version) as raw:
        raw.send(wire.connect(name, version, password=b"secret"))
        if version == 5:
            assert raw.recv().reason == 0
        else:
            assert raw.closed() == []


BAD_UTF8 = [b"a\xed\xa0\x80", b"\xff", b"a\xc0\x80", b"\xf4\x90\x80\x80", b"a\x00b", b"\xe2\x82", b"\xf8\x88\x80\x80\x80"]


@pytest.mark.parametrize("text", BAD_UTF8, ids=lambda t: t.hex())
def test_w08_ill_formed_utf8_is_malformed_wherever_it_stands(broker, name, text):
    """W08. [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-3.3.2-1]"""
    opened = [
        wire.publish(text, b"x"),
        wire.subscribe(1, [(text, 0)]),
        wire.unsubscribe(1, [text]),
        wire.publish("a", b"x", props=wire.encode_property("content_type", text)),
        wire.publish("a", b"x", props=wire.encode_property("user_property", ("k", text))),
        wire.publish("a", b"x", props=wire.encode_property("response_topic", text)),
    ]
    for packet in opened:
        with wire.RawClient(broker) as raw:
            raw.open(name)
            raw.send(packet)
            try:
                got = raw.recv()
            except wire.Closed:
                raise AssertionError(f"closed without a reason: {packet!r}") from None
            # A filter may be refused by itself; whatever else is malformed.
            if got.kind in (wire.SUBACK, wire.UNSUBACK):
                assert got.reasons == [0x8F]
            else:
                assert got.kind == wire.DISCONNECT and got.reason in (0x81, 0x82, 0x90), got
    for connect in (wire.connect(text), wire.connect(name, will=wire.Will(text, b"")), bad_username(name, text)):
        with wire.RawClient(broker) as raw:
            raw.send(connect)
            assert all(p.reason in (0x81, 0x82, 0x85, 0x90) for p in raw.closed())


def bad_username(name, text):
    body = wire.utf8("MQTT") + struct.pack("!BBH", 5, 0x82, 0) + b"\0" + wire.utf8(name) + wire.utf8(text)
    return wire.packet(wire.CONNECT, 0, body)


@pytest.mark.slow
def test_w12_a_socket_that_says_nothing_is_closed(broker_with, name):
    """W12: not before the timeout, and other connections stay."""
    broker = broker_with({keys.CONNECT_TIMEOUT_MS: 2000})
    with wire.RawClient(broker) as kept, wire.RawClient(broker) as idle, wire.RawClient(broker) as slow:
        kept.open(name)
        start = time.monotonic()
        slow.send(wire.connect(f"{name}slow")[:-1])
        assert idle.closed() == []
        assert time.monotonic() - start >= 1.5 - wire.TICK_S
        slow.closed()
        kept.ping()


@pytest.mark.slow
def test_s91_a_packet_that_never_ends_is_no_packet(broker, name):
    """S-91: a slow-loris sends a byte a fifth of a second and is closed for its keep-alive of 2 s."""
    with wire.RawClient(broker) as raw:
        start = time.monotonic()
        raw.open(name, keepalive=2)
        raw.send(b"\x30" + wire.varint(1_000) + wire.utf8(f"{name}/a") + b"\0")
        for _ in range(60):
            raw.send_lossy(b".")
            try:
                got = raw.recv(0.2)
            except wire.Silence:
                continue
            except wire.Closed:
                break
            assert (got.kind, got.reason) == (wire.DISCONNECT, 0x8D)
        else:
            raise AssertionError("kept for twelve seconds without one packet")
        assert time.monotonic() - start >= 3.0 - wire.TICK_S


def test_w14_a_truncated_session_leaves_no_trace(broker, name, version):
    """W14, W18: the stream ends after every possible number of bytes of a CONNECT and a PUBLISH."""
    stream = wire.connect(name, version) + wire.publish(f"{name}/a", b"payload", 1, 1, version=version)
    for length in range(len(stream)):
        with wire.RawClient(broker, version) as raw:
            raw.send_lossy(stream[:length])
            if length % 2:
                raw.abort()


GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "http post": b"POST /mqtt HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "websocket": b"GET /mqtt HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "tls": bytes.fromhex("16030100c5010000c10303") + bytes(range(190)) + b"\0" * 5,
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "proxy v1": b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
    "proxy v2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + b"\x7f\0\0\x01" * 3,
    "zeros": b"\0" * 100,
    "ones": b"\xff" * 100,
    "newlines": b"\r\n" * 50,
    "redis": b"*1\r\n$4\r\nPING\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_w19_another_protocol_on_this_port_is_closed(broker, kind):
    """W19: no CONNACK of success, no panic, and the next client is served (the fixture looks)."""
    with wire.RawClient(broker) as raw:
        answer = half_close_and_read(raw, GARBAGE[kind])
    # A refusing CONNACK or DISCONNECT at most.
    assert len(answer) < 1_000 and answer[:4] != b"\x20\x02\x00\x00"


def half_close_and_read(raw, data):
    """Sends, ends the sending side and reads to the end; the broker may have closed or reset before any of it."""
    answer = b""
    try:
        raw.send(data)
        raw.sock.shutdown(socket.SHUT_WR)
        while chunk := raw.sock.recv(4_096):
            answer += chunk
    except TimeoutError:
        raise AssertionError("the broker kept the connection open") from None
    except OSError:
        pass
    return answer


def test_w19_a_tls_hello_is_told_in_the_log(broker_with):
    """W19: the log says so in one line and has no stack trace."""
    broker = broker_with({})
    with wire.RawClient(broker) as raw:
        half_close_and_read(raw, GARBAGE["tls"])
    deadline = time.monotonic() + wire.WAIT_S
    while "TLS" not in broker.stderr_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "TLS" in broker.stderr_text()
    assert "stack backtrace" not in broker.stderr_text()


def test_w18_random_bytes_do_no_harm(broker, name, version):
    """W18 in small: seeded mutations of valid packets, before and after CONNECT."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    valid = script(name, version)
    for round_ in range(150):
        packet = bytearray(rng.choice(valid)[:300])
        for _ in range(rng.randrange(1, 6)):
            packet[rng.randrange(len(packet))] = rng.randrange(256)
        with wire.RawClient(broker, version) as raw:
            if round_ % 3:
                raw.open(f"{name}r")
            raw.send_lossy(bytes(packet))
            if round_ % 5 == 0:
                raw.abort()


def test_packets_sent_before_a_disconnect_are_processed(broker, name, version):
    """S-93: a burst, DISCONNECT and FIN in one go; everything before counts."""
    with wire.RawClient(broker, version) as watch:
        watch.open(f"{name}w")
        watch.subscribe(f"{name}/#", qos=0)
        with wire.RawClient(broker, version) as raw:
            burst = [wire.publish(f"{name}/a", b"%d" % n, 0, version=version) for n in range(500)]
            raw.send(wire.connect(name, version), *burst, wire.disconnect())
        assert [int(m.payload) for m in watch.messages(500)] == list(range(500))


def test_s93_the_socket_is_closed_after_disconnect(broker, name, version):
    """S-93, and what follows a DISCONNECT is not processed. [MQTT-3.14.4-1] [MQTT-3.14.4-2]"""
    with wire.RawClient(broker, version) as watch, wire.RawClient(broker, version) as raw:
        watch.open(f"{name}w")
        watch.subscribe(f"{name}/#", qos=0)
        raw.open(name)
        raw.send(wire.disconnect() + wire.publish(f"{name}/a", b"late", version=version))
        assert raw.closed() == []
        assert watch.drain() == []


def test_all_65535_packet_identifiers_serve(broker, name):
    """[MQTT-2.2.1-4]: in turn, each acknowledged with itself."""
    with wire.RawClient(broker, 4) as raw:
        raw.open(name)
        for start in range(1, 65_536, 15):
            few = range(start, min(start + 15, 65_536))
            raw.send(*(wire.publish(f"{name}/a", b"", 1, n, version=4) for n in few))
            assert [raw.take(wire.PUBACK).packet_id for _ in few] == list(few)
