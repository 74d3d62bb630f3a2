"""Metrics of a broker with traffic, as Debian's Prometheus sees them. Prints what libtest prints.

RINGMAIN_BIN: the broker (target/release/ringmain). Arguments: parts of names of the tests to run.
"""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.parse
from typing import Any, Callable

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
RULES = REPOSITORY / "deploy/prometheus"
DASHBOARD = REPOSITORY / "deploy/grafana/ringmain.json"
# Bounds every wait; nothing here takes this long unless it fails.
PATIENCE_S = 90.0
# A name of a metric in an expression: not a function, a keyword or a label.
METRIC = re.compile(r"\b((?:ringmain|process)_[a-z0-9_]+)\b")


def free_port() -> int:
    low, high = os.environ.get("METRICS_PORTS", "23000-23099").split("-")
    for port in range(int(low), int(high) + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in USED:
                USED.add(port)
                return port
    raise RuntimeError(f"no free port in {low}-{high}")


USED: set[int] = set()


def until(what: str, look: Callable[[], Any]) -> Any:
    """What `look` returns once that is true."""
    end = time.monotonic() + PATIENCE_S
    seen = None
    while time.monotonic() < end:
        try:
            seen = look()
        except OSError as error:
            seen = error
        else:
            if seen:
                return seen
        time.sleep(0.2)
    raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}; last seen: {seen!r}")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: pathlib.Path):
        super().__init__("localhost", timeout=PATIENCE_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(str(self.path))


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, str]:
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def run(*command: Any, text: str | None = None) -> str:
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, f"{command[:3]} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


