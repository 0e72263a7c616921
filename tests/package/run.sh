#!/bin/bash
# The package on a clean Debian: installed, used, upgraded, purged. Needs root, debootstrap and a Debian mirror; no running systemd.
#     tests/package/run.sh PACKAGE.deb [ROOT]     ROOT: a bookworm root made before, kept; its `proc` must not be mounted
set -euo pipefail
deb=$(realpath "$1") here=$(cd "$(dirname "$0")/../.." && pwd)
kept=${2:-} root=${2:-$(mktemp -d /var/tmp/faceid-package.XXXXXX)}
fail() { echo "FAILED: $*" >&2; exit 1; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
clean() { umount "$root/proc" 2>/dev/null || true; [ -n "$kept" ] || rm -rf --one-file-system "$root"; }
[ -n "$kept" ] || debootstrap --variant=minbase bookworm "$root" "${FACEID_MIRROR:-http://deb.debian.org/debian}" >/dev/null
trap clean EXIT
mount -t proc proc "$root/proc"
cp "$deb" "$root/tmp/faceid.deb"
inside find /etc /var/lib /var/cache -xdev -name '*faceid*' ! -path '*/dpkg/*' | grep . && fail "the root is not clean"

echo "== install, without a question"
inside apt-get install -y --no-install-recommends /tmp/faceid.deb </dev/null >/tmp/faceid-install.log 2>&1 || { tail -40 /tmp/faceid-install.log; fail install; }
inside faceid --version
[ "$(inside stat -c '%a %U' /etc/faceid/secrets/gallery.key)" = "600 root" ] || fail "the gallery's key is open"
inside getent passwd faceid >/dev/null || fail "no user faceid"
inside man -w faceid >/dev/null 2>&1 || inside test -e /usr/share/man/man1/faceid.1.gz || fail "no man page"
if inside test -x /usr/bin/journalctl; then
    inside journalctl --update-catalog
    inside journalctl --list-catalog 2aa9252e22a4449aafbca71dd144c126 | grep -q "FaceID+ is ready" || fail "the journal's catalog lacks our lines"
fi

echo "== enrol, and run without systemd the line that the unit has"
cp "$here"/data/demo/people/person-a/person-a_000[12].jpg "$here/data/demo/idle.mp4" "$root/tmp/"
chmod 644 "$root"/tmp/*.jpg "$root/tmp/idle.mp4"
cat >>"$root/etc/faceid/config.toml" <<'C'

[[cameras]]
id = "hall"
[cameras.source.file]
path = "/tmp/idle.mp4"
loop = true
paced = true
C
sed -i 's/^cameras = \[\]$//' "$root/etc/faceid/config.toml"
inside faceid check
inside faceid enroll person-a /tmp/person-a_0001.jpg
inside faceid recognize /tmp/person-a_0002.jpg | grep -q person-a || fail "not recognised"
inside faceid doctor >/tmp/faceid-doctor.log || { cat /tmp/faceid-doctor.log; fail "doctor finds something vital"; }
grep -c '^ok' /tmp/faceid-doctor.log
inside timeout -s TERM 15 faceid --config /etc/faceid/config.toml run >/tmp/faceid-run.log 2>&1 || true
grep -q "ready: 1 camera" /tmp/faceid-run.log || { tail -20 /tmp/faceid-run.log; fail "the daemon was not ready"; }

echo "== upgrade keeps the gallery, the keys and the config"
before=$(inside sha256sum /etc/faceid/config.toml /etc/faceid/secrets/gallery.key /etc/faceid/secrets/grant.key)
inside dpkg --force-confold -i /tmp/faceid.deb </dev/null >/dev/null 2>&1 || fail upgrade
[ "$before" = "$(inside sha256sum /etc/faceid/config.toml /etc/faceid/secrets/gallery.key /etc/faceid/secrets/grant.key)" ] || fail "the upgrade changed them"
inside faceid people list | grep -q "person-a: 1 template" || fail "the upgrade lost the gallery"

echo "== remove keeps them, purge erases every byte"
inside apt-get remove -y faceid >/dev/null 2>&1
inside test -e /var/lib/faceid/gallery/people.gallery || fail "remove took the gallery"
inside apt-get purge -y faceid >/dev/null 2>&1
left=$(inside find / -xdev \( -name '*faceid*' -o -name 'people.gallery' -o -name 'gallery.key' -o -name grant.key \) ! -path '/proc/*' ! -path '/tmp/*' ! -path '/var/cache/apt/*' || true)
[ -z "$left" ] || fail "purge left: $left"
rm -f "$root"/tmp/{faceid.deb,idle.mp4,*.jpg}
echo "PASSED"
