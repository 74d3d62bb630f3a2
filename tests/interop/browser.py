"""A real browser, without a window: it loads `clients/browser.html`, which runs MQTT.js and posts what happened.

Nothing drives the browser from outside, so nothing stands between it and what is tested.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import threading
import urllib.parse
from typing import Any

from listeners import openssl

HERE = pathlib.Path(__file__).parent
FILES = {
    "/": ("text/html", HERE / "clients/browser.html"),
    "/mqtt.min.js": ("text/javascript", HERE / "node_modules/mqtt/dist/mqtt.min.js"),
}
NAMES = ["chromium-headless-shell", "chromium", "google-chrome"]
# The first start of a browser on a loaded machine takes its time.
WAIT_S = 60.0


def binary() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found, f"none of {NAMES} is installed: tests/interop/run.sh installs chromium-headless-shell"
    return found


def key_hash(folder: pathlib.Path, name: str) -> str:
    """What Chromium knows a certificate by: SHA-256 of its public key (SubjectPublicKeyInfo), in base64."""
    key = openssl(folder, "x509", "-in", f"{name}.pem", "-noout", "-pubkey")
    (folder / f"{name}.pub").write_bytes(key)
    der = openssl(folder, "pkey", "-pubin", "-in", f"{name}.pub", "-outform", "DER")
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


class Site:
    """The web server of the page. Used as a context manager; `origin` is what the browser calls it."""

    def __init__(self) -> None:
        results: queue.Queue[dict[str, Any]] = queue.Queue()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, path = FILES.get(self.path.partition("?")[0], ("", None))
                body = path.read_bytes() if path else b""
                self.send_response(200 if path else 404)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.results = results
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self) -> Site:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def run(site: Site, folder: pathlib.Path, job: dict[str, Any], trusted_key: str = "") -> dict[str, Any]:
    """Runs a job in a browser of its own; the page's report. `trusted_key`: of the certificate that is believed."""
    command = [binary(), "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio"]
    command += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={folder / 'profile'}"]
    if os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium has none for root
    if trusted_key:
        command.append(f"--ignore-certificate-errors-spki-list={trusted_key}")
    command.append(f"{site.origin}/?{urllib.parse.urlencode({'job': json.dumps(job)})}")
    folder.mkdir(exist_ok=True)
    log = folder / "browser.log"
    with open(log, "wb") as output:
        files = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        child = subprocess.Popen(command, start_new_session=True, **files)
    try:
        return site.results.get(timeout=WAIT_S)
    except queue.Empty:
        said = log.read_text(errors="replace")[-4_000:]
        raise AssertionError(f"the page did not report: {command}\n{said}") from None
    finally:
        os.killpg(child.pid, signal.SIGKILL)  # the browser is a dozen processes
        child.wait()
