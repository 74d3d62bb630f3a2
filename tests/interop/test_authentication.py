"""SCRAM (RFC 5802, RFC 7677) by AUTH packets, with a client of its own: scramp, which nobody here wrote."""

from __future__ import annotations

import pathlib
import subprocess

import pytest
import scramp

import wire
from broker import Ringmain

METHODS = ["SCRAM-SHA-256", "SCRAM-SHA-512"]
CONTINUE, AGAIN = 0x18, 0x19
NOT_AUTHORIZED, PROTOCOL_ERROR, BAD_METHOD, BAD_PASSWORD = 0x87, 0x82, 0x8C, 0x86


def users(folder: pathlib.Path) -> pathlib.Path:
    """alice and bob, with keys for both methods, made by the broker's own command."""
    file = folder / "users"
    for name in ("alice", "bob"):
        command = [str(Ringmain.binary()), "user", "add", "--file", str(file), "--hash", "none"]
        command += [part for method in METHODS for part in ("--scram", method)]
        subprocess.run([*command, name], input=f"{name}'s password\n".encode(), check=True, capture_output=True)
    return file


def settings(file: pathlib.Path) -> dict[str, object]:
    keys = {}
    for at, method in enumerate(METHODS):
        keys |= {f"authentication.{at}.{key}": value for key, value in
                 {"type": "scram", "name": method, "file": file, "method": method}.items()}
    return keys


@pytest.fixture
def scram_broker(request, broker_with, tmp_path):
    if request.config.getoption("--broker") != "ringmain":
        pytest.skip("mosquitto has no SCRAM")
    return broker_with(settings(users(tmp_path)))


class Login:
    """One exchange of SCRAM."""

    def __init__(self, method: str, name: str = "alice", password: str | None = None):
        self.method = method
        self.client = scramp.ScramClient([method], name, password or f"{name}'s password")

    def props(self, data: str) -> dict[str, object]:
        return {"authentication_method": self.method, "authentication_data": data.encode()}

    def first(self) -> dict[str, object]:
        return self.props(self.client.get_client_first())

    def final(self, got: wire.Packet) -> bytes:
        """AUTH with the proof, in answer to the challenge."""
        assert (got.kind, got.reason) == (wire.AUTH, CONTINUE), got
        assert got.prop("authentication_method") == self.method
        self.client.set_server_first(got.prop("authentication_data").decode())
        return wire.auth(CONTINUE, self.props(self.client.get_client_final()))

    def check(self, got: wire.Packet) -> None:
        """The broker proves that it knows the user: scramp raises otherwise."""
        assert got.reason == 0, got
        assert got.prop("authentication_method") == self.method
        self.client.set_server_final(got.prop("authentication_data").decode())


def login(raw: wire.RawClient, name: str, method: str = METHODS[0]) -> None:
    scram = Login(method)
    raw.send(wire.connect(name, props=scram.first()))
    raw.send(scram.final(raw.recv()))
    got = raw.recv()
    assert got.kind == wire.CONNACK, got
    scram.check(got)


@pytest.mark.parametrize("method", METHODS)
def test_au11_scram_logs_in_and_proves_the_broker(scram_broker, name, method):
    """AU11, MQTT-4.12.0-2, MQTT-4.12.0-5: CONNECT, AUTH, AUTH, CONNACK with the server's signature."""
    for at in range(8):  # on whichever shard the client lives
        with wire.RawClient(scram_broker) as raw:
            login(raw, f"{name}{at}", method)
            raw.subscribe(f"{name}/t")
            raw.publish(f"{name}/t", b"hello", 1)
            assert raw.take(wire.PUBLISH).payload == b"hello"


@pytest.mark.parametrize("who, password", [("alice", "wrong"), ("mallory", "alice's password")])
def test_au11_a_wrong_password_and_an_unknown_user_look_alike(scram_broker, name, who, password):
    """AU11, MQTT-4.12.0-4: a challenge for both, then CONNACK 0x86 or 0x87 and close."""
    with wire.RawClient(scram_broker) as raw:
        scram = Login(METHODS[0], who, password)
        raw.send(wire.connect(name, props=scram.first()))
        raw.send(scram.final(raw.recv()))
        raw.refused(BAD_PASSWORD, NOT_AUTHORIZED)


def test_c09_an_unknown_method_is_refused(scram_broker, name):
    """C09, MQTT-4.12.0-1."""
    with wire.RawClient(scram_broker) as raw:
        raw.send(wire.connect(name, props={"authentication_method": "GS2-KRB5", "authentication_data": b""}))
        raw.refused(BAD_METHOD)


@pytest.mark.parametrize("what", ["method", "packet", "connect"])
def test_s95_what_is_no_answer_to_a_challenge_is_refused(scram_broker, name, what):
    """S-95, MQTT-3.1.2-30: another method, another packet, a second CONNECT."""
    with wire.RawClient(scram_broker) as raw:
        scram = Login(METHODS[0])
        raw.send(wire.connect(name, props=scram.first()))
        answer = scram.final(raw.recv())
        other = Login(METHODS[1])
        raw.send({
            "method": wire.auth(CONTINUE, other.first()),
            "packet": wire.pingreq() + answer,
            "connect": wire.connect(name, props=scram.props("n,,n=alice,r=again")),
        }[what])
        raw.refused(PROTOCOL_ERROR)


def test_au11_a_live_client_authenticates_again_while_messages_flow(scram_broker, name):
    """AU11, MQTT-4.12.1-1: AUTH 0x19, traffic, AUTH 0x18 both ways, AUTH 0x00."""
    with wire.RawClient(scram_broker) as raw:
        login(raw, name)
        raw.subscribe(f"{name}/t")
        for round in range(3):
            scram = Login(METHODS[0])
            raw.send(wire.auth(AGAIN, scram.first()))
            raw.publish(f"{name}/t", b"%d" % round, 1)
            final = scram.final(raw.take(wire.AUTH))
            raw.ping()
            raw.send(final)
            got = raw.take(wire.AUTH)
            scram.check(got)
            assert raw.take(wire.PUBLISH).payload == b"%d" % round


@pytest.mark.parametrize("who, password", [("alice", "wrong"), ("bob", None)])
def test_au11_a_re_authentication_that_fails_closes(scram_broker, name, who, password):
    """AU11, MQTT-4.12.1-2: a wrong password, and somebody else with the right one: 0x87."""
    with wire.RawClient(scram_broker) as raw:
        login(raw, name)
        scram = Login(METHODS[0], who, password)
        raw.send(wire.auth(AGAIN, scram.first()))
        raw.send_lossy(scram.final(raw.take(wire.AUTH)))
        raw.refused(NOT_AUTHORIZED)
