# What the examples share: a broker of their own in a folder of their own, and its end.
# Needs: cargo build --release

set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=${RINGMAIN_BIN_DIR:-$here/../../target/release}
for program in ringmain ringmain-load; do
    [ -x "$bin/$program" ] || { echo "$bin/$program is missing: cargo build --release -p ringmain -p ringmain-load" >&2; exit 2; }
done
port=${PORT:-18830}
folder=$(mktemp -d)
pids=

end() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    for pid in $pids; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap end EXIT INT TERM

# Starts a program beside this one, its output in a file.
beside() {
    name=$1
    shift
    "$@" >"$folder/$name.log" 2>&1 &
    pids="$pids $!"
    last=$!
}

# broker [WHAT RUNS IT] -- ARGUMENTS
broker() {
    before=
    while [ "$1" != -- ]; do before="$before $1"; shift; done
    shift
    # shellcheck disable=SC2086
    beside broker $before "$bin/ringmain" --listen "tcp://${LISTEN:-127.0.0.1}:$port" --data-dir "$folder/data" \
        --set admin.metrics_listen= "$@"
    broker_pid=$last
    wait_for_line broker ready
}

# Time for what runs beside this to work; it must not have ended.
let_work() {
    sleep "$1"
    for pid in $pids; do
        kill -0 "$pid" 2>/dev/null || { tail -n 5 "$folder"/*.log >&2; exit 1; }
    done
}

wait_for_line() {
    for _ in $(seq 100); do
        grep -q "^$2" "$folder/$1.log" && return
        sleep 0.1
    done
    cat "$folder/$1.log" >&2
    exit 1
}

# A command of the operator, shown with what it prints.
ask() {
    echo
    echo "    \$ ringmain $*"
    "$bin/ringmain" "$@" --data-dir "$folder/data" | sed 's/^/    /'
}

# The rows of the shards alone.
shards() {
    echo
    "$bin/ringmain" top --once --interval 2 --data-dir "$folder/data" | sed -n '/^shard /,/^$/s/^/    /p'
}
