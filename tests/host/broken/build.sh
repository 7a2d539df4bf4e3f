#!/bin/bash
# broken/build.sh: packages below target/ that must never be unpacked as they ask: each has a path or a
# kind of file that would reach outside the root, or change it as no package may. All claim to be
# hello-svc version 9; the reason is in the file name.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

output=$host_root/broken
work=$output/work

# package REASON TAR-OPTION...: what is in $work/data, archived with these options.
package() {
    local reason=$1
    shift
    (cd "$work/data" && tar --create --gzip --owner=0 --group=0 --numeric-owner --file=../data.tar.gz "$@")
    rm -f "$output/$reason.deb"
    (cd "$work" && ar rc "$output/$reason.deb" debian-binary control.tar.gz data.tar.gz)
    rm -rf "$work/data"
    mkdir -p "$work/data/usr/share/hello-svc"
}

key=$(cat "$0" "$here/hello-svc/debian/control" | short_digest)
mkdir -p "$output"
exec 9> "$output/lock"
flock 9
[ "$(cat "$output/key" 2> /dev/null)" != "$key" ] || exit 0
rm -rf "$work"
mkdir -p "$work/control" "$work/data/usr/share/hello-svc"
echo 2.0 > "$work/debian-binary"
sed "s/@VERSION@/9/; s/@ARCHITECTURE@/$architecture/; /^ /d" "$here/hello-svc/debian/control" > "$work/control/control"
tar --create --gzip --owner=0 --group=0 --directory="$work/control" --file="$work/control.tar.gz" .

echo intruder > "$work/data/intruder"
package parent-path --absolute-names --transform='s,^\./intruder,./usr/../../../../intruder,' ./intruder

echo intruder > "$work/data/intruder"
package absolute-path --absolute-names --transform='s,^\./intruder,/etc/intruder,' ./intruder

# A link first, then a file behind it.
ln -s /etc "$work/data/usr/share/hello-svc/link"
mkdir "$work/data/real"
echo intruder > "$work/data/real/intruder"
package through-symlink --transform='s,^\./real/,./usr/share/hello-svc/link/,' ./usr/share/hello-svc/link ./real/intruder

mknod "$work/data/usr/share/hello-svc/device" c 1 3
package device-node ./usr

mkdir -p "$work/data/boot"
echo intruder > "$work/data/boot/intruder"
package outside-usr ./boot

rm -rf "$work"
echo "$key" > "$output/key"
