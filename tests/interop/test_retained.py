"""Retained messages: storing, replacing, clearing, and the three subscription options that concern them."""

from __future__ import annotations

import time

import pytest

import external
import wire
from paho_client import Paho, payloads


def retained(broker, name, topic, version=5, **options):
    """What a fresh subscriber finds at the filter, as (topic, payload, qos, retain)."""
    with Paho(broker, f"{name}look", version) as look:
        look.subscribe(topic, qos=2, **options)
        time.sleep(wire.QUIET_S)  # gives late pages the time to come
        return sorted((m.topic, m.payload, m.qos, bool(m.retain)) for m in look.received)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_p09_a_retained_message_is_stored_replaced_and_cleared(broker, name, version, qos):
    """P09, S-42, S-43. [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7]"""
    topic = f"{name}/r"
    with Paho(broker, name, version) as p:
        p.publish(topic, b"one", qos, retain=True)
        p.subscribe(topic, qos=qos)
        assert [(m.payload, m.qos, bool(m.retain)) for m in p.messages(1)] == [(b"one", qos, True)]
        p.publish(topic, b"two", qos, retain=True)
        p.messages(1)
        assert retained(broker, name, topic, version) == [(topic, b"two", qos, True)]
        p.publish(topic, b"", qos, retain=True)
        p.messages(1)
        assert retained(broker, name, topic, version) == []


def test_s43_a_clearing_message_is_forwarded_live_with_retain_zero(broker, name, version):
    """S-43, S-41."""
    with Paho(broker, name, version) as p:
        p.publish(f"{name}/r", b"stored", 1, retain=True)
        p.subscribe(f"{name}/r", qos=1)
        assert p.messages(1)[0].retain
        p.publish(f"{name}/r", b"", 1, retain=True)
        [got] = p.messages(1)
        assert (got.payload, bool(got.retain)) == (b"", False)


def test_s43_a_plain_empty_message_clears_nothing(broker, name, version):
    """S-43. [MQTT-3.3.1-8]"""
    with Paho(broker, name, version) as p:
        p.publish(f"{name}/r", b"stays", 1, retain=True)
        p.publish(f"{name}/r", b"", 1)
        p.publish(f"{name}/r", b"other", 1)
    assert payloads_of(retained(broker, name, f"{name}/r", version)) == [b"stays"]


def payloads_of(found):
    return [payload for _, payload, _, _ in found]


def test_s45_clearing_a_topic_leaves_its_parent_and_children(broker, name):
    """S-45."""
    with Paho(broker, name) as p:
        for topic in ("a", "a/b", "a/b/c"):
            p.publish(f"{name}/{topic}", topic.encode(), 1, retain=True)
        p.publish(f"{name}/a/b", b"", 1, retain=True)
    assert payloads_of(retained(broker, name, f"{name}/#")) == [b"a", b"a/b/c"]


@pytest.mark.parametrize(("granted", "expected"), [(0, [0, 0, 0]), (1, [0, 1, 1]), (2, [0, 1, 2])])
def test_s42_a_retained_message_comes_at_the_lesser_qos_through_a_wildcard(broker, name, version, granted, expected):
    """S-42."""
    with Paho(broker, name, version) as p:
        for qos in (0, 1, 2):
            p.publish(f"{name}/{qos}", b"", qos)
            p.publish(f"{name}/{qos}", b"x", qos, retain=True)
        p.subscribe(f"{name}/+", qos=granted)
        assert [m.qos for m in sorted(p.messages(3), key=lambda m: m.topic)] == expected


def test_s40_retain_handling_1_sends_only_for_a_new_subscription(broker, name):
    """S-40: a change of options is no new subscription; after an UNSUBSCRIBE it is new again. [MQTT-3.3.1-10]"""
    with Paho(broker, name) as p:
        p.publish(f"{name}/r", b"x", 1, retain=True)
        p.subscribe(f"{name}/r", qos=1, retainHandling=1)
        p.messages(1)
        p.subscribe(f"{name}/r", qos=2, retainHandling=1, retainAsPublished=True)
        p.nothing()
        p.unsubscribe(f"{name}/r")
        p.subscribe(f"{name}/r", qos=1, retainHandling=1)
        p.messages(1)


def test_s40_retain_handling_1_counts_the_subscription_of_a_resumed_session(broker, name):
    """S-40, S-05."""
    keep = {"SessionExpiryInterval": 100}
    with Paho(broker, name, props=keep) as p:
        p.publish(f"{name}/r", b"x", 1, retain=True)
        p.subscribe(f"{name}/r", qos=1, retainHandling=2)
        p.nothing()
    with Paho(broker, name, clean=False, props=keep) as p:
        assert p.session_present
        p.nothing()
        p.subscribe(f"{name}/r", qos=1, retainHandling=1)
        p.nothing()
        p.subscribe(f"{name}/r", qos=1, retainHandling=0)
        p.messages(1)


