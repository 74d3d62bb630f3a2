"""W03: what Eclipse paho.mqtt.testing's client_test5.py checks of a 5.0 server, case by case, in our own code."""

from __future__ import annotations

import time

import pytest

import config_keys as keys
import wire
from paho_client import Paho, payloads

PAIRS = [("a", "2"), ("c", "3")]


def test_basic(broker, name):
    with Paho(broker, name) as a:
        assert a.subscribe(f"{name}/A", qos=2) == [2]
        for qos in (0, 1, 2):
            assert a.publish(f"{name}/A", f"qos {qos}", qos) == 0
        assert payloads(a.messages(3)) == [b"qos 0", b"qos 1", b"qos 2"]
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.send(wire.connect(name))
        raw.refused(0x82)
    with wire.RawClient(broker) as raw:
        raw.send(wire.connect(name, name="hj"))
        assert [p.reason for p in raw.closed()] in ([], [0x84])


def test_retained_message(broker, name):
    with Paho(broker, name) as a:
        for qos in (0, 1, 2):
            a.publish(f"{name}/{qos}", f"qos {qos}", qos, retain=True, values={"UserProperty": PAIRS})
        a.subscribe(f"{name}/+", qos=2)
        got = a.messages(3)
    assert sorted((m.payload, m.qos) for m in got) == [(b"qos 0", 0), (b"qos 1", 1), (b"qos 2", 2)]
    assert all(m.properties.UserProperty == PAIRS and m.retain for m in got)


def test_will_message(broker, name):
    with Paho(broker, f"{name}b") as b:
        b.subscribe(f"{name}/will", qos=2)
        Paho(broker, name, keepalive=2, will=(f"{name}/will", b"client not disconnected", 0, False)).connect().drop()
        assert payloads(b.messages(1)) == [b"client not disconnected"]


def test_zero_length_clientid(broker):
    """D10: an identifier is assigned with either value of Clean Start."""
    for clean in (True, False):
        with wire.RawClient(broker) as raw:
            got = raw.open("", clean=clean)
            assert got.prop("assigned_client_identifier") and not got.session_present


def test_offline_message_queueing(broker, name):
    keep = {"SessionExpiryInterval": 100}
    with Paho(broker, name, props=keep) as a:
        a.subscribe(f"{name}/#", qos=2)
    with Paho(broker, f"{name}b") as b:
        for qos in (0, 1, 2):
            b.publish(f"{name}/{qos}", f"qos {qos}", qos)
    with Paho(broker, name, clean=False, props=keep) as a:
        assert a.session_present
        a.wait(lambda: any(m.qos == 2 for m in a.received), "the QoS 2 message")
        assert payloads(a.received) in ([b"qos 1", b"qos 2"], [b"qos 0", b"qos 1", b"qos 2"])


def test_overlapping_subscriptions(broker, name):
    with Paho(broker, name) as a:
        a.subscribe(f"{name}/#", qos=2)
        a.subscribe(f"{name}/+", qos=1)
        a.publish(f"{name}/C", b"overlapping topic filters", 2)
        [got] = a.messages(1)
        assert got.qos == 2
        a.nothing()


@pytest.mark.slow
def test_keepalive(broker, name):
    with Paho(broker, f"{name}b") as b, wire.RawClient(broker) as silent:
        b.subscribe(f"{name}/will", qos=2)
        start = time.monotonic()
        silent.open(name, keepalive=2, will=wire.Will(f"{name}/will", b"keepalive expiry"))
        assert payloads(b.messages(1)) == [b"keepalive expiry"]
        assert time.monotonic() - start >= 3.0 - wire.TICK_S
        silent.refused(0x8D)


def test_redelivery_on_reconnect(broker, name):
    keep = {"session_expiry_interval": 100}
    with Paho(broker, f"{name}p") as sender:
        with wire.RawClient(broker) as paused:
            paused.open(name, props=keep)
            paused.subscribe(f"{name}/#", qos=2)
            sender.publish(f"{name}/B", b"one", 1)
            sender.publish(f"{name}/C", b"two", 2)
            first = [paused.take(wire.PUBLISH), paused.take(wire.PUBLISH)]
            paused.send(wire.disconnect())
    with wire.RawClient(broker) as resumed:
        assert resumed.open(name, clean=False, props=keep).session_present
        again = resumed.messages(2)
        assert [(m.payload, m.dup, m.packet_id) for m in again] == [(m.payload, True, m.packet_id) for m in first]
        assert resumed.drain() == []


