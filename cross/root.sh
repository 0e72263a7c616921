#!/usr/bin/env bash
# Makes the Debian root in which faceid is built for 64-bit Arm, once: Debian's own Rust with its standard library for arm64, Debian's
# cross compiler, GStreamer for arm64, and qemu to run what was built. Needs root and debootstrap; takes about 3 GB.
#   cross/root.sh FOLDER
set -euo pipefail
[ $# = 1 ] || { sed -n '2,4s/^# \?//p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "cross: run this as root, it makes a Debian root" >&2; exit 1; }
command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap
root=$1
suite=bookworm
packages=(gcc libc6-dev gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross pkg-config qemu-user-static
    rustc-web cargo-web libstd-rust-web-dev libstd-rust-web-dev:arm64
    libgstreamer1.0-dev:arm64 libgstreamer-plugins-base1.0-dev:arm64 libgstrtspserver-1.0-dev:arm64
    gstreamer1.0-plugins-base:arm64 gstreamer1.0-plugins-good:arm64 gstreamer1.0-plugins-bad:arm64 gstreamer1.0-libav:arm64
    libclang-dev clang ca-certificates)
if [ ! -e "$root/.made" ]; then
    # The mirror that this machine itself uses.
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' | awk -v s="$suite" '$2 == s { print $1; exit }')
    [ -d "$root/usr" ] || debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" ${mirror:+"$mirror"}
    cp -r /etc/apt/sources.list* /etc/apt/apt.conf.d "$root/etc/apt/" 2>/dev/null || true
    cp /etc/resolv.conf "$root/etc/"
    chroot "$root" dpkg --add-architecture arm64
    chroot "$root" apt-get update -qq
    chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    touch "$root/.made"
fi
chroot "$root" rustc --version
