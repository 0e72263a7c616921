#!/bin/sh
# Takes away what install.sh put there. As root:
#     systemd/uninstall.sh [--purge]
# --purge erases the gallery, the keys, the outbox and the audit trail as well: no file of them is left. What else there is (backups, the
# journal, the broker's retained messages, worn blocks of flash): SECURITY.md.
set -eu
root=${DESTDIR:-}
# Overwrites what a folder of secrets holds and takes it away. Of a link, and of a file that has another name too, only the name goes:
# what it leads to may be the site's own key. A folder that is itself a link is left alone.
erase() {
    [ -d "$1" ] && [ ! -L "$1" ] || return 0
    for file in "$1"/* "$1"/.[!.]*; do
        if [ -L "$file" ] || { [ -f "$file" ] && [ "$(stat -c %h -- "$file")" -gt 1 ]; }; then
            rm -f -- "$file"
        elif [ -f "$file" ]; then
            shred -u -- "$file"
        fi
    done
}
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl disable --now faceid.service faceid-door.service 2>/dev/null || true
fi
rm -f "$root/usr/bin/faceid" "$root/usr/lib/systemd/system/faceid.service" "$root/usr/lib/systemd/system/faceid-door.service" \
    "$root/usr/lib/sysusers.d/faceid.conf" "$root/usr/lib/tmpfiles.d/faceid.conf" "$root/usr/lib/systemd/catalog/faceid.catalog" \
    "$root"/usr/share/man/man1/faceid.1 "$root"/usr/share/man/man1/faceid-*.1 "$root"/usr/share/man/man5/faceid.toml.5
rm -rf "$root/usr/lib/faceid" "$root/usr/share/doc/faceid"
if [ "${1:-}" = --purge ]; then
    # Without its keys whatever a disk still holds of the gallery is noise.
    if [ ! -L "$root/etc/faceid" ]; then
        for folder in secrets door-secrets sealed; do erase "$root/etc/faceid/$folder"; done
    fi
    rm -rf "$root/etc/faceid" "$root/var/lib/faceid" "$root/var/lib/faceid-door" "$root/var/cache/faceid" \
        "$root/etc/systemd/system/faceid.service.d" "$root/etc/systemd/system/faceid-door.service.d"
    if [ -z "$root" ]; then
        for user in faceid faceid-door; do userdel $user 2>/dev/null || true; done
    fi
fi
[ -n "$root" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
