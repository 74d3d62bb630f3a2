#!/usr/bin/env bash
# Holds 17,400 and 60,200 connections in one broker process, opens and closes 200,000, and treats it
# badly in other ways: some minutes. Arguments go to the test harness, such as the part of a test's name.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ "${RINGMAIN_LIMITS_BROKER:-ringmain}" = ringmain ] && [ -z "${RINGMAIN_BIN:-}" ]; then
    cargo build --release --locked --package ringmain --bin ringmain
fi
exec cargo test --release --locked --package ringmain-limits --test limits --test loads --test torture --test half_open --test million -- \
    --ignored --nocapture --test-threads=1 "$@"
