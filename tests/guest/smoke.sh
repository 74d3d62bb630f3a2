# In the guest: the broker starts, says what the kernel lacks, and carries messages between clients on
# two shards, with one ring and with several rings a shard; then it ends as it was told.
failures=0
say() { echo "--- $*"; }
fail() { echo "FAILED: $*"; failures=$((failures + 1)); }

# start ARGS...: a broker on 127.0.0.1:1883
start() {
    ringmain serve --listen tcp://127.0.0.1:1883 --shards 2 --data-dir /tmp/data "$@" 2>/tmp/log &
    broker=$!
    i=0
    until grep -qw ready /tmp/log; do
        i=$((i + 1))
        if [ $i -gt 120 ] || ! kill -0 $broker 2>/dev/null; then
            cat /tmp/log; fail "the broker did not start: $*"; return 1
        fi
        sleep 0.5
    done
    say "ready after $i half seconds: $*"
    cat /tmp/log
}

# stop: with SIGTERM, which must be clean
stop() {
    kill -TERM $broker
    wait $broker; rc=$?
    [ $rc = 0 ] || { cat /tmp/log; fail "the broker ended with $rc"; }
    if grep -qi panicked /tmp/log; then cat /tmp/log; fail "a panic"; fi
    say "ended with $rc"
}

# round VERSION QOS: six subscribers with names that spread over both shards, six publishers
round() {
    subs= before=$failures
    for n in 1 2 3 4 5 6; do
        timeout 3000 mosquitto_sub -h 127.0.0.1 -V "$1" -i "sub-$1-$2-$n" -q "$2" -t "t/$1/$2/#" -C 6 >/tmp/got.$n 2>/tmp/err.$n &
        subs="$subs $!"
    done
    # The emulation is slow, and its clock runs ahead of it: time for six subscriptions.
    sleep 10
    for n in 1 2 3 4 5 6; do
        timeout 3000 mosquitto_pub -h 127.0.0.1 -V "$1" -i "pub-$1-$2-$n" -q "$2" -t "t/$1/$2/$n" -m "message $n" || fail "publish $n"
    done
    for pid in $subs; do wait "$pid" || fail "a subscriber ended with $?"; done
    for n in 1 2 3 4 5 6; do
        [ "$(sort /tmp/got.$n | uniq | wc -l)" = 6 ] || { cat /tmp/got.$n /tmp/err.$n; fail "$1 QoS $2: subscriber $n"; }
    done
    [ $failures = $before ] && say "$1 QoS $2: 36 messages"
}

smoke() {
    round mqttv311 0
    round mqttv311 1
    round mqttv5 2
    mosquitto_pub -h 127.0.0.1 -i r1 -t kept -m retained -r -q 1 || fail "a retained publish"
    [ "$(timeout 300 mosquitto_sub -h 127.0.0.1 -i r2 -t kept -C 1)" = retained ] || fail "no retained message"
    open=$(timeout 3000 mosquitto_sub -h 127.0.0.1 -i sys -t '$SYS/brokers/+/stats/connections/count' -C 1)
    say "connections by \$SYS: $open"
    head -c 300000 /dev/zero | tr '\0' x >/tmp/large
    timeout 3000 mosquitto_sub -h 127.0.0.1 -i l1 -t large -C 1 -N >/tmp/large.got & sub=$!
    sleep 6
    mosquitto_pub -h 127.0.0.1 -i l2 -t large -f /tmp/large -q 1 || fail "a large publish"
    wait $sub || fail "a large message"
    cmp /tmp/large /tmp/large.got || fail "a large message differs"
}

if start --set sys.interval_s=1; then
    # Linux 6.8 brought IORING_OP_FIXED_FD_INSTALL.
    release=$(uname -r); major=${release%%.*}; minor=${release#*.}; minor=${minor%%.*}
    if [ $((major * 100 + minor)) -lt 608 ]; then
        grep -q FixedFdInstall /tmp/log || fail "the log does not say what the kernel lacks"
    fi
    smoke
    stop
fi
if start --set sys.interval_s=1 --set reactor.rings_per_shard=3; then
    smoke
    stop
fi
[ $failures = 0 ] && echo "smoke test passed on $(uname -r)"
exit $((failures > 0))
