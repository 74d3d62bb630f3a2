"""Sessions: resumption, queues, redelivery, expiry and takeover."""

from __future__ import annotations

import concurrent.futures
import time

import pytest

import config_keys as keys
import wire
from paho_client import Paho, payloads

KEEP = {"session_expiry_interval": 1000}


def keep(version):
    return {"props": KEEP} if version == 5 else {}


@pytest.mark.parametrize(("clean", "had", "present"), [(True, True, False), (False, True, True), (False, False, False)])
def test_c01_session_present_is_told_truly(broker, name, version, clean, had, present):
    """C01. [MQTT-3.2.2-2] [MQTT-3.2.2-3]"""
    if had:
        with wire.RawClient(broker, version) as raw:
            raw.open(name, clean=False, **keep(version))
            raw.send(wire.disconnect())
            raw.closed()
    with wire.RawClient(broker, version) as raw:
        assert raw.open(name, clean=clean, **keep(version)).session_present is present


def test_q01_a_session_keeps_subscriptions_and_queues_in_order(broker, name, version):
    """Q01, S-80, S-81: 500 messages at QoS 1 and 2 while away, each once, in order, before newer ones."""
    with wire.RawClient(broker, version) as s:
        s.open(name, clean=False, **keep(version))
        s.subscribe(f"{name}/#", qos=2)
        s.send(wire.disconnect())
        s.closed()
    with wire.RawClient(broker, version) as p:
        p.open(f"{name}p")
        for n in range(500):
            p.publish(f"{name}/{n % 3}", b"%d" % n, 1 + n % 2)
        with wire.RawClient(broker, version) as s:
            assert s.open(name, clean=False, **keep(version)).session_present
            p.publish(f"{name}/0", b"500", 1)
            got = s.messages(501)
            assert [int(m.payload) for m in got] == list(range(501))
            assert not any(m.dup for m in got)
            assert s.drain() == []


def test_q01_a_clean_start_discards_the_session(broker, name, version):
    """Q01, S-04. [MQTT-3.1.2-4]"""
    with wire.RawClient(broker, version) as s:
        s.open(name, clean=False, **keep(version))
        s.subscribe(f"{name}/#", qos=2)
    with Paho(broker, f"{name}p", version) as p:
        p.publish(f"{name}/a", b"lost", 1)
        with wire.RawClient(broker, version) as s:
            assert not s.open(name, clean=True).session_present
            p.publish(f"{name}/a", b"lost too", 1)
            assert s.drain() == []


def test_s36_a_qos1_message_without_puback_comes_again_with_dup(broker, name, version):
    """S-36, S-37, S-38: DUP, the same identifier, before anything new. [MQTT-4.4.0-1] [MQTT-3.3.1-1]"""
    with Paho(broker, f"{name}p", version) as p:
        with wire.RawClient(broker, version) as s:
            p.subscribe(f"{name}-gone", qos=1)
            s.open(name, clean=False, will=wire.Will(f"{name}-gone", b""), **keep(version))
            s.subscribe(f"{name}/#", qos=1)
            for n in range(3):
                p.publish(f"{name}/a", b"%d" % n, 1)
            first = [s.take(wire.PUBLISH) for _ in range(3)]
            assert [m.dup for m in first] == [False] * 3
            s.send(wire.ack(wire.PUBACK, first[0].packet_id))
            s.ping()
            s.abort()
        # What is published before the broker knows of the reset may have been sent once already.
        p.messages(1)
        p.publish(f"{name}/a", b"3", 1)
        with wire.RawClient(broker, version) as s:
            assert s.open(name, clean=False, **keep(version)).session_present
            again = s.messages(3)
            assert [(m.payload, m.dup) for m in again] == [(b"1", True), (b"2", True), (b"3", False)]
            assert [m.packet_id for m in again[:2]] == [m.packet_id for m in first[1:]]
            assert again[2].packet_id not in (again[0].packet_id, again[1].packet_id)
            assert s.drain() == []


