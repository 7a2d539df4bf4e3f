#!/bin/bash
# convert.sh ROOT: turns the Debian tree in ROOT into one that OSTree can deploy.
# What is state goes to /var (filled from /usr/share/factory/var when the image is made), what
# belongs to the tree goes below /usr: the defaults of /etc and dpkg's database among it.
set -euo pipefail

here=$(dirname -- "$(realpath -- "$0")")
cd "$1"

# Where OSTree looks for a kernel: beside its modules.
for kernel in boot/vmlinuz-*; do
    [ -e "$kernel" ] || continue
    version=${kernel#boot/vmlinuz-}
    mv "$kernel" "usr/lib/modules/$version/vmlinuz"
    "$here/initramfs.sh" "$PWD" "$version"
done
rm -f vmlinuz* initrd.img*

rm -rf dev run tmp proc sys home root srv opt mnt media usr/local boot
mkdir -m 755 dev run proc sys sysroot boot
mkdir -m 1777 tmp
ln -s var/home home
ln -s var/roothome root
ln -s var/srv srv
ln -s var/opt opt
ln -s var/mnt mnt
ln -s run/media media
ln -s ../var/usrlocal usr/local
ln -s sysroot/ostree ostree

mkdir -p usr/lib/sysimage usr/share/factory
mv var/lib/dpkg usr/lib/sysimage/dpkg
ln -s ../../usr/lib/sysimage/dpkg var/lib/dpkg
rm -rf var/lib/apt/lists var/cache/apt/*.bin
mkdir -p var/home var/srv var/opt var/mnt var/usrlocal \
    var/lib/apt/lists/partial var/cache/apt/archives/partial var/log/nginx var/lib/nginx
mkdir -m 700 var/roothome
mv var usr/share/factory/var
mkdir var

cat > usr/lib/tmpfiles.d/ostree-debian.conf <<'TMPFILES'
L /var/lib/dpkg - - - - ../../usr/lib/sysimage/dpkg
d /var/home 0755 root root -
d /var/roothome 0700 root root -
d /var/srv 0755 root root -
d /var/opt 0755 root root -
d /var/mnt 0755 root root -
d /var/usrlocal 0755 root root -
d /run/media 0755 root root -
TMPFILES

# OSTree deploys only what has a kernel. In namespaces nothing ever reads it.
if ! compgen -G 'usr/lib/modules/*/vmlinuz' > /dev/null; then
    mkdir -p usr/lib/modules/0.0.0-namespace
    echo 'no kernel: this image boots in namespaces' > usr/lib/modules/0.0.0-namespace/vmlinuz
fi
mv etc usr/etc
