"""MQTT 5 properties, topic aliases, flow control, packet size and keep-alive as a client sees them."""

from __future__ import annotations

import time

import pytest

import config_keys as keys
import wire
from paho_client import Paho, payloads

RICH = {
    "payload_format_indicator": 1,
    "content_type": "application/json; charset=utf-8",
    "response_topic": "réponse/à/moi",
    "correlation_data": bytes(range(256)),
    "user_property": [("z", "last"), ("a", "first"), ("z", "again"), ("", "empty key"), ("empty value", "")],
}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_p07_publish_properties_are_forwarded_unaltered_and_in_order(broker, name, qos):
    """P07, P05: live, retained and queued alike. [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-17] [MQTT-3.3.2-20]"""
    expected = {k: v if isinstance(v, list) else [v] for k, v in RICH.items()}
    keep = {"session_expiry_interval": 100}
    with wire.RawClient(broker) as p, wire.RawClient(broker) as live:
        p.open(f"{name}p")
        live.open(f"{name}l")
        live.subscribe(f"{name}/#", qos=2)
        with wire.RawClient(broker) as away:
            away.open(f"{name}a", props=keep)
            away.subscribe(f"{name}/#", qos=2)
            away.send(wire.disconnect())
            away.closed()
        p.publish(f"{name}/a", b"x", qos, retain=True, props=RICH)
        assert live.messages(1)[0].props == expected
        with wire.RawClient(broker) as late:
            late.open(f"{name}late")
            late.subscribe(f"{name}/a", qos=2)
            assert late.messages(1)[0].props == expected
        if qos:
            with wire.RawClient(broker) as away:
                away.open(f"{name}a", clean=False, props=keep)
                assert away.messages(1)[0].props == expected


@pytest.mark.slow
def test_s11_the_forwarded_expiry_has_counted_down(broker, name):
    """S-11, P06: received minus waited; absent stays absent. [MQTT-3.3.2-6]"""
    keep = {"session_expiry_interval": 100}
    with wire.RawClient(broker) as s:
        s.open(name, props=keep)
        s.subscribe(f"{name}/#", qos=1)
    with Paho(broker, f"{name}p") as p:
        start = time.monotonic()
        p.publish(f"{name}/a", b"long", 1, values={"MessageExpiryInterval": 100})
        p.publish(f"{name}/a", b"short", 1, values={"MessageExpiryInterval": 1})
        p.publish(f"{name}/a", b"never", 1)
        sent = time.monotonic()
    time.sleep(2.2)
    before = time.monotonic()
    with wire.RawClient(broker) as s:
        s.open(name, clean=False, props=keep)
        got = s.messages(2)
        after = time.monotonic()
    assert [m.payload for m in got] == [b"long", b"never"]
    # Whole seconds waited, counted by the broker between what this side saw of the two events.
    assert 100 - int(after - start) - 1 <= got[0].prop("message_expiry_interval") <= 100 - int(before - sent)
    assert got[1].props == {}


def test_s13_a_message_in_flight_does_not_expire(broker, name):
    """S-13, D9. [MQTT-4.4.0-1]"""
    keep = {"session_expiry_interval": 100}
    with Paho(broker, f"{name}p") as p, wire.RawClient(broker) as s:
        s.open(name, props=keep)
        s.subscribe(f"{name}/#", qos=1)
        p.publish(f"{name}/a", b"started", 1, values={"MessageExpiryInterval": 1})
        first = s.take(wire.PUBLISH)
        s.abort()
    time.sleep(2.2)
    with wire.RawClient(broker) as s:
        s.open(name, clean=False, props=keep)
        [again] = s.messages(1)
        assert (again.payload, again.dup, again.packet_id) == (b"started", True, first.packet_id)


def test_s25_aliases_may_be_bound_again_and_each_connection_has_its_own(broker, name):
    """S-25, S-26, P08. [MQTT-3.3.2-7] [MQTT-3.3.2-9] [MQTT-3.3.2-12]"""
    with wire.RawClient(broker) as one, wire.RawClient(broker) as two, wire.RawClient(broker) as s:
        s.open(f"{name}s")
        s.subscribe(f"{name}/#", qos=1)
        one.open(f"{name}1")
        two.open(f"{name}2")
        one.publish(f"{name}/a", b"1", 1, props={"topic_alias": 1})
        two.publish(f"{name}/b", b"2", 1, props={"topic_alias": 1})
        one.publish("", b"3", 1, props={"topic_alias": 1})
        one.publish(f"{name}/c", b"4", 1, props={"topic_alias": 1})
        one.publish("", b"5", 0, props={"topic_alias": 1})
        got = {m.payload: m.topic for m in s.messages(5)}
        assert got == {b"1": f"{name}/a", b"2": f"{name}/b", b"3": f"{name}/a", b"4": f"{name}/c", b"5": f"{name}/c"}


