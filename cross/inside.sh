#!/usr/bin/env bash
# What build.sh does within the root: /work is the project, /out takes what is built, /cargo is the machine's own cargo home.
set -euo pipefail
target=aarch64-unknown-linux-gnu
export CARGO_HOME=/cargo CARGO_TARGET_DIR=/out CARGO_NET_OFFLINE=true
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++
export PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_aarch64_unknown_linux_gnu=aarch64-linux-gnu-pkg-config
export PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig
# GStreamer's scanner is a program of its own for Arm, which cannot be started from here: it looks at its plugins itself.
export GST_REGISTRY_FORK=no
[ ! -d /shared/models ] || export FACEID_SHARED=/shared
library=/work/.cache/onnxruntime/aarch64/libonnxruntime.so
[ ! -e $library ] || export ORT_DYLIB_PATH=$library
cd /work
# shellcheck disable=SC2086,SC2154 # flags are words; build.sh sets them.
faceid_cargo() { cargo "$1" --release --locked --target $target $flags "${@:2}"; }
case "$what" in
build) faceid_cargo build ;;
# Unit and golden tests; those of the real binary start daemons and brokers with deadlines that an emulator does not keep.
test)
    export FACEID_EMULATED=1 FACEID_CC=aarch64-linux-gnu-gcc FACEID_REQUIRE_KERNEL=neon-dot
    faceid_cargo test --lib
    # Without what judges whole clips, or hundreds of photos by large networks: hours each.
    faceid_cargo test --test golden -- --skip visits:: --skip nobody::
    faceid_cargo test --test recall -- --skip of_photos
    ;;
demo)
    faceid_cargo build
    qemu-aarch64-static -L / /out/$target/release/faceid demo --config /work/cross/slow.toml --data /out/slow
    ;;
# In here lie Arm's libraries, by which dpkg-shlibdeps says what the package depends on.
package)
    faceid_cargo build
    PATH=$PATH:$CARGO_HOME/bin cargo-deb --locked --offline --target $target --no-build --strip
    ;;
esac
