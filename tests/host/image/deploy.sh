#!/bin/bash
# deploy.sh TREE SYSROOT: commits TREE and deploys it into the new OSTree system root SYSROOT.
set -euo pipefail

tree=$1
sysroot=$2
repo=$sysroot/ostree/repo
branch=debian/test/host

mkdir -p "$sysroot"
ostree admin init-fs --modern "$sysroot"
ostree admin os-init --sysroot="$sysroot" debian > /dev/null
ostree config --repo="$repo" set sysroot.readonly "${READONLY:-true}"
ostree config --repo="$repo" set sysroot.bootloader none

# A half-written image is thrown away anyway: no fsync while it is made.
ostree config --repo="$repo" set core.fsync false
ostree commit --repo="$repo" --branch="$branch" --tree=dir="$tree" --subject='test host' > /dev/null
ostree admin deploy --sysroot="$sysroot" --os=debian \
    --karg=root=LABEL=testhost --karg=rw --karg=console=ttyS0 "$branch" > /dev/null
ostree config --repo="$repo" unset core.fsync

# Maintainer scripts rely on what earlier ones left in /var, so it starts out as the packages made it.
cp -a "$tree/usr/share/factory/var/." "$sysroot/ostree/deploy/debian/var/"
