#!/usr/bin/env bash
# Builds faceid for 64-bit Arm in the root that root.sh makes, and shows it under qemu. Needs root, cargo and a Debian mirror.
#   cross/build.sh build           the binary, with cameras: target/cross/out/aarch64-unknown-linux-gnu/release/faceid
#   cross/build.sh test            unit, golden and recall tests, the kernels for NEON among them
#   cross/build.sh demo            `faceid demo` on the bundled clip, eight times as slow (slow.toml); needs ffmpeg to stretch it
#   cross/build.sh package         the .deb, in target/debian; needs `cargo install --locked cargo-deb`
#   cross/build.sh test-package    the .deb on a clean Debian for arm64: install, doctor, upgrade, purge
# FACEID_CROSS_ROOT: the build's root (default target/cross/root). FACEID_ARM64_ROOT: the clean one (default target/cross/arm64).
# FACEID_CROSS_FLAGS: more for cargo, such as "-j1". Crates come from this machine's cargo, so that the build's root needs no network.
# ONNX Runtime's library for arm64 comes by its pinned hash (models/fetch-onnxruntime.sh); without it tests and demo run on tract alone.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}
root=${FACEID_CROSS_ROOT:-$PWD/target/cross/root}
out=$PWD/target/cross/out

# A clean Debian for arm64. Its second stage runs the packages' own scripts, which are Arm's.
clean_root() {
    local clean=$1
    [ ! -e "$clean/.made" ] || return 0
    echo "cross: making a Debian for arm64 in $clean, much of it under emulation: this takes a while" >&2
    rm -rf --one-file-system "$clean"
    debootstrap --arch=arm64 --foreign --variant=minbase bookworm "$clean" "${FACEID_MIRROR:-http://deb.debian.org/debian}" >/dev/null
    # The first stage has made the devices, which nobody can in a user namespace; told so, the second does not try to.
    FACEID_QEMU=$root/usr/bin/qemu-aarch64-static bash cross/emulated.sh chroot "$clean" /usr/bin/env -i \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive container=lxc \
        /debootstrap/debootstrap --second-stage >"$clean.log" 2>&1 || { tail -20 "$clean.log" >&2; return 1; }
    cp /etc/resolv.conf "$clean/etc/"
    touch "$clean/.made"
}

case "$what" in
build | test | demo | package) ;;
test-package)
    bash cross/root.sh "$root"
    clean=${FACEID_ARM64_ROOT:-$PWD/target/cross/arm64}
    clean_root "$clean"
    deb=$(ls -t target/debian/faceid_*_arm64.deb | head -1)
    if command -v lintian >/dev/null; then lintian --fail-on error,warning --profile debian "$deb"; else echo "SKIPPED: no lintian"; fi
    FACEID_QEMU=$root/usr/bin/qemu-aarch64-static exec bash cross/emulated.sh bash tests/package/run.sh "$deb" "$clean"
    ;;
*) sed -n '2,10s/^# \?//p' "$0" >&2; exit 2 ;;
esac

bash cross/root.sh "$root"
cargo fetch --locked
case "$what" in
test | demo) sh models/fetch-onnxruntime.sh aarch64 || echo "SKIPPED: no ONNX Runtime for arm64: only tract is tested" >&2 ;;
package) command -v cargo-deb >/dev/null || { echo "cross: cargo install --locked cargo-deb" >&2; exit 1; } ;;
esac
if [ "$what" = demo ]; then
    # The pictures and their order stay, only their times change, so that the truth beside the clip holds.
    mkdir -p "$out/slow"
    cp -r data/demo/people data/demo/door.json "$out/slow/"
    ffmpeg -v error -y -itsscale 8 -i data/demo/door.mp4 -c copy "$out/slow/door.mp4"
fi
mkdir -p "$out" "$root/work" "$root/out" "$root/cargo" "$root/shared"
export what root out
export cargo_home=${CARGO_HOME:-$HOME/.cargo} project=$PWD shared=${FACEID_SHARED:-$PWD/../shared}
# Tests start programs of their own, which have to start as any other does.
case "$what" in
test | demo) emulated=(env "FACEID_QEMU=$root/usr/bin/qemu-aarch64-static" bash cross/emulated.sh) ;;
*) emulated=() ;;
esac
# In a mount namespace of its own: whatever ends this script takes the mounts with it.
"${emulated[@]}" unshare --mount --propagation private bash -euo pipefail -c '
    mount --bind -o ro "$project" "$root/work"
    mount --bind "$out" "$root/out"
    mount --bind "$cargo_home" "$root/cargo"
    [ ! -d "$shared" ] || mount --bind -o ro "$shared" "$root/shared"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/tmp"
    exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root what="$what" flags="${FACEID_CROSS_FLAGS:-}" \
        FACEID_REQUIRE_SHARED="${FACEID_REQUIRE_SHARED:-}" bash /work/cross/inside.sh
'
if [ "$what" = package ]; then
    mkdir -p target/debian
    cp "$out"/aarch64-unknown-linux-gnu/debian/faceid_*_arm64.deb target/debian/
    ls -t target/debian/faceid_*_arm64.deb | head -1
fi
