#!/usr/bin/env bash
# Makes the Debian root in which faceid is built for 64-bit Arm: Debian's own Rust with its standard library for arm64, Debian's cross
# compiler, GStreamer for arm64, and qemu to run what was built. A second call installs what this list has gained, or does nothing. Needs
# root, debootstrap and a Debian mirror; takes about 3 GB.
#   cross/root.sh FOLDER
set -euo pipefail
[ $# = 1 ] || { sed -n '2,5s/^# \?//p' "$0"; exit 2; }
[ "$(id -u)" = 0 ] || { echo "cross: run this as root, it makes a Debian root" >&2; exit 1; }
command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends debootstrap
root=$1
suite=bookworm
# libosdp asks git for a version, and the golden tests ffmpeg for a clip's frames. rustc-web is what Debian keeps new enough for its browsers; rustc itself is 1.63 here.
packages=(gcc libc6-dev gcc-aarch64-linux-gnu g++-aarch64-linux-gnu libc6-dev-arm64-cross pkg-config qemu-user-static dpkg-dev git
    rustc-web cargo-web libstd-rust-web-dev libstd-rust-web-dev:arm64
    libgstreamer1.0-dev:arm64 libgstreamer-plugins-base1.0-dev:arm64 libgstrtspserver-1.0-dev:arm64
    gstreamer1.0-plugins-base:arm64 gstreamer1.0-plugins-good:arm64 gstreamer1.0-plugins-bad:arm64 gstreamer1.0-libav:arm64
    ffmpeg ca-certificates)
# The mirror that this machine itself uses, if it is a Debian of that suite.
mirror_of() {
    local found
    found=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 2>/dev/null | awk -v s="$1" '$2 == s { print $1; exit }')
    echo "${found:-http://deb.debian.org/$2}"
}
if [ "$(cat "$root/.made" 2>/dev/null)" != "${packages[*]}" ]; then
    mirror=$(mirror_of "$suite" debian)
    [ -d "$root/usr" ] || debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror"
    rm -f "$root"/etc/apt/sources.list.d/*
    cat >"$root/etc/apt/sources.list" <<SOURCES
deb $mirror $suite main
deb $mirror $suite-updates main
deb $(mirror_of "$suite-security" debian-security) $suite-security main
SOURCES
    # What this machine has to say of proxies and the mirror's dates.
    grep -ls '^ *Acquire::' /etc/apt/apt.conf.d/* | xargs -r cp -t "$root/etc/apt/apt.conf.d"
    cp /etc/resolv.conf "$root/etc/"
    chroot "$root" dpkg --add-architecture arm64
    chroot "$root" apt-get update -qq
    chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    echo "${packages[*]}" >"$root/.made"
fi
chroot "$root" rustc --version
