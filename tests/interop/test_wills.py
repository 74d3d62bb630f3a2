"""Wills: when they are published, when not, and with what."""

from __future__ import annotations

import time

import pytest

import config_keys as keys
import wire
from paho_client import Paho, payloads

WILL_PROPS = {
    "payload_format_indicator": 1,
    "message_expiry_interval": 300,
    "content_type": "text/plain",
    "response_topic": "answer/here",
    "correlation_data": b"\x00\x01\xff",
    "user_property": [("b", "2"), ("a", "1"), ("b", "2")],
}


@pytest.fixture
def watcher(broker, name):
    with Paho(broker, f"{name}watch") as client:
        client.subscribe(f"{name}/will/#", qos=2)
        yield client


def with_will(broker, name, version, **more):
    raw = wire.RawClient(broker, version)
    raw.open(f"{name}w", will=wire.Will(f"{name}/will", b"gone", 1), **more)
    return raw


@pytest.mark.parametrize("end", ["fin", "reset", "protocol error", "second connect"])
def test_s15_a_lost_connection_publishes_the_will(broker, name, version, watcher, end):
    """S-15. [MQTT-3.1.2-8]"""
    with with_will(broker, name, version) as raw:
        if end == "fin":
            raw.sock.close()
        elif end == "reset":
            raw.abort()
        elif end == "protocol error":
            raw.send(b"\xf1\x00")
            raw.closed()
        else:
            raw.send(wire.connect(f"{name}w", version))
            raw.closed()
        [got] = watcher.messages(1)
        assert (got.topic, got.payload, got.qos, bool(got.retain)) == (f"{name}/will", b"gone", 1, False)
        watcher.nothing()


def test_s15_a_normal_disconnect_suppresses_the_will(broker, name, version, watcher):
    """S-15. [MQTT-3.1.2-10] [MQTT-3.14.4-3]"""
    with with_will(broker, name, version) as raw:
        raw.send(wire.disconnect())
        assert raw.closed() == []
    watcher.nothing()


@pytest.mark.parametrize("reason", [0x04, 0x80, 0x8B, 0xFF])
def test_s15_a_disconnect_with_any_other_reason_publishes_the_will(broker, name, watcher, reason):
    """S-15, also with the reserved code 0xFF, which may besides be answered as malformed."""
    with with_will(broker, name, 5) as raw:
        raw.send(wire.disconnect(reason))
        raw.closed()
    assert payloads(watcher.messages(1)) == [b"gone"]


def test_s17_a_takeover_publishes_the_will_of_311(broker, name, watcher):
    """S-17, S-98."""
    with with_will(broker, name, 4, clean=False) as old, wire.RawClient(broker, 4) as new:
        new.open(f"{name}w", clean=False)
        assert old.closed() == []
        assert payloads(watcher.messages(1)) == [b"gone"]


@pytest.mark.parametrize(
    ("delay", "expiry", "clean", "published"),
    [(0, 100, False, True), (100, 0, False, True), (100, 100, True, True), (100, 100, False, False)],
)
def test_s17_a_takeover_publishes_or_cancels_the_will_of_v5(broker, name, watcher, delay, expiry, clean, published):
    """S-17, S-04. [MQTT-3.1.3-9]"""
    with wire.RawClient(broker) as old, wire.RawClient(broker) as new:
        props = {"session_expiry_interval": expiry}
        old.open(f"{name}w", props=props, will=wire.Will(f"{name}/will", b"gone", props={"will_delay_interval": delay}))
        new.open(f"{name}w", clean=clean, props={"session_expiry_interval": 100})
        old.refused(0x8E)
        if published:
            assert payloads(watcher.messages(1)) == [b"gone"]
        watcher.nothing()


@pytest.mark.slow
def test_s18_a_return_within_the_delay_cancels_the_will(broker, name, watcher):
    """S-18: also when the delay's end passes afterwards."""
    props = {"session_expiry_interval": 100}
    will = wire.Will(f"{name}/will", b"gone", props={"will_delay_interval": 4})
    with wire.RawClient(broker) as raw:
        raw.open(f"{name}w", props=props, will=will)
        raw.abort()
    with wire.RawClient(broker) as raw:
        raw.open(f"{name}w", clean=False, props=props)
        watcher.nothing(5.5)


@pytest.mark.slow
def test_s16_a_delayed_will_is_not_early(broker, name, watcher):
    """S-16."""
    will = wire.Will(f"{name}/will", b"gone", props={"will_delay_interval": 2})
    with wire.RawClient(broker) as raw:
        raw.open(f"{name}w", props={"session_expiry_interval": 100}, will=will)
        start = time.monotonic()
        raw.abort()
    assert payloads(watcher.messages(1)) == [b"gone"]
    assert time.monotonic() - start >= 2.0 - wire.TICK_S


def test_c15_s19_will_properties_arrive_unchanged_and_the_delay_does_not_leak(broker, name):
    """C15, S-19."""
    with wire.RawClient(broker) as watch, wire.RawClient(broker) as raw:
        watch.open(f"{name}s")
        watch.subscribe(f"{name}/will", qos=2)
        props = WILL_PROPS | {"will_delay_interval": 0}
        raw.open(f"{name}w", will=wire.Will(f"{name}/will", b"payload", 2, props=props))
        raw.abort()
        [got] = watch.messages(1)
        expiry = got.props.pop("message_expiry_interval")
        assert 1 <= expiry[0] <= 300
        expected = {k: v if isinstance(v, list) else [v] for k, v in WILL_PROPS.items()}
        expected.pop("message_expiry_interval")
        assert (got.payload, got.qos, got.props) == (b"payload", 2, expected)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_c15_a_retained_will_is_stored(broker, name, version, watcher, qos):
    """C15, S-46. [MQTT-3.1.2-15]"""
    with wire.RawClient(broker, version) as raw:
        raw.open(f"{name}w", will=wire.Will(f"{name}/will", b"gone", qos, retain=True))
        raw.abort()
    assert [(m.payload, m.qos) for m in watcher.messages(1)] == [(b"gone", qos)]
    with Paho(broker, f"{name}late", version) as late:
        late.subscribe(f"{name}/will", qos=2)
        assert [(m.payload, m.qos, bool(m.retain)) for m in late.messages(1)] == [(b"gone", qos, True)]


def test_s20_a_graceful_stop_tells_clients_and_sends_their_wills(broker_with, name):
    """S-20, reason code 0x8B: SIGTERM ends v5 connections with "server shutting down" and the process with 0."""
    broker = broker_with({keys.SYS_INTERVAL_S: 60})
    with wire.RawClient(broker) as v5, wire.RawClient(broker, 4) as v311:
        v5.open(f"{name}5")
        v311.open(f"{name}4")
        broker.terminate()
        v5.refused(0x8B)
        assert v311.closed() == []
    broker.wait_stopped()
