#!/usr/bin/env bash
# Installs what the build and the demo need, with `test` what the tests need too, where it is missing: Debian packages, and ONNX
# Runtime's CPU library by its pinned hash.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=(pkg-config gcc git libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav
    glib-networking mosquitto mosquitto-clients ffmpeg openssl ca-certificates)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    echo "deps: installing ${missing[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
    echo "deps: every Debian package is there"
fi
# Not vital: the test that lets `age` open a backup says that it was skipped.
if [ "${1:-}" = test ] && ! command -v age >/dev/null; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends age >/dev/null 2>&1 ||
        echo "SKIPPED: age could not be installed: no other program opens our backups here" >&2
fi
if [ -f models/fetch-onnxruntime.sh ]; then
    bash models/fetch-onnxruntime.sh || echo "deps: ONNX Runtime could not be brought; networks run on tract" >&2
fi
