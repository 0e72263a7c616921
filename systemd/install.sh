#!/bin/sh
# Installs FaceID+ from a build tree onto this machine, without questions and without a package manager. As root:
#     systemd/install.sh [BINARY]
# DESTDIR=… only lays the files down, for images. `systemd/uninstall.sh` is its undoing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=${1:-$here/../target/release/faceid}
root=${DESTDIR:-}
[ -x "$binary" ] || { echo "install.sh: there is no program at $binary: cargo build --release" >&2; exit 69; }
put() { install -D -m "$1" "$2" "$root$3"; }
put 0755 "$binary" /usr/bin/faceid
put 0755 "$here/setup" /usr/lib/faceid/setup
put 0755 "$here/seal-keys" /usr/lib/faceid/seal-keys
put 0644 "$here/faceid.service" /usr/lib/systemd/system/faceid.service
put 0644 "$here/faceid-door.service" /usr/lib/systemd/system/faceid-door.service
put 0644 "$here/faceid.sysusers" /usr/lib/sysusers.d/faceid.conf
put 0644 "$here/faceid.tmpfiles" /usr/lib/tmpfiles.d/faceid.conf
put 0644 "$here/faceid.catalog" /usr/lib/systemd/catalog/faceid.catalog
for unit in faceid faceid-door; do
    for file in "$here/$unit.service.d"/*.conf; do
        put 0644 "$file" "/usr/share/doc/faceid/$unit.service.d/$(basename "$file")"
    done
done
for page in "$here"/man/*.[15]; do
    put 0644 "$page" "/usr/share/man/man${page##*.}/$(basename "$page")"
done
for text in README SECURITY TROUBLESHOOTING; do put 0644 "$here/$text.md" "/usr/share/doc/faceid/$text.md"; done
# A config that is there is the site's.
[ -e "$root/etc/faceid/config.toml" ] || put 0640 "$here/../data/config/faceid.toml" /etc/faceid/config.toml
DESTDIR=$root "$here/setup" --modes
[ -z "$root" ] || exit 0
/usr/lib/faceid/setup
echo "Installed. Write the cameras and doors into /etc/faceid/config.toml, enrol, then: systemctl enable --now faceid"
