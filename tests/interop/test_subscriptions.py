"""Topic matching, shared subscriptions, overlap, subscription identifiers, SUBSCRIBE and UNSUBSCRIBE themselves."""

from __future__ import annotations

import contextlib
import time

import pytest

import config_keys as keys
import external
import wire
from paho_client import Paho, payloads

# (filter, topic, matches); the prefix {n} keeps tests apart, rows without it are unique enough by themselves.
MATCHING = [
    ("{n}/sport/#", "{n}/sport", True),
    ("{n}/sport/#", "{n}/sport/", True),
    ("{n}/sport/#", "{n}/sport/a/b", True),
    ("{n}/sport/#", "{n}/sports", False),
    ("{n}/+", "{n}/", True),
    ("{n}/+", "{n}", False),
    ("{n}/+", "{n}/a/b", False),
    ("{n}/+/+", "{n}//", True),
    ("{n}/+/c", "{n}//c", True),
    ("{n}/a//b", "{n}/a//b", True),
    ("{n}/a//b", "{n}/a/b", False),
    ("{n}/a/b", "{n}/a//b", False),
    ("{n}/a/+/b", "{n}/a//b", True),
    ("/{n}", "/{n}", True),
    ("/{n}", "{n}", False),
    ("{n}", "/{n}", False),
    ("+/{n}", "/{n}", True),
    ("+/{n}/#", "/{n}", True),
    ("{n}/A", "{n}/a", False),
    ("{n}/\u00e9", "{n}/e\u0301", False),
    ("{n}/\u00e9", "{n}/\u00e9", True),
    ("{n}/a b", "{n}/a b", True),
    ("{n}/\ufeffx", "{n}/\ufeffx", True),
    ("{n}/\ufeffx", "{n}/x", False),
    ("{n}/\U0001f980/+", "{n}/\U0001f980/z", True),
    ("{n}/+/x/#", "{n}/q/x", True),
    ("{n}/+/x/#", "{n}/q/y", False),
    ("{n}/$SYS", "{n}/$SYS", True),
    ("{n}/#", "{n}/$dollar", True),
    ("#", "{n}", True),
    ("+", "{n}", True),
    ("+/+", "{n}", False),
]


@pytest.mark.parametrize(("topic_filter", "topic", "matches"), MATCHING)
def test_s50_topic_matching(broker, name, version, topic_filter, topic, matches):
    """S-50, P12. [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-4]"""
    topic_filter, topic = topic_filter.replace("{n}", name), topic.replace("{n}", name)
    with wire.RawClient(broker, version) as s, wire.RawClient(broker, version) as p:
        s.open(f"{name}s")
        p.open(f"{name}p")
        s.subscribe(topic_filter, f"end{name}", qos=1)
        p.publish(topic, b"x", 1)
        p.publish(f"end{name}", b"end", 1)  # the order of one publisher is kept (S-81), so this one comes last
        mine = [m for m in until_end(s, name) if m.topic == topic]
        assert bool(mine) is matches


def until_end(s, name):
    """The messages before the one on end{name}; other tests' retained ones may be among them."""
    got = []
    while True:
        [message] = s.messages(1)
        if message.topic == f"end{name}":
            return got
        got.append(message)


@pytest.mark.parametrize("topic_filter", ["#", "+/{n}", "+/#", "$share/{n}/#", "$share/{n}/+/{n}"])
def test_s51_a_leading_wildcard_never_matches_a_dollar_topic(broker, name, version, topic_filter):
    """S-51: live and retained. [MQTT-4.7.2-1]"""
    topic = f"$app/{name}"
    with wire.RawClient(broker, version) as s, wire.RawClient(broker, version) as p:
        s.open(f"{name}s")
        p.open(f"{name}p")
        p.publish(topic, b"retained", 1, retain=True)
        s.subscribe(topic_filter.replace("{n}", name), f"end{name}", qos=1)
        p.publish(topic, b"live", 1)
        p.publish(f"end{name}", b"end", 1)
        assert not [m for m in until_end(s, name) if m.topic.startswith("$")]
        s.drain()  # a group's own copy of the end
        s.subscribe(f"$app/{name}/#", qos=1)
        assert [m.payload for m in s.messages(1)] == [b"retained"]
        p.publish(topic, b"", 1, retain=True)


