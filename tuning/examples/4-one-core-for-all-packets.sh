#!/bin/sh
# Two network namespaces joined by a pair of virtual interfaces; all packets to the broker are received on one core.
# Needs root.
. "$(dirname "$0")/common.sh"
here_ns=rm-example-$$-a
there_ns=rm-example-$$-b
namespaces_end() {
    end
    ip netns del "$here_ns" 2>/dev/null || true
    ip netns del "$there_ns" 2>/dev/null || true
}
trap namespaces_end EXIT INT TERM
ip netns add "$here_ns"
ip netns add "$there_ns"
ip link add va netns "$here_ns" type veth peer name vb netns "$there_ns"
ip -n "$here_ns" addr add 10.77.0.1/24 dev va
ip -n "$there_ns" addr add 10.77.0.2/24 dev vb
ip -n "$here_ns" link set va up
ip -n "$there_ns" link set vb up
LISTEN=10.77.0.2 broker ip netns exec "$there_ns" -- --shards 2
for cpus in 1 3; do
    ip netns exec "$there_ns" sh -c "echo $cpus > /sys/class/net/vb/queues/rx-0/rps_cpus"
    beside "load-$cpus" ip netns exec "$here_ns" "$bin/ringmain-load" pair -h 10.77.0.2 -p "$port" -c 200 -F 2 -d 15
    let_work 6
    echo
    echo "    rps_cpus = $cpus; packets by core in /proc/net/softnet_stat during a second:"
    awk '{print $1}' /proc/net/softnet_stat >"$folder/before"
    sleep 1
    awk '{print $1}' /proc/net/softnet_stat | paste "$folder/before" - | while read -r from to; do
        echo "    $((0x$to - 0x$from))"
    done
    shards
    kill "$last"; wait "$last" || true
    pids=$broker_pid
done
