"""Scans a TLS listener with sslyze, and says what is wrong with it."""

from __future__ import annotations

import pathlib

import sslyze
from nassl.ephemeral_key_info import EphemeralKeyInfo
from sslyze import ScanCommand
from sslyze.mozilla_tls_profile import tls_config_checker as mozilla

AEAD = ("_GCM_SHA256", "_GCM_SHA384", "_CHACHA20_POLY1305_SHA256")
CURVES = {"X25519", "secp256r1", "secp384r1"}
OLD = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
# Both talk HTTP, and do not take it that the server hangs up. Early data is looked at in test_tls_scan.py.
COMMANDS = set(ScanCommand) - {ScanCommand.HTTP_HEADERS, ScanCommand.TLS_1_3_EARLY_DATA}


def scan(port: int, ca_file: pathlib.Path) -> sslyze.ServerScanResult:
    where = sslyze.ServerNetworkLocation("localhost", port, ip_address="127.0.0.1")
    more = sslyze.ScanCommandsExtraArguments(certificate_info=sslyze.CertificateInfoExtraArgument(ca_file))
    # A machine that does other things meanwhile is not what is looked for.
    network = sslyze.ServerNetworkConfiguration(tls_server_name_indication="localhost", network_timeout=20)
    scanner = sslyze.Scanner()
    scanner.queue_scans([sslyze.ServerScanRequest(where, network, COMMANDS, more)])
    [result] = scanner.get_results()
    assert result.scan_status == sslyze.ServerScanStatusEnum.COMPLETED, result.connectivity_error_trace
    return result


def faults(result: sslyze.ServerScanResult) -> dict[str, str]:
    """What is wrong, each with a sentence: Mozilla's intermediate configuration, and what goes beyond it."""
    for command in COMMANDS:
        attempt = getattr(result.scan_result, command.value)
        trace = attempt.error_trace and "".join(attempt.error_trace.format())
        assert attempt.status == sslyze.ScanCommandAttemptStatusEnum.COMPLETED, f"{command}: {trace}"
    found = _mozilla(result) | _suites(result)
    of = {command: getattr(result.scan_result, command.value).result for command in COMMANDS}
    curves = {curve.name for curve in of[ScanCommand.ELLIPTIC_CURVES].supported_curves or []}
    expected = {
        "old version": not any(of[ScanCommand(f"{old}_cipher_suites")].is_tls_version_supported for old in OLD),
        "no TLS 1.2": of[ScanCommand.TLS_1_2_CIPHER_SUITES].is_tls_version_supported,
        "no TLS 1.3": of[ScanCommand.TLS_1_3_CIPHER_SUITES].is_tls_version_supported,
        "compression": not of[ScanCommand.TLS_COMPRESSION].supports_compression,
        "Heartbleed": not of[ScanCommand.HEARTBLEED].is_vulnerable_to_heartbleed,
        "CCS injection": not of[ScanCommand.OPENSSL_CCS_INJECTION].is_vulnerable_to_ccs_injection,
        "ROBOT": of[ScanCommand.ROBOT].robot_result
        in (sslyze.RobotScanResultEnum.NOT_VULNERABLE_RSA_NOT_SUPPORTED, sslyze.RobotScanResultEnum.NOT_VULNERABLE_NO_ORACLE),
        "insecure renegotiation": of[ScanCommand.SESSION_RENEGOTIATION].supports_secure_renegotiation,
        "renegotiation by the client": of[ScanCommand.SESSION_RENEGOTIATION].client_renegotiations_success_count == 0,
        "no fallback SCSV": of[ScanCommand.TLS_FALLBACK_SCSV].supports_fallback_scsv,
        "no extended master secret": of[ScanCommand.TLS_EXTENDED_MASTER_SECRET].supports_ems_extension,
        f"curves {sorted(curves)}": curves == CURVES,
    }
    return found | {name: "by sslyze" for name, well in expected.items() if not well}


def _mozilla(result: sslyze.ServerScanResult) -> dict[str, str]:
    wanted = mozilla.MozillaTlsConfiguration.get(mozilla.TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
    try:
        mozilla.check_server_against_tls_configuration(result, wanted)
    except mozilla.ServerNotCompliantWithTlsConfiguration as deviation:
        return {f"Mozilla's {what}": why for what, why in deviation.issues.items()}
    return {}


def _suites(result: sslyze.ServerScanResult) -> dict[str, str]:
    """Suites without forward secrecy or without an AEAD cipher."""
    found = {}
    for version in (*OLD, "tls_1_2", "tls_1_3"):
        for accepted in getattr(result.scan_result, f"{version}_cipher_suites").result.accepted_cipher_suites:
            name = accepted.cipher_suite.name
            if not isinstance(accepted.ephemeral_key, EphemeralKeyInfo):
                found[f"{version} {name}"] = "has no forward secrecy"
            elif not name.endswith(AEAD):
                found[f"{version} {name}"] = "has no AEAD cipher"
    return found