@pytest.mark.parametrize("bad", ["a#", "#/a", "a+/b", "+a", "a/#/b", "a/##", "a/b+", "++"])
def test_s52_an_invalid_filter_is_refused(broker, name, bad):
    """S-52: SUBACK 0x8F, or a close for a malformed packet. [MQTT-4.7.1-1] [MQTT-4.7.1-2]"""
    with wire.RawClient(broker) as s:
        s.open(name)
        s.send(wire.subscribe(1, [(bad, 0)]))
        got = s.recv()
        if got.kind == wire.SUBACK:
            assert got.reasons == [0x8F]
        else:
            assert got.kind == wire.DISCONNECT and got.reason in (0x81, 0x82, 0x8F)
    with wire.RawClient(broker, 4) as s:
        s.open(name)
        s.send(wire.subscribe(1, [(bad, 0)], version=4))
        try:
            assert s.recv().reasons == [0x80]
        except wire.Closed:
            pass


@pytest.mark.parametrize("bad", ["", "a\0b"])
def test_s52_an_empty_filter_or_a_null_character_closes_or_is_refused(broker, name, version, bad):
    """S-52. [MQTT-4.7.3-1] [MQTT-4.7.3-2]"""
    with wire.RawClient(broker, version) as s:
        s.open(name)
        s.send(wire.subscribe(1, [(bad, 0)], version=version))
        try:
            got = s.recv()
        except wire.Closed:
            assert version == 4
            return
        assert (got.kind, got.reasons) in ((wire.SUBACK, [0x8F]), (wire.SUBACK, [0x80])) or got.reason in (0x81, 0x82)


@pytest.mark.parametrize("bad", ["a/#", "a/+", "+", "#"])
def test_s52_a_publish_topic_with_a_wildcard_closes(broker, name, version, bad):
    """S-52. [MQTT-3.3.2-2]"""
    with wire.RawClient(broker, version) as p:
        p.open(name)
        p.send(wire.publish(bad, b"x", 1, 1, version=version))
        try:
            got = p.recv()
        except wire.Closed:
            assert version == 4
            return
        assert version == 5 and got.reason in (0x81, 0x82, 0x90)


def test_p13_a_thousand_filters_get_a_thousand_codes_in_order(broker, name):
    """P13: valid ones of every QoS and invalid ones mixed. [MQTT-3.8.4-6] [MQTT-3.9.3-1]"""
    filters: list[tuple[str, int]] = []
    expected = []
    for n in range(1_000):
        bad = n % 10 == 9
        filters.append((f"$share/{name}" if bad else f"{name}/{n}/+", n % 3))
        expected.append(0x8F if bad else n % 3)
    with wire.RawClient(broker) as s:
        s.open(name)
        assert s.subscribe(*filters).reasons == expected
        s.publish(f"{name}/3/x", b"0", 2)
        s.publish(f"{name}/998/x", b"2", 2)
        assert [(m.payload, m.qos) for m in s.messages(2)] == [(b"0", 0), (b"2", 2)]


def test_ten_thousand_subscriptions_of_one_client(broker, name, version):
    """P13: all serve, all can be given up."""
    count, step = 10_000, 500
    with wire.RawClient(broker, version) as s:
        s.open(name)
        for start in range(0, count, step):
            s.subscribe(*(f"{name}/{n}" for n in range(start, start + step)), qos=1)
        for n in range(0, count, 97):
            s.publish(f"{name}/{n}", b"%d" % n, 1)
        assert [int(m.payload) for m in s.messages(len(range(0, count, 97)))] == list(range(0, count, 97))
        for start in range(0, count, step):
            s.unsubscribe(*(f"{name}/{n}" for n in range(start, start + step)))
        s.publish(f"{name}/97", b"x", 1)
        assert s.drain() == []


