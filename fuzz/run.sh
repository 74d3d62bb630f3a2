#!/bin/sh
# Fuzzes one target for a bounded time, on stable Rust: ./run.sh TARGET SECONDS [libFuzzer options]
# TARGET is acl, auth, decode, engine, proxy, tls, topic or websocket; SECONDS 0 only replays the kept corpus.
# Exits non-zero on a crash, a time-out or too much memory; the input is left in artifacts/.
# To reproduce one: ./run.sh TARGET 0 artifacts/TARGET/crash-...
set -eu

if [ $# -lt 2 ]; then
    sed -n '2,5s/^# //p' "$0" >&2
    exit 2
fi
target=$1
seconds=$2
shift 2
cd "$(dirname "$0")"

# What cargo-fuzz passes on nightly, less the sanitizers, which stable lacks and safe code needs
# least. --target keeps these flags from build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS
out=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release --target "$host" --target-dir "$out" --bin "$target"

# New finds go to a scratch corpus; what is worth keeping is copied to corpus/ by hand.
found=$out/found/$target
mkdir -p "$found" "artifacts/$target"
common="-artifact_prefix=artifacts/$target/ -timeout=5 -rss_limit_mb=1024 -max_len=4096"
if [ "$seconds" -eq 0 ]; then
    [ $# -gt 0 ] || set -- "corpus/$target"/*
    exec "$out/$host/release/$target" $common "$@"
fi
exec "$out/$host/release/$target" $common -max_total_time="$seconds" -print_final_stats=1 "$@" \
    "$found" "corpus/$target"
