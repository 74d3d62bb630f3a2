#!/bin/sh
# A fan-out to 3,000 subscribers ten times a second, and beside it an alarm from a client of one shard to a client of the other.
. "$(dirname "$0")/common.sh"
broker -- --shards 2 --set node.hash_seed=7
# Client identifiers of different homes.
of() {
    n=0
    while [ "$("$bin/ringmain" home --shards 2 --set node.hash_seed=7 "$2-$n" | awk '{print $NF}')" != "$1" ]; do n=$((n + 1)); done
    echo "$2-$n"
}
of 0 alarm-source >"$folder/pub"
of 1 alarm-sink >"$folder/sub"
beside fanout "$bin/ringmain-load" fanout -h 127.0.0.1 -p "$port" -c 3000 -s 200 -I 100 -d 30
beside alarm "$bin/ringmain-load" pair -h 127.0.0.1 -p "$port" -c 1 --pub-ids "$folder/pub" --sub-ids "$folder/sub" -t 'alarm/%i' -I 7 -d 30
let_work 15
shards
ask explain-slow -n 3
