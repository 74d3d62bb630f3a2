"""W02: what Eclipse paho.mqtt.testing's client_test.py checks of a 3.1.1 server, case by case, in our own code."""

from __future__ import annotations

import time

import pytest

import config_keys as keys
import wire
from paho_client import Paho, payloads


def test_basic_test(broker, name):
    """Connect twice; the three qualities of service; second CONNECT and a wrong protocol name end the connection."""
    with Paho(broker, name, 4):
        pass
    with Paho(broker, name, 4) as a:
        assert a.subscribe(f"{name}/A", qos=2) == [2]
        for qos in (0, 1, 2):
            a.publish(f"{name}/A", f"qos {qos}", qos)
        assert payloads(a.messages(3)) == [b"qos 0", b"qos 1", b"qos 2"]
    with wire.RawClient(broker, 4) as raw:
        raw.open(name)
        raw.send(wire.connect(name, 4))  # [MQTT-3.1.0-2]
        assert raw.closed() == []
    with wire.RawClient(broker, 4) as raw:
        raw.send(wire.connect(name, 4, name="hj"))
        raw.closed()


def test_retained_message_test(broker, name):
    with Paho(broker, name, 4) as a:
        for qos in (0, 1, 2):
            a.publish(f"{name}/{qos}", f"qos {qos}", qos, retain=True)
        a.subscribe(f"{name}/+", qos=2)
        assert sorted((m.payload, m.qos) for m in a.messages(3)) == [(b"qos 0", 0), (b"qos 1", 1), (b"qos 2", 2)]
    with Paho(broker, name, 4) as a:
        for qos in (0, 1, 2):
            a.publish(f"{name}/{qos}", b"", qos, retain=True)
        a.subscribe(f"{name}/+", qos=2)
        a.nothing()


def test_offline_message_queueing_test(broker, name):
    with Paho(broker, name, 4, clean=False) as a:
        a.subscribe(f"{name}/#", qos=2)
    with Paho(broker, f"{name}b", 4) as b:
        for qos in (0, 1, 2):
            b.publish(f"{name}/{qos}", f"qos {qos}", qos)
    with Paho(broker, name, 4, clean=False) as a:
        assert a.session_present
        a.wait(lambda: any(m.qos == 2 for m in a.received), "the QoS 2 message")
        assert payloads(a.received) in ([b"qos 1", b"qos 2"], [b"qos 0", b"qos 1", b"qos 2"])


def test_will_message_test(broker, name):
    with Paho(broker, f"{name}b", 4) as b:
        b.subscribe(f"{name}/will", qos=2)
        a = Paho(broker, name, 4, keepalive=2, will=(f"{name}/will", b"client not disconnected", 0, False)).connect()
        a.drop()
        [got] = b.messages(1)
        assert got.payload == b"client not disconnected"


def test_overlapping_subscriptions_test(broker, name):
    with Paho(broker, name, 4) as a:
        a.subscribe((f"{name}/#", 2), (f"{name}/+", 1))
        a.publish(f"{name}/C", b"overlapping topic filters", 2)
        [got] = a.messages(1)  # S-47: one copy is Ringmain's ruling
        assert got.qos == 2
        a.nothing()


@pytest.mark.slow
def test_keepalive_test(broker, name):
    """S-90: not before one and a half keep-alive periods, and then with the will. [MQTT-3.1.2-24]"""
    with Paho(broker, f"{name}b", 4) as b, wire.RawClient(broker, 4) as silent:
        b.subscribe(f"{name}/will", qos=2)
        start = time.monotonic()
        silent.open(name, keepalive=2, will=wire.Will(f"{name}/will", b"keepalive expiry"))
        [got] = b.messages(1)
        assert time.monotonic() - start >= 3.0 - wire.TICK_S
        assert got.payload == b"keepalive expiry"


def test_redelivery_on_reconnect_test(broker, name):
    """S-36, S-37: unacknowledged messages come again, in order and with DUP. [MQTT-4.4.0-1]"""
    with Paho(broker, f"{name}p", 4) as sender:
        with wire.RawClient(broker, 4) as paused:
            paused.open(name, clean=False)
            paused.subscribe(f"{name}/#", qos=2)
            sender.publish(f"{name}/B", b"one", 1)
            sender.publish(f"{name}/C", b"two", 2)
            first = [paused.take(wire.PUBLISH), paused.take(wire.PUBLISH)]
            paused.send(wire.disconnect())
    with wire.RawClient(broker, 4) as resumed:
        assert resumed.open(name, clean=False).session_present
        again = resumed.messages(2)
        assert [(m.payload, m.dup, m.packet_id) for m in again] == [(m.payload, True, m.packet_id) for m in first]
        assert resumed.drain() == []


def test_zero_length_clientid_test(broker, name):
    """S-98, D10: without a clean session 0x02 and close. [MQTT-3.1.3-8] [MQTT-3.1.3-7]"""
    with wire.RawClient(broker, 4) as raw:
        got = raw.connect("", clean=False)
        assert (got.reason, got.session_present) == (2, False)
        assert raw.closed() == []
    with wire.RawClient(broker, 4) as raw:
        raw.open("", clean=True)


def test_subscribe_failure_test(broker_with, name):
    """S-98: a refused filter gets 0x80, others of the same SUBSCRIBE are served. [MQTT-3.9.3-2]"""
    broker = broker_with({keys.WILDCARD_SUBSCRIPTION: False})
    with Paho(broker, name, 4) as a:
        assert a.subscribe((f"{name}/ok", 2), (f"{name}/#", 2)) == [2, 0x80]


def test_dollar_topics_test(broker, name):
    """S-51. [MQTT-4.7.2-1]"""
    with Paho(broker, name, 4) as b:
        b.subscribe("+/+", "#", qos=2)
        b.publish(f"${name}/B", b"hidden", 1)
        b.publish(f"{name}/seen", b"seen", 1)
        b.wait(lambda: any(m.topic == f"{name}/seen" for m in b.received), "the plain topic")
        assert not [m for m in b.received if m.topic.startswith("$")]
