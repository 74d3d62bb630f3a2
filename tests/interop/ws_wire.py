"""WebSocket as bytes: frames that no library sends, and wsproto as the judge of what the broker sends.

wsproto raises on whatever a server must not do: masks, reserved bits and opcodes, long or fragmented control frames,
lengths that are not in their shortest form, wrong codes, a wrong Sec-WebSocket-Accept.
"""

from __future__ import annotations

import socket
import struct

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request
from wsproto.frame_protocol import FrameProtocol, Opcode

from wire import WAIT_S, Closed, Silence

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    form: int | None = None,
) -> bytes:
    """`form`: bytes of the extended length, 0, 2 or 8; the shortest if none is given."""
    length = len(payload)
    if form is None:
        form = 0 if length < 126 else 2 if length < 65_536 else 8
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    head += bytes([(0x80 if mask is not None else 0) | {0: length, 2: 126, 8: 127}[form]])
    head += {0: b"", 2: struct.pack("!H", length & 0xFFFF), 8: struct.pack("!Q", length)}[form]
    if mask is None:
        return head + payload
    whole = (mask * (length // 4 + 1))[:length]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(whole, "big")
    return head + mask + masked.to_bytes(length, "big")


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


class Ws:
    """One connection after its handshake. Used as a context manager."""

    def __init__(self, port: int):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handshake = WSConnection(ConnectionType.CLIENT)
        host = f"127.0.0.1:{port}"
        self.sock.sendall(handshake.send(Request(host=host, target="/mqtt", subprotocols=["mqtt"])))
        while not (events := list(handshake.events())):
            handshake.receive_data(self._receive())
        [accepted] = events
        assert isinstance(accepted, AcceptConnection), accepted
        self.subprotocol, self.extensions = accepted.subprotocol, accepted.extensions
        self.frames = FrameProtocol(client=True, extensions=[])
        self.inbox: list[tuple[int, bytes]] = []
        self.data = bytearray()
        self.pongs: list[bytes] = []

    def __enter__(self) -> Ws:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def _receive(self) -> bytes:
        try:
            return self.sock.recv(65_536)
        except TimeoutError:
            raise Silence("nothing came from the broker") from None
        except ConnectionError:
            return b""

    def recv(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload. Of a large frame, as much as has come. Raises Closed or Silence."""
        while not self.inbox:
            data = self._receive()
            if not data:
                raise Closed
            self.frames.receive_bytes(data)
            for got in self.frames.received_frames():
                payload = got.payload
                if got.opcode is Opcode.CLOSE:
                    code, reason = payload
                    payload = struct.pack("!H", code) + (reason or "").encode()
                self.inbox.append((int(got.opcode), bytes(payload)))
        return self.inbox.pop(0)

    def mqtt(self, count: int) -> bytes:
        """So many bytes of MQTT, whatever frames they come in: binary ones. [MQTT-6.0.0-1]"""
        while len(self.data) < count:
            self._sort(*self.recv())
        got = bytes(self.data[:count])
        del self.data[:count]
        return got

    def pong(self) -> bytes:
        """What the next pong says. It may overtake MQTT, as both wait for nothing: RFC 6455, 5.5.3."""
        while not self.pongs:
            self._sort(*self.recv())
        return self.pongs.pop(0)

    def _sort(self, opcode: int, payload: bytes) -> None:
        assert opcode in (BINARY, CONTINUATION, PONG), (opcode, payload)
        if opcode == PONG:
            self.pongs.append(payload)
        else:
            self.data += payload

    def closed(self, code: int) -> list[tuple[int, bytes]]:
        """Waits for a close frame with that code (1005: with none) and the end of the connection; what came before."""
        before = []
        while (got := self.recv())[0] != CLOSE:
            before.append(got)
        assert struct.unpack("!H", got[1][:2])[0] == code, (got, code)
        try:
            raise AssertionError(f"after its close frame the broker sent {self.recv()}")
        except Closed:
            return before


def refusal(port: int, request: bytes) -> tuple[int, str]:
    """The status and the text with which the broker refuses a handshake."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as sock:
        sock.sendall(request)
        judge = WSConnection(ConnectionType.CLIENT)
        judge.send(Request(host="localhost", target="/mqtt", subprotocols=["mqtt"]))
        status, text = 0, b""
        while data := sock.recv(65_536):
            judge.receive_data(data)
            for event in judge.events():
                assert isinstance(event, (RejectConnection, RejectData)), event
                if isinstance(event, RejectConnection):
                    status = event.status_code
                else:
                    text += event.data
        return status, text.decode()


def handshake(*, method: str = "GET", path: str = "/mqtt", http: str = "HTTP/1.1", **headers: str | None) -> bytes:
    """A request with some headers replaced, or left out where they are None."""
    lines = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "mqtt",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"{method} {path} {http}\r\n{text}\r\n".encode()
