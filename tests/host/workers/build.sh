#!/bin/bash
# build.sh: builds workers versions 1 to 4 as Debian packages below target/, unless they are up to date: a
# template of services that run a program of the package. In version 3 the third instance does not start;
# version 4 brings a policy-rc.d that forbids to restart the second.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

output=$host_root/workers

put_files() {
    mkdir -p usr/lib/workers usr/lib/systemd/system usr/share/workers
    install -m 755 /bin/sleep usr/lib/workers/work
    echo "$version" >> usr/lib/workers/work
    [ "$version" != 3 ] || echo 3 > usr/share/workers/ill
    cat > usr/lib/systemd/system/worker@.service <<'UNIT'
[Unit]
Description=Worker %i

[Service]
ExecStartPre=/bin/sh -c '! grep -qsx %i /usr/share/workers/ill'
ExecStart=/usr/lib/workers/work infinity
UNIT
    if [ "$version" = 4 ]; then
        mkdir -p usr/sbin
        printf '#!/bin/sh\n[ "$1 $2" != "worker@2 restart" ] || exit 101\n' > usr/sbin/policy-rc.d
        chmod 755 usr/sbin/policy-rc.d
    fi
}

build() (
    version=$1
    tree=$output/work/$version
    mkdir -p "$tree/DEBIAN"
    cd "$tree"
    cat > DEBIAN/control <<CONTROL
Package: workers
Version: $version
Architecture: $architecture
Maintainer: Nobody <nobody@localhost>
Description: services of one template
CONTROL
    put_files
    dpkg-deb --root-owner-group --build . "$output" > /dev/null
)

key=$(short_digest < "$here/workers/build.sh")
[ "$(cat "$output/key" 2> /dev/null)" != "$key" ] || exit 0
rm -rf "$output"
mkdir -p "$output"
for version in 1 2 3 4; do
    build "$version"
done
rm -rf "$output/work"
echo "$key" > "$output/key"
