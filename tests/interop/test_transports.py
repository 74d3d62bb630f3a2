"""TLS, WebSocket, WebSocket over TLS and unix sockets with paho. (T01, T02, T03, T11)"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator

import paho.mqtt.client as mqtt
import pytest

from broker import Broker
from listeners import Listeners, certificates

WAIT_S = 30.0


FILES = "cert={folder}/own.pem&key={folder}/own.key"
LISTENERS = {
    "tls": f"tls://127.0.0.1:{{port}}?{FILES}",
    "mutual": f"tls://127.0.0.1:{{port}}?{FILES}&client_auth=required&ca={{folder}}/ca.pem",
    "ws": "ws://127.0.0.1:{port}/mqtt",
    "wss": f"wss://127.0.0.1:{{port}}/mqtt?{FILES}",
    "unix": "unix://{folder}/mqtt.sock",
}


@pytest.fixture(scope="module")
def served(only_ringmain: None, tmp_path_factory: pytest.TempPathFactory, shards: int) -> Iterator[Broker]:
    folder = tmp_path_factory.mktemp(f"transports-{shards}")
    certificates(folder)
    broker = Listeners(folder, {}, shards, LISTENERS).start()
    yield broker
    broker.stop()


def client(broker: Listeners, kind: str, name: str) -> mqtt.Client:
    transport = {"ws": "websockets", "wss": "websockets", "unix": "unix"}.get(kind, "tcp")
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, transport=transport, reconnect_on_failure=False)
    if kind in ("tls", "mutual", "wss"):
        context = ssl.create_default_context(cafile=f"{broker.folder}/ca.pem")
        if kind == "mutual":
            context.load_cert_chain(f"{broker.folder}/device.pem", f"{broker.folder}/device.key")
        made.tls_set_context(context)
    if kind == "unix":
        made.connect(f"{broker.folder}/mqtt.sock", 1)
    else:
        made.connect("127.0.0.1", broker.ports.get(kind, broker.port))
    return made


KINDS = ["tcp", "tls", "mutual", "ws", "wss", "unix"]


@pytest.mark.parametrize("to", KINDS)
@pytest.mark.parametrize("sender", ["tls", "wss", "unix"])
def test_messages_of_all_sizes_go_from_each_transport_to_each(served: Listeners, sender: str, to: str) -> None:
    sizes = [0, 1, 100, 125, 126, 4_000, 16_384, 65_536, 1_000_000]
    got: list[bytes] = []
    done, subscribed = threading.Event(), threading.Event()

    def on_message(_c: mqtt.Client, _u: object, message: mqtt.MQTTMessage) -> None:
        got.append(message.payload)
        if len(got) == len(sizes):
            done.set()

    receiver = client(served, to, f"{to}-receives-from-{sender}")
    receiver.on_message = on_message
    receiver.on_subscribe = lambda *_: subscribed.set()
    receiver.loop_start()
    topic = f"transports/{sender}/{to}"
    receiver.subscribe(topic, 1)
    assert subscribed.wait(WAIT_S), "SUBACK"
    publisher = client(served, sender, f"{sender}-sends-to-{to}")
    publisher.loop_start()
    for n, size in enumerate(sizes):
        publisher.publish(topic, bytes([n]) * size, 1).wait_for_publish(WAIT_S)
    assert done.wait(WAIT_S), [len(payload) for payload in got]
    assert got == [bytes([n]) * size for n, size in enumerate(sizes)]
    for each in (publisher, receiver):
        each.disconnect()
        each.loop_stop()
    served.check()


def test_who_has_no_certificate_or_the_wrong_path_is_refused(served: Listeners) -> None:
    context = ssl.create_default_context(cafile=f"{served.folder}/ca.pem")
    nobody = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "nobody", reconnect_on_failure=False)
    nobody.tls_set_context(context)
    ended = threading.Event()
    nobody.on_disconnect = lambda *_: ended.set()
    nobody.on_connect = lambda *_: pytest.fail("it came in without a certificate")
    try:
        nobody.connect("127.0.0.1", served.ports["mutual"])
        nobody.loop_start()
        assert ended.wait(WAIT_S)
        nobody.loop_stop()
    except OSError:
        pass  # the alert came before connect() returned
    lost = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "lost", transport="websockets", reconnect_on_failure=False)
    lost.ws_set_options(path="/other")
    with pytest.raises(mqtt.WebsocketConnectionError):
        lost.connect("127.0.0.1", served.ports["ws"])
    served.check()
