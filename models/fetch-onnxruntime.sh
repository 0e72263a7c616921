#!/bin/sh
# Brings the CPU build of ONNX Runtime that tests and small machines use into .cache/onnxruntime/ and prints where it is.
# It comes from the wheel on PyPI (Microsoft's own build), by exact file, and is used only when its SHA-256 is the pinned one.
# Needs python3 with pip. A second call with the right file in place does nothing. Hand the library to faceid by
#   export ORT_DYLIB_PATH=<what this prints>
# `models/fetch-onnxruntime.sh aarch64` brings another machine's, into .cache/onnxruntime/aarch64/: for tests under emulation (cross/).
set -eu

version=1.32.0
machine=${1:-$(uname -m)}
case "$machine" in
    x86_64) platform=manylinux_2_28_x86_64
            pinned=6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f ;;
    aarch64) platform=manylinux_2_28_aarch64
             pinned=49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a ;;
    *) echo "no ONNX Runtime is pinned for $machine: set ORT_DYLIB_PATH to your own, or use the tract backend" >&2; exit 1 ;;
esac

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
folder=$root/.cache/onnxruntime
[ "$machine" = "$(uname -m)" ] || folder=$folder/$machine
library=$folder/libonnxruntime.so

is_pinned() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$pinned" ]; }

if is_pinned "$library"; then
    echo "$library"
    exit 0
fi

mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
# One wheel is named exactly (its library does not depend on the Python version), so that every machine gets the same bytes.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 \
    --implementation cp --abi cp311 --platform "$platform" --dest "$work" "onnxruntime==$version" >&2
python3 - "$work" "onnxruntime/capi/libonnxruntime.so.$version" <<'PY'
import glob, shutil, sys, zipfile
work, member = sys.argv[1:]
with zipfile.ZipFile(glob.glob(work + "/*.whl")[0]) as wheel, open(work + "/library", "wb") as out:
    shutil.copyfileobj(wheel.open(member), out)
PY
if ! is_pinned "$work/library"; then
    echo "the wheel's libonnxruntime.so.$version is not the pinned file (expected sha256 $pinned): nothing was installed" >&2
    exit 1
fi
chmod 644 "$work/library"
mv "$work/library" "$library"
echo "$library"
