#!/bin/bash
# prerequisites.sh: installs what the test host and its tests need on a Debian machine, and says in one
# line what is missing where it cannot.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"

tools=(apt-utils attr bubblewrap busybox-static debian-archive-keyring dpkg-dev e2fsprogs gpg gpgconf
    iproute2 jq libcap2-bin mmdebstrap ostree python3-minimal socat strace util-linux xz-utils zstd)
# What the product itself is built with and runs on.
libraries=(build-essential clang cmake libapt-pkg-dev libglib2.0-dev libostree-dev pkg-config)
emulator=(cpio qemu-system-common qemu-system-x86)

missing() {
    local package
    for package in "${tools[@]}" "${libraries[@]}" "${emulator[@]}"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" = installed ] || echo "$package"
    done
}

[ "$(id -u)" = 0 ] || die 'the test host needs root: it makes namespaces, mounts and loop devices'
command -v apt-get > /dev/null || die 'the test host needs a Debian machine: there is no apt-get here'

command -v cargo > /dev/null || die 'there is no cargo here: install Rust (rustup), version 1.88 or later'
if ! { cargo clippy --version && cargo fmt --version; } > /dev/null 2>&1; then
    rustup component add clippy rustfmt > /dev/null 2>&1 || die 'clippy and rustfmt are missing here, and rustup cannot add them'
fi

mapfile -t packages < <(missing)
if [ -z "$(apt-get indextargets 'Identifier: Packages' 'Origin: Debian')" ]; then
    apt-get --quiet=2 update || die "apt cannot read Debian's archive: see the lines above"
fi
if [ ${#packages[@]} -gt 0 ]; then
    say "installing ${packages[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --yes --no-install-recommends install "${packages[@]}" > /dev/null \
        || die "apt cannot install: ${packages[*]}"
fi

[ -e /dev/loop-control ] || die 'the test host needs loop devices: there is no /dev/loop-control'
unshare --mount --pid --net --uts --ipc --cgroup --fork true || die 'this machine allows no new namespaces'
[ -f /sys/fs/cgroup/cgroup.procs ] || [ -f /sys/fs/cgroup/unified/cgroup.procs ] \
    || die 'the test host needs a version 2 cgroup tree'