def test_s36_a_qos2_message_resumes_where_it_stopped(broker, name, version):
    """S-36: before PUBREC the PUBLISH comes again; after it only the PUBREL. [MQTT-4.3.3-6] [MQTT-4.4.0-1]"""
    with Paho(broker, f"{name}p", version) as p:
        with wire.RawClient(broker, version) as s:
            s.open(name, clean=False, **keep(version))
            s.subscribe(f"{name}/#", qos=2)
            p.publish(f"{name}/a", b"acknowledged", 2)
            p.publish(f"{name}/a", b"not", 2)
            one, two = s.take(wire.PUBLISH), s.take(wire.PUBLISH)
            s.send(wire.ack(wire.PUBREC, one.packet_id))
            assert s.take(wire.PUBREL).packet_id == one.packet_id
            s.abort()
        with wire.RawClient(broker, version) as s:
            s.open(name, clean=False, **keep(version))
            rel, pub = s.take(wire.PUBREL), s.take(wire.PUBLISH)
            assert rel.packet_id == one.packet_id
            assert (pub.packet_id, pub.payload, pub.dup) == (two.packet_id, b"not", True)
            s.send(wire.ack(wire.PUBCOMP, rel.packet_id))
            s.acknowledge(pub)
            assert s.drain() == []


def test_s33_a_repeated_qos2_publish_is_delivered_once_even_across_connections(broker, name, version):
    """S-33. [MQTT-4.3.3-10]"""
    with wire.RawClient(broker, version) as s:
        s.open(f"{name}s")
        s.subscribe(f"{name}/#", qos=2)
        message = wire.publish(f"{name}/a", b"once", 2, 7, version=version)
        again = wire.publish(f"{name}/a", b"once", 2, 7, dup=True, version=version)
        with wire.RawClient(broker, version) as p:
            p.open(name, clean=False, **keep(version))
            p.send(message, again, again, message, again)
            assert [p.take(wire.PUBREC).packet_id for _ in range(5)] == [7] * 5
            p.abort()
        with wire.RawClient(broker, version) as p:
            assert p.open(name, clean=False, **keep(version)).session_present
            p.send(again)
            assert p.take(wire.PUBREC).packet_id == 7
            p.send(wire.ack(wire.PUBREL, 7))
            assert p.take(wire.PUBCOMP).packet_id == 7
            # Released, the identifier names a new message (S-34).
            p.publish(f"{name}/b", b"new", 2)
        assert payloads(s.messages(2)) == [b"once", b"new"]
        assert s.drain() == []


def test_s35_pubrel_of_an_unknown_identifier(broker, name):
    """S-35: 0x92 where nothing is known of it."""
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.send(wire.ack(wire.PUBREL, 4711))
        got = raw.take(wire.PUBCOMP)
        assert (got.packet_id, got.reason) == (4711, 0x92)


def test_s01_takeover_tells_v5_and_closes_v3(broker, name, version):
    """S-01. [MQTT-3.1.4-3]"""
    with wire.RawClient(broker, version) as old, wire.RawClient(broker, version) as new:
        old.open(name, clean=False, **keep(version))
        old.subscribe(f"{name}/#", qos=1)
        assert new.open(name, clean=False, **keep(version)).session_present
        old.refused(0x8E)
        new.publish(f"{name}/a", b"mine", 1)
        assert payloads(new.messages(1)) == [b"mine"]