def test_p14_unsubscribe_compares_exactly_and_tells_unknown_ones(broker, name):
    """P14: 0x11; `a/+` and `a/b` are independent. [MQTT-3.10.4-1] [MQTT-3.11.3-1]"""
    with wire.RawClient(broker) as s:
        s.open(name)
        s.subscribe(f"{name}/+", qos=1)
        assert s.unsubscribe(f"{name}/b", f"{name}/+", f"{name}/+").reasons == [0x11, 0, 0x11]
        s.subscribe(f"{name}/+", f"{name}/b", qos=1)
        assert s.unsubscribe(f"{name}/b").reasons == [0]
        s.publish(f"{name}/b", b"x", 1)
        assert [m.payload for m in s.messages(1)] == [b"x"]
        assert s.unsubscribe(f"{name}/+").reasons == [0]
        s.publish(f"{name}/b", b"y", 1)
        assert s.drain() == []


def test_s55_a_publish_after_suback_matches_and_one_after_unsuback_does_not(broker, name, version):
    """S-55, seen from outside: 200 rounds through another connection. [MQTT-3.10.4-2]"""
    with wire.RawClient(broker, version) as s, wire.RawClient(broker, version) as p:
        s.open(f"{name}s")
        p.open(f"{name}p")
        s.subscribe(f"{name}/end", qos=1)
        for n in range(200):
            s.subscribe(f"{name}/{n}", qos=0)
            p.publish(f"{name}/{n}", b"in", 0)
            p.publish(f"{name}/end", b"end", 1)
            assert [m.payload for m in s.messages(2)] == [b"in", b"end"]
            s.unsubscribe(f"{name}/{n}")
            p.publish(f"{name}/{n}", b"out", 0)
            p.publish(f"{name}/end", b"end", 1)
            assert [m.payload for m in s.messages(1)] == [b"end"]


def test_s47_overlapping_filters_give_one_copy_with_all_identifiers(broker, name):
    """S-47, P11: at the highest granted QoS. [MQTT-3.3.4-2] [MQTT-3.3.4-3]"""
    with wire.RawClient(broker) as s:
        s.open(name)
        s.subscribe(f"{name}/#", qos=0, props={"subscription_identifier": 1})
        s.subscribe(f"{name}/a", qos=2, props={"subscription_identifier": 268_435_455})
        s.subscribe(f"{name}/+", qos=1)
        s.publish(f"{name}/a", b"x", 2)
        [got] = s.messages(1)
        assert got.qos == 2
        assert sorted(got.props["subscription_identifier"]) == [1, 268_435_455]
        assert s.drain() == []


def test_s48_retained_and_queued_messages_carry_the_identifier(broker, name):
    """S-48: and a SUBSCRIBE without one removes it."""
    keep = {"session_expiry_interval": 100}
    with Paho(broker, f"{name}p") as p:
        p.publish(f"{name}/a", b"retained", 1, retain=True)
        with wire.RawClient(broker) as s:
            s.open(name, props=keep)
            s.subscribe(f"{name}/a", qos=1, props={"subscription_identifier": 42})
            assert s.messages(1)[0].props["subscription_identifier"] == [42]
        p.publish(f"{name}/a", b"queued", 1)
        with wire.RawClient(broker) as s:
            s.open(name, clean=False, props=keep)
            assert s.messages(1)[0].props["subscription_identifier"] == [42]
            s.subscribe((f"{name}/a", wire.options(1, rh=2)))
            p.publish(f"{name}/a", b"live", 1)
            assert s.messages(1)[0].props == {}


@pytest.mark.parametrize("form", ["$share/g{n}/{n}/#", "$queue/{n}/#"])
def test_h01_h02_each_message_goes_to_exactly_one_member(broker, name, version, form):
    """H01, H02, S-61, D1: on v3 too; all members get some."""
    topic_filter = form.replace("{n}", name)
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(Paho(broker, f"{name}{n}", version)) for n in range(4)]
        for member in members:
            assert member.subscribe(topic_filter, qos=1) == [1]
        p = stack.enter_context(Paho(broker, f"{name}p", version))
        for n in range(200):
            p.publish(f"{name}/x", b"%d" % n, 1)
        shares = settle(members, 200)
    assert sorted(int(x) for share in shares for x in share) == list(range(200))
    assert all(shares), [len(share) for share in shares]


