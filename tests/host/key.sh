#!/bin/bash
# key.sh NAME: makes the signing key NAME under target/ unless it is there; prints its GNUPGHOME.
# NAME.gpg beside it is the public half, as apt's signed-by takes it.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"

name=$1
home=$host_root/keys/$name
mkdir -p "$host_root/keys"
exec 9> "$host_root/keys/lock"
flock 9
if [ ! -s "$home.gpg" ]; then
    rm -rf "$home"
    mkdir -m 700 "$home"
    # The agent must not outlive this script: its socket path and its lifetime are nobody else's.
    trap 'gpgconf --homedir "$home" --kill all' EXIT
    gpg --homedir "$home" --batch --quiet --passphrase '' --quick-gen-key "test host: $name" rsa3072 sign never
    gpg --homedir "$home" --batch --export > "$home.gpg.new"
    mv "$home.gpg.new" "$home.gpg"
fi
echo "$home"