def test_subscribe_failure(broker_with, name):
    broker = broker_with({keys.WILDCARD_SUBSCRIPTION: False})
    with Paho(broker, name) as a:
        assert a.subscribe(f"{name}/#", qos=2) == [0xA2]
        assert a.connack_props.WildcardSubscriptionAvailable == 0


def test_dollar_topics(broker, name):
    with Paho(broker, name) as b:
        b.subscribe("+/+", qos=2)
        b.publish(f"${name}/B", b"hidden", 1)
        b.publish(f"{name}/seen", b"seen", 1)
        b.wait(lambda: any(m.topic == f"{name}/seen" for m in b.received), "the plain topic")
        assert not [m for m in b.received if m.topic.startswith("$")]


def test_unsubscribe(broker, name):
    with Paho(broker, name) as b, Paho(broker, f"{name}p") as a:
        b.subscribe(f"{name}/0", f"{name}/1", f"{name}/2", qos=2)
        assert b.unsubscribe(f"{name}/0") == [0]
        for n in range(3):
            a.publish(f"{name}/{n}", f"topic {n}", 1)
        assert payloads(b.messages(2)) == [b"topic 1", b"topic 2"]


@pytest.mark.slow
def test_session_expiry(broker, name):
    """S-08, S-09."""

    def connects(clean, interval, leave=None):
        a = Paho(broker, name, clean=clean, props={"SessionExpiryInterval": interval}).connect()
        present = a.session_present
        a.disconnect(values=None if leave is None else {"SessionExpiryInterval": leave})
        return present

    assert not connects(True, 0)
    assert not connects(False, 0)
    assert not connects(True, 5)
    assert connects(False, 5)
    assert connects(False, 2)
    time.sleep(4)
    assert not connects(False, 5)
    assert not connects(True, 1, leave=100)
    time.sleep(3)
    assert connects(False, 1, leave=0)
    assert not connects(False, 1)


def test_user_properties(broker, name):
    with Paho(broker, name) as a:
        a.subscribe(f"{name}/A", qos=2)
        for qos in (0, 1, 2):
            a.publish(f"{name}/A", b"", qos, values={"UserProperty": PAIRS})
        got = a.messages(3)
    assert [(m.qos, m.properties.UserProperty) for m in got] == [(0, PAIRS), (1, PAIRS), (2, PAIRS)]


def test_payload_format(broker, name):
    with Paho(broker, name) as a:
        a.subscribe(f"{name}/A", qos=2)
        for qos in (0, 1, 2):
            a.publish(f"{name}/A", b"", qos, values={"PayloadFormatIndicator": 1, "ContentType": "My name"})
        got = a.messages(3)
    assert [(m.properties.PayloadFormatIndicator, m.properties.ContentType) for m in got] == [(1, "My name")] * 3


@pytest.mark.slow
def test_publication_expiry(broker, name):
    """S-11, S-12, P06. [MQTT-3.3.2-5] [MQTT-3.3.2-6]"""
    keep = {"SessionExpiryInterval": 99999}
    with Paho(broker, name, props=keep) as b:
        b.subscribe(f"{name}/A", qos=2)
    with Paho(broker, f"{name}p") as a:
        for qos in (1, 2):
            a.publish(f"{name}/A", b"expires", qos, values={"MessageExpiryInterval": 1})
            a.publish(f"{name}/A", b"lives", qos, values={"MessageExpiryInterval": 600})
        time.sleep(3)
        with Paho(broker, name, clean=False, props=keep) as b:
            got = b.messages(2)
            assert payloads(got) == [b"lives", b"lives"]
            assert all(1 <= m.properties.MessageExpiryInterval <= 597 for m in got)