def settle(members, count):
    """Waits for `count` messages at all members together, then for silence; their payloads."""
    deadline = time.monotonic() + wire.WAIT_S
    while sum(len(m.received) for m in members) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(wire.QUIET_S)
    return [payloads(m.received) for m in members]


def test_s61_a_group_and_a_plain_subscription_of_one_client_are_independent(broker, name):
    """S-61: two copies."""
    with Paho(broker, name) as s:
        s.subscribe(f"$share/g{name}/{name}/x", qos=1)
        s.subscribe(f"{name}/x", qos=1)
        s.publish(f"{name}/x", b"twice", 1)
        assert payloads(s.messages(2)) == [b"twice"] * 2
        s.nothing()


def test_s60_groups_of_one_name_and_other_filters_are_other_groups(broker, name):
    """S-60, S-61: every group gets every message once."""
    with Paho(broker, f"{name}a") as a, Paho(broker, f"{name}b") as b, Paho(broker, f"{name}c") as c:
        a.subscribe(f"$share/g{name}/{name}/x", qos=1)
        b.subscribe(f"$share/g{name}/{name}/+", qos=1)
        c.subscribe(f"$share/h{name}/{name}/x", qos=1)
        a.publish(f"{name}/x", b"one", 1)
        assert payloads(a.messages(1)) == payloads(b.messages(1)) == payloads(c.messages(1)) == [b"one"]


@pytest.mark.parametrize("bad", ["$share/g", "$share//a", "$share/g+/a", "$share/g#/a", "$share/g/", "$share/#/a"])
def test_s60_an_invalid_shared_filter_is_refused(broker, name, bad):
    """S-60. [MQTT-4.8.2-1] [MQTT-4.8.2-2]"""
    with wire.RawClient(broker) as s:
        s.open(name)
        s.send(wire.subscribe(1, [(bad, 1)]))
        got = s.recv()
        assert (got.kind, got.reasons) == (wire.SUBACK, [0x8F]) or got.reason in (0x81, 0x82, 0x8F)


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_s62_a_member_gets_the_lesser_qos(broker, name, granted):
    """S-62. [MQTT-4.8.2-3]"""
    with Paho(broker, name) as s:
        s.subscribe(f"$share/g{name}/{name}/x", qos=granted)
        for qos in (0, 1, 2):
            s.publish(f"{name}/x", b"%d" % qos, qos)
        assert [m.qos for m in s.messages(3)] == [min(q, granted) for q in (0, 1, 2)]


def test_s63_an_unacknowledged_message_of_an_ended_member_goes_to_another(broker, name):
    """S-63. [MQTT-4.8.2-4]"""
    with Paho(broker, f"{name}p") as p, wire.RawClient(broker) as first, wire.RawClient(broker) as second:
        first.open(f"{name}1")
        first.subscribe(f"$share/g{name}/{name}/x", qos=1)
        p.publish(f"{name}/x", b"unacknowledged", 1)
        assert first.take(wire.PUBLISH).payload == b"unacknowledged"
        second.open(f"{name}2")
        second.subscribe(f"$share/g{name}/{name}/x", qos=1)
        first.abort()
        assert second.messages(1)[0].payload == b"unacknowledged"


def test_s65_a_refusing_acknowledgement_is_not_redispatched(broker, name):
    """S-65. [MQTT-4.8.2-6]"""
    with Paho(broker, f"{name}p") as p, wire.RawClient(broker) as s, wire.RawClient(broker) as other:
        s.open(f"{name}1")
        s.subscribe(f"$share/g{name}/{name}/x", qos=1)
        p.publish(f"{name}/x", b"refused", 1)
        got = s.take(wire.PUBLISH)
        other.open(f"{name}2")
        other.subscribe(f"$share/g{name}/{name}/x", qos=1)
        s.send(wire.ack(wire.PUBACK, got.packet_id, 0x80))
        assert other.drain() == s.drain() == []


