"""Clients that nobody here wrote, as processes with one face. See clients/README.md."""

from __future__ import annotations

import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time
from typing import Any

from broker import Broker
from wire import WAIT_S

HERE = pathlib.Path(__file__).parent
RUMQTTC = os.environ.get("RUMQTTC_CLIENT", str(HERE / "rumqttc-client/target/debug/rumqttc-client"))
CLIENTS = ["mosquitto", "paho", "gmqtt", "mqttjs", "rumqttc"]
MOSQUITTO_VERSION = {3: "mqttv31", 4: "mqttv311", 5: "mqttv5"}
DRIVERS = {
    "paho": [sys.executable, str(HERE / "clients/paho_client.py")],
    "gmqtt": [sys.executable, str(HERE / "clients/gmqtt_client.py")],
    "mqttjs": ["node", str(HERE / "clients/mqttjs_client.js")],
    "rumqttc": [RUMQTTC],
}
# What `--properties` sets. The expiry is compared apart: the broker counts it down.
PROPERTIES: dict[str, Any] = {
    "format": 1,
    "content_type": "text/plain",
    "response_topic": "reply/to/me",
    "correlation": "c0ffee00",
    "user": [["k", "1"], ["k", "3"], ["other", "2"]],
}
# A start of an interpreter on a loaded machine takes its time.
PROCESS_WAIT_S = 60.0


class Process:
    """A child whose lines of output are read as they come. Used as a context manager: the end kills it by its pid."""

    def __init__(self, command: list[str]):
        self.command = command
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.log: list[str] = []
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",  # mosquitto_sub prints binary data as it is
            cwd=HERE,
        )
        self.pump = threading.Thread(target=self._pump, daemon=True)
        self.pump.start()

    def _pump(self) -> None:
        assert self.child.stdout
        for line in self.child.stdout:
            self.log.append(line)
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        self.pump.join()

    def explain(self, what: str) -> str:
        return f"{what}: {' '.join(self.command)}\n{''.join(self.log[-40:])}"

    def line(self, wait: float = PROCESS_WAIT_S) -> str:
        try:
            got = self.lines.get(timeout=wait)
        except queue.Empty:
            raise AssertionError(self.explain("no output")) from None
        assert got is not None, self.explain("ended early")
        return got

    def until(self, *texts: str, wait: float = PROCESS_WAIT_S) -> str:
        """Reads lines until one has one of the texts."""
        deadline = time.monotonic() + wait
        while True:
            got = self.line(max(0.0, deadline - time.monotonic()))
            if any(text in got for text in texts):
                return got

    def finish(self, wait: float = PROCESS_WAIT_S) -> None:
        try:
            status = self.child.wait(wait)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.explain("did not end")) from None
        assert status == 0, self.explain(f"ended with status {status}")


class Subscriber(Process):
    """A subscribed client. The constructor returns once the SUBACK has come."""

    def __init__(self, client: str, broker: Broker, version: int, client_id: str, topic: str, qos: int, count: int):
        self.client = client
        if client == "mosquitto":
            command = ["stdbuf", "-oL", "mosquitto_sub", "-d", "-h", broker.host, "-p", str(broker.port)]
            command += ["-V", MOSQUITTO_VERSION[version], "-i", client_id, "-t", topic, "-q", str(qos)]
            command += ["-C", str(count), "-F", "MSG|%t|%p|%q|%r|%F|%E|%C|%R|%D|%P"]
        else:
            command = driver(client, "sub", broker, version, client_id, topic, qos, count)
        super().__init__(command)
        self.marker = "MSG|" if client == "mosquitto" else "{"
        self.early: list[str] = []  # a retained message may come before the SUBACK
        while "READY" not in (line := self.line()) and "Subscribed (mid" not in line:
            if line.startswith(self.marker):
                self.early.append(line)

    def message(self) -> dict[str, Any]:
        line = self.early.pop(0) if self.early else self.until(self.marker)
        if self.client != "mosquitto":
            return json.loads(line)
        _, topic, payload, qos, retain, fmt, expiry, content, response, correlation, user = line.split("|")
        out: dict[str, Any] = {"topic": topic, "payload": payload, "qos": int(qos), "retain": retain == "1"}
        found = {
            "format": int(fmt) if fmt else None,
            "expiry": int(expiry) if expiry else None,
            "content_type": content,
            "response_topic": response,
            "correlation": correlation.encode("utf-8", "surrogateescape").hex(),
            "user": [pair.split(":", 1) for pair in user.split()],
        }
        return out | {name: value for name, value in found.items() if value}


def driver(client: str, role: str, broker: Broker, version: int, client_id: str, topic: str, qos: int, n: int) -> list:
    return [
        *DRIVERS[client],
        role,
        *("--port", str(broker.port), "--version", str(version), "--id", client_id),
        *("--topic", topic, "--qos", str(qos), "--count", str(n)),
    ]


def publish(
    client: str,
    broker: Broker,
    version: int,
    client_id: str,
    topic: str,
    qos: int,
    count: int = 1,
    retain: bool = False,
    properties: bool = False,
) -> list[str]:
    """Publishes `count` messages and waits for the end of the process; the payloads it sent."""
    payloads = [f"{client_id}-q{qos}-{n}" for n in range(count)]
    if client != "mosquitto":
        command = driver(client, "pub", broker, version, client_id, topic, qos, count)
        command += ["--retain"] * retain + ["--properties"] * properties
        with Process(command) as process:
            process.finish()
        return payloads
    base = ["mosquitto_pub", "-h", broker.host, "-p", str(broker.port), "-V", MOSQUITTO_VERSION[version]]
    base += ["-i", client_id, "-t", topic, "-q", str(qos)] + ["-r"] * retain
    if properties:
        for words in (
            ["payload-format-indicator", "1"],
            ["message-expiry-interval", "600"],
            ["content-type", PROPERTIES["content_type"]],
            ["response-topic", PROPERTIES["response_topic"]],
            ["correlation-data", "corr"],
            *(["user-property", *pair] for pair in PROPERTIES["user"]),
        ):
            base += ["-D", "PUBLISH", *words]
    for payload in payloads:
        with Process([*base, "-m", payload]) as process:
            process.finish()
    return payloads


def mosquitto_pub(broker: Broker, *arguments: str, version: int = 4) -> None:
    command = ["mosquitto_pub", "-h", broker.host, "-p", str(broker.port), "-V", MOSQUITTO_VERSION[version]]
    with Process([*command, *arguments]) as process:
        process.finish()


__all__ = ["CLIENTS", "PROPERTIES", "Process", "Subscriber", "WAIT_S", "mosquitto_pub", "publish"]