def test_subscribe_options(broker, name):
    """S-40, S-41, S-49."""
    with Paho(broker, name) as a, Paho(broker, f"{name}b") as b:
        for client in (a, b):
            client.subscribe(f"{name}/nl", qos=2, noLocal=True)
        a.publish(f"{name}/nl", b"noLocal test", 1)
        assert payloads(b.messages(1)) == [b"noLocal test"]
        a.nothing()
    with Paho(broker, name) as a:
        a.subscribe(f"{name}/rap", qos=2, retainAsPublished=True)
        a.publish(f"{name}/rap", b"false", 1)
        a.publish(f"{name}/rap", b"true", 1, retain=True)
        assert [(m.payload, bool(m.retain)) for m in a.messages(2)] == [(b"false", False), (b"true", True)]
    with Paho(broker, name) as a:
        for qos in (0, 1, 2):
            a.publish(f"{name}/rh/{qos}", f"qos {qos}", qos, retain=True)
        for handling, first, second in ((1, 3, 0), (2, 0, 0), (0, 3, 3)):
            with Paho(broker, f"{name}{handling}") as c:
                for expected in (first, second):
                    c.subscribe(f"{name}/rh/#", qos=2, retainHandling=handling)
                    c.messages(expected)
                    c.nothing()


def test_assigned_clientid(broker):
    with Paho(broker, "") as a:
        assert a.connack_props.AssignedClientIdentifier


def test_subscribe_identifiers(broker, name):
    with Paho(broker, name) as a, Paho(broker, f"{name}b") as b:
        a.subscribe(f"{name}/A", qos=2, values={"SubscriptionIdentifier": 456789})
        b.subscribe(f"{name}/A", qos=2, values={"SubscriptionIdentifier": 2})
        b.subscribe(f"{name}/A/#", qos=2, values={"SubscriptionIdentifier": 3})
        b.publish(f"{name}/A", b"sub identifier test", 1)
        [got] = a.messages(1)
        assert got.properties.SubscriptionIdentifier == [456789]
        [got] = b.messages(1)
        assert sorted(got.properties.SubscriptionIdentifier) == [2, 3]


def test_request_response(broker, name):
    with Paho(broker, name) as a, Paho(broker, f"{name}b") as b:
        for client in (a, b):
            client.subscribe(f"{name}/A", qos=2, noLocal=True)
        a.publish(f"{name}/A", b"request", 1, values={"ResponseTopic": f"{name}/A", "CorrelationData": b"334"})
        [request] = b.messages(1)
        assert (request.properties.ResponseTopic, request.properties.CorrelationData) == (f"{name}/A", b"334")
        b.publish(request.properties.ResponseTopic, b"response", 1, values={"CorrelationData": b"334"})
        [response] = a.messages(1)
        assert (response.payload, response.properties.CorrelationData) == (b"response", b"334")


def test_client_topic_alias(broker, name):
    """S-25, S-26. [MQTT-3.3.2-8] [MQTT-3.3.2-7]"""
    keep = {"session_expiry_interval": 100}
    with wire.RawClient(broker) as raw:
        raw.open(name)
        raw.send(wire.publish(f"{name}/A", b"alias 0", 1, 1, props={"topic_alias": 0}))
        raw.refused(0x94)
    with wire.RawClient(broker) as raw:
        assert raw.open(name, props=keep).prop("topic_alias_maximum", 0) >= 1
        raw.subscribe(f"{name}/A", qos=2)
        raw.publish(f"{name}/A", b"alias 1", 1, props={"topic_alias": 1})
        raw.publish("", b"alias 2", 1, props={"topic_alias": 1})
        assert [(m.topic, m.payload) for m in raw.messages(2)] == [(f"{name}/A", b"alias 1"), (f"{name}/A", b"alias 2")]
        raw.send(wire.disconnect())
        raw.closed()
    with wire.RawClient(broker) as raw:
        assert raw.open(name, clean=False, props=keep).session_present
        raw.publish(f"{name}/A", b"alias 3", 1)
        assert [m.payload for m in raw.messages(1)] == [b"alias 3"]
        raw.send(wire.publish("", b"alias 4", 1, 9, props={"topic_alias": 1}))
        raw.refused(0x82, 0x94)


def test_server_topic_alias(broker, name):
    """S-27. [MQTT-3.1.2-26] [MQTT-3.1.2-27]"""
    for maximum in (1, 0, None):
        with wire.RawClient(broker) as raw:
            raw.open(name, props={} if maximum is None else {"topic_alias_maximum": maximum})
            raw.subscribe(f"{name}/A", qos=2)
            for qos in (0, 1, 2):
                raw.publish(f"{name}/A", b"topic alias", qos)
            got = [(m.topic, m.prop("topic_alias")) for m in raw.messages(3)]
        if maximum:
            assert got == [(f"{name}/A", 1), ("", 1), ("", 1)]
        else:
            assert got == [(f"{name}/A", None)] * 3


