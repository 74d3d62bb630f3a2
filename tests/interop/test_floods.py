"""Floods of connections that never finish their handshake, with honest traffic beside them. (L05, T08, W12)

Each flood is larger than `limits.max_handshakes_per_shard`, so part of it waits in the kernel until those before it
were sent away. Nothing here asserts speed: a wait ends with what must happen, or fails after the patience of the suite.
"""

from __future__ import annotations

import pathlib
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import config_keys as keys
import wire
from listeners import Listeners, certificates

SHARDS = [2]
HANDSHAKES_MAX = 64
FILES = "cert={folder}/own.pem&key={folder}/own.key"
LISTENERS = {"tls": f"tls://127.0.0.1:{{port}}?{FILES}", "ws": "ws://127.0.0.1:{port}/mqtt"}
# For a flood in rounds of the most that may be under way, each of which lasts for the timeout; on a slow machine.
PATIENCE_S = 60.0
TRICKLE_S = 0.2


@pytest.fixture
def besieged(only_ringmain: None, tmp_path: pathlib.Path, shards: int) -> Iterator[Listeners]:
    certificates(tmp_path)
    settings = {keys.MAX_HANDSHAKES: HANDSHAKES_MAX, keys.CONNECT_TIMEOUT_MS: 2_000}
    broker = Listeners(tmp_path, settings, shards, LISTENERS).start()
    yield broker
    broker.stop()


class Traffic:
    """Established clients: QoS 1, one message after the other, checked as they come. Used as a context manager."""

    def __init__(self, broker: Listeners):
        self.publisher, self.subscriber = wire.RawClient(broker), wire.RawClient(broker)
        self.subscriber.open("established-subscriber")
        self.subscriber.subscribe("beside", qos=1)
        self.publisher.open("established-publisher")
        self.delivered = 0
        self.fault: BaseException | None = None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            while not self.stop.is_set():
                self.publisher.publish("beside", b"%d" % self.delivered, 1)
                [got] = self.subscriber.messages(1)
                assert got.payload == b"%d" % self.delivered, (got, self.delivered)
                self.delivered += 1
                time.sleep(0.001)  # there is work enough on this machine
        except BaseException as fault:  # noqa: BLE001 - it is raised where the test is
            self.fault = fault

    def more(self) -> None:
        """What is published from now on still arrives."""
        before, deadline = self.delivered, time.monotonic() + wire.WAIT_S
        while self.delivered < before + 10 and not self.fault:
            assert time.monotonic() < deadline, f"established clients are stuck after {self.delivered} messages"
            time.sleep(0.01)
        if self.fault:
            raise self.fault

    def __enter__(self) -> Traffic:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        for client in (self.publisher, self.subscriber):
            client.sock.close()
        if self.fault:
            raise self.fault


class Flood:
    """Sockets that send something and then a byte now and then, until the broker ends them: a context manager."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.waiting: dict[socket.socket, bytes] = {}
        self.received: dict[socket.socket, bytearray] = {}
        self.ended = 0

    def add(self, port: int, count: int, first: Callable[[], bytes], more: bytes = b"") -> None:
        """`more` is sent byte by byte; it is longer than the broker's patience."""
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), timeout=wire.WAIT_S)
            sock.sendall(first())
            sock.setblocking(False)
            self.selector.register(sock, selectors.EVENT_READ)
            self.waiting[sock], self.received[sock] = more, bytearray()

    def trickle(self) -> None:
        """One byte more from each."""
        for sock, rest in list(self.waiting.items()):
            if not rest:
                continue
            try:
                sock.send(rest[:1])
            except BlockingIOError:
                continue
            except OSError:
                self._end(sock)
                continue
            self.waiting[sock] = rest[1:]

    def listen(self, wait: float) -> None:
        """Notes what the broker says, and which of them it ended."""
        for event, _ in self.selector.select(wait):
            sock = event.fileobj
            assert isinstance(sock, socket.socket)
            try:
                data = sock.recv(65_536)
            except OSError:
                data = b""
            if data:
                self.received[sock] += data
            else:
                self._end(sock)

    def _end(self, sock: socket.socket) -> None:
        self.selector.unregister(sock)
        self.waiting.pop(sock)
        sock.close()
        self.ended += 1

    def until_ended(self) -> None:
        """Goes on trickling until the broker has ended every one of them."""
        deadline, next_trickle = time.monotonic() + PATIENCE_S, 0.0
        while self.waiting:
            now = time.monotonic()
            assert now < deadline, f"the broker left {len(self.waiting)} of {len(self.received)} slow connections open"
            if now >= next_trickle:
                self.trickle()
                next_trickle = now + TRICKLE_S
            self.listen(0.05)

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in list(self.waiting):
            self._end(sock)
        self.selector.close()


