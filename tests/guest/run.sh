#!/usr/bin/env bash
# Boots an older kernel of Debian under qemu's software emulation and tries the broker on it.
#
#     tests/guest/run.sh                     Linux 6.1 (bookworm), the oldest that is served
#     tests/guest/run.sh refused             Linux 5.10 (bullseye): the broker must say that it is too old
#     KERNEL=/boot/vmlinuz-... tests/guest/run.sh    any other kernel image
#
# Needs qemu-system-x86, mosquitto-clients and dpkg; no root, no KVM. Packages (the kernel and a static
# busybox) come from Debian's mirrors and are kept in target/guest. A run takes one to three minutes.
# RINGMAIN_BIN names a binary; without it the release binary is built.
set -euo pipefail
here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
root=$(realpath "$here/../..")
what=${1:-smoke}
target=${CARGO_TARGET_DIR:-$root/target}
cache=$target/guest
timeout_s=${TIMEOUT_S:-420}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

die() { echo "tests/guest: $*" >&2; exit 1; }
for program in qemu-system-x86_64 mosquitto_pub mosquitto_sub dpkg-deb apt-get; do
    command -v "$program" >/dev/null || die "$program is missing (Debian has it)"
done
mkdir -p "$cache"

# The newest package whose name matches, unpacked into a folder of the cache.
unpack() {
    local folder=$cache/$1 package=$2
    if [ ! -e "$folder/.whole" ]; then
        rm -rf "$folder"; mkdir -p "$folder"
        (cd "$folder" && apt-get -q download "$package" >&2)
        dpkg-deb -x "$folder"/*.deb "$folder"
        rm "$folder"/*.deb; touch "$folder/.whole"
    fi
    echo "$folder"
}

# Bullseye is not among bookworm's sources: its package list says where the kernel lies.
unpack_old() {
    local folder=$cache/linux-5.10
    if [ ! -e "$folder/.whole" ]; then
        rm -rf "$folder"; mkdir -p "$folder"
        local path
        path=$(curl -fsSL "$mirror/dists/bullseye/main/binary-amd64/Packages.xz" | xz -dc |
            sed -n 's|^Filename: \(.*/linux-image-5\.10\.[^/]*-cloud-amd64_.*_amd64\.deb\)$|\1|p' | sort -V | tail -1)
        [ -n "$path" ] || die "bullseye has no 5.10 cloud kernel any more"
        curl -fsSL -o "$folder/linux.deb" "$mirror/$path"
        dpkg-deb -x "$folder/linux.deb" "$folder"
        rm "$folder/linux.deb"; touch "$folder/.whole"
    fi
    echo "$folder"
}

kernel=${KERNEL:-}
if [ -z "$kernel" ]; then
    if [ "$what" = refused ]; then
        folder=$(unpack_old)
    else
        # The meta package names the newest.
        package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-6\.1\.[^ ]*\)$/\1/p' | head -1)
        [ -n "$package" ] || die "this system's package sources have no 6.1 cloud kernel; set KERNEL"
        folder=$(unpack linux-6.1 "$package")
    fi
    kernel=$(ls "$folder"/boot/vmlinuz-* | head -1)
fi
busybox=$(find "$(unpack busybox busybox-static)" -path "*bin/busybox" -type f | head -1)

broker=${RINGMAIN_BIN:-$target/release/ringmain}
[ -n "${RINGMAIN_BIN:-}" ] || cargo build --release --locked --package ringmain --bin ringmain

work=$(mktemp -d "${TMPDIR:-/tmp}/ringmain-guest-XXXXXX")
trap 'rm -rf "$work"' EXIT
guest=$work/root
mkdir -p "$guest"/{bin,dev,proc,sys,tmp}
cp "$busybox" "$guest/bin/busybox"
cp "$here/init" "$guest/init"; cp "$here/$what.sh" "$guest/test.sh"
chmod +x "$guest/init"
for program in "$broker" "$(command -v mosquitto_pub)" "$(command -v mosquitto_sub)"; do
    cp "$program" "$guest/bin/"
    ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$guest$(dirname "$library")"
        cp -Lu "$library" "$guest$library"
    done
done
[ -e "$guest/bin/ringmain" ] || mv "$guest/bin/$(basename "$broker")" "$guest/bin/ringmain"
(cd "$guest" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$work/initramfs"

# -cx16: the cmpxchg16b of qemu 7.2 spoils RFLAGS, which the kernel answers with a double fault.
# no_timer_check: on a busy host the emulated timer fails the kernel's test.
timeout -k 5 "$timeout_s" qemu-system-x86_64 -accel tcg,thread=multi,tb-size=256 -cpu max,-cx16 -m 1G -smp 2 \
    -nodefaults -no-user-config -display none -serial stdio -no-reboot \
    -kernel "$kernel" -initrd "$work/initramfs" \
    -append "console=ttyS0 panic=-1 mitigations=off quiet tsc=reliable no_timer_check" \
    </dev/null 2>&1 | tr -d '\r' | tee "$work/console" || true
rc=$(sed -n 's/.*=== END rc=\([0-9]*\).*/\1/p' "$work/console" | tail -1)
[ -n "$rc" ] || die "the guest did not come to its end within $timeout_s s"
exit "$rc"
