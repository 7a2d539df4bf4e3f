#!/bin/bash
# build.sh: builds module-toy versions 1 and 2 as Debian packages below target/, unless they are up to date.
# Its program is the same in both; a module that the program imports differs, and a file of /etc that units
# of other names read. No script asks for anything: what has to be restarted is for others to find out.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

output=$host_root/module-toy

write() {
    mkdir -p "$(dirname "$1")"
    cat > "$1"
}

build() (
    version=$1
    tree=$output/work/$version
    mkdir -p "$tree"
    cd "$tree"
    write DEBIAN/control <<CONTROL
Package: module-toy
Version: $version
Architecture: all
Depends: python3-minimal
Maintainer: The apt-ostree test host <test@example.org>
Description: a Python program with a module of its own
CONTROL
    echo /etc/toy-settings/shared.env | write DEBIAN/conffiles
    echo "TOY_VERSION=$version" | write etc/toy-settings/shared.env
    : | write usr/lib/python3/dist-packages/moduletoy/__init__.py
    echo "from .deep import VERSION" | write usr/lib/python3/dist-packages/moduletoy/answers.py
    echo "VERSION = $version" | write usr/lib/python3/dist-packages/moduletoy/deep.py
    write usr/lib/module-toy/program <<'PROGRAM'
#!/usr/bin/python3
import time

from moduletoy import answers

print("version", answers.VERSION, flush=True)
while True:
    time.sleep(3600)
PROGRAM
    chmod 755 usr/lib/module-toy/program
    write usr/lib/systemd/system/module-toy.service <<'UNIT'
[Unit]
Description=A Python program with a module of its own

[Service]
Type=exec
ExecStart=/usr/lib/module-toy/program
UNIT
    dpkg-deb --root-owner-group --build . "$output" > /dev/null
)

mkdir -p "$host_root"
exec 9> "$output.lock"
flock 9
key=$(short_digest < "$here/module-toy/build.sh")
[ "$(cat "$output/key" 2> /dev/null)" != "$key" ] || exit 0
rm -rf "$output"
mkdir -p "$output"
for version in 1 2; do
    build "$version"
done
rm -rf "$output/work"
echo "$key" > "$output/key"