def test_s25_an_alias_over_the_maximum_is_refused(broker_with, name):
    """S-25, C05: 0x94. [MQTT-3.3.2-8] [MQTT-3.2.2-17]"""
    broker = broker_with({keys.TOPIC_ALIAS_MAXIMUM: 5})
    with wire.RawClient(broker) as p:
        assert p.open(name).prop("topic_alias_maximum") == 5
        p.publish(f"{name}/a", b"x", 1, props={"topic_alias": 5})
        p.send(wire.publish(f"{name}/a", b"x", 1, 9, props={"topic_alias": 6}))
        p.refused(0x94)


@pytest.mark.parametrize("props", [{"topic_alias": 3}, None])
def test_s25_an_empty_topic_without_a_known_alias_is_a_protocol_error(broker, name, props):
    """S-25: 0x82, not 0x81."""
    with wire.RawClient(broker) as p:
        p.open(name)
        p.send(wire.publish("", b"x", 1, 1, props=props))
        p.refused(0x82)


def test_s27_the_broker_never_exceeds_the_clients_alias_maximum(broker, name):
    """S-27, P08: every alias is bound with its full topic first, on 20 topics through 3 aliases."""
    with wire.RawClient(broker) as s:
        s.open(name, props={"topic_alias_maximum": 3})
        s.subscribe(f"{name}/#", qos=1)
        bound: dict[int, str] = {}
        for n in range(60):
            s.publish(f"{name}/{n % 20}", b"%d" % (n % 20), n % 2)
            [got] = s.messages(1)
            alias = got.prop("topic_alias")
            if alias is not None:
                assert 1 <= alias <= 3
                if got.topic:
                    bound[alias] = got.topic
            topic = got.topic or bound[alias]
            assert topic == f"{name}/{n % 20}"


def test_s28_resent_messages_carry_their_full_topic(broker, name):
    """S-28, S-26: an alias of the last connection means nothing on the next."""
    keep = {"session_expiry_interval": 100, "topic_alias_maximum": 10}
    with Paho(broker, f"{name}p") as p:
        with wire.RawClient(broker) as s:
            s.open(name, props=keep)
            s.subscribe(f"{name}/#", qos=1)
            for n in range(3):
                p.publish(f"{name}/a", b"%d" % n, 1)
            for _ in range(3):
                s.take(wire.PUBLISH)
            s.abort()
        with wire.RawClient(broker) as s:
            s.open(name, clean=False, props={"session_expiry_interval": 100})
            assert [(m.topic, m.payload, m.dup) for m in s.messages(3)] == [
                (f"{name}/a", b"%d" % n, True) for n in range(3)
            ]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("window", [1, 3, 20])
def test_s21_the_clients_receive_maximum_is_kept(broker, name, qos, window):
    """S-21, S-23, C03: PUBACK, PUBCOMP and a refusing PUBREC return quota; PUBREC does not. [MQTT-4.9.0-2]"""
    with wire.RawClient(broker) as p, wire.RawClient(broker) as s:
        p.open(f"{name}p")
        s.open(f"{name}s", props={"receive_maximum": window})
        s.subscribe(f"{name}/#", qos=qos)
        for n in range(window + 3):
            p.publish(f"{name}/a", b"%d" % n, qos)
        held = [s.take(wire.PUBLISH) for _ in range(window)]
        assert s.drain() == []
        # A full window stops neither QoS 0 nor PINGRESP nor SUBACK. [MQTT-3.3.4-10]
        p.publish(f"{name}/a", b"qos 0", 0)
        got = s.take(wire.PUBLISH)
        assert (got.qos, got.payload) == (0, b"qos 0")
        s.ping()
        s.subscribe(f"{name}/other", qos=1)
        if qos == 1:
            s.send(wire.ack(wire.PUBACK, held[0].packet_id))
        else:
            s.send(wire.ack(wire.PUBREC, held[0].packet_id))
            assert s.take(wire.PUBREL).packet_id == held[0].packet_id
            assert s.drain() == []
            s.send(wire.ack(wire.PUBCOMP, held[0].packet_id))
        assert s.take(wire.PUBLISH).payload == b"%d" % window
        assert s.drain() == []
        if window > 1:
            kind = wire.PUBACK if qos == 1 else wire.PUBREC
            s.send(wire.ack(kind, held[1].packet_id, 0x80))
            assert s.take(wire.PUBLISH).payload == b"%d" % (window + 1)


