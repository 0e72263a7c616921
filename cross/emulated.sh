#!/usr/bin/env bash
# Runs a command, as root, where programs for 64-bit Arm start like any other: with binfmt_misc of its own in a user namespace of its
# own (Linux 6.7 or newer), so that nothing of this machine's is changed and whatever ends the command takes it away.
#   FACEID_QEMU=/usr/bin/qemu-aarch64-static cross/emulated.sh COMMAND [ARGUMENT...]
set -euo pipefail
qemu=$(realpath "${FACEID_QEMU:-/usr/bin/qemu-aarch64-static}")
[ -x "$qemu" ] || { echo "cross: no qemu at $qemu (Debian's qemu-user-static)" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "cross: run this as root: every user has to be known in the namespace" >&2; exit 1; }
# ELF, 64 bits, little endian, machine 183. F: the interpreter is opened now, and so is there in every root that is entered later.
export rule=":faceid-aarch64:M::"'\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'":$qemu:F"
pipes=$(mktemp -d)
trap 'rm -rf "$pipes"' EXIT
mkfifo "$pipes/there" "$pipes/mapped"
export pipes
unshare --user --mount --pid --fork --kill-child --propagation private bash -euo pipefail -c '
    echo >"$pipes/there"
    read -r _ <"$pipes/mapped"
    exec setpriv --reuid 0 --regid 0 --clear-groups bash -euo pipefail -c '\''
        mount -t proc proc /proc
        mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
        printf %s "$rule" >/proc/sys/fs/binfmt_misc/register
        unset rule pipes
        exec "$@"
    '\'' emulated "$@"
' emulated "$@" &
namespace=$!
read -r _ <"$pipes/there"
echo "0 0 4294967295" >"/proc/$namespace/uid_map"
echo "0 0 4294967295" >"/proc/$namespace/gid_map"
echo >"$pipes/mapped"
wait "$namespace"
