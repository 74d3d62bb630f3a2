#!/usr/bin/env bash
# Autobahn|Testsuite's fuzzing client against examples/ws_echo, which is the WebSocket of the broker's listeners:
#
#   transport/tests/ws_clients/autobahn.sh                # builds ws_echo
#   WS_ECHO=path/to/ws_echo transport/tests/ws_clients/autobahn.sh
#
# The suite is a program for Python 2.7, which Debian has no more: PYTHON27 names one, or PATH or pyenv has it. Without
# it nothing is tested and the status is 77. What the suite needs is installed under target/autobahn.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${CARGO_TARGET_DIR:-$here/../../../target}
packages=$target/autobahn/packages
suite=autobahntestsuite==25.10.1  # which pins all that it needs

python=
for candidate in "${PYTHON27:-}" python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7; do
    if [ -n "$candidate" ] && "$candidate" -m pip --version >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "Autobahn|Testsuite was not run: there is no Python 2.7 with pip. Name one in PYTHON27."
    exit 77
fi

if [ "$(cat "$packages/.installed" 2>/dev/null)" != "$suite" ]; then
    rm -rf "$packages"
    "$python" -m pip install --quiet --disable-pip-version-check --target "$packages" "$suite"
    echo "$suite" >"$packages/.installed"
fi

if [ -z "${WS_ECHO:-}" ]; then
    (cd "$here" && cargo build --quiet --locked -p ringmain-transport --example ws_echo)
    WS_ECHO=$target/debug/examples/ws_echo
fi
coproc echo_server { exec "$WS_ECHO" 127.0.0.1:0 2>/dev/null; }
server=$echo_server_PID
trap 'kill "$server" 2>/dev/null' EXIT
read -r address <&"${echo_server[0]}"

"$python" "$here/autobahn.py" "$packages" "$address" "$target/autobahn/reports"