def test_s22_quota_is_new_with_every_connection(broker, name):
    """S-22: a resumed session obeys the Receive Maximum of the new CONNECT, resends included."""
    keep = {"session_expiry_interval": 100}
    with Paho(broker, f"{name}p") as p:
        with wire.RawClient(broker) as s:
            s.open(name, props=keep | {"receive_maximum": 5})
            s.subscribe(f"{name}/#", qos=1)
            for n in range(8):
                p.publish(f"{name}/a", b"%d" % n, 1)
            assert [s.take(wire.PUBLISH).payload for _ in range(5)] == [b"%d" % n for n in range(5)]
            s.abort()
        with wire.RawClient(broker) as s:
            s.open(name, clean=False, props=keep | {"receive_maximum": 2})
            seen = []
            while len(seen) < 8:
                got = [s.take(wire.PUBLISH)]
                if len(seen) < 7:
                    got.append(s.take(wire.PUBLISH))
                assert s.drain(0.1) == []
                for one in got:
                    seen.append(one.payload)
                    s.send(wire.ack(wire.PUBACK, one.packet_id))
            assert seen == [b"%d" % n for n in range(8)]


@pytest.mark.parametrize("qos", [1, 2])
def test_s24_a_client_within_the_servers_receive_maximum_is_served(broker_with, name, qos):
    """S-24: exactly the maximum at once is no error, again and again."""
    broker = broker_with({keys.RECEIVE_MAXIMUM: 10})
    with wire.RawClient(broker) as p:
        assert p.open(name).prop("receive_maximum") == 10
        for _ in range(20):
            p.send(*(wire.publish(f"{name}/a", b"x", qos, n) for n in range(1, 11)))
            for n in range(1, 11):
                assert p.take(wire.PUBACK if qos == 1 else wire.PUBREC).packet_id == n
            if qos == 2:
                p.send(*(wire.ack(wire.PUBREL, n) for n in range(1, 11)))
                assert [p.take(wire.PUBCOMP).packet_id for n in range(1, 11)] == list(range(1, 11))


def publish_of_size(topic, size, qos=0, packet_id=None):
    """A PUBLISH whose whole packet has that many bytes."""
    payload = size - len(wire.publish(topic, b"", qos, packet_id))
    while len(wire.publish(topic, b"." * payload, qos, packet_id)) > size:
        payload -= 1
    out = wire.publish(topic, b"." * payload, qos, packet_id)
    assert len(out) == size
    return out


def test_w16_s32_the_servers_packet_size_limit_is_exact(broker_with, name):
    """W16, S-32: limit accepted, limit + 1 refused with 0x95. [MQTT-3.2.2-15]"""
    broker = broker_with({keys.MAX_PACKET_SIZE: 2_000})
    with wire.RawClient(broker) as p, wire.RawClient(broker) as s:
        s.open(f"{name}s")
        s.subscribe(f"{name}/a", qos=0)
        assert p.open(f"{name}p").prop("maximum_packet_size") == 2_000
        p.send(publish_of_size(f"{name}/a", 2_000))
        assert len(s.messages(1)[0].raw) == 2_000
        p.send_lossy(publish_of_size(f"{name}/a", 2_001))
        p.refused(0x95)
        assert s.drain() == []


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_s30_s32_the_clients_packet_size_limit_is_exact(broker, name, qos):
    """S-30, S-32: a copy over the limit is dropped, what follows is served, the publisher sees success."""
    with wire.RawClient(broker) as p, wire.RawClient(broker) as s, wire.RawClient(broker) as big:
        p.open(f"{name}p")
        s.open(f"{name}s", props={"maximum_packet_size": 100, "receive_maximum": 1})
        big.open(f"{name}b")
        for one in (s, big):
            one.subscribe(f"{name}/a", qos=2)
        packet_id = 1 if qos else None
        over = len(wire.publish(f"{name}/a", b"", qos, packet_id))
        for n, size in enumerate((100, 101, 99)):
            got = p.publish(f"{name}/a", b"%d" % n + b"." * (size - over - 1), qos)
            assert got is None or got.reason == 0
        assert [len(m.raw) for m in s.messages(2)] == [100, 99]
        assert [len(m.raw) for m in big.messages(3)] == [100, 101, 99]
        assert s.drain() == []


@pytest.mark.slow
def test_s90_keep_alive_zero_never_ends(broker, name, version):
    """S-90."""
    with wire.RawClient(broker, version) as raw:
        raw.open(name, keepalive=0)
        time.sleep(4)
        raw.ping()


