#!/usr/bin/env bash
# Has Debian's Prometheus scrape a release broker with traffic, and checks metrics, alert rules and dashboard
# against each other. Against target/release/ringmain, or RINGMAIN_BIN. Idempotent.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Debian's packages, only those that are missing.
missing=()
command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
command -v promtool >/dev/null || missing+=(prometheus)
if [ ${#missing[@]} -gt 0 ]; then
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

exec python3 "$here/check.py" "$@"
