#!/bin/sh
# A client that reads 400 bytes a second from a socket with small buffers, among others that are quick.
. "$(dirname "$0")/common.sh"
broker -- --shards 1
cat >"$folder/prices.toml" <<'TOML'
name = "prices"

[[population]]
name = "shops"
count = 6
client_id = "shop-%i"
publish = { topic = "shop/%i/price", qos = 1, rate = 120, size = 100 }

[[population]]
name = "tills"
count = 5
client_id = "till-%i"
subscribe = [{ filter = "shop/%i/price", qos = 1 }]

[[population]]
name = "slow"
count = 1
first = 5
client_id = "slow-till"
subscribe = [{ filter = "shop/5/price", qos = 1 }]
behaviour = "slow"
read_bytes_per_s = 400

[[stage]]
kind = "connect"

[[stage]]
kind = "traffic"
duration_s = 15
TOML
beside load "$bin/ringmain-load" run "$folder/prices.toml" --target "127.0.0.1:$port"
let_work 10
ask top --once --interval 2
ask explain-slow -n 2
