"""Every client library talks to every other through the broker, at every quality of service and version."""

from __future__ import annotations

import pytest

import external
import wire

VERSIONS = [pytest.param(3, id="v31"), pytest.param(4, id="v311"), pytest.param(5, id="v5")]


@pytest.mark.parametrize("sub_qos", [0, 1, 2])
@pytest.mark.parametrize("pub_qos", [0, 1, 2])
@pytest.mark.parametrize("level", VERSIONS)
def test_p01_delivered_qos_is_the_lesser_of_published_and_granted(broker, name, level, pub_qos, sub_qos):
    """P01, W01 (mosquitto_pub -V mqttv31), W02, W03; S-42. [MQTT-3.8.4-8]"""
    with external.Subscriber("mosquitto", broker, level, f"{name}s", f"{name}/+", sub_qos, 3) as subscriber:
        sent = external.publish("mosquitto", broker, level, f"{name}p", f"{name}/x", pub_qos, 3)
        got = [subscriber.message() for _ in sent]
        subscriber.finish()
    assert [m["payload"] for m in got] == sent
    assert {m["qos"] for m in got} == {min(pub_qos, sub_qos)}
    assert not any(m["retain"] for m in got)


@pytest.mark.parametrize("subscriber", external.CLIENTS)
@pytest.mark.parametrize("publisher", external.CLIENTS)
def test_p01_p07_every_client_understands_every_other(broker, name, version, publisher, subscriber):
    """P01, P07: three qualities of service; on v5 all publish properties arrive unaltered and in order.

    [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
    """
    rich = version == 5
    with external.Subscriber(subscriber, broker, version, f"{name}s", f"{name}/#", 2, 6) as receiving:
        for qos in (0, 1, 2):
            client_id = f"{name}p{qos}"
            sent = external.publish(publisher, broker, version, client_id, f"{name}/a/b", qos, 2, properties=rich)
            for payload in sent:
                got = receiving.message()
                assert (got["topic"], got["payload"], got["qos"]) == (f"{name}/a/b", payload, qos)
                if rich:
                    expect_properties(got, publisher)
        receiving.finish()


def expect_properties(got: dict, publisher: str) -> None:
    expected = dict(external.PROPERTIES)
    if publisher == "mosquitto":
        expected["correlation"] = b"corr".hex()
    assert {key: got.get(key) for key in expected} == expected
    assert 1 <= got["expiry"] <= 600


@pytest.mark.parametrize("subscriber", external.CLIENTS)
def test_p09_a_retained_message_of_one_client_reaches_a_later_one(broker, name, version, subscriber):
    """P09, S-41: set with one library, found by every other, with RETAIN=1. [MQTT-3.3.1-6]"""
    for publisher in external.CLIENTS:
        topic = f"{name}/{publisher}"
        [payload] = external.publish(publisher, broker, version, f"{name}{publisher}", topic, 1, retain=True)
        with external.Subscriber(subscriber, broker, version, f"{name}s", topic, 1, 1) as receiving:
            got = receiving.message()
            receiving.finish()
        assert (got["topic"], got["payload"], got["qos"], got["retain"]) == (topic, payload, 1, True)


@pytest.mark.parametrize("publisher", [3, 4, 5], ids=["from31", "from311", "from5"])
def test_versions_mix_and_v3_subscribers_get_no_properties(broker, name, publisher):
    """S-07, W01-W03: subscribers of all versions get the same message; only v5 gets properties."""
    with wire.RawClient(broker, 3) as v31, wire.RawClient(broker, 4) as v311, wire.RawClient(broker, 5) as v5:
        for client in (v31, v311, v5):
            client.open(f"{name}{client.version}")
            client.subscribe(f"{name}/t", qos=2)
        with wire.RawClient(broker, publisher) as sender:
            sender.open(f"{name}p")
            props = {"content_type": "x", "user_property": [("a", "b")]} if publisher == 5 else None
            sender.publish(f"{name}/t", b"hello", qos=2, **({"props": props} if props else {}))
        for client in (v31, v311, v5):
            [got] = client.messages(1)
            assert (got.topic, got.payload, got.qos) == (f"{name}/t", b"hello", 2)
            if client.version == 5 and publisher == 5:
                assert got.props == {"content_type": ["x"], "user_property": [("a", "b")]}
            else:
                assert not got.props
