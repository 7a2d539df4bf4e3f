#!/bin/bash
# rootfs.sh DIRECTORY: a plain Debian tree in DIRECTORY, from the release pocket alone, so that the
# security and updates pockets have something newer for it. KERNEL=1 adds Debian's cloud kernel.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"
. "$here/archive.sh"

target=$1
packages=$(grep -v '^#' "$here/image/packages.list" | paste -sd,)
[ -z "${KERNEL:-}" ] || packages+=,linux-image-cloud-$architecture,initramfs-tools

options=()
while read -r option; do
    options+=(--aptopt="$option")
done < <(archive_connection_options)

# Documentation only costs time here, for both sides of every comparison.
mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' "${options[@]}" \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$suite" "$target" "$(archive_source '')"
rm -f "$target"/etc/apt/apt.conf.d/99mmdebstrap
