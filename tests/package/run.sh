#!/bin/bash
# The package on a clean Debian: an older one installed, used, upgraded, removed, purged. Needs root, debootstrap, curl, python3 and a Debian mirror; no
# running systemd. A package for 64-bit Arm: `cross/build.sh test-package`, which runs this where such programs start.
#     tests/package/run.sh PACKAGE.deb [ROOT]     ROOT: a bookworm root made before, kept; its `proc` must not be mounted
set -euo pipefail
deb=$(realpath "$1") here=$(cd "$(dirname "$0")/../.." && pwd)
kept=${2:-} root=${2:-$(mktemp -d /var/tmp/faceid-package.XXXXXX)} work=$(mktemp -d)
fail() { echo "FAILED: $*" >&2; exit 1; }
inside() { chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }
clean() { umount "$root/proc" 2>/dev/null || true; rm -rf "$work"; [ -n "$kept" ] || rm -rf --one-file-system "$root"; }
[ -n "$kept" ] || debootstrap --variant=minbase bookworm "$root" "${FACEID_MIRROR:-http://deb.debian.org/debian}" >/dev/null
trap clean EXIT
chmod 755 "$root"
mount -t proc proc "$root/proc"
[ "$(inside dpkg --print-architecture)" = "$(dpkg-deb -f "$deb" Architecture)" ] || fail "the root is of another architecture"
config=/etc/faceid/config.toml
inside find /etc /var/lib /var/cache -xdev -name '*faceid*' ! -path '*/dpkg/*' | grep . && fail "the root is not clean"

# The same files as an older package whose default config has another line: what an upgrade finds after the default has changed.
dpkg-deb -R "$deb" "$work/older"
sed -i 's/^Version: .*/Version: 0.0.9-1/' "$work/older/DEBIAN/control"
sed -i '1i# A line of the older default.' "$work/older$config"
(cd "$work/older" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | xargs -0 md5sum >DEBIAN/md5sums)
dpkg-deb --root-owner-group -b "$work/older" "$root/tmp/faceid-older.deb" >/dev/null
cp "$deb" "$root/tmp/faceid.deb"

echo "== install the older one, without a question"
inside apt-get update -qq
inside apt-get install -y --no-install-recommends /tmp/faceid-older.deb </dev/null >"$work/install.log" 2>&1 || { tail -40 "$work/install.log"; fail install; }
inside faceid --version
[ "$(inside stat -c '%a %U' /etc/faceid/secrets/gallery.key)" = "600 root" ] || fail "the gallery's key is open"
closed() {
    [ "$(inside stat -c '%a %U:%G' $config)" = "640 root:faceid" ] || fail "the config is $(inside stat -c '%a %U:%G' $config) $1"
    [ "$(inside stat -c '%a %U' /etc/faceid/secrets)" = "700 root" ] && [ "$(inside stat -c '%a %U' /etc/faceid/door-secrets)" = "700 root" ] ||
        fail "a folder of secrets is open $1"
}
closed "after the installation"
inside grep -qx 'LoadCredential=gallery.key:/etc/faceid/secrets/gallery.key' /etc/systemd/system/faceid.service.d/credentials.conf ||
    fail "the unit does not name the gallery's key"
inside getent passwd faceid >/dev/null || fail "no user faceid"
inside man -w faceid >/dev/null 2>&1 || inside test -e /usr/share/man/man1/faceid.1.gz || fail "no man page"
if inside test -x /usr/bin/journalctl; then
    inside journalctl --update-catalog
    inside journalctl --list-catalog 2aa9252e22a4449aafbca71dd144c126 | grep -q "FaceID+ is ready" || fail "the journal's catalog lacks our lines"
fi

