# In the guest with a kernel before 6.1: one clear error, and a failure as exit status.
timeout 60 ringmain serve --listen tcp://127.0.0.1:1883 --shards 2 --data-dir /tmp/data 2>/tmp/log
rc=$?
cat /tmp/log
[ $rc != 0 ] && [ $rc != 143 ] && [ $rc != 124 ] || { echo "FAILED: it ended with $rc"; exit 1; }
grep -q 'Linux 6.1' /tmp/log || { echo "FAILED: the error does not say which kernel is needed"; exit 1; }
grep -qi panicked /tmp/log && { echo "FAILED: a panic"; exit 1; }
echo "refused with $rc on $(uname -r)"
exit 0
