"""Starting and stopping the broker under test: Ringmain, or Debian's mosquitto as a second opinion on the tests."""

from __future__ import annotations

import itertools
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from typing import Any

import config_keys as keys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
START_WAIT_S = 30.0
STOP_WAIT_S = 30.0
PANIC = re.compile(r"panicked at|stack overflow|AddressSanitizer|ThreadSanitizer|SIGSEGV|SIGABRT|assertion failed")


class Unsupported(Exception):
    """This broker has no such setting."""


def port_range() -> tuple[int, int]:
    low, high = os.environ.get("INTEROP_PORTS", "20000-22999").split("-")
    return int(low), int(high)


def free_port() -> int:
    """A port of the range that nothing listens on. Workers start at random places, so they rarely meet."""
    low, high = port_range()
    start = random.randrange(low, high + 1)
    for port in itertools.chain(range(start, high + 1), range(low, start)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port in {low}-{high}")


class Broker:
    """One broker process. `stop` and `check` raise AssertionError when the process misbehaved."""

    name = "broker"

    def __init__(self, folder: pathlib.Path, settings: dict[str, Any] | None = None, shards: int = 1):
        self.host, self.port, self.shards = "127.0.0.1", 0, shards
        self.settings = dict(settings or {})
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stderr_path = folder / "stderr"
        self.process: subprocess.Popen[bytes] | None = None
        self.terminated = False

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> Broker:
        for attempt in range(3):
            self.port = free_port()
            with open(self.stderr_path, "wb") as stderr:
                self.process = subprocess.Popen(
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    cwd=self.folder,
                    env={**os.environ, "RUST_BACKTRACE": "1"},
                )
            deadline = time.monotonic() + START_WAIT_S
            while time.monotonic() < deadline and self.process.poll() is None:
                if self.is_ready():
                    return self
                time.sleep(0.01)
            in_use = "in use" in self.stderr_text()
            self.kill()
            if not in_use or attempt == 2:
                break
        raise AssertionError(f"{self.name} did not become ready: {self.command()}\n{self.stderr_tail()}")

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stderr_text(self) -> str:
        return self.stderr_path.read_text(errors="replace") if self.stderr_path.exists() else ""

    def stderr_tail(self) -> str:
        return "\n".join(self.stderr_text().splitlines()[-60:])

    def check(self) -> None:
        """The process lives and has not panicked."""
        status = self.process.poll() if self.process else None
        assert status is None, f"{self.name} ended with status {status}\n{self.stderr_tail()}"
        assert not PANIC.search(self.stderr_text()), f"{self.name} panicked\n{self.stderr_tail()}"

    def terminate(self) -> None:
        assert self.process
        self.terminated = True
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM by pid; the exit status must be 0."""
        if not self.terminated:
            self.check()
            self.terminate()
        self.wait_stopped()

    def wait_stopped(self) -> None:
        assert self.process
        try:
            status = self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop on SIGTERM\n{self.stderr_tail()}") from None
        assert status == 0, f"{self.name} exited with status {status} on SIGTERM\n{self.stderr_tail()}"
        assert not PANIC.search(self.stderr_text()), f"{self.name} panicked\n{self.stderr_tail()}"

    def kill(self) -> None:
        if self.alive():
            assert self.process
            self.process.kill()
            self.process.wait()

    def rss_kib(self) -> int:
        """Resident memory of the process."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")


class Ringmain(Broker):
    name = "ringmain"

    @staticmethod
    def binary() -> pathlib.Path:
        return pathlib.Path(os.environ.get("RINGMAIN_BIN", REPOSITORY / "target/release/ringmain"))

    def command(self) -> list[str]:
        config = self.folder / "ringmain.toml"
        config.touch()
        command = [str(self.binary()), "serve", "--config", str(config)]
        for key, value in {**keys.BASE_SETTINGS, **self.settings}.items():
            command += ["--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}"]
        return command + ["--listen", f"tcp://{self.host}:{self.port}", "--shards", str(self.shards)]

    def is_ready(self) -> bool:
        return any("ready" in line for line in self.stderr_text().splitlines())


def _unsupported() -> str:
    raise Unsupported


def _refuse(wanted: Any) -> Any:
    def line(value: Any) -> str:
        if value == wanted:
            return ""
        raise Unsupported

    return line


class Mosquitto(Broker):
    """Debian's mosquitto with the settings translated as far as it has them."""

    name = "mosquitto"
    LINES = {
        keys.MAX_PACKET_SIZE: lambda v: f"max_packet_size {v}",
        keys.MAX_QOS: lambda v: f"max_qos {v}",
        keys.RETAIN_AVAILABLE: lambda v: f"retain_available {str(v).lower()}",
        keys.SERVER_KEEP_ALIVE_S: lambda v: f"max_keepalive {v}" if v >= 10 else _unsupported(),
        keys.RECEIVE_MAXIMUM: lambda v: f"max_inflight_messages {v}",
        keys.MAX_INFLIGHT: lambda v: f"max_inflight_messages {v}",
        keys.MAX_MQUEUE_LEN: lambda v: f"max_queued_messages {v}",
        keys.TOPIC_ALIAS_MAXIMUM: lambda v: f"max_topic_alias {v}",
        keys.SYS_INTERVAL_S: lambda v: f"sys_interval {v}",
        keys.MAX_TOPIC_LEVELS: _refuse(0),
    }
    PER_LISTENER = (keys.MAX_QOS, keys.TOPIC_ALIAS_MAXIMUM)

    def command(self) -> list[str]:
        before, after = [], []
        for key, value in self.settings.items():
            if key not in self.LINES:
                raise Unsupported(f"mosquitto has no setting for {key}")
            try:
                line = self.LINES[key](value)
            except Unsupported:
                raise Unsupported(f"mosquitto cannot set {key} to {value}") from None
            (after if key in self.PER_LISTENER else before).append(line)
        if keys.MAX_MQUEUE_LEN not in self.settings:
            before.append("max_queued_messages 0")
        config = self.folder / "mosquitto.conf"
        lines = ["user root", *before, f"listener {self.port} {self.host}", "allow_anonymous true", *after]
        lines.append("set_tcp_nodelay true")
        config.write_text("\n".join(lines) + "\n")
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        return [binary, "-c", str(config)]

    def is_ready(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1).close()
        except OSError:
            return False
        return self.alive()


BROKERS: dict[str, type[Broker]] = {"ringmain": Ringmain, "mosquitto": Mosquitto}
