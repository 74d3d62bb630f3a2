"""MQTT.js in Chromium: what a web page sees of the broker. (T11)"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import browser
import wire
from listeners import Listeners, certificates

SHARDS = [2]
FILES = "cert={folder}/own.pem&key={folder}/own.key"
SIZES = [0, 1, 125, 126, 127, 1_000, 65_535, 65_536, 300_000]


@pytest.fixture
def site(only_ringmain: None) -> Iterator[browser.Site]:
    with browser.Site() as site:
        yield site


@pytest.fixture
def served(site: browser.Site, tmp_path: pathlib.Path, shards: int) -> Iterator[Listeners]:
    certificates(tmp_path)
    listeners = {
        "ws": "ws://127.0.0.1:{port}/mqtt",
        "own": f"ws://127.0.0.1:{{port}}/mqtt?websocket_origins=https://a.example&websocket_origins={site.origin}",
        "other": "ws://127.0.0.1:{port}/mqtt?websocket_origins=https://a.example",
        "wss": f"wss://127.0.0.1:{{port}}/mqtt?{FILES}",
    }
    broker = Listeners(tmp_path, {}, shards, listeners).start()
    yield broker
    broker.stop()


def job(served: Listeners, listener: str, name: str, version: int, sizes: list[int], **more: Any) -> dict[str, Any]:
    scheme = "wss" if listener == "wss" else "ws"
    url = f"{scheme}://127.0.0.1:{served.ports[listener]}/mqtt"
    return {"url": url, "version": version, "id": name, "sizes": sizes, **more}


def check(report: dict[str, Any], sizes: list[int]) -> None:
    """Everything that was published came, once, whole, at its QoS and in the order of its QoS."""
    assert "fault" not in report and not [e for e in report["events"] if e.startswith("error")], report
    assert report["connected"] and report["granted"] == [2], report
    assert (report["protocol"], report["extensions"]) == ("mqtt", ""), report  # [MQTT-6.0.0-4]
    # MQTT.js holds a message of QoS 2 back until its PUBREL, so those of other levels overtake it.
    came = sorted(report["messages"], key=lambda message: message["qos"])
    wanted = [(qos, n, size) for qos in (0, 1, 2) for n, size in enumerate(sizes)]
    assert came == [{"size": size, "salt": 3 * n + qos, "qos": qos, "same": True} for qos, n, size in wanted], report


def test_t11_a_page_publishes_and_receives_all_sizes(site, served, tmp_path, name, version):
    """T11: MQTT 5 and 3.1.1 over ws://, QoS 0 to 2; MQTT.js closes, without a code of its own."""
    report = browser.run(site, tmp_path, job(served, "ws", name, version, SIZES))
    check(report, SIZES)
    assert report["close"]["clean"] and report["close"]["code"] in (1000, 1005), report


def test_t11_after_disconnect_the_broker_closes_with_1000(site, served, tmp_path, name):
    """T11: when the page leaves closing to the broker."""
    report = browser.run(site, tmp_path, job(served, "ws", name, 5, [10], broker_closes=True))
    check(report, [10])
    assert report["close"] == {"code": 1000, "clean": True}, report
    assert report["events"][0] == "close() of MQTT.js", report


def test_t11_a_page_of_an_origin_that_is_not_allowed_is_refused(site, served, tmp_path, name):
    """T11: two listeners with websocket_origins, one of which has the page's."""
    before = served.metrics()["ringmain_ring_websockets_refused_total"]
    check(browser.run(site, tmp_path / "a", job(served, "own", name, 5, [10])), [10])
    assert served.metrics()["ringmain_ring_websockets_refused_total"] == before
    report = browser.run(site, tmp_path / "b", job(served, "other", name, 5, [10]))
    assert not report["connected"] and report["close"] == {"code": 1006, "clean": False}, report
    assert served.metrics()["ringmain_ring_websockets_refused_total"] == before + 1
    with wire.RawClient(served) as client:
        client.open("after")
        client.ping()


def test_t11_a_page_connects_by_tls_if_it_trusts_the_certificate(site, served, tmp_path, name):
    """T11, T02: with the key of the broker's certificate, and only with it."""
    wanted = job(served, "wss", name, 5, SIZES)
    check(browser.run(site, tmp_path / "a", wanted, browser.key_hash(served.folder, "own")), SIZES)
    for unknown in ("", browser.key_hash(served.folder, "device")):
        report = browser.run(site, tmp_path / f"b{len(unknown)}", wanted, unknown)
        assert not report["connected"] and report["close"]["code"] == 1006, report
    # BoringSSL says certificate_unknown, or another alert, and hangs up.
    assert served.metrics()["ringmain_ring_tls_failed_peer_alert_total"] >= 2