class Newcomer:
    """An honest client that comes in the middle of a flood: it waits its turn, and gets in."""

    def __init__(self, broker: Listeners):
        self.outcome: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(broker,))
        self.thread.start()

    def _run(self, broker: Listeners) -> None:
        try:
            with wire.RawClient(broker) as raw:
                raw.send(wire.connect("newcomer"))
                got = raw.recv(PATIENCE_S)
                assert (got.kind, got.reason) == (wire.CONNACK, 0), got
                raw.ping()
        except BaseException as fault:  # noqa: BLE001 - it is raised where the test is
            self.outcome = fault

    def check(self) -> None:
        self.thread.join()
        if self.outcome:
            raise self.outcome


def survives(broker: Listeners, flood: Flood) -> dict[str, float]:
    """Waits for the end of the flood, beside traffic; what the broker's counters grew by."""
    newcomer = Newcomer(broker)
    flood.until_ended()
    newcomer.check()
    with wire.RawClient(broker) as late:
        late.open("late")
        late.ping()
    return broker.metrics()


def grown(before: dict[str, float], after: dict[str, float], name: str) -> float:
    assert name in after, f"no metric {name}"
    return after[name] - before[name]


def half_a_connect() -> tuple[bytes, bytes]:
    """The rest is so long that it would take an hour to come."""
    whole = wire.connect("slow", username="u" * 40_000)
    return whole[:20_000], whole[20_000:-1]


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_w12_five_hundred_halves_of_a_connect_delay_nobody_who_is_in(besieged: Listeners) -> None:
    """W12, L05: the time for CONNECT runs from the accept, and a byte now and then does not prolong it."""
    first, rest = half_a_connect()
    before = besieged.metrics()
    with Traffic(besieged) as traffic, Flood() as flood:
        flood.add(besieged.port, 500, lambda: first, rest)
        traffic.more()
        after = survives(besieged, flood)
        traffic.more()
    assert grown(before, after, "ringmain_connections_connect_timeout_total") == 500


def test_t08_handshakes_of_tls_that_stop_delay_nobody_who_is_in(besieged: Listeners) -> None:
    """T08, W12: 300 stop after their ClientHello, 100 go on with garbage, 100 never spoke TLS."""
    before = besieged.metrics()
    with Traffic(besieged) as traffic, Flood() as flood:
        port = besieged.ports["tls"]
        flood.add(port, 300, client_hello)
        # A record of the handshake that is none.
        flood.add(port, 100, lambda: client_hello() + b"\x16\x03\x03\x00\x40" + b"\xff" * 64)
        flood.add(port, 100, lambda: b"GET / HTTP/1.1\r\n\r\n" + b"\xff" * 100)
        traffic.more()
        after = survives(besieged, flood)
        traffic.more()
        context = ssl.create_default_context(cafile=f"{besieged.folder}/ca.pem")
        with socket.create_connection(("127.0.0.1", port), timeout=wire.WAIT_S) as plain:
            context.wrap_socket(plain, server_hostname="localhost").close()
    assert grown(before, after, "ringmain_connections_connect_timeout_total") == 300
    assert grown(before, after, "ringmain_ring_tls_failed_protocol_total") == 100
    assert grown(before, after, "ringmain_ring_tls_failed_not_tls_total") == 100


def test_w12_two_hundred_upgrades_that_never_end_delay_nobody_who_is_in(besieged: Listeners) -> None:
    """W12, T11: a head of HTTP that grows by a byte now and then, and one that never grows."""
    head = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nX-Slow: "
    before = besieged.metrics()
    with Traffic(besieged) as traffic, Flood() as flood:
        flood.add(besieged.ports["ws"], 150, lambda: head, b"a" * 4_000)
        flood.add(besieged.ports["ws"], 50, lambda: head)
        traffic.more()
        after = survives(besieged, flood)
        traffic.more()
    assert grown(before, after, "ringmain_connections_connect_timeout_total") == 200
    assert grown(before, after, "ringmain_ring_websockets_opened_total") == 0
