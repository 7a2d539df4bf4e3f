#!/bin/bash
# image.sh: builds the test host's disk image unless it is up to date, and prints its path.
#   SUITE=trixie      another suite than the machine's own
#   READONLY=false    a writable /sysroot (real hosts have it read-only, which is the default)
#   LAYOUT=plain      an ordinary Debian root with the same packages, to compare with
#   KERNEL=1          with Debian's kernel, for QEMU, and with what needs one: AppArmor
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"
export SUITE=$suite READONLY=${READONLY:-true} LAYOUT=${LAYOUT:-ostree} KERNEL=${KERNEL:-}

variant=$LAYOUT
[ "$READONLY" = true ] || variant+=-writable
[ -z "$KERNEL" ] || variant+=-kernel
image=$suite_root/$variant.ext4

# That script builds the image without a kernel first, whose packages it adds to.
extras=()
[ -z "$KERNEL" ] || mapfile -t extras < <(find "$(KERNEL='' LAYOUT=ostree READONLY=true "$here/extra.sh" apparmor)" -name '*.deb')

# The packages under test: the newest build of the product's own, if there is one, and the toy service.
packages_under_test() {
    [ ! -d "$build_root/deb" ] \
        || find "$build_root/deb" -maxdepth 1 -name 'apt-ostree_*.deb' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d' ' -f2-
    find "$host_root/hello-svc" -maxdepth 1 -name 'hello-svc_1_*.deb'
    [ ${#extras[@]} = 0 ] || printf '%s\n' "${extras[@]}"
}

build_rootfs() {
    rm -rf --one-file-system "$suite_root"/rootfs"${KERNEL:+-kernel}"-[0-9a-f]* "$1.new"
    timed "bootstrap Debian $suite" "$here/image/rootfs.sh" "$1.new"
    mv "$1.new" "$1"
}

mkdir -p "$suite_root"
exec 9> "$suite_root/lock"
flock 9

"$here/key.sh" toys > /dev/null
"$here/hello-svc/build.sh"

rootfs=$suite_root/rootfs${KERNEL:+-kernel}-$(cat "$here/image/rootfs.sh" "$here/image/packages.list" | short_digest)
[ -d "$rootfs" ] || build_rootfs "$rootfs"

mapfile -t debs < <(packages_under_test)
key=$({ echo "$rootfs"; cat "$here"/image/*.sh "$host_root/keys/toys.gpg" "${debs[@]}"; } | short_digest)
if [ "$(cat "$image.key" 2> /dev/null)" != "$key" ]; then
    rm -f "$image.key"
    "$here/image/assemble.sh" "$rootfs" "$image" "${debs[@]}"
    echo "$key" > "$image.key"
fi
echo "$image"