def test_maximum_packet_size(broker_with, name):
    """W16, S-30. [MQTT-3.1.2-24] [MQTT-3.1.2-25]"""
    broker = broker_with({keys.MAX_PACKET_SIZE: 4096})
    with wire.RawClient(broker) as raw:
        assert raw.open(name).prop("maximum_packet_size") == 4096
        raw.send_lossy(wire.publish(f"{name}/A", b"." * 4096))
        raw.refused(0x95)
    with wire.RawClient(broker) as raw:
        raw.open(name, props={"maximum_packet_size": 64})
        raw.subscribe(f"{name}/A", qos=2)
        raw.publish(f"{name}/A", b"." * 32, 0)
        raw.publish(f"{name}/A", b"!" * 64, 1)
        raw.publish(f"{name}/A", b"last", 1)
        assert [m.payload for m in raw.messages(2)] == [b"." * 32, b"last"]


def test_server_keep_alive(broker_with, name):
    """C11, S-92. [MQTT-3.2.2-21]"""
    broker = broker_with({keys.SERVER_KEEP_ALIVE_S: 60})
    with Paho(broker, name, keepalive=120) as a:
        assert a.connack_props.ServerKeepAlive == 60


def test_flow_control1(broker, name):
    """S-21: never more than the client's Receive Maximum unacknowledged. [MQTT-4.9.0-2]"""
    with wire.RawClient(broker) as raw:
        raw.open(name, props={"receive_maximum": 2})
        raw.subscribe(f"{name}/A", qos=2)
        for n in range(3):
            raw.publish(f"{name}/A", b"message %d" % n, 1)
        one, two = raw.take(wire.PUBLISH), raw.take(wire.PUBLISH)
        assert raw.drain() == []
        raw.send(wire.ack(wire.PUBACK, one.packet_id))
        three = raw.take(wire.PUBLISH)
        assert [m.payload for m in (one, two, three)] == [b"message 0", b"message 1", b"message 2"]
        raw.send(wire.ack(wire.PUBACK, two.packet_id), wire.ack(wire.PUBACK, three.packet_id))


def test_flow_control2(broker_with, name):
    """S-24, D8: a client over the server's Receive Maximum is told 0x93. [MQTT-3.3.4-9]"""
    broker = broker_with({keys.RECEIVE_MAXIMUM: 10})
    with wire.RawClient(broker) as raw:
        maximum = raw.open(name).prop("receive_maximum", 65535)
        assert maximum == 10
        raw.send_lossy(b"".join(wire.publish(f"{name}/A", b"%d" % n, 2, n) for n in range(1, maximum + 2)))
        raw.refused(0x93)


@pytest.mark.slow
@pytest.mark.parametrize(("delay", "expiry", "due"), [(2, 600, 2), (600, 0, 0), (600, 2, 2)])
def test_will_delay(broker, name, delay, expiry, due):
    """S-16: the will is due at the lesser of will delay and session end. [MQTT-3.1.3-9]"""
    with Paho(broker, f"{name}b") as b:
        b.subscribe(f"{name}/will", qos=2)
        will = (f"{name}/will", b"delayed", 0, False, {"WillDelayInterval": delay})
        a = Paho(broker, name, will=will, props={"SessionExpiryInterval": expiry}).connect()
        start = time.monotonic()
        a.drop()
        [got] = b.messages(1)
        assert time.monotonic() - start >= due - wire.TICK_S
        assert got.payload == b"delayed"


def test_shared_subscriptions(broker, name):
    """H01, S-61."""
    with Paho(broker, name) as a, Paho(broker, f"{name}b") as b:
        for client in (a, b):
            client.subscribe(f"$share/{name}/{name}/x", f"{name}/A", qos=2)
        b.publish(f"{name}/A", b"to both", 1)
        assert payloads(a.messages(1)) == payloads(b.messages(1)) == [b"to both"]
        for n in range(10):
            b.publish(f"{name}/x", b"%d" % n, 1)
        deadline = time.monotonic() + wire.WAIT_S
        while len(a.received) + len(b.received) < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(wire.QUIET_S)
        assert sorted(int(m.payload) for m in a.received + b.received) == list(range(10))
