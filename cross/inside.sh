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
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="--target=aarch64-linux-gnu --sysroot=/usr/aarch64-linux-gnu -I/usr/aarch64-linux-gnu/include"
[ ! -d /shared/models ] || export FACEID_SHARED=/shared
cd /work
case "$what" in
build) cargo build --release --locked --target $target ;;
# Unit and golden tests; those of the real binary start daemons and brokers with deadlines that an emulator does not keep.
test) cargo test --release --locked --target $target --lib --test golden --test recall ;;
demo)
    cargo build --release --locked --target $target
    qemu-aarch64-static -L / /out/$target/release/faceid demo
    ;;
*) echo "cross: build, test or demo" >&2; exit 2 ;;
esac
