#!/bin/sh
# The search's inner loops under Miri, an interpreter that looks at every access to memory and that knows AVX-512, which few machines
# have: `tests/miri/run.sh [FILTER]`. Needs a nightly toolchain with the components miri and rust-src, and the better part of an hour.
set -eu
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target/miri}" FACEID_REQUIRE_KERNEL=avx512
export RUSTFLAGS="-Ctarget-feature=+avx,+avx2,+avx512f,+avx512bw,+avx512vl" MIRIFLAGS=-Zmiri-disable-isolation
# Without those that go over thousands of shapes: an interpreter is hundreds of times as slow.
exec cargo +nightly miri test --lib "${1:-gallery::index::kernel}" -- --nocapture --skip random_numbers
