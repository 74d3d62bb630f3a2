"""What a scanner that nobody here wrote says about the listeners with TLS. (T02)"""

from __future__ import annotations

import pathlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator

import pytest

import tls_scan
import wire
from listeners import Listeners, certificates, certify

SHARDS = [2]
EC, RSA = "cert={folder}/own.pem&key={folder}/own.key", "cert={folder}/rsa.pem&key={folder}/rsa.key"
LISTENERS = {
    "tls": f"tls://127.0.0.1:{{port}}?{EC}",
    "wss": f"wss://127.0.0.1:{{port}}/mqtt?{EC}",
    "rsa": f"tls://127.0.0.1:{{port}}?{RSA}",
}


def both_kinds_of_certificates(folder: pathlib.Path) -> None:
    certificates(folder)
    extension = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"
    certify(folder, "rsa", extension, ["-newkey", "rsa:2048", "-nodes"])


@pytest.fixture
def served(only_ringmain: None, tmp_path: pathlib.Path, shards: int) -> Iterator[Listeners]:
    both_kinds_of_certificates(tmp_path)
    broker = Listeners(tmp_path, {}, shards, LISTENERS).start()
    yield broker
    broker.stop()


@pytest.mark.parametrize("listener", list(LISTENERS))
def test_t02_a_scanner_finds_nothing_wrong_with(served: Listeners, listener: str) -> None:
    """T02: sslyze, with Mozilla's intermediate configuration as the measure. Afterwards the broker serves."""
    found = tls_scan.faults(*tls_scan.scan(served.ports[listener], served.folder / "ca.pem"))
    assert not found, found
    with wire.RawClient(served) as client:
        client.open("after")
        client.ping()


# SSL_OP_ALLOW_CLIENT_RENEGOTIATION of OpenSSL 3, which Python's ssl has no name for.
ALLOW_CLIENT_RENEGOTIATION = 1 << 8


class Weak:
    """A server of OpenSSL's that allows what it still can: a context manager; `port`."""

    def __init__(self, folder: pathlib.Path):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1
        self.context.set_ciphers("ALL:@SECLEVEL=0")
        self.context.options |= ALLOW_CLIENT_RENEGOTIATION
        self.context.load_cert_chain(folder / "rsa.pem", folder / "rsa.key")
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self._accept, daemon=True)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(wire.WAIT_S)
        try:
            with self.context.wrap_socket(sock, server_side=True) as tls:
                while tls.recv(4_096):
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except OSError:
            sock.close()

    def __enter__(self) -> Weak:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_t02_the_scanner_sees_what_is_wrong_with_a_weak_server(tmp_path: pathlib.Path) -> None:
    """Else the test above would say nothing."""
    both_kinds_of_certificates(tmp_path)
    with Weak(tmp_path) as server:
        found = tls_scan.faults(*tls_scan.scan(server.port, tmp_path / "ca.pem"))
    for fault in (
        "an old version",
        "renegotiation by the client",
        "tls_1_2: TLS_RSA_WITH_AES_128_GCM_SHA256 has no forward secrecy",
        "tls_1_2: TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA has no AEAD cipher",
        "curves ['X25519', 'X448', 'secp256r1', 'secp384r1', 'secp521r1']",
    ):
        assert fault in found, found
    deviations = {fault.partition(":")[0] for fault in found if fault.startswith("Mozilla's")}
    assert deviations == {"Mozilla's tls_versions", "Mozilla's ciphers", "Mozilla's tls_curves"}, found


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls12", "tls13"])
def test_t02_a_ticket_resumes_a_session_on_every_shard(served: Listeners, version: ssl.TLSVersion) -> None:
    """T02: OpenSSL's client comes back with its ticket, whichever shard it meets."""
    context = ssl.create_default_context(cafile=f"{served.folder}/ca.pem")
    context.minimum_version = context.maximum_version = version
    session, reused = None, []
    for n in range(9):
        plain = socket.create_connection(("127.0.0.1", served.ports["tls"]), timeout=wire.WAIT_S)
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
            tls.sendall(wire.connect(f"resumed{n}", 4))
            assert tls.recv(4) == b"\x20\x02\x00\x00"  # a ticket of TLS 1.3 came before it
            reused.append(tls.session_reused)
            session = tls.session
    assert reused == [False] + [True] * 8
    assert served.metrics()["ringmain_ring_tls_resumed_total"] == 8


def test_t02_no_ticket_allows_early_data(served: Listeners) -> None:
    """T02: nor does OpenSSL's client get any taken."""
    saved, early = served.folder / "session", served.folder / "early"
    base = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.ports['tls']}"]
    base += ["-CAfile", str(served.folder / "ca.pem")]
    base += ["-servername", "localhost", "-verify_return_error", "-tls1_3", "-ign_eof"]
    # CONNECT and DISCONNECT: the broker closes, and the client ends.
    packets = wire.connect("early", 4) + wire.disconnect()
    first = subprocess.run([*base, "-sess_out", str(saved)], input=packets, capture_output=True, timeout=wire.WAIT_S)
    assert b"Max Early Data: 0" in first.stdout, first
    early.write_bytes(packets)
    again = [*base, "-sess_in", str(saved), "-early_data", str(early)]
    second = subprocess.run(again, input=packets, capture_output=True, timeout=wire.WAIT_S)
    assert b"Early data was not sent" in second.stdout or b"Early data was rejected" in second.stdout, second
    assert b"Reused, TLSv1.3" in second.stdout, second


@pytest.mark.parametrize("listener, protocol", [("tls", "mqtt"), ("wss", "http/1.1")])
def test_t02_who_names_protocols_must_name_the_right_one(served: Listeners, listener: str, protocol: str) -> None:
    """T02, RFC 7301, 3.2: OpenSSL's client gets the protocol if it is among those it names, else an alert."""
    context = ssl.create_default_context(cafile=f"{served.folder}/ca.pem")
    for offered, selected in (["h2", protocol], protocol), (["h2", "imap"], None), ([], None):
        context.set_alpn_protocols(offered)
        with socket.create_connection(("127.0.0.1", served.ports[listener]), timeout=wire.WAIT_S) as plain:
            if offered and not selected:
                with pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
                    context.wrap_socket(plain, server_hostname="localhost")
            else:
                with context.wrap_socket(plain, server_hostname="localhost") as tls:
                    assert tls.selected_alpn_protocol() == selected
    assert served.metrics()["ringmain_ring_tls_failed_alpn_total"] == 1
