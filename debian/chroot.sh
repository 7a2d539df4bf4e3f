#!/bin/bash
# chroot.sh SUITE COMMAND...: runs COMMAND in this directory, with the compilers and libraries of another
# suite of Debian than the machine's, and the machine's Rust. What it builds lands below target/SUITE.
set -euo pipefail
export SUITE=$1
shift
. "$(dirname -- "$0")/../tests/host/settings.sh"
. "$here/archive.sh"

packages=build-essential,clang,cmake,dpkg-dev,libapt-pkg-dev,libglib2.0-dev,libostree-dev,pkg-config
root=$build_root/chroot-$(echo "$packages" | short_digest)
toolchain=$(rustc --print sysroot)
cargo_home=${CARGO_HOME:-$HOME/.cargo}

bootstrap() {
    local options=()
    while read -r option; do
        options+=(--aptopt="$option")
    done < <(archive_connection_options)
    mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' "${options[@]}" \
        "$SUITE" "$root.new" "$(archive_source '')"
    mv "$root.new" "$root"
}

# In a mount namespace of its own, so that nothing stays mounted.
inside() {
    local directory
    for directory in "$project" "$toolchain" "$cargo_home"; do
        mkdir -p "$root$directory"
        mount --bind "$directory" "$root$directory"
    done
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    # There is no network inside: what has to be fetched is there.
    exec chroot "$root" /usr/bin/env --chdir="$project" PATH="$toolchain/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        HOME=/root CARGO_HOME="$cargo_home" CARGO_NET_OFFLINE=true CARGO_TARGET_DIR="$build_root" "$@"
}

if [ "${PRIVATE_MOUNTS:-}" = $$ ]; then
    inside "$@"
fi
mkdir -p "$build_root"
exec 9> "$build_root/lock"
flock 9
[ -d "$root" ] || { rm -rf --one-file-system "$build_root"/chroot-*; timed "bootstrap Debian $SUITE" bootstrap; }
cargo fetch --locked --quiet
PRIVATE_MOUNTS=$$ exec unshare --mount --propagation private -- "$0" "$SUITE" "$@"
