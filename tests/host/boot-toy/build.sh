#!/bin/bash
# build.sh: builds packages that take effect with the next boot, as Debian packages below target/, unless they
# are up to date: firmware-toy versions 1 and 2, which have something of everything that comes besides /usr,
# and a kernel that nobody boots.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

output=$host_root/boot-toy
kernel=9.9.9-toy

write() {
    mkdir -p "$(dirname "$1")"
    cat > "$1"
}

build() (
    package=$1 version=$2
    tree=$output/work/$package-$version
    mkdir -p "$tree"
    cd "$tree"
    write DEBIAN/control <<CONTROL
Package: $package
Version: $version
Architecture: $architecture
Maintainer: The apt-ostree test host <test@example.org>
Description: takes effect with the next boot
CONTROL
    "fill_${package%%-*}" "$version"
    dpkg-deb --root-owner-group --build . "$output" > /dev/null
)

fill_firmware() {
    echo "$1" | write usr/lib/firmware/toy
    echo /etc/firmware-toy.conf | write DEBIAN/conffiles
    echo "conf $1" | write etc/firmware-toy.conf
    # What no file list has: a generated file, an account, data.
    write DEBIAN/postinst <<'SCRIPT'
#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
getent passwd firmware-toy > /dev/null || useradd --system --no-create-home firmware-toy
echo "generated for $(cat /usr/lib/firmware/toy)" > /etc/firmware-toy.generated
[ -d /var/lib/firmware-toy ] || {
    install -d -o firmware-toy /var/lib/firmware-toy
    echo "first was $(cat /usr/lib/firmware/toy)" > /var/lib/firmware-toy/data
}
SCRIPT
    chmod 755 DEBIAN/postinst
}

# As Debian's own packages have it: below /boot, with the modules beside.
fill_linux() {
    echo "kernel $kernel" | write "boot/vmlinuz-$kernel"
    echo "symbols" | write "boot/System.map-$kernel"
    echo "kernel/toy.ko" | write "usr/lib/modules/$kernel/modules.order"
    write DEBIAN/postinst <<SCRIPT
#!/bin/sh
set -e
ln -sf vmlinuz-$kernel /boot/vmlinuz
ln -sf boot/vmlinuz-$kernel /vmlinuz
SCRIPT
    chmod 755 DEBIAN/postinst
}

mkdir -p "$host_root"
exec 9> "$output.lock"
flock 9
key=$(short_digest < "$here/boot-toy/build.sh")
[ "$(cat "$output/key" 2> /dev/null)" != "$key" ] || exit 0
rm -rf "$output"
mkdir -p "$output"
build firmware-toy 1
build firmware-toy 2
build "linux-image-$kernel" 1
rm -rf "$output/work"
echo "$key" > "$output/key"
