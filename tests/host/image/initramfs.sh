#!/bin/bash
# initramfs.sh ROOT VERSION: the smallest initial RAM disk that boots an OSTree deployment from a virtio
# disk, as the tree's usr/lib/modules/VERSION/initramfs.img. Without udev it costs an emulator a second.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

root=$1
version=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# copy_program PATH: a program of the tree with the libraries that it loads.
copy_program() {
    local library
    install -D "$root$1" "$work$1"
    while read -r library; do
        install -D "$root$(chroot "$root" realpath "$library")" "$work$library"
    done < <(chroot "$root" ldd "$1" | grep -oE '/lib[^ ]+')
}

# In the order in which they are to be loaded; what is built in has no file.
copy_modules() {
    local number=10 path
    mkdir "$work/modules"
    while read -r path; do
        cp "$root$path" "$work/modules/$number-${path##*/}"
        number=$((number + 1))
    done < <(for module in virtio_pci virtio_blk ext4; do
        chroot "$root" modprobe --set-version "$version" --show-depends "$module"
    done | awk '/^insmod/ && !seen[$2]++ { print $2 }')
}

mkdir -p "$work"/{bin,proc,sys,dev,run,sysroot}
cp "$(command -v busybox)" "$work/bin/busybox"
ln -s busybox "$work/bin/sh"
copy_program /usr/lib/ostree/ostree-prepare-root
copy_modules

cat > "$work/init" <<'INIT'
#!/bin/sh
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs dev /dev
$busybox mount -t tmpfs -o mode=755 tmpfs /run
for module in /modules/*; do $busybox insmod "$module"; done
tries=0
until $busybox mount -t ext4 -o rw /dev/vda /sysroot; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || exec $busybox sh
    $busybox sleep 0.1
done
/usr/lib/ostree/ostree-prepare-root /sysroot
for directory in run proc sys dev; do $busybox mount --move /$directory /sysroot/$directory; done
exec $busybox switch_root /sysroot /sbin/init
INIT
chmod 755 "$work/init"
(cd "$work" && find . | cpio --quiet --create --format=newc) > "$root/usr/lib/modules/$version/initramfs.img"