echo "== enrol, and run without systemd the line that the unit has"
cp "$here"/data/demo/people/person-a/person-a_000[12].jpg "$here/data/demo/idle.mp4" "$root/tmp/"
chmod 644 "$root"/tmp/*.jpg "$root/tmp/idle.mp4"
cat >>"$root$config" <<'C'

[[cameras]]
id = "hall"
[cameras.source.file]
path = "/tmp/idle.mp4"
loop = true
paced = true
C
sed -i 's/^cameras = \[\]$//' "$root$config"
inside faceid check | grep -q "pack .standard. is not complete" || fail "check does not tell that the pack is not there"
# Nothing can be fetched in here; what comes with the program does for all that follows, and no door is opened.
sed -i 's/^pack = "standard"$/pack = "builtin"/' "$root$config"
inside faceid check
inside faceid enroll person-a /tmp/person-a_0001.jpg
recognised() { inside faceid recognize /tmp/person-a_0002.jpg | grep -q person-a || fail "not recognised $1"; }
recognised "after the installation"
inside faceid doctor >"$work/doctor.log" || { cat "$work/doctor.log"; fail "doctor finds something vital"; }
echo "doctor: $(grep -c '^ok' "$work/doctor.log") ok"; grep -v '^ok' "$work/doctor.log" || true
echo "== a script of the seed project's asks over HTTP"
sed -i 's/^# listen = "127.0.0.1:8000"$/listen = "127.0.0.1:8000"/; s/^open-scopes = \[\]$/open-scopes = ["recognize"]/' "$root$config"
inside sh -c "echo \$\$ >/tmp/run.pid; exec timeout -s TERM 300 faceid --config $config run" >"$work/run.log" 2>&1 &
running=$!
ask() { curl -s -m 20 -F file=@"$root/tmp/person-a_0002.jpg" "http://127.0.0.1:8000/$1?threshold=0.5"; }
# Emulated, the start alone takes minutes.
for _ in $(seq 140); do
    answer=$(ask recognize_face) && [ "${answer#*'"results"'}" != "$answer" ] && break
    kill -0 $running 2>/dev/null || break
    sleep 2
done
printf '%s\n' "${answer:-nothing was answered}"
echo "$answer" | python3 -c 'import json, sys; first = json.load(sys.stdin)["results"][0]; sys.exit((first["identity"], first["verified"]) != ("person-a", True))' ||
    { tail -20 "$work/run.log"; fail "the script was not answered as it expects"; }
kill -TERM "$(cat "$root/tmp/run.pid")"
wait $running || true
grep -q "ready: cameras 1" "$work/run.log" || { tail -20 "$work/run.log"; fail "the daemon was not ready"; }

echo "== upgrade keeps the gallery, the keys and the edited config"
# Everything that tells of a person or opens what does: none of it may change now, and no byte of it may be left at the end.
biometric() { inside find /var/lib/faceid /etc/faceid/secrets /etc/faceid/door-secrets -type f -size +15c; }
sums() { inside find $config /etc/faceid/secrets /var/lib/faceid/gallery/people.gallery -type f -exec sha256sum {} + | sort; }
before=$(sums)
# As packages before this one left it, with a copy that an editor left, and a door's beside it.
inside chown root:root $config
inside chmod 644 $config
inside sh -c "cp $config $config~; printf '[controller]\\ndoor = \"front\"\\n' >/etc/faceid/door.toml; chmod 644 $config~ /etc/faceid/door.toml"
inside apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold /tmp/faceid.deb </dev/null >"$work/upgrade.log" 2>&1 ||
    { tail -40 "$work/upgrade.log"; fail upgrade; }
inside dpkg-query -W -f '${Version}\n' faceid | grep -qx "$(dpkg-deb -f "$deb" Version)" || fail "it is still the older one"
[ "$before" = "$(sums)" ] || fail "the upgrade changed the gallery, a key or the config"
closed "after the upgrade"
[ "$(inside stat -c '%a %U:%G' $config~ /etc/faceid/door.toml | tr '\n' ' ')" = "640 root:faceid 640 root:faceid-door " ] ||
    fail "an older copy or the door's config is open: $(inside stat -c '%n %a %U:%G' $config~ /etc/faceid/door.toml)"
inside test -e $config.dpkg-dist || fail "the new default was not put beside the edited config"
inside faceid people show person-a | grep -q "person-a: 1 template" || fail "the upgrade lost the gallery"
recognised "after the upgrade"
inside apt-get install -y --reinstall -o Dpkg::Options::=--force-confold /tmp/faceid.deb </dev/null >/dev/null 2>&1 || fail reinstall
[ "$before" = "$(sums)" ] || fail "installing it again changed the gallery, a key or the config"

echo "== remove keeps them, purge erases every byte"
inside apt-get remove -y faceid >/dev/null 2>&1
[ "$before" = "$(sums)" ] || fail "remove changed the gallery, a key or the config"
# From the middle of each file 16 bytes, in hexadecimal: a copy of it anywhere has them. Keys, galleries and logs are like nothing else.
while IFS= read -r file; do
    size=$(stat -c %s "$root$file")
    od -An -v -tx1 -j $((size / 2 - 8)) -N 16 "$root$file" | tr -d ' '
done < <(biometric) | grep -vE '^(..)\1*$' >"$work/traces"
[ "$(wc -l <"$work/traces")" -ge 3 ] || fail "neither the gallery nor its keys are there to be looked for"
found() {
    find "$root" -xdev -path "$root/proc" -prune -o -path "$root/usr" -prune -o -type f -print0 | perl -e '
        open my $list, "<", $ARGV[0] or die; my @traces = map { chomp; pack "H*", $_ } <$list>;
        local $/; for my $path (split /\0/, <STDIN>) {
            open my $file, "<:raw", $path or next; my $bytes = <$file> // "";
            print "$path\n" if grep { index($bytes, $_) >= 0 } @traces;
        }' "$work/traces"
}
[ "$(found | wc -l)" -ge "$(wc -l <"$work/traces")" ] || fail "what is to be erased is not found where it lies"
echo "the site's own key" >"$root/tmp/site.key"
ln -s /tmp/site.key "$root/etc/faceid/secrets/mqtt-client-key"
inside apt-get purge -y faceid >/dev/null 2>&1
[ "$(cat "$root/tmp/site.key")" = "the site's own key" ] || fail "purge overwrote the site's key through a link"
rm "$root/tmp/site.key"
left=$(inside find / -xdev \( -name '*faceid*' -o -name 'people.gallery' -o -name 'gallery.key' -o -name grant.key \) ! -path '/proc/*' ! -path '/tmp/*' ! -path '/var/cache/apt/*' || true)
[ -z "$left" ] || fail "purge left: $left"
left=$(found)
[ -z "$left" ] || fail "bytes of the gallery or of a key are left in: $left"
rm -f "$root"/tmp/{faceid.deb,faceid-older.deb,idle.mp4,*.jpg}
echo "PASSED"
