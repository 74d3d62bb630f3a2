"""MQTT as bytes: a builder that can also build wrong packets, and a reader.

Client libraries refuse to misbehave. The raw-socket tests need packets that no library sends, so everything here
takes any value and checks nothing; the reader, on the other hand, asserts that what the broker wrote is well formed.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import struct
import time
from typing import Any

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE = range(1, 9)
SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(9, 16)
NAMES = (
    "reserved CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE "
    "SUBACK UNSUBSCRIBE UNSUBACK PINGREQ PINGRESP DISCONNECT AUTH"
).split()

# How long a test waits for something that must come. Generous: a loaded machine is not a defect.
WAIT_S = float(os.environ.get("INTEROP_WAIT_S", "20"))
# How long a test listens for something that must not come.
QUIET_S = 0.4
# How much sooner than due an end may be seen: the broker stamps what it reads with the time at which its turn began.
TICK_S = 0.05

PROPERTIES = {
    "payload_format_indicator": (0x01, "byte"),
    "message_expiry_interval": (0x02, "u32"),
    "content_type": (0x03, "utf8"),
    "response_topic": (0x08, "utf8"),
    "correlation_data": (0x09, "bin"),
    "subscription_identifier": (0x0B, "var"),
    "session_expiry_interval": (0x11, "u32"),
    "assigned_client_identifier": (0x12, "utf8"),
    "server_keep_alive": (0x13, "u16"),
    "authentication_method": (0x15, "utf8"),
    "authentication_data": (0x16, "bin"),
    "request_problem_information": (0x17, "byte"),
    "will_delay_interval": (0x18, "u32"),
    "request_response_information": (0x19, "byte"),
    "response_information": (0x1A, "utf8"),
    "server_reference": (0x1C, "utf8"),
    "reason_string": (0x1F, "utf8"),
    "receive_maximum": (0x21, "u16"),
    "topic_alias_maximum": (0x22, "u16"),
    "topic_alias": (0x23, "u16"),
    "maximum_qos": (0x24, "byte"),
    "retain_available": (0x25, "byte"),
    "user_property": (0x26, "pair"),
    "maximum_packet_size": (0x27, "u32"),
    "wildcard_subscription_available": (0x28, "byte"),
    "subscription_identifier_available": (0x29, "byte"),
    "shared_subscription_available": (0x2A, "byte"),
}
PROPERTY_NAMES = {number: (name, kind) for name, (number, kind) in PROPERTIES.items()}
REPEATABLE = ("user_property", "subscription_identifier")


class Closed(Exception):
    """The broker closed the connection."""


class Silence(AssertionError):
    """Nothing came within the time that a test waits."""


# --- building -------------------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def binary(value: bytes) -> bytes:
    return struct.pack("!H", len(value)) + value


def utf8(value: str | bytes) -> bytes:
    return binary(value.encode() if isinstance(value, str) else value)


def encode_property(name: str, value: Any) -> bytes:
    number, kind = PROPERTIES[name]
    if kind == "byte":
        body = struct.pack("!B", value)
    elif kind == "u16":
        body = struct.pack("!H", value)
    elif kind == "u32":
        body = struct.pack("!I", value)
    elif kind == "var":
        body = varint(value)
    elif kind == "utf8":
        body = utf8(value)
    elif kind == "bin":
        body = binary(value)
    else:
        body = utf8(value[0]) + utf8(value[1])
    return varint(number) + body


def properties(props: dict[str, Any] | list[tuple[str, Any]] | bytes | None) -> bytes:
    """Property length and properties; raw bytes are taken as the properties themselves."""
    if isinstance(props, bytes):
        body = props
    else:
        pairs = list(props.items()) if isinstance(props, dict) else list(props or [])
        body = b""
        for name, value in pairs:
            for one in value if isinstance(value, list) else [value]:
                body += encode_property(name, one)
    return varint(len(body)) + body


def packet(kind: int, flags: int, body: bytes) -> bytes:
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


@dataclasses.dataclass
class Will:
    topic: str | bytes
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    props: Any = None


def connect(
    client_id: str | bytes = "",
    version: int = 5,
    clean: bool = True,
    keepalive: int = 0,
    props: Any = None,
    will: Will | None = None,
    username: str | None = None,
    password: bytes | None = None,
    *,
    name: str | None = None,
    level: int | None = None,
    flags: int | None = None,
) -> bytes:
    if flags is None:
        flags = 2 if clean else 0
        if will:
            flags |= 4 | will.qos << 3 | (32 if will.retain else 0)
        if username is not None:
            flags |= 128
        if password is not None:
            flags |= 64
    body = utf8(name if name is not None else ("MQIsdp" if version == 3 else "MQTT"))
    body += struct.pack("!BBH", version if level is None else level, flags, keepalive)
    if version >= 5:
        body += properties(props)
    body += utf8(client_id)
    if will:
        if version >= 5:
            body += properties(will.props)
        body += utf8(will.topic) + binary(will.payload)
    if username is not None:
        body += utf8(username)
    if password is not None:
        body += binary(password)
    return packet(CONNECT, 0, body)


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    qos: int = 0,
    packet_id: int | None = None,
    retain: bool = False,
    dup: bool = False,
    props: Any = None,
    version: int = 5,
) -> bytes:
    body = utf8(topic)
    if packet_id is not None:
        body += struct.pack("!H", packet_id)
    if version >= 5:
        body += properties(props)
    return packet(PUBLISH, (8 if dup else 0) | qos << 1 | (1 if retain else 0), body + payload)


def ack(kind: int, packet_id: int, reason: int | None = None, props: Any = None, flags: int | None = None) -> bytes:
    body = struct.pack("!H", packet_id)
    if reason is not None or props is not None:
        body += bytes([reason or 0])
    if props is not None:
        body += properties(props)
    return packet(kind, (2 if kind == PUBREL else 0) if flags is None else flags, body)


def subscribe(
    packet_id: int, filters: list[tuple[str | bytes, int]], props: Any = None, version: int = 5, flags: int = 2
) -> bytes:
    body = struct.pack("!H", packet_id) + (properties(props) if version >= 5 else b"")
    for topic_filter, options in filters:
        body += utf8(topic_filter) + bytes([options])
    return packet(SUBSCRIBE, flags, body)


def unsubscribe(
    packet_id: int, filters: list[str | bytes], props: Any = None, version: int = 5, flags: int = 2
) -> bytes:
    body = struct.pack("!H", packet_id) + (properties(props) if version >= 5 else b"")
    return packet(UNSUBSCRIBE, flags, body + b"".join(utf8(f) for f in filters))


def pingreq() -> bytes:
    return packet(PINGREQ, 0, b"")


def disconnect(reason: int | None = None, props: Any = None) -> bytes:
    body = b"" if reason is None and props is None else bytes([reason or 0])
    return packet(DISCONNECT, 0, body + (properties(props) if props is not None else b""))


def auth(reason: int | None = None, props: Any = None) -> bytes:
    body = b"" if reason is None and props is None else bytes([reason or 0])
    return packet(AUTH, 0, body + (properties(props) if props is not None else b""))


def options(qos: int = 0, no_local: bool = False, rap: bool = False, rh: int = 0) -> int:
    """The SUBSCRIBE options byte of MQTT 5."""
    return qos | (4 if no_local else 0) | (8 if rap else 0) | rh << 4


# --- reading --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Packet:
    kind: int
    flags: int
    raw: bytes
    packet_id: int | None = None
    reason: int = 0
    reasons: list[int] = dataclasses.field(default_factory=list)
    session_present: bool = False
    topic: str = ""
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    dup: bool = False
    props: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

    def prop(self, name: str, default: Any = None) -> Any:
        values = self.props.get(name)
        return values[0] if values else default

    def __str__(self) -> str:
        text = f"{NAMES[self.kind]}(flags={self.flags:#x}"
        if self.packet_id is not None:
            text += f", id={self.packet_id}"
        if self.kind == PUBLISH:
            shown = self.payload if len(self.payload) <= 40 else self.payload[:40] + b"..."
            text += f", {self.topic[:80]!r}, {shown!r}"
        elif self.reasons:
            text += f", reasons={[hex(r) for r in self.reasons[:20]]}"
        else:
            text += f", reason={self.reason:#04x}"
        return text + (f", {self.props})" if self.props else ")")

    __repr__ = __str__


class Reader:
    """Walks over one packet's body."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.data), f"broker wrote a truncated packet: {self.data!r}"
        self.at += count
        return self.data[self.at - count : self.at]

    def left(self) -> int:
        return len(self.data) - self.at

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def var(self) -> int:
        value = shift = 0
        while True:
            byte = self.uint(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value
            assert shift < 28, "broker wrote a variable byte integer of more than four bytes"

    def bin(self) -> bytes:
        return self.take(self.uint(2))

    def utf8(self) -> str:
        return self.bin().decode("utf-8")

    def properties(self) -> dict[str, list[Any]]:
        out: dict[str, list[Any]] = {}
        inner = Reader(self.take(self.var()))
        while inner.left():
            number = inner.var()
            assert number in PROPERTY_NAMES, f"broker wrote unknown property {number:#x}"
            name, kind = PROPERTY_NAMES[number]
            value: Any
            if kind == "utf8":
                value = inner.utf8()
            elif kind == "bin":
                value = inner.bin()
            elif kind == "var":
                value = inner.var()
            elif kind == "pair":
                value = (inner.utf8(), inner.utf8())
            else:
                value = inner.uint({"byte": 1, "u16": 2, "u32": 4}[kind])
            out.setdefault(name, []).append(value)
            assert name in REPEATABLE or len(out[name]) == 1, f"broker wrote {name} twice"
        return out


def parse(kind: int, flags: int, body: bytes, raw: bytes, version: int) -> Packet:
    got, r = Packet(kind, flags, raw), Reader(body)
    if kind == PUBLISH:
        got.dup, got.qos, got.retain = bool(flags & 8), flags >> 1 & 3, bool(flags & 1)
        got.topic = r.utf8()
        got.packet_id = r.uint(2) if got.qos else None
        got.props = r.properties() if version >= 5 else {}
        got.payload = r.take(r.left())
        return got
    assert flags == (2 if kind == PUBREL else 0), f"broker wrote bad flags in {NAMES[kind]}: {flags:#x}"
    if kind == CONNACK:
        acknowledge = r.uint(1)
        assert acknowledge in (0, 1)
        got.session_present, got.reason = bool(acknowledge), r.uint(1)
        # A v5-format refusal answers a CONNECT of an unknown level too, so properties are read when they are there.
        got.props = r.properties() if r.left() else {}
    elif kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        got.packet_id = r.uint(2)
        got.reason = r.uint(1) if r.left() else 0
        got.props = r.properties() if r.left() else {}
    elif kind in (SUBACK, UNSUBACK):
        got.packet_id = r.uint(2)
        got.props = r.properties() if version >= 5 else {}
        got.reasons = list(r.take(r.left()))
    elif kind in (DISCONNECT, AUTH):
        got.reason = r.uint(1) if r.left() else 0
        got.props = r.properties() if r.left() else {}
    assert r.left() == 0, f"broker wrote trailing bytes in {NAMES[kind]}: {body!r}"
    assert version >= 5 or kind in (CONNACK,) or not got.props, f"broker wrote v5 fields to a v3 client: {got}"
    return got


class RawClient:
    """One socket that speaks exactly the bytes a test gives it. Used as a context manager."""

    def __init__(self, broker: Any, version: int = 5, receive_buffer: int | None = None):
        self.version = version
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(WAIT_S)
        self.sock.connect((broker.host, broker.port))
        self.buffer = bytearray()
        self.inbox: list[Packet] = []
        self.next_id = 0

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: Any) -> None:
        self.sock.close()

    # sending

    def send(self, *packets: bytes) -> None:
        self.sock.settimeout(WAIT_S)
        self.sock.sendall(b"".join(packets))

    def send_lossy(self, data: bytes) -> None:
        """Sends what may be refused half-way: a reset is the broker's right here."""
        try:
            self.send(data)
        except OSError:
            pass

    def new_id(self) -> int:
        self.next_id = self.next_id % 65_535 + 1
        return self.next_id

    # receiving

    def _read(self, deadline: float) -> Packet:
        while True:
            whole = self._cut()
            if whole:
                return whole
            left = deadline - time.monotonic()
            if left <= 0:
                raise Silence("nothing came from the broker")
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(262_144)
            except TimeoutError:
                raise Silence("nothing came from the broker") from None
            except ConnectionError:
                data = b""
            if not data:
                assert not self.buffer, f"broker closed inside a packet: {bytes(self.buffer[:80])!r}"
                raise Closed
            self.buffer += data

    def _cut(self) -> Packet | None:
        length = shift = 0
        for at in range(1, 5):
            if at >= len(self.buffer):
                return None
            length |= (self.buffer[at] & 0x7F) << shift
            shift += 7
            if not self.buffer[at] & 0x80:
                break
        else:
            raise AssertionError("broker wrote a remaining length of more than four bytes")
        end = at + 1 + length
        if len(self.buffer) < end:
            return None
        raw = bytes(self.buffer[:end])
        del self.buffer[:end]
        return parse(raw[0] >> 4, raw[0] & 15, raw[at + 1 :], raw, self.version)

    def recv(self, wait: float = WAIT_S) -> Packet:
        """The next packet, whatever it is. Raises Closed or Silence."""
        return self.inbox.pop(0) if self.inbox else self._read(time.monotonic() + wait)

    def take(self, kind: int, wait: float = WAIT_S) -> Packet:
        """The next packet of that kind; others that come meanwhile stay in the inbox in their order."""
        for at, got in enumerate(self.inbox):
            if got.kind == kind:
                return self.inbox.pop(at)
        deadline = time.monotonic() + wait
        while True:
            try:
                got = self._read(deadline)
            except (Closed, Silence) as end:
                raise AssertionError(f"waited for {NAMES[kind]}: {end!r}; the inbox holds {self.inbox}") from None
            if got.kind == kind:
                return got
            self.inbox.append(got)

    def drain(self, quiet: float = QUIET_S) -> list[Packet]:
        """Everything that comes until it has been quiet for so long or the connection ends."""
        try:
            while True:
                self.inbox.append(self._read(time.monotonic() + quiet))
        except (Closed, Silence):
            got, self.inbox = self.inbox, []
            return got

    def messages(self, count: int, wait: float = WAIT_S) -> list[Packet]:
        """Takes that many PUBLISH packets, completing their QoS handshakes."""
        out = []
        for _ in range(count):
            got = self.take(PUBLISH, wait)
            self.acknowledge(got)
            out.append(got)
        return out

    def acknowledge(self, got: Packet) -> None:
        if got.qos == 1:
            self.send(ack(PUBACK, got.packet_id))
        elif got.qos == 2:
            self.send(ack(PUBREC, got.packet_id))
            assert self.take(PUBREL).packet_id == got.packet_id
            self.send(ack(PUBCOMP, got.packet_id))

    def closed(self, wait: float = WAIT_S) -> list[Packet]:
        """Waits for the close; what came before it."""
        got, self.inbox = self.inbox, []
        deadline = time.monotonic() + wait
        try:
            while True:
                got.append(self._read(deadline))
        except Closed:
            return got
        except Silence:
            raise AssertionError(f"the broker kept the connection open; it sent {got}") from None

    def refused(self, *reasons: int, wait: float = WAIT_S) -> int | None:
        """Waits for the close. On v5 a DISCONNECT (or a refusing CONNACK) with one of the reasons must precede it."""
        got = self.closed(wait)
        if self.version < 5:
            assert not [p for p in got if p.kind == DISCONNECT], f"DISCONNECT sent to a v3 client: {got}"
            return None
        last = got[-1] if got else None
        assert last and last.kind in (DISCONNECT, CONNACK), f"closed without a reason; before it came {got}"
        assert last.reason in reasons, f"reason {last.reason:#04x}, expected one of {[hex(r) for r in reasons]}"
        return last.reason

    # whole exchanges

    def connect(self, client_id: str | bytes = "", clean: bool = True, **more: Any) -> Packet:
        self.send(connect(client_id, self.version, clean, **more))
        got = self.recv()
        assert got.kind == CONNACK, f"expected CONNACK, got {got}"
        return got

    def open(self, client_id: str | bytes = "", clean: bool = True, **more: Any) -> Packet:
        got = self.connect(client_id, clean, **more)
        assert got.reason == 0, f"CONNECT was refused: {got}"
        return got

    def subscribe(self, *filters: str | bytes | tuple[str | bytes, int], qos: int = 0, props: Any = None) -> Packet:
        packet_id = self.new_id()
        pairs = [f if isinstance(f, tuple) else (f, qos) for f in filters]
        self.send(subscribe(packet_id, pairs, props, self.version))
        got = self.take(SUBACK)
        assert got.packet_id == packet_id and len(got.reasons) == len(pairs), got
        return got

    def unsubscribe(self, *filters: str | bytes) -> Packet:
        packet_id = self.new_id()
        self.send(unsubscribe(packet_id, list(filters), version=self.version))
        got = self.take(UNSUBACK)
        assert got.packet_id == packet_id, got
        return got

    def publish(self, topic: str | bytes, payload: bytes = b"", qos: int = 0, **more: Any) -> Packet | None:
        """Publishes and completes the handshake; the PUBACK, or the PUBREC of a QoS 2 message."""
        packet_id = self.new_id() if qos else None
        self.send(publish(topic, payload, qos, packet_id, version=self.version, **more))
        if not qos:
            return None
        got = self.take(PUBACK if qos == 1 else PUBREC)
        assert got.packet_id == packet_id, got
        if qos == 2 and got.reason < 0x80:
            self.send(ack(PUBREL, packet_id))
            assert self.take(PUBCOMP).packet_id == packet_id
        return got

    def ping(self) -> None:
        self.send(pingreq())
        self.take(PINGRESP)

    def abort(self) -> None:
        """Closes with a reset, as a crashed client does."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()
