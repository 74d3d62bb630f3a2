"""RFC 6455 frame by frame, and section 6 of MQTT 5, with wsproto as the judge of what comes back. (T11)

What Autobahn|Testsuite asks of a server, in our own code: the suite needs Python 2.7, see
transport/tests/ws_clients/autobahn.sh.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

import wire
import ws_wire
from listeners import Listeners
from ws_wire import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Ws, close, frame, handshake

SHARDS = [2]
PINGREQ, PINGRESP = wire.pingreq(), b"\xd0\x00"
PROTOCOL_ERROR, UNSUPPORTED, INVALID_PAYLOAD, TOO_BIG = 1002, 1003, 1007, 1009


@pytest.fixture(scope="module")
def served(
    only_ringmain: None, tmp_path_factory: pytest.TempPathFactory, shards: int
) -> Iterator[Listeners]:
    listeners = {"ws": "ws://127.0.0.1:{port}/mqtt"}
    broker = Listeners(tmp_path_factory.mktemp("websocket"), {}, shards, listeners).start()
    yield broker
    broker.stop()


@pytest.fixture
def ws(served: Listeners, name: str) -> Iterator[Ws]:
    """A client that is connected and subscribed to its own name."""
    with Ws(served.ports["ws"]) as ws:
        ws.send(frame(BINARY, wire.connect(name, 4)))
        assert ws.mqtt(4) == b"\x20\x02\x00\x00"
        ws.send(frame(BINARY, wire.subscribe(1, [(name, 0)], version=4)))
        assert ws.mqtt(5) == b"\x90\x03\x00\x01\x00"
        yield ws
    served.check()


def test_mqtt_6_0_0_4_the_subprotocol_is_mqtt_and_there_is_no_extension(ws):
    """[MQTT-6.0.0-3], [MQTT-6.0.0-4]."""
    assert (ws.subprotocol, ws.extensions) == ("mqtt", [])


@pytest.mark.parametrize("length", [125, 126, 127, 128, 65_535, 65_536, 65_537, 1_000_000])
def test_t11_a_frame_of_any_length_is_one_packet(ws, name, length):
    """RFC 6455, 5.2: each form of the length, at its borders."""
    for remaining in (1, 2, 3):  # bytes of MQTT's own length
        packet = wire.publish(name, bytes(n % 251 for n in range(length - 3 - len(name) - remaining)), version=4)
        if len(packet) == length:
            break
    assert len(packet) == length
    ws.send(frame(BINARY, packet))
    assert ws.mqtt(length) == packet


def test_mqtt_6_0_0_2_packets_lie_across_frames_as_they_like(ws, name):
    """[MQTT-6.0.0-2]: a byte a frame; three packets in one; a packet in two messages; empty frames between."""
    packet = wire.publish(name, b"split", version=4)
    ws.send(*(frame(BINARY, packet[at : at + 1]) for at in range(len(packet))))
    assert ws.mqtt(len(packet)) == packet
    ws.send(frame(BINARY, PINGREQ + packet + PINGREQ))
    assert ws.mqtt(len(packet) + 4) == PINGRESP + packet + PINGRESP
    ws.send(frame(BINARY, packet[:7]), frame(BINARY), frame(PING), frame(BINARY, packet[7:]))
    assert (ws.pong(), ws.mqtt(len(packet))) == (b"", packet)


@pytest.mark.parametrize("chop", [1, 3, 7])
def test_t11_bytes_come_in_any_pieces(ws, name, chop):
    """RFC 6455 says nothing about segments of TCP: heads and masks are split too."""
    packet = wire.publish(name, b"x" * 200, version=4)
    octets = frame(BINARY, packet) + frame(PING, b"ping") + frame(BINARY, packet[:100], fin=False)
    octets += frame(CONTINUATION, packet[100:])
    for at in range(0, len(octets), chop):
        ws.send(octets[at : at + chop])
    assert ws.mqtt(2 * len(packet)) == packet * 2
    assert ws.pong() == b"ping"


def test_t11_a_message_may_be_fragmented_with_control_frames_between(ws, name):
    """RFC 6455, 5.4: fragments of no bytes too; every ping is answered, with what it said."""
    packet = wire.publish(name, b"fragmented", version=4)
    parts = [packet[:1], b"", packet[1:5], packet[5:]]
    opcodes = [BINARY] + [CONTINUATION] * 3
    for n, (opcode, part) in enumerate(zip(opcodes, parts)):
        ws.send(frame(opcode, part, fin=n == 3), frame(PING, b"%d" % n), frame(PONG, b"nobody asked"))
    assert [ws.pong() for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    assert ws.mqtt(len(packet)) == packet


PAYLOADS = {"empty": b"", "text": b"hello", "full": bytes(range(125)), "binary": b"\xfe\xff\x00"}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_t11_a_ping_is_answered_with_its_payload(ws, payload):
    """RFC 6455, 5.5.2 and 5.5.3."""
    ws.send(*[frame(PING, payload)] * 10)
    assert [ws.pong() for _ in range(10)] == [payload] * 10


@pytest.mark.parametrize("mask", [bytes(4), b"\xff\xff\xff\xff", b"\x00\x00\x00\x01"], ids=["zero", "ones", "last"])
def test_t11_any_mask_is_taken_off(ws, mask):
    """RFC 6455, 5.3."""
    ws.send(frame(BINARY, PINGREQ, mask=mask), frame(PING, b"masked", mask=mask))
    assert (ws.mqtt(2), ws.pong()) == (PINGRESP, b"masked")


BROKEN = {
    "rsv1": frame(BINARY, PINGREQ, rsv=4),
    "rsv2": frame(BINARY, PINGREQ, rsv=2),
    "rsv3": frame(BINARY, PINGREQ, rsv=1),
    "rsv-all": frame(BINARY, PINGREQ, rsv=7),
    "rsv-of-ping": frame(PING, b"", rsv=4),
    "rsv-of-close": frame(CLOSE, struct.pack("!H", 1000), rsv=2),
    **{f"opcode-{opcode}": frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "no-mask": frame(BINARY, PINGREQ, mask=None),
    "no-mask-of-ping": frame(PING, b"", mask=None),
    "fragmented-ping": frame(PING, b"x", fin=False),
    "fragmented-pong": frame(PONG, b"x", fin=False),
    "fragmented-close": frame(CLOSE, struct.pack("!H", 1000), fin=False),
    "long-ping": frame(PING, b"x" * 126),
    "long-pong": frame(PONG, b"x" * 126),
    "long-close": frame(CLOSE, struct.pack("!H", 1000) + b"x" * 124),
    "very-long-ping": frame(PING, b"x" * 65_536),
    "long-form-of-a-ping": frame(PING, b"x", form=2),
    "continuation-of-nothing": frame(CONTINUATION, PINGREQ),
    "unfinished-continuation-of-nothing": frame(CONTINUATION, PINGREQ, fin=False),
    "continuation-after-the-end": frame(BINARY, b"", fin=False) + frame(CONTINUATION) + frame(CONTINUATION, PINGREQ),
    "message-in-a-message": frame(BINARY, b"", fin=False) + frame(BINARY, PINGREQ),
    "length-125-in-two-bytes": frame(BINARY, b"\xc0" * 125, form=2),
    "length-0-in-two-bytes": frame(BINARY, b"", form=2),
    "length-0-in-eight-bytes": frame(BINARY, b"", form=8),
    "length-126-in-eight-bytes": frame(BINARY, b"\xc0" * 126, form=8),
    "length-65535-in-eight-bytes": frame(BINARY, b"\xc0" * 65_535, form=8),
    "length-above-2-to-the-63": b"\x82\xff" + b"\x80" + bytes(7) + ws_wire.MASK,
    "half-a-code": frame(CLOSE, b"\x03"),
    **{
        f"code-{code}": close(code)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)
    },
}


@pytest.mark.parametrize("what", list(BROKEN))
def test_t11_a_broken_frame_is_answered_with_1002_and_the_end(ws, what):
    """RFC 6455, 5.1 to 5.5 and 7.4: nothing of the frame, nor of what comes behind it, is acted on."""
    ws.send(BROKEN[what], frame(BINARY, PINGREQ), frame(PING))
    assert ws.closed(PROTOCOL_ERROR) == []


TEXTS = {"whole": frame(TEXT, b"text"), "empty": frame(TEXT), "first": frame(TEXT, b"t", fin=False)}


@pytest.mark.parametrize("frames", TEXTS.values(), ids=TEXTS.keys())
def test_mqtt_6_0_0_1_text_is_answered_with_1003_and_the_end(ws, frames):
    """[MQTT-6.0.0-1]."""
    ws.send(frames, frame(BINARY, PINGREQ))
    assert ws.closed(UNSUPPORTED) == []


NO_UTF_8 = {
    "no-first-byte": b"\xff",
    "cut-off": b"\xce\xba\xcf",
    "surrogate": b"\xed\xa0\x80",
    "above-10ffff": b"\xf4\x90\x80\x80",
    "overlong": b"\xc0\x80",
}


@pytest.mark.parametrize("reason", NO_UTF_8.values(), ids=NO_UTF_8.keys())
def test_t11_a_reason_that_is_no_utf_8_is_answered_with_1007(ws, reason):
    """RFC 6455, 5.5.1 and 8.1."""
    ws.send(close(1000, reason))
    assert ws.closed(INVALID_PAYLOAD) == []


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_t11_a_close_is_answered_with_its_code_and_the_end(ws, code):
    """RFC 6455, 5.5.1 and 7.1.1: the broker ends the connection; what comes behind the close is not acted on."""
    ws.send(close(code, "κόσμε".encode()), frame(PING), frame(BINARY, PINGREQ))
    assert ws.closed(code) == []


def test_t11_a_close_without_a_code_or_inside_a_message_is_answered_too(served, ws):
    """RFC 6455, 5.5.1: with no code; and with the longest reason, between two fragments."""
    ws.send(close())
    assert ws.closed(1005) == []
    with Ws(served.ports["ws"]) as other:
        other.send(frame(BINARY, b"\x10", fin=False), close(1000, b"x" * 123))
        assert other.closed(1000) == []


def test_t11_mqtt_before_a_close_counts_though_both_come_at_once(served, name):
    """MQTT-3.14.4-3: as browsers do it, PUBLISH, DISCONNECT and the close frame in one segment: no will."""
    with wire.RawClient(served, 4) as subscriber:
        subscriber.open(f"{name}s")
        subscriber.subscribe(name)
        for at, (last, expected) in enumerate([(wire.disconnect(), [b"last"]), (b"", [b"last", b"will"])]):
            with Ws(served.ports["ws"]) as ws:
                ws.send(frame(BINARY, wire.connect(f"{name}{at}", 4, will=wire.Will(name, b"will"))))
                assert ws.mqtt(4) == b"\x20\x02\x00\x00"
                ws.send(frame(BINARY, wire.publish(name, b"last", version=4)) + frame(BINARY, last) + close(1000))
                assert ws.closed(1000) == []
            assert [got.payload for got in subscriber.messages(len(expected))] == expected
        assert subscriber.drain() == []


def test_t11_a_frame_above_the_limit_is_refused_by_its_head(ws):
    """T11: 1009 once the length is known: `websocket_frame_bytes_max` is 16 MiB."""
    ws.send(frame(BINARY, b"", form=8)[:2] + struct.pack("!Q", (16 << 20) + 1) + ws_wire.MASK)
    assert ws.closed(TOO_BIG) == []


REFUSED = {
    "path": (handshake(path="/other"), 404),
    "method": (handshake(method="POST"), 405),
    "http-1.0": (handshake(http="HTTP/1.0"), 400),
    "no-host": (handshake(Host=None), 400),
    "no-upgrade": (handshake(Upgrade=None), 426),
    "no-connection": (handshake(Connection=None), 426),
    "version-8": (handshake(Sec_WebSocket_Version="8"), 426),
    "no-version": (handshake(Sec_WebSocket_Version=None), 426),
    "no-key": (handshake(Sec_WebSocket_Key=None), 400),
    "short-key": (handshake(Sec_WebSocket_Key="c2hvcnQ="), 400),
    "no-subprotocol": (handshake(Sec_WebSocket_Protocol=None), 400),  # [MQTT-6.0.0-3]
    "wrong-subprotocol": (handshake(Sec_WebSocket_Protocol="chat, MQTT"), 400),
    "long-head": (handshake(X_Long="x" * 8_192), 431),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_t11_a_wrong_handshake_is_refused_with_a_status_and_a_sentence(served, what):
    """RFC 6455, 4.2."""
    request, wanted = REFUSED[what]
    status, text = ws_wire.refusal(served.ports["ws"], request)
    assert status == wanted and text.strip(), (status, text)