class World:
    """A broker of two shards with clients, and a Prometheus that scrapes it every second."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.mqtt, self.metrics, self.prometheus = free_port(), free_port(), free_port()
        self.socket = folder / "data/admin.sock"
        self.tcp = lambda: http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=PATIENCE_S)

    def start(self) -> None:
        binary = os.environ.get("RINGMAIN_BIN", REPOSITORY / "target/release/ringmain")
        self.spawn(
            "broker", binary, "serve", "--listen", f"tcp://127.0.0.1:{self.mqtt}", "--shards", "2",
            "--data-dir", self.folder / "data", "--set", f"admin.metrics_listen=127.0.0.1:{self.metrics}",
            # A machine that is busy with other tests is not what these are about.
            "--set", "overload.lag_refuse_ms=60000", "--set", "overload.lag_pause_ms=60000",
            "--set", "overload.lag_drop_qos0_ms=60000",
        )  # fmt: skip
        until("the broker is ready", lambda: get(self.tcp(), "/ready")[0] == 200)
        for nth in range(4):
            self.spawn(f"sub{nth}", "mosquitto_sub", "-p", self.mqtt, "-q", nth % 3, "-t", "room/#", "-i", f"sub{nth}")
        for nth in range(2):
            line = f"while echo m; do sleep 0.02; done | mosquitto_pub -l -p {self.mqtt} -q 1 -t room/{nth} -i pub{nth}"
            self.spawn(f"pub{nth}", "sh", "-c", line)
        self.spawn("nobody", "sh", "-c", f"while echo m; do sleep 0.1; done | mosquitto_pub -l -p {self.mqtt} -t void")
        config = (RULES / "prometheus.yml").read_text()
        for old, new in {
            "127.0.0.1:9883": f"127.0.0.1:{self.metrics}",
            "interval: 15s": "interval: 1s",
            "alerts.yml": str(RULES / "alerts.yml"),
        }.items():
            assert old in config, old
            config = config.replace(old, new)
        (self.folder / "prometheus.yml").write_text(config)
        self.spawn(
            "prometheus", shutil.which("prometheus") or "/usr/bin/prometheus",
            f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{self.prometheus}",
        )  # fmt: skip
        until("Prometheus is ready", lambda: self.ask("/-/ready")[0] == 200)

    def spawn(self, name: str, *command: Any) -> None:
        with open(self.folder / f"{name}.log", "wb") as log:
            words = [str(word) for word in command]
            # A group of its own, so that a pipeline can be ended whole.
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)

    def stop(self) -> None:
        for process in reversed(self.processes):
            try:
                os.killpg(process.pid, 15)
            except ProcessLookupError:
                pass
        for process in reversed(self.processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()

    def admin(self, path: str) -> tuple[int, str]:
        return get(UnixConnection(self.socket), path)

    def ask(self, path: str) -> tuple[int, str]:
        return get(http.client.HTTPConnection("127.0.0.1", self.prometheus, timeout=PATIENCE_S), path)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What the expression is now: a vector."""
        status, body = self.ask("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", f"{expression}: {body}"
        return answer["data"]["result"]

    def scraped(self) -> set[str]:
        """Names of all series of a scrape."""
        body = get(self.tcp(), "/metrics")[1]
        return {re.split(r"[ {]", line)[0] for line in body.splitlines() if line and not line.startswith("#")}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


def expressions_of_dashboard() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def names_in(expression: str) -> set[str]:
    # Values of labels and lists of labels are no metrics.
    bare = re.sub(r'"[^"]*"', "", expression)
    return set(METRIC.findall(bare))


def test_promtool_finds_nothing_wrong_with_the_exposition(world: World) -> None:
    for body in (get(world.tcp(), "/metrics")[1], world.admin("/metrics")[1]):
        said = run("promtool", "check", "metrics", text=body)
        assert said.strip() == "", said


def test_alert_rules_and_their_tests_hold(_: World) -> None:
    run("promtool", "check", "config", RULES / "prometheus.yml")
    run("promtool", "check", "rules", RULES / "alerts.yml")
    run("promtool", "test", "rules", RULES / "alerts_test.yml")


def test_the_socket_is_the_operators_alone_and_describes_the_node(world: World) -> None:
    assert stat.S_IMODE(world.socket.stat().st_mode) == 0o600
    status, body = world.admin("/v1/node")
    node = json.loads(body)
    assert status == 200 and [shard["up"] for shard in node["shards"]] == [True, True], body
    assert os.path.exists(f"/proc/{node['pid']}") and node["pid"] == world.processes[0].pid
    status, body = get(world.tcp(), "/v1/node")
    assert status == 404 and "error" in json.loads(body)


def test_turns_are_recorded_while_scrapes_go_on(world: World) -> None:
    status, body = world.admin("/v1/turns?ms=300")
    turns = json.loads(body)["turns"]
    assert status == 200 and {turn["shard"] for turn in turns} == {0, 1}, f"{len(turns)} turns"
    until("a scrape", lambda: get(world.tcp(), "/metrics")[0] == 200)


def test_prometheus_sees_the_broker_and_its_traffic(world: World) -> None:
    def value(expression: str) -> float:
        result = world.query(expression)
        return float(result[0]["value"][1]) if result else 0.0

    until("up", lambda: value('up{job="ringmain"}') == 1)
    for expression in (
        "sum(rate(ringmain_messages_received_total[30s]))",
        "sum(rate(ringmain_messages_sent_total[30s]))",
        "sum(rate(ringmain_sent_bytes_total[30s]))",
        'sum(rate(ringmain_drops_total{what="message",reason="no_subscribers"}[30s]))',
        'sum(rate(ringmain_loop_seconds_total{state="busy"}[30s]))',
        'sum(rate(ringmain_stage_duration_seconds_count{stage="route"}[30s]))',
        'sum(rate(ringmain_turn_duration_seconds_count[30s]))',
        "sum(rate(ringmain_thread_cpu_seconds_total[30s]))",
        "sum(ringmain_shard_up) == 2",
        "sum(ringmain_connections) >= 7",
        'sum(ringmain_memory_bytes{component="connections"})',
    ):
        until(expression, lambda: value(expression) > 0)


def test_every_alert_rule_evaluates_and_none_is_about_a_metric_that_is_not_there(world: World) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = json.loads(world.ask("/api/v1/rules")[1])["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    evaluated = until("all rules were evaluated", lambda: all(r["health"] != "unknown" for r in rules()) and rules())
    assert len(evaluated) >= 10
    scraped = world.scraped()
    for rule in evaluated:
        assert rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError')}"
        missing = names_in(rule["query"]) - scraped
        assert not missing, f"{rule['name']} is about {missing}, which the broker does not have"
    firing = [r["name"] for r in evaluated if r["state"] == "firing" and r["labels"]["severity"] == "critical"]
    assert not firing, firing


def test_every_metric_of_the_dashboard_is_scraped_and_every_expression_evaluates(world: World) -> None:
    expressions = expressions_of_dashboard()
    assert len(expressions) > 30
    scraped = world.scraped()
    for expression in expressions:
        missing = names_in(expression) - scraped
        assert not missing, f"the dashboard shows {missing}, which the broker does not have"
        for variable, text in {"$instance": ".*", "$job": "ringmain", "$__rate_interval": "30s"}.items():
            expression = expression.replace(variable, text)
        assert "$" not in expression, expression
        world.query(expression)


def main() -> int:
    tests = {name: test for name, test in globals().items() if name.startswith("test_")}
    wanted = {n: t for n, t in tests.items() if not sys.argv[1:] or any(part in n for part in sys.argv[1:])}
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory(prefix="ringmain-metrics-") as folder:
        world = World(pathlib.Path(folder))
        try:
            world.start()
            for name, test in wanted.items():
                try:
                    test(world)
                except Exception:
                    failed += 1
                    traceback.print_exc()
                    print(f"test {name} ... FAILED", flush=True)
                else:
                    passed += 1
                    print(f"test {name} ... ok", flush=True)
        except Exception:
            failed += 1
            traceback.print_exc()
            print("test start ... FAILED")
        finally:
            world.stop()
        if failed:
            for name in ("broker", "prometheus"):
                if (pathlib.Path(folder) / f"{name}.log").exists():
                    print(f"---- {name}\n" + "\n".join(world.log(name).splitlines()[-40:]))
    result = "FAILED" if failed else "ok"
    print(f"test result: {result}. {passed} passed; {failed} failed; 0 ignored")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
