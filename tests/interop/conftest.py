"""Fixtures of the interoperability tests: `broker` (shared by a module) and `broker_with` (own process and settings)."""

from __future__ import annotations

import fnmatch
import pathlib
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import mosquitto_deviations  # noqa: E402
import wire  # noqa: E402
from broker import BROKERS, Broker, Ringmain, Unsupported  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--broker", choices=sorted(BROKERS), default="ringmain", help="the broker under test")
    parser.addoption("--run-deviations", action="store_true", help="run what is known to fail on mosquitto")
    parser.addoption("--shards", default="1,2,5", help="shard counts to test ringmain with, comma-separated")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: waits for a protocol time of several seconds or moves much data")
    if config.getoption("--broker") == "ringmain" and not Ringmain.binary().is_file():
        raise pytest.UsageError(f"no broker at {Ringmain.binary()}: build it (cargo build --release) or set RINGMAIN_BIN")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "shards" in metafunc.fixturenames:
        if metafunc.config.getoption("--broker") == "ringmain":
            counts = [int(n) for n in metafunc.config.getoption("--shards").split(",")]
            # What does not depend on the number of shards, or takes its time, names one in its module.
            counts = getattr(metafunc.module, "SHARDS", counts)
        else:
            counts = [1]
        metafunc.parametrize("shards", counts, ids=[f"shards{n}" for n in counts], scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--broker") != "mosquitto":
        return
    for item in items:
        name = f"{item.path.name}::{item.name}"
        for pattern, reason in mosquitto_deviations.DEVIATIONS.items():
            # Square brackets are characters of a test's name here, not classes of characters.
            if fnmatch.fnmatchcase(name, pattern.replace("[", "[[]")):
                run = config.getoption("--run-deviations")
                item.add_marker(pytest.mark.xfail(reason=f"mosquitto: {reason}", strict=False, run=run))
                break


def _new(request: pytest.FixtureRequest, folder: pathlib.Path, shards: int, settings: dict[str, Any]) -> Broker:
    return BROKERS[request.config.getoption("--broker")](folder, settings, shards).start()


@pytest.fixture(scope="session")
def only_ringmain(request: pytest.FixtureRequest) -> None:
    """Skips what depends on it with any other broker."""
    if request.config.getoption("--broker") != "ringmain":
        pytest.skip("this is set up for Ringmain alone")


@pytest.fixture(scope="module")
def _module_broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, shards: int
) -> Iterator[list[Broker]]:
    held = [_new(request, tmp_path_factory.mktemp("broker"), shards, {})]
    yield held
    if held[0].alive():
        held[0].stop()


@pytest.fixture
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _module_broker: list[Broker], shards: int
) -> Iterator[Broker]:
    """A broker with the default settings but for overload, shared by the tests of a module; each test must leave it serving."""
    if not _module_broker[0].alive():
        _module_broker[0] = _new(request, tmp_path_factory.mktemp("broker"), shards, {})
    yield _module_broker[0]
    _module_broker[0].check()
    assert_serving(_module_broker[0])


@pytest.fixture
def broker_with(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, shards: int
) -> Iterator[Callable[..., Broker]]:
    """`broker_with({key: value})`: a broker of this test's own, stopped with SIGTERM after it."""
    started: list[Broker] = []

    def start(settings: dict[str, Any] | None = None) -> Broker:
        try:
            started.append(_new(request, tmp_path / f"broker{len(started)}", shards, settings or {}))
        except Unsupported as reason:
            pytest.xfail(str(reason))
        return started[-1]

    yield start
    failures = []
    for one in started:
        try:
            one.stop()
        except AssertionError as failure:
            one.kill()
            failures.append(str(failure))
    assert not failures, "\n".join(failures)


def assert_serving(broker: Broker) -> None:
    with wire.RawClient(broker, 4) as probe:
        probe.open(f"probe-{uuid.uuid4().hex[:8]}")
        probe.ping()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A prefix for topics and client identifiers that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=[4, 5], ids=["v311", "v5"])
def version(request: pytest.FixtureRequest) -> int:
    return request.param