@pytest.mark.slow
def test_c11_s92_the_server_keep_alive_applies(broker_with, name):
    """C11, S-92: the client asked for 60, the server said 2: closed, not before 3 s. [MQTT-3.2.2-21]"""
    broker = broker_with({keys.SERVER_KEEP_ALIVE_S: 2})
    with wire.RawClient(broker) as raw:
        start = time.monotonic()
        assert raw.open(name, keepalive=60).prop("server_keep_alive") == 2
        raw.refused(0x8D)
        assert time.monotonic() - start >= 3.0 - wire.TICK_S


def test_c07_no_problem_information_when_not_asked_for(broker, name):
    """C07. [MQTT-3.1.2-29]"""
    with wire.RawClient(broker) as raw:
        raw.open(name, props={"request_problem_information": 0})
        answers = [
            raw.subscribe(f"$share/{name}", qos=1),
            raw.unsubscribe(f"{name}/none"),
            raw.publish(f"{name}/nobody", b"x", 1),
        ]
        assert all(not a.props for a in answers)


def test_c06_response_information_only_when_asked_for(broker, name):
    """C06."""
    for asked in (None, 0):
        with wire.RawClient(broker) as raw:
            props = {} if asked is None else {"request_response_information": asked}
            assert raw.open(name, props=props).prop("response_information") is None


def test_c12_the_connack_announces_only_what_is_not_default(broker, name):
    """C12, by default everything is available: each property is absent or says so."""
    with wire.RawClient(broker) as raw:
        got = raw.open(name)
    assert got.prop("maximum_qos") is None  # 2 may not be sent
    for feature in ("retain", "wildcard_subscription", "subscription_identifier", "shared_subscription"):
        assert got.prop(f"{feature}_available", 1) == 1
    assert got.prop("receive_maximum", 65_535) > 0
    assert got.prop("maximum_packet_size", 1) > 0


def test_w08_a_client_id_with_a_byte_order_mark_is_its_own(broker, name):
    """W08: U+FEFF is kept, never stripped. [MQTT-1.5.4-3]"""
    with wire.RawClient(broker, 4) as plain, wire.RawClient(broker, 4) as marked:
        plain.open(name, clean=False)
        assert not marked.open(b"\xef\xbb\xbf" + name.encode(), clean=False).session_present
        plain.ping()


def test_y01_y03_sys_topics_are_there(broker_with, name):
    """Y01, Y03: brokers' facts and the counts that exist with the EMQX names."""
    broker = broker_with({keys.SYS_INTERVAL_S: 1, keys.SYS_HEARTBEAT_S: 1})
    with Paho(broker, name) as s:
        s.subscribe("$SYS/#", qos=0)
        for ending in ("/version", "/uptime", "/datetime", "/sysdescr"):
            s.wait(lambda e=ending: any(m.topic.endswith(e) for m in s.received), f"$SYS/brokers/...{ending}")
        s.wait(lambda: any(m.topic == "$SYS/brokers" for m in s.received), "$SYS/brokers")
        stats = "connections live_connections sessions topics subscribers subscriptions subscriptions/shared retained"
        for stat in stats.split():
            for kind in ("count", "max"):
                ending = f"/stats/{stat}/{kind}"
                s.wait(lambda e=ending: any(m.topic.endswith(e) for m in s.received), ending)
        at = next(m for m in reversed(s.received) if m.topic.endswith("/stats/connections/count"))
        assert int(at.payload) == 1


def test_s53_a_client_cannot_publish_to_sys(broker, name):
    """S-53: 0x87, and no subscriber sees it."""
    with Paho(broker, f"{name}s") as s, wire.RawClient(broker) as p:
        s.subscribe(f"$SYS/{name}", qos=1)
        p.open(name)
        assert p.publish(f"$SYS/{name}", b"fake", 1).reason == 0x87
        s.nothing()


@pytest.mark.parametrize("topic", ["$share/g/a", "$queue/a", "$exclusive/a"])
def test_s53_a_client_cannot_publish_to_reserved_prefixes(broker, name, topic):
    """S-53: 0x90."""
    with wire.RawClient(broker) as p:
        p.open(name)
        assert p.publish(topic, b"x", 1).reason == 0x90


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 1_048_576])
def test_payloads_of_every_length_of_the_remaining_length_field_arrive(broker_with, name, version, size):
    """W06, W16: 1 MiB at most here, live at QoS 0 and 2."""
    broker = broker_with({keys.MAX_PACKET_SIZE: 2_097_152})
    payload = bytes(n * 31 % 251 for n in range(min(size, 4_096))) * (size // min(size, 4_096) or 1)
    with Paho(broker, name, version) as p:
        p.subscribe(f"{name}/a", qos=2)
        for qos in (0, 2):
            p.publish(f"{name}/a", payload, qos)
        assert payloads(p.messages(2)) == [payload] * 2
