#!/bin/sh
# Takes away what install.sh put there. As root:
#     systemd/uninstall.sh [--purge]
# --purge erases the gallery, the keys, the outbox and the audit trail as well: no biometric byte and no key is left.
set -eu
root=${DESTDIR:-}
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl disable --now faceid.service faceid-door.service 2>/dev/null || true
fi
rm -f "$root/usr/bin/faceid" "$root/usr/lib/systemd/system/faceid.service" "$root/usr/lib/systemd/system/faceid-door.service" \
    "$root/usr/lib/sysusers.d/faceid.conf" "$root/usr/lib/tmpfiles.d/faceid.conf" "$root/usr/lib/systemd/catalog/faceid.catalog" \
    "$root"/usr/share/man/man1/faceid.1 "$root"/usr/share/man/man1/faceid-*.1 "$root"/usr/share/man/man5/faceid.toml.5
rm -rf "$root/usr/lib/faceid" "$root/usr/share/doc/faceid"
if [ "${1:-}" = --purge ]; then
    # Without its keys whatever a disk still holds of the gallery is noise.
    for file in "$root"/etc/faceid/secrets/* "$root"/etc/faceid/door-secrets/* "$root"/etc/faceid/sealed/*; do
        [ ! -f "$file" ] || shred -u "$file"
    done
    rm -rf "$root/etc/faceid" "$root/var/lib/faceid" "$root/var/lib/faceid-door" "$root/var/cache/faceid" \
        "$root/etc/systemd/system/faceid.service.d" "$root/etc/systemd/system/faceid-door.service.d"
    if [ -z "$root" ]; then
        for user in faceid faceid-door; do userdel $user 2>/dev/null || true; done
    fi
fi
[ -n "$root" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