def test_s40_retain_handling_0_sends_at_every_subscribe_and_2_never(broker, name):
    """S-40. [MQTT-3.3.1-9] [MQTT-3.3.1-11]"""
    with Paho(broker, name) as p:
        p.publish(f"{name}/r", b"x", 1, retain=True)
        for handling, count in ((2, 0), (0, 1), (0, 1), (2, 0)):
            p.subscribe(f"{name}/r", qos=1, retainHandling=handling)
            p.messages(count)
            p.nothing()


def test_s98_a_repeated_subscribe_of_311_sends_retained_messages_again(broker, name):
    """S-98. [MQTT-3.8.4-3] of 3.1.1."""
    with Paho(broker, name, 4) as p:
        p.publish(f"{name}/r", b"x", 1, retain=True)
        for _ in range(3):
            p.subscribe(f"{name}/r", qos=1)
            assert p.messages(1)[0].retain


def test_s41_retain_as_published_keeps_the_flag_live_and_offline(broker, name):
    """S-41, P10. [MQTT-3.3.1-12] [MQTT-3.3.1-13]"""
    keep = {"SessionExpiryInterval": 100}
    with Paho(broker, f"{name}p") as p:
        for flag in (False, True):
            client = f"{name}{flag}"
            with Paho(broker, client, props=keep) as s:
                s.subscribe(f"{name}/{flag}", qos=1, retainAsPublished=flag)
                p.publish(f"{name}/{flag}", b"live", 1, retain=True)
                assert [bool(m.retain) for m in s.messages(1)] == [flag]
            p.publish(f"{name}/{flag}", b"queued", 1, retain=True)
            with Paho(broker, client, clean=False, props=keep) as s:
                assert [bool(m.retain) for m in s.messages(1)] == [flag]


def test_s40_a_shared_subscription_gets_no_retained_messages(broker, name):
    """S-40."""
    with Paho(broker, name) as p:
        p.publish(f"{name}/r", b"x", 1, retain=True)
        assert p.subscribe(f"$share/g{name}/{name}/#", qos=1) == [1]
        p.nothing()
        p.publish(f"{name}/r", b"live", 1)
        assert payloads(p.messages(1)) == [b"live"]


def test_s49_no_local_keeps_own_messages_away_at_every_qos(broker, name):
    """S-49, P10. [MQTT-3.8.3-3]"""
    with Paho(broker, name) as p, Paho(broker, f"{name}other") as other:
        p.subscribe(f"{name}/nl", qos=2, noLocal=True)
        other.subscribe(f"{name}/nl", qos=2)
        for qos in (0, 1, 2):
            p.publish(f"{name}/nl", b"own", qos)
        assert len(other.messages(3)) == 3
        p.nothing()
        other.publish(f"{name}/nl", b"other's", 2)
        assert payloads(p.messages(1)) == [b"other's"]


def test_s44_every_one_of_many_retained_messages_comes(broker, name):
    """S-44: 3,000 matches through a window of 10, the SUBACK first, each once."""
    count = 3_000
    with wire.RawClient(broker) as p:
        p.open(f"{name}p")
        p.send(*(wire.publish(f"{name}/{n % 7}/{n}", b"%d" % n, 0, retain=True) for n in range(count)))
        p.publish(f"{name}/last", b"last", 1)
    with wire.RawClient(broker) as s:
        s.open(f"{name}s", props={"receive_maximum": 10})
        s.send(wire.subscribe(1, [(f"{name}/+/+", wire.options(1))]))
        assert s.recv().kind == wire.SUBACK
        got = s.messages(count)
        assert {int(m.payload) for m in got} == set(range(count))
        assert all(m.retain for m in got)
        assert s.drain() == []


def test_p09_a_retained_message_survives_its_publisher(broker, name):
    """P09: it is stored, not tied to the session of mosquitto_pub."""
    external.mosquitto_pub(broker, "-t", f"{name}/r", "-m", "kept", "-q", "1", "-r")
    assert retained(broker, name, f"{name}/r", 4) == [(f"{name}/r", b"kept", 1, True)]
    external.mosquitto_pub(broker, "-t", f"{name}/r", "-n", "-q", "1", "-r")
    assert retained(broker, name, f"{name}/r", 4) == []


def test_s11_a_retained_message_expires(broker, name):
    """S-11, S-12: the stored copy counts down and ends."""
    with Paho(broker, name) as p:
        p.publish(f"{name}/short", b"x", 1, retain=True, values={"MessageExpiryInterval": 1})
        p.publish(f"{name}/long", b"x", 1, retain=True, values={"MessageExpiryInterval": 1000})
        time.sleep(2.5)
        p.subscribe(f"{name}/+", qos=1)
        [got] = p.messages(1)
        assert got.topic == f"{name}/long"
        assert 1 <= got.properties.MessageExpiryInterval <= 998
        p.nothing()
