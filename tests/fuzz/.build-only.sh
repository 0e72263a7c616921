#!/bin/sh
# Builds the fuzz targets with libFuzzer's coverage and runs each for some seconds: `tests/fuzz/run.sh SECONDS [TARGET...]`.
# It is what cargo-fuzz does, without needing it; a nightly toolchain is needed for the coverage passes' flags. A finding ends the run
# with its file's name in artifacts/.
set -eu
cd "$(dirname "$0")"
seconds=${1:?seconds for each target}
shift
toolchain=${FUZZ_TOOLCHAIN:-nightly}
triple=$(rustc "+$toolchain" -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
-Ccodegen-units=1 -Cdebug-assertions --cfg fuzzing ${FUZZ_SANITIZER:+-Zsanitizer=$FUZZ_SANITIZER}"
cargo "+$toolchain" build --release --locked --target "$triple" --bin frames --bin detections --bin sequences --config "profile.release.package.faceid-plus.opt-level=1" ${FUZZ_JOBS:+-j "$FUZZ_JOBS"}
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml | grep -v faceid)
# What is in the tree already and begins the corpus, the first 20 kB of each.
seeds_of() {
    case $1 in
    gallery_format | gallery_journal | gallery_epoch) find ../store/vectors -type f ;;
    grant | messages | printed) find ../golden/payloads -type f ;;
    policy) find ../../data/config ../cli/config -name '*.toml' ;;
    picture) find ../../data/demo/people -name '*_0001.jpg' ;;
    manifest) find ../../models -name '*.toml' ;;
    library)
        printf 'const void* OrtGetApiBase(void) { return 0; }\n' | cc -shared -fPIC -nostdlib -x c -o corpus/library.so - && echo corpus/library.so
        ;;
    network) find ../../models/builtin -name '*.onnx' ;;
    esac
}
exit 0
    mkdir -p "corpus/$target" artifacts
    seeds_of "$target" | while read -r seed; do head -c 20000 "$seed" >"corpus/$target/seed-$(basename "$seed")"; done
    echo "== $target, $seconds s"
    "target/$triple/release/$target" -max_total_time="$seconds" -print_final_stats=1 -rss_limit_mb=4096 -timeout=20 \
        -artifact_prefix="artifacts/$target-" ${FUZZ_FLAGS:-} "corpus/$target" 2>"artifacts/$target.log" || {
        tail -40 "artifacts/$target.log"
        exit 1
    }
    grep -E 'stat::number_of_executed_units|stat::average_exec_per_sec|stat::new_units_added|DONE|cov:' "artifacts/$target.log" | tail -4
done
