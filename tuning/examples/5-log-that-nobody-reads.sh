#!/bin/sh
# A log that is written to a pipe which nobody reads, and strangers who make the broker log.
. "$(dirname "$0")/common.sh"
mkfifo "$folder/log"
# Open for reading, read until ready, then never again.
exec 3<>"$folder/log"
"$bin/ringmain" --listen "tcp://127.0.0.1:$port" --data-dir "$folder/data" --set admin.metrics_listen= --shards 2 2>&3 &
pids=$!
while read -r line <&3; do [ "$line" = ready ] && break; done
stray() {
    for _ in $(seq 1500); do
        printf 'GET / HTTP/1.0\r\n\r\n' | timeout 2 bash -c "cat >/dev/tcp/127.0.0.1/$port" || true
    done
}
pairs() {
    "$bin/ringmain-load" pair -h 127.0.0.1 -p "$port" -c 20 -I 20 -d 5 2>&1 | sed -n 's/^/    /p' | grep '^ *\(checked\|delivery\) '
}
echo "    while there is room:"
pairs
stray
echo
echo "    with a full pipe behind the log:"
for task in /proc/"$pids"/task/*; do
    [ "$(cat "$task/comm")" != ringmain-log ] || echo "    its thread waits in $(cat "$task/wchan")"
done
pairs
shards
