"""A broker with listeners of every kind beside the plain one, and the certificates that they need."""

from __future__ import annotations

import pathlib
import subprocess
import urllib.request
from typing import Any

from broker import Ringmain, free_port

EC_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(folder: pathlib.Path, *arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True).stdout


def certify(folder: pathlib.Path, name: str, extension: str, key: list[str] = EC_KEY) -> None:
    """`NAME.pem` and `NAME.key`, issued by the test CA."""
    identifiers = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    (folder / f"{name}.ext").write_text(extension + identifiers)
    openssl(folder, "req", "-new", *key, "-keyout", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
    issuer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", f"{name}.ext"]
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", *issuer, "-out", f"{name}.pem")


def certificates(folder: pathlib.Path) -> None:
    """`ca` (the test CA), `own` (of the broker, for localhost and 127.0.0.1) and `device` (of a client)."""
    folder.mkdir(parents=True, exist_ok=True)
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    ca = ["-keyout", "ca.key", "-subj", "/CN=Test CA", "-days", "30", "-out", "ca.pem"]
    openssl(folder, "req", "-x509", *EC_KEY, *usage, *ca)
    certify(folder, "own", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    certify(folder, "device", "extendedKeyUsage=clientAuth\n")


def ports_beside(first: int, count: int) -> list[int]:
    """`count` free ports that differ from each other and from `first`."""
    ports = [first]
    while len(ports) <= count:
        if (port := free_port()) not in ports:
            ports.append(port)
    return ports[1:]


class Listeners(Ringmain):
    """`listeners` maps a name of the test's own to a url; `{port}` in it is a free port, `{folder}` the broker's."""

    def __init__(self, folder: pathlib.Path, settings: dict[str, Any], shards: int, listeners: dict[str, str]):
        super().__init__(folder, settings, shards)
        self.listeners = listeners
        self.ports: dict[str, int] = {}
        self.metrics_port = 0

    def command(self) -> list[str]:
        ports = ports_beside(self.port, len(self.listeners) + 1)
        self.ports, self.metrics_port = dict(zip(self.listeners, ports)), ports[-1]
        command = super().command() + ["--set", f"admin.metrics_listen=127.0.0.1:{self.metrics_port}"]
        for name, url in self.listeners.items():
            command += ["--listen", url.format(port=self.ports[name], folder=self.folder)]
        return command

    def metrics(self) -> dict[str, float]:
        """Every metric without labels but its shard, summed over the shards."""
        sums: dict[str, float] = {}
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                series, _, value = line.rpartition(" ")
                name, _, labels = series.partition("{")
                if series and not line.startswith("#") and labels.count("=") <= 1:
                    sums[name] = sums.get(name, 0.0) + float(value)
        return sums
