"""paho-mqtt in a shape that tests read well: every call waits for its answer, everything received is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from broker import Broker
from wire import QUIET_S, WAIT_S


def props(packet_type: int, values: dict[str, Any] | None) -> Properties | None:
    if not values:
        return None
    out = Properties(packet_type)
    for name, value in values.items():
        setattr(out, name, value)
    return out


class Paho:
    """One paho client. Used as a context manager; leaving it disconnects."""

    def __init__(self, broker: Broker, client_id: str = "", version: int = 5, clean: bool = True, **options: Any):
        """options: keepalive, props (CONNECT), will=(topic, payload, qos, retain[, properties]), manual_ack."""
        self.broker, self.version, self.clean = broker, version, clean
        self.client_id = client_id
        self.keepalive = options.pop("keepalive", 60)
        self.connect_props = options.pop("props", None)
        will = options.pop("will", None)
        extra = {} if version == 5 else {"clean_session": clean}
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id,
            protocol=version,
            manual_ack=options.pop("manual_ack", False),
            reconnect_on_failure=False,
            **extra,
        )
        assert not options, options
        if will:
            topic, payload, qos, retain, *more = will
            will_props = props(PacketTypes.WILLMESSAGE, more[0]) if more else None
            self.mqtt.will_set(topic, payload, qos, retain, will_props)
        self.changed = threading.Condition()
        self.received: list[mqtt.MQTTMessage] = []
        self.connacks: list[tuple[bool, Any, Any]] = []
        self.disconnects: list[Any] = []
        self.answers: dict[int, list[Any]] = {}
        self.published: dict[int, Any] = {}
        self.mqtt.on_connect = lambda c, u, flags, reason, p: self._note(
            lambda: self.connacks.append((flags.session_present, reason, p))
        )
        self.mqtt.on_disconnect = lambda c, u, flags, reason, p: self._note(lambda: self.disconnects.append(reason))
        self.mqtt.on_message = lambda c, u, message: self._note(lambda: self.received.append(message))
        self.mqtt.on_subscribe = lambda c, u, mid, reasons, p: self._note(lambda: self.answers.update({mid: reasons}))
        self.mqtt.on_unsubscribe = lambda c, u, mid, reasons, p: self._note(
            lambda: self.answers.update({mid: reasons if isinstance(reasons, list) else [reasons]})
        )
        self.mqtt.on_publish = lambda c, u, mid, reason, p: self._note(lambda: self.published.update({mid: reason}))

    def _note(self, change: Callable[[], Any]) -> None:
        with self.changed:
            change()
            self.changed.notify_all()

    def wait(self, done: Callable[[], Any], what: str, wait: float = WAIT_S) -> Any:
        with self.changed:
            outcome = self.changed.wait_for(done, wait)
            assert outcome, f"{self.client_id}: waited for {what}; got {self.texts()}"
            return outcome

    def __enter__(self) -> Paho:
        return self.connect()

    def __exit__(self, *_: Any) -> None:
        self.disconnect()

    def connect(self, clean: bool | None = None) -> Paho:
        """Connects and waits for the CONNACK, which must be a success."""
        self.attempt(clean)
        session_present, reason, _ = self.connacks[-1]
        assert not reason.is_failure, f"CONNECT refused: {reason}"
        return self

    def attempt(self, clean: bool | None = None) -> Any:
        """Connects and waits for the CONNACK; its reason."""
        had = len(self.connacks)
        clean = self.clean if clean is None else clean
        kwargs = {}
        if self.version == 5:
            kwargs = {"clean_start": clean, "properties": props(PacketTypes.CONNECT, self.connect_props)}
        self.mqtt.connect(self.broker.host, self.broker.port, self.keepalive, **kwargs)
        self.mqtt.loop_start()
        self.wait(lambda: len(self.connacks) > had, "CONNACK")
        return self.connacks[-1][1]

    @property
    def session_present(self) -> bool:
        return self.connacks[-1][0]

    @property
    def connack_props(self) -> Any:
        return self.connacks[-1][2]

    def disconnect(self, reason: int | None = None, values: dict[str, Any] | None = None) -> None:
        if self.version == 5 and (reason is not None or values):
            from paho.mqtt.reasoncodes import ReasonCode

            code = ReasonCode(PacketTypes.DISCONNECT, identifier=reason or 0)
            self.mqtt.disconnect(code, props(PacketTypes.DISCONNECT, values))
        else:
            self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def drop(self) -> None:
        """Ends the connection as a lost network does: no DISCONNECT."""
        self.mqtt.loop_stop()
        sock = self.mqtt.socket()
        if sock:
            sock.close()
        self.mqtt._sock = None  # noqa: SLF001 - paho has no public way to lose a connection

    def subscribe(self, *filters: Any, qos: int = 0, values: dict[str, Any] | None = None, **options: Any) -> list[int]:
        """options: noLocal, retainAsPublished, retainHandling. The reason codes of the SUBACK."""
        if self.version == 5:
            wanted = [(f, SubscribeOptions(qos, **options)) if isinstance(f, str) else f for f in filters]
            _, mid = self.mqtt.subscribe(wanted, properties=props(PacketTypes.SUBSCRIBE, values))
        else:
            _, mid = self.mqtt.subscribe([(f, qos) if isinstance(f, str) else f for f in filters])
        return [reason.value for reason in self.wait(lambda: self.answers.pop(mid, None), "SUBACK")]

    def unsubscribe(self, *filters: str) -> list[int]:
        _, mid = self.mqtt.unsubscribe(list(filters))
        with self.changed:
            assert self.changed.wait_for(lambda: mid in self.answers, WAIT_S), "waited for UNSUBACK"
            return [reason.value for reason in self.answers.pop(mid)]

    def publish(
        self, topic: str, payload: Any = b"", qos: int = 0, retain: bool = False, values: dict[str, Any] | None = None
    ) -> int:
        """Publishes, waits for the end of the handshake; the reason code of its last answer."""
        info = self.mqtt.publish(topic, payload, qos, retain, props(PacketTypes.PUBLISH, values))
        assert info.rc == mqtt.MQTT_ERR_SUCCESS, mqtt.error_string(info.rc)
        return self.wait(lambda: self.published.get(info.mid), "PUBACK or PUBCOMP").value

    def messages(self, count: int, wait: float = WAIT_S) -> list[mqtt.MQTTMessage]:
        """Waits for that many messages and takes all that came: more than that fails the test."""
        self.wait(lambda: len(self.received) >= count, f"{count} messages", wait)
        with self.changed:
            got, self.received[:] = list(self.received), []
        assert len(got) == count, f"expected {count} messages: {[(m.topic, m.payload[:40]) for m in got]}"
        return got

    def nothing(self, quiet: float = QUIET_S) -> None:
        """No message has come, and none comes for a while."""
        time.sleep(quiet)
        assert not self.received, self.texts()

    def texts(self) -> list[tuple[str, bytes]]:
        return [(m.topic, m.payload[:40]) for m in self.received]

    def closed(self, wait: float = WAIT_S) -> Any:
        """Waits until the broker ended the connection; the reason."""
        return self.wait(lambda: self.disconnects and self.disconnects[-1], "the end of the connection", wait)


def payloads(messages: list[mqtt.MQTTMessage]) -> list[bytes]:
    return [m.payload for m in messages]