def test_s66_offline_members_are_skipped_while_one_is_online(broker, name):
    """S-66."""
    keep = {"SessionExpiryInterval": 100}
    with Paho(broker, f"{name}a", props=keep) as a:
        a.subscribe(f"$share/g{name}/{name}/x", qos=1)
    with Paho(broker, f"{name}b") as b:
        b.subscribe(f"$share/g{name}/{name}/x", qos=1)
        for n in range(20):
            b.publish(f"{name}/x", b"%d" % n, 1)
        assert [int(x) for x in payloads(b.messages(20))] == list(range(20))
    with Paho(broker, f"{name}a", clean=False, props=keep) as a:
        a.nothing()


def test_s67_members_may_come_and_go_without_loss(broker, name):
    """S-67 in small: members leave cleanly under load and the union of what all got is everything."""
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(Paho(broker, f"{name}{n}")) for n in range(4)]
        for member in members:
            member.subscribe(f"$share/g{name}/{name}/x", qos=1)
        p = stack.enter_context(Paho(broker, f"{name}p"))
        for n in range(300):
            if n in (100, 200):
                members[n // 100].unsubscribe(f"$share/g{name}/{name}/x")
            p.publish(f"{name}/x", b"%d" % n, 1)
        shares = settle(members, 300)
    assert sorted({int(x) for share in shares for x in share}) == list(range(300))


def test_h01_mosquitto_sub_shares(broker, name, version):
    """H01: with mosquitto_sub as the members."""
    with contextlib.ExitStack() as stack:
        subs = [
            stack.enter_context(
                external.Subscriber("mosquitto", broker, version, f"{name}{n}", f"$share/g{name}/{name}/x", 1, 1)
            )
            for n in range(2)
        ]
        with Paho(broker, f"{name}p", version) as p:
            for n in range(2):
                # A member leaves once it has one message (-C 1), so the second must go to the other.
                p.publish(f"{name}/x", b"%d" % n, 1)
                ended = next(s for s in wait_any(subs))
                subs.remove(ended)
                assert ended.message()["payload"] == str(n)


def wait_any(processes):
    deadline = time.monotonic() + external.PROCESS_WAIT_S
    while time.monotonic() < deadline:
        for process in processes:
            if process.child.poll() is not None:
                yield process
                return
        time.sleep(0.02)
    raise AssertionError("no member got the message")


def test_w15_levels_up_to_the_limit(broker_with, name):
    """W15: 128 levels serve; one more is refused with 0x90 and 0x8F."""
    broker = broker_with({keys.MAX_TOPIC_LEVELS: 128})
    with wire.RawClient(broker) as s:
        s.open(name)
        deep = "/".join(["l"] * 128)
        assert s.subscribe(deep, f"{deep}/l", qos=1).reasons == [1, 0x8F]
        s.publish(deep, b"deep", 1)
        assert s.messages(1)[0].topic == deep
        s.send(wire.publish(f"{deep}/l", b"deeper", 1, 9))
        assert s.recv().reason == 0x90


def test_w15_the_default_allows_128_levels(broker, name, version):
    """W15."""
    deep = "/".join([name] + ["l"] * 127)
    with wire.RawClient(broker, version) as s:
        s.open(name)
        s.subscribe(deep, "/".join([name] + ["+"] * 127), f"{name}/#", qos=1)
        s.publish(deep, b"deep", 1)
        assert s.messages(1)[0].topic == deep


@pytest.mark.parametrize("length", [65_534, 65_535])
def test_w15_a_topic_of_65535_bytes_is_delivered(broker_with, name, version, length):
    """W15: to the very filter and through `#`; retained too. [MQTT-4.7.3-3]"""
    broker = broker_with({keys.MAX_PACKET_SIZE: 1_048_576})
    topic = name + "x" * (length - len(name))
    with wire.RawClient(broker, version) as s:
        s.open(name)
        s.subscribe(topic, qos=1)
        s.publish(topic, b"long", 1, retain=True)
        assert s.messages(1)[0].topic == topic
        s.subscribe("#", qos=1)
        assert s.messages(1)[0].topic == topic
