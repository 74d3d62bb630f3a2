"""Scans a TLS listener with the program sslyze, and says what is wrong with it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

AEAD = ("_GCM_SHA256", "_GCM_SHA384", "_CHACHA20_POLY1305_SHA256")
CURVES = ["X25519", "secp256r1", "secp384r1"]
OLD = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
ROBOT = ("NOT_VULNERABLE_RSA_NOT_SUPPORTED", "NOT_VULNERABLE_NO_ORACLE")
# Beside those that Mozilla's configuration is compared by. Without those that talk HTTP, and do not take it that the
# server hangs up: its test of early data is one, see test_tls_scan.py. Nor does it see that a ticket was taken when
# the server answers with a fresh one, as it should.
COMMANDS = ("--certinfo", "--elliptic_curves", "--ems", "--reneg", "--heartbleed", "--robot", "--openssl_ccs")
SCAN_WAIT_S = 100


def scan(port: int, ca_file: pathlib.Path) -> tuple[dict[str, Any], list[str]]:
    """The results by command, and how the server deviates from what Mozilla calls intermediate."""
    out = ca_file.parent / f"scan-{port}.json"
    command = [sys.executable, "-m", "sslyze", *COMMANDS, "--mozilla_config", "intermediate", "--certinfo_ca_file"]
    command += [str(ca_file), "--json_out", str(out), f"localhost:{port}{{127.0.0.1}}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SCAN_WAIT_S)
    said = done.stdout[-8_000:] + done.stderr[-2_000:]
    verdict = done.stdout.rpartition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]
    deviations = [line.strip(" *") for line in verdict.splitlines() if line.startswith("        * ")]
    # The status says whether there are any, so that none is lost by how they are written.
    assert done.returncode == (1 if deviations else 0) and ("OK - Compliant" in verdict) != bool(deviations), said
    [server] = json.loads(out.read_text())["server_scan_results"]
    assert server["scan_status"] == "COMPLETED", said
    results = {}
    for name, attempt in server["scan_result"].items():
        if attempt["status"] != "NOT_SCHEDULED":
            assert attempt["status"] == "COMPLETED", (name, attempt)
            results[name] = attempt["result"]
    return results, deviations


def faults(results: dict[str, Any], deviations: list[str]) -> list[str]:
    """What is wrong: the deviations, and what goes beyond Mozilla's configuration."""
    suites = {version: results[f"{version}_cipher_suites"] for version in (*OLD, "tls_1_2", "tls_1_3")}
    renegotiation = results["session_renegotiation"]
    curves = [curve["name"] for curve in results["elliptic_curves"]["supported_curves"] or []]
    expected = {
        "an old version": not any(suites[old]["is_tls_version_supported"] for old in OLD),
        "no TLS 1.2": suites["tls_1_2"]["is_tls_version_supported"],
        "no TLS 1.3": suites["tls_1_3"]["is_tls_version_supported"],
        "compression": not results["tls_compression"]["supports_compression"],
        "Heartbleed": not results["heartbleed"]["is_vulnerable_to_heartbleed"],
        "CCS injection": not results["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"],
        "ROBOT": results["robot"]["robot_result"] in ROBOT,
        "insecure renegotiation": renegotiation["supports_secure_renegotiation"],
        "renegotiation by the client": renegotiation["client_renegotiations_success_count"] == 0,
        "no fallback SCSV": results["tls_fallback_scsv"]["supports_fallback_scsv"],
        "no extended master secret": results["tls_extended_master_secret"]["supports_ems_extension"],
        f"curves {curves}": curves == CURVES,
    }
    found = [f"Mozilla's {deviation}" for deviation in deviations]
    found += [fault for fault, well in expected.items() if not well]
    for version, result in suites.items():
        for accepted in result["accepted_cipher_suites"]:
            name = accepted["cipher_suite"]["name"]
            if not accepted["ephemeral_key"]:
                found.append(f"{version}: {name} has no forward secrecy")
            if not name.endswith(AEAD):
                found.append(f"{version}: {name} has no AEAD cipher")
    return found