@pytest.mark.parametrize("racers", [200])
def test_s02_racing_connects_of_one_client_id_leave_exactly_one(broker, name, version, racers):
    """S-02."""
    clients = [wire.RawClient(broker, version) for _ in range(racers)]
    connect = wire.connect(name, version, clean=False, props=KEEP)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda c: c.send_lossy(connect), clients))

        def outcome(client):
            got = []
            try:
                while True:
                    got.append(client.recv(5))
            except wire.Silence:
                return got, True
            except wire.Closed:
                return got, False

        ends = list(pool.map(outcome, clients))
    live = [client for client, (_, is_live) in zip(clients, ends, strict=True) if is_live]
    assert len(live) == 1
    live[0].ping()
    for got, is_live in ends:
        assert got and got[0].kind == wire.CONNACK and got[0].reason == 0
        if not is_live and version == 5:
            assert (got[-1].kind, got[-1].reason) == (wire.DISCONNECT, 0x8E)
    for client in clients:
        client.sock.close()


def test_s03_no_message_is_lost_or_reordered_while_sessions_are_taken_over(broker, name, version):
    """S-03, S-80: QoS 1 may come twice, then with DUP."""
    count = 400
    with wire.RawClient(broker, version) as s:
        s.open(name, clean=False, **keep(version))
        s.subscribe(f"{name}/#", qos=1)
    seen: list[int] = []
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def send():
            with wire.RawClient(broker, version) as p:
                p.open(f"{name}p")
                for n in range(count):
                    p.publish(f"{name}/a", b"%d" % n, 1)

        sending = pool.submit(send)
        deadline = time.monotonic() + 60
        current = wire.RawClient(broker, version)
        current.open(name, clean=False, **keep(version))
        while (not seen or seen[-1] != count - 1) and time.monotonic() < deadline:
            for _ in range(25):
                try:
                    got = current.recv(0.5)
                except (wire.Silence, wire.Closed):
                    break
                current.acknowledge(got)
                n = int(got.payload)
                assert got.dup or n not in seen, f"{n} came twice without DUP"
                if n not in seen:
                    seen.append(n)
            successor = wire.RawClient(broker, version)
            assert successor.open(name, clean=False, **keep(version)).session_present
            current.sock.close()
            current = successor
        sending.result()
        current.sock.close()
    assert seen == list(range(count))


def test_s07_a_session_survives_a_change_of_protocol(broker, name):
    """S-07: v3 delivery has no properties, v5-only options survive."""
    with wire.RawClient(broker, 5) as s:
        s.open(name, clean=False, props=KEEP)
        s.subscribe((f"{name}/#", wire.options(1, rap=True)))
    with wire.RawClient(broker, 5) as p:
        p.open(f"{name}p")
        p.publish(f"{name}/a", b"x", 1, retain=True, props={"content_type": "t"})
        with wire.RawClient(broker, 4) as s:
            assert s.open(name, clean=False).session_present
            [got] = s.messages(1)
            assert got.payload == b"x" and not got.props
            s.abort()
        with wire.RawClient(broker, 5) as s:
            assert s.open(name, clean=False, props=KEEP).session_present
            p.publish(f"{name}/a", b"y", 1, retain=True, props={"content_type": "t"})
            [got] = s.messages(1)
            assert (got.payload, got.retain, got.props) == (b"y", True, {"content_type": ["t"]})


@pytest.mark.slow
def test_s08_a_session_ends_after_its_interval_and_not_before(broker, name):
    """S-08."""
    with wire.RawClient(broker) as s:
        s.open(name, props={"session_expiry_interval": 3})
        s.subscribe(f"{name}/#", qos=1)
        s.abort()
    time.sleep(1)
    with wire.RawClient(broker) as s:
        assert s.open(name, clean=False, props={"session_expiry_interval": 2}).session_present
        s.abort()
    time.sleep(4.5)
    with wire.RawClient(broker) as s:
        assert not s.open(name, clean=False).session_present
        with Paho(broker, f"{name}p") as p:
            p.publish(f"{name}/a", b"x", 1)
        assert s.drain() == []


def test_s08_an_absent_interval_ends_the_session_with_the_connection(broker, name):
    """S-08. [MQTT-3.1.2-23]"""
    with wire.RawClient(broker) as s:
        s.open(name, clean=True)
        s.send(wire.disconnect())
        s.closed()
    with wire.RawClient(broker) as s:
        assert not s.open(name, clean=False).session_present


