#!/bin/sh
# A process of higher priority on the core of the only shard.
. "$(dirname "$0")/common.sh"
broker taskset -c 0 -- --shards 1
beside load taskset -c 1 "$bin/ringmain-load" pair -h 127.0.0.1 -p "$port" -c 20 -I 20 --cpus 1 -d 30
let_work 8
shards
ask explain-slow -n 1
echo
echo "    now a loop with nice -15 on core 0"
beside loop taskset -c 0 nice -n -15 sh -c 'while :; do :; done'
let_work 8
shards
ask explain-slow -n 1
