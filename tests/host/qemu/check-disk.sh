#!/bin/bash
# qemu/check-disk.sh NAME: whether the disk of the test host NAME, whose emulator is gone, is whole: its file
# system once the journal was replayed, and every object of its OSTree repository.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

disk=$run_root/$1/disk.ext4
status=0
e2fsck -p -E journal_only "$disk" || status=$?
[ "$status" -le 1 ] || die "the journal of $disk cannot be replayed"
e2fsck -f -n "$disk"
# shellcheck disable=SC2016 # expanded inside
unshare --mount sh -euc 'mkdir -p "$2" && mount -o loop,ro,noload "$1" "$2" && ostree fsck --quiet --repo="$2/ostree/repo"' \
    - "$disk" "$run_root/$1/mounted"
