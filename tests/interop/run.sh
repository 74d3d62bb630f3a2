#!/usr/bin/env bash
# Runs the interoperability tests, installing on a fresh Debian what they need. Idempotent.
#
#   tests/interop/run.sh                            against target/release/ringmain, or RINGMAIN_BIN
#   tests/interop/run.sh --broker mosquitto         against Debian's mosquitto: are the tests right?
#   tests/interop/run.sh --shards 1 -k retained     further arguments go to pytest
#
# INTEROP_WORKERS: test processes side by side (2). INTEROP_PORTS: the range of ports (20000-22999).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(dirname "$(dirname "$here")")
venv=$(dirname "$here")/.venv
target=${CARGO_TARGET_DIR:-$here/rumqttc-client/target}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Debian's packages, only those that are missing.
missing=()
[ -x /usr/sbin/mosquitto ] || command -v mosquitto >/dev/null || missing+=(mosquitto)
command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
command -v openssl >/dev/null || missing+=(openssl)
command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || missing+=(chromium-headless-shell)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# Python's, npm's: again only when what they were installed from has changed.
if ! cmp -s "$here/requirements.txt" "$venv/.installed"; then
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/.installed"
fi
if ! cmp -s "$here/package-lock.json" "$here/node_modules/.installed"; then
    (cd "$here" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    cp "$here/package-lock.json" "$here/node_modules/.installed"
fi

cargo build --quiet --locked --manifest-path "$here/rumqttc-client/Cargo.toml" --target-dir "$target"
export RUMQTTC_CLIENT=$target/debug/rumqttc-client
(cd "$repository" && cargo build --quiet --locked -p ringmain-transport --example ws_echo)
export WS_ECHO=${CARGO_TARGET_DIR:-$repository/target}/debug/examples/ws_echo

cd "$here"
exec "$venv/bin/python" -m pytest -n "${INTEROP_WORKERS:-2}" "$@"
