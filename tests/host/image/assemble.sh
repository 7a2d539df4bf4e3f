#!/bin/bash
# assemble.sh ROOTFS IMAGE [DEB...]: an ext4 image of ROOTFS with the packages DEB added and configured
# as the test host. Runs in a mount namespace of its own, so that nothing stays mounted.
# LAYOUT=plain makes an ordinary Debian root of the same content instead of an OSTree deployment.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

if [ "${PRIVATE_MOUNTS:-}" != $$ ]; then
    PRIVATE_MOUNTS=$$ exec unshare --mount --propagation private -- "$0" "$@"
fi

rootfs=$1
image=$2
shift 2
work=$image.work
tree=$work/tree

# The immutable flag of a deployment root would stop rm.
remove_work() {
    umount "$tree/proc" "$tree" 2> /dev/null || true
    chattr -f -i "$work"/sysroot/ostree/deploy/*/deploy/* 2> /dev/null || true
    rm -rf --one-file-system "$work"
}

mount_tree() {
    mkdir -p "$work"/{tree,upper,overlay}
    mount -t overlay -o "lowerdir=$rootfs,upperdir=$work/upper,workdir=$work/overlay,redirect_dir=on" overlay "$tree"
}

install_packages() {
    [ $# -gt 0 ] || return 0
    mount -t proc proc "$tree/proc"
    mkdir "$tree/tmp/debs"
    cp -- "$@" "$tree/tmp/debs/"
    DEBIAN_FRONTEND=noninteractive chroot "$tree" sh -c 'dpkg --install /tmp/debs/*.deb' > "$work/dpkg.log" 2>&1 \
        || { cat "$work/dpkg.log" >&2; die "the test host lacks something that its own packages need"; }
    rm -rf "$tree/tmp/debs"
    umount "$tree/proc"
}

make_filesystem() {
    truncate -s "${IMAGE_SIZE:-4G}" "$work/image"
    mkfs.ext4 -q -F -L testhost -E lazy_itable_init=0,lazy_journal_init=0 -d "$1" "$work/image"
    mv "$work/image" "$image"
}

remove_work
trap remove_work EXIT
mount_tree
[ $# = 0 ] || timed 'install the packages under test' install_packages "$@"
"$here/image/configure.sh" "$tree"
if [ "${LAYOUT:-ostree}" = plain ]; then
    timed 'make the file system' make_filesystem "$tree"
else
    "$here/image/convert.sh" "$tree"
    timed 'commit and deploy' "$here/image/deploy.sh" "$tree" "$work/sysroot"
    timed 'make the file system' make_filesystem "$work/sysroot"
fi
