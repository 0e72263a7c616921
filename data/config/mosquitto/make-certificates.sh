#!/bin/sh
# Makes the certificates of a site for a broker that is configured as faceid.conf says: an authority of the site's own, one certificate for
# the broker and one for each client, whose common name is the user that faceid.acl goes by.
#
#   make-certificates.sh FOLDER BROKER CLIENT...
#   make-certificates.sh pki broker.site.example,192.0.2.5 gate door-gate-front operator homeassistant
#
# BROKER is the name by which the clients connect, further names and addresses after commas: it must be what stands in [publish] host.
# What is there is kept, so that a client can be added later with the same words. Keys are readable by their owner alone; `ca.key` signs for
# everybody and belongs on no device: keep it where backups are kept.
#
# To the broker go ca.pem, broker.pem and broker.key, for its user to read (Debian: chgrp mosquitto, chmod 640); to each device ca.pem ([publish.tls] ca-file), CLIENT.pem (client-certificate-file)
# and CLIENT.key (the secret that client-key-secret names). DAYS (825) is how long broker and clients are good for; make new ones before
# that by removing theirs and calling this again.
set -eu
if [ $# -lt 2 ]; then
    sed -n 's/^# \{0,1\}//; 2,/^set/{/^set/!p;}' "$0"
    exit 2
fi
folder=$1 broker=$2
shift 2
umask 077
mkdir -p "$folder"
cd "$folder"
days=${DAYS:-825}

key() { [ -e "$1.key" ] || openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

if [ ! -e ca.pem ]; then
    key ca
    openssl req -x509 -new -key ca.key -sha256 -days 7300 -subj "/CN=FaceID site authority" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign -out ca.pem
    echo "ca.pem: the authority"
fi

# NAME, then what the certificate may be used for and for which names, a line each.
certificate() {
    if [ -e "$1.pem" ]; then
        echo "$1.pem: is there already and was kept"
        return
    fi
    case $1 in
    ca | *[!A-Za-z0-9._-]* | .* | -* | '')
        echo "$1 is no name for a client: use letters, digits, -, _ and ." >&2
        exit 2
        ;;
    esac
    key "$1"
    # X.509 version 3 needs an extension; version 1, which openssl makes without one, is refused by rustls.
    printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n%s\n' "$2" >"$1.ext"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days "$days" -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm -f "$1.csr" "$1.ext"
    echo "$1.pem, $1.key"
}

names=$(echo "$broker" | tr ',' '\n' | while read -r name; do
    case $name in
    *:* | [0-9]*.[0-9]*.[0-9]*.[0-9]*) printf 'IP:%s,' "$name" ;;
    *) printf 'DNS:%s,' "$name" ;;
    esac
done)
certificate broker "extendedKeyUsage=serverAuth
subjectAltName=${names%,}"
for client in "$@"; do
    certificate "$client" "extendedKeyUsage=clientAuth"
done
