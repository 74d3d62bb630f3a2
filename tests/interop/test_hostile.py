"""Clients that behave badly on purpose: the others must not notice."""

from __future__ import annotations

import os
import socket
import struct
import time

import pytest

import config_keys as keys
import wire
from paho_client import Paho, payloads

MIB = 1_048_576


def stuck(broker, name, version):
    """A subscriber that will never read: a small receive buffer, then nothing."""
    raw = wire.RawClient(broker, version, receive_buffer=4_096)
    raw.open(f"{name}stuck")
    raw.subscribe(f"{name}/flood", qos=0)
    return raw


@pytest.mark.slow
def test_a_client_that_never_reads_does_not_delay_others(broker, name, version):
    """Law 3: 128 MiB to a stuck subscriber; another subscriber of the same topic gets all at QoS 1, memory is bounded."""
    payload = b"." * 65_536
    count = 2_000
    with stuck(broker, name, version), wire.RawClient(broker, version) as p, wire.RawClient(broker, version) as s:
        s.open(f"{name}s")
        s.subscribe(f"{name}/#", qos=1)
        p.open(f"{name}p")
        before = broker.rss_kib()
        for n in range(count):
            p.publish(f"{name}/flood", b"%05d" % n + payload, 1)
            [got] = s.messages(1)
            assert int(got.payload[:5]) == n
        # Less than half of what was sent may stay for a client that does not take it.
        assert broker.rss_kib() - before < count * 64 // 2
        s.ping()


def test_a_client_that_never_reads_can_be_taken_over(broker, name, version):
    """S-01: the old connection's full socket does not keep the new one waiting."""
    with stuck(broker, name, version), wire.RawClient(broker, version) as p:
        p.open(f"{name}p")
        for _ in range(200):
            p.publish(f"{name}/flood", b"." * 65_536, 0)
        p.ping()
        with wire.RawClient(broker, version) as new:
            new.open(f"{name}stuck")
            new.ping()


def test_w16_a_mebibyte_is_delivered_below_the_limit_and_refused_above(broker_with, name, version):
    """W16."""
    for limit, fits in ((2 * MIB, True), (MIB // 2, False)):
        broker = broker_with({keys.MAX_PACKET_SIZE: limit})
        payload = bytes(range(256)) * (MIB // 256)
        with Paho(broker, name, version) as s, wire.RawClient(broker, version) as p:
            s.subscribe(f"{name}/a", qos=1)
            p.open(f"{name}p")
            p.send_lossy(wire.publish(f"{name}/a", payload, 1, 1, version=version))
            if fits:
                assert p.recv().kind == wire.PUBACK
                assert payloads(s.messages(1)) == [payload]
            else:
                p.refused(0x95)
                s.nothing()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_w16_two_hundred_megabytes_are_delivered_below_the_limit(broker_with, name):
    """W16, W06: the largest kind of remaining length, through one subscriber."""
    size = 200_000_000
    broker = broker_with({keys.MAX_PACKET_SIZE: 268_435_460})
    with wire.RawClient(broker, 4) as s, wire.RawClient(broker, 4) as p:
        s.open(f"{name}s")
        s.subscribe(f"{name}/a", qos=1)
        p.open(f"{name}p")
        payload = (b"%09d " % 7) * (size // 10)
        p.send(wire.publish(f"{name}/a", payload, 1, 1, version=4))
        assert p.take(wire.PUBACK, 120).packet_id == 1
        [got] = s.messages(1, 120)
        assert len(got.payload) == size and got.payload == payload


def test_w16_the_body_of_an_oversized_packet_is_never_allocated(broker_with, name):
    """W16: only the header of a 200 MB PUBLISH is sent; the refusal comes at once, memory stays."""
    broker = broker_with({keys.MAX_PACKET_SIZE: MIB})
    with wire.RawClient(broker) as p:
        p.open(name)
        before = broker.rss_kib()
        p.send(b"\x30" + wire.varint(200_000_000) + wire.utf8(f"{name}/a"))
        p.refused(0x95)
        assert broker.rss_kib() - before < 50_000


def test_w16_many_announced_bodies_take_no_memory(broker_with, name):
    """W16, law 3: 200 clients each announce 100 MB and send little of it."""
    broker = broker_with({keys.MAX_PACKET_SIZE: 268_435_460})
    clients = []
    before = broker.rss_kib()
    for n in range(200):
        raw = wire.RawClient(broker, 4)
        raw.open(f"{name}{n}")
        raw.send(b"\x30" + wire.varint(100_000_000) + wire.utf8(f"{name}/a") + b"x" * 100)
        clients.append(raw)
    with wire.RawClient(broker, 4) as other:
        other.open(name)
        other.ping()
    assert broker.rss_kib() - before < 500_000
    for raw in clients:
        raw.abort()


def test_a_thousand_connections_that_come_and_go_leave_nothing(broker, name, version):
    """W18: half of them without a CONNECT, with resets."""
    def descriptors():
        return len(os.listdir(f"/proc/{broker.pid}/fd"))

    before = descriptors()
    for n in range(1_000):
        with wire.RawClient(broker, version) as raw:
            if n % 2:
                raw.open(f"{name}{n % 10}")
            if n % 3 == 0:
                raw.abort()
    deadline = time.monotonic() + wire.WAIT_S
    while descriptors() > before + 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descriptors() <= before + 5


def test_a_subscriber_that_vanishes_mid_message_does_not_stop_the_others(broker, name, version):
    """W18: reset while a megabyte is on its way to it."""
    with wire.RawClient(broker, version) as p, wire.RawClient(broker, version) as s:
        p.open(f"{name}p")
        s.open(f"{name}s")
        s.subscribe(f"{name}/flood", qos=1)
        for n in range(20):
            gone = wire.RawClient(broker, version, receive_buffer=4_096)
            gone.open(f"{name}stuck")
            gone.subscribe(f"{name}/flood", qos=0)
            p.publish(f"{name}/flood", b"%03d" % n + b"." * 300_000, 1)
            gone.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            gone.sock.close()
            assert s.messages(1)[0].payload[:3] == b"%03d" % n


def test_subscribers_that_never_acknowledge_hold_only_their_own_window(broker, name, version):
    """S-21, law 3: the silent one's queue fills; the publisher and the other subscriber go on."""
    with wire.RawClient(broker, version) as p, wire.RawClient(broker, version) as mute, Paho(broker, name, version) as s:
        mute.open(f"{name}m", props={"receive_maximum": 5} if version == 5 else None)
        mute.subscribe(f"{name}/a", qos=1)
        s.subscribe(f"{name}/a", qos=1)
        p.open(f"{name}p")
        for n in range(500):
            p.publish(f"{name}/a", b"%d" % n, 1)
        assert [int(x) for x in payloads(s.messages(500))] == list(range(500))
        mute.ping()