@pytest.mark.parametrize(("before", "after", "present"), [(100, 0, False), (100, 50, True), (100, None, True)])
def test_s09_disconnect_changes_the_session_expiry(broker, name, before, after, present):
    """S-09."""
    with wire.RawClient(broker) as s:
        s.open(name, props={"session_expiry_interval": before})
        s.send(wire.disconnect(0, None if after is None else {"session_expiry_interval": after}))
        assert s.closed() == []  # [MQTT-3.14.2-2]: the server's side says nothing of expiry
    with wire.RawClient(broker) as s:
        assert s.open(name, clean=False).session_present is present


@pytest.mark.parametrize("props", [None, {"session_expiry_interval": 0}])
def test_s09_disconnect_cannot_raise_an_expiry_of_zero(broker, name, props):
    """S-09: 0x82 protocol error."""
    with wire.RawClient(broker) as s:
        s.open(name, props=props)
        s.send(wire.disconnect(0, {"session_expiry_interval": 10}))
        s.refused(0x82)


def test_c02_q10_a_capped_session_expiry_is_echoed(broker_with, name):
    """C02, Q10."""
    broker = broker_with({keys.MAX_SESSION_EXPIRY_S: 60})
    with wire.RawClient(broker) as s:
        assert s.open(name, props={"session_expiry_interval": 0xFFFFFFFF}).prop("session_expiry_interval") == 60
    with wire.RawClient(broker) as s:
        assert s.open(f"{name}b", props={"session_expiry_interval": 30}).prop("session_expiry_interval", 30) == 30


def test_c10_d10_assigned_client_ids_are_unique_and_usable(broker, name):
    """C10, D10. [MQTT-3.2.2-16]"""
    assigned = set()
    for n in range(20):
        with wire.RawClient(broker) as raw:
            got = raw.open("", clean=n % 2 == 0, props=KEEP)
            assigned.add(got.prop("assigned_client_identifier"))
    assert len(assigned) == 20 and None not in assigned
    with wire.RawClient(broker) as raw:
        got = raw.open(assigned.pop(), clean=False, props=KEEP)
        assert got.session_present
        assert got.prop("assigned_client_identifier") is None


def test_q04_a_full_queue_drops_messages_but_not_the_session(broker_with, name):
    """Q04: of 30 messages to an offline session with room for 10, some are dropped, the rest keep their order."""
    broker = broker_with({keys.MAX_MQUEUE_LEN: 10})
    with wire.RawClient(broker) as s:
        s.open(name, props=KEEP)
        s.subscribe(f"{name}/#", qos=1)
    with wire.RawClient(broker) as p:
        p.open(f"{name}p")
        for n in range(30):
            p.publish(f"{name}/a", b"%d" % n, 1)
    with wire.RawClient(broker) as s:
        assert s.open(name, clean=False, props=KEEP).session_present
        got = [int(m.payload) for m in s.messages(10)]
        assert got == sorted(got)
        assert s.drain() == []


def test_s90_a_client_that_pings_is_kept_and_outbound_traffic_does_not_count(broker, name):
    """S-90, S-91: only inbound packets refresh the keep-alive."""
    with Paho(broker, f"{name}p") as p, wire.RawClient(broker) as pings, wire.RawClient(broker) as listens:
        pings.open(f"{name}a", keepalive=2)
        listens.open(f"{name}b", keepalive=2)
        listens.subscribe(f"{name}/#", qos=0)
        end = time.monotonic() + 12
        closed = False
        while time.monotonic() < end and not closed:
            p.publish(f"{name}/tick", b"x", 0)
            pings.ping()
            try:
                while True:
                    got = listens.recv(0.2)
                    if got.kind == wire.DISCONNECT:
                        assert got.reason == 0x8D
            except wire.Silence:
                continue
            except wire.Closed:
                closed = True
        assert closed, "deliveries kept a silent client alive"
        pings.ping()
