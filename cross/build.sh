#!/usr/bin/env bash
# Builds faceid for 64-bit Arm in the root that root.sh makes, and with `test` runs its tests and the demo under qemu.
#   cross/build.sh [build|test|demo]
# FACEID_CROSS_ROOT: the root (default target/cross/root). Crates come from this machine's cargo, so that the root needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}
root=${FACEID_CROSS_ROOT:-$PWD/target/cross/root}
bash cross/root.sh "$root"
cargo fetch --locked
out=$PWD/target/cross/out
mkdir -p "$out" "$root/work" "$root/out" "$root/cargo" "$root/shared"
export what root out
export cargo_home=${CARGO_HOME:-$HOME/.cargo} project=$PWD shared=${FACEID_SHARED:-$PWD/../shared}
# In a mount namespace of its own: whatever ends this script takes the mounts with it.
unshare --mount --propagation private bash -euo pipefail -c '
    mount --bind -o ro "$project" "$root/work"
    mount --bind "$out" "$root/out"
    mount --bind "$cargo_home" "$root/cargo"
    [ ! -d "$shared" ] || mount --bind -o ro "$shared" "$root/shared"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/tmp"
    exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root what="$what" ${ORT_ARM64_DYLIB_PATH:+ORT_DYLIB_PATH="$ORT_ARM64_DYLIB_PATH"} \
        FACEID_REQUIRE_SHARED="${FACEID_REQUIRE_SHARED:-}" bash /work/cross/inside.sh
'
