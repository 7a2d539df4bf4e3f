#!/bin/bash
# extra.sh PACKAGE...: fetches packages of the release pocket, whether the image has them or not, with what they
# need besides, and prints the directory that they are in. For what a benchmark compares with.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"
. "$here/archive.sh"

[ $# -ge 1 ] || die 'usage: extra.sh PACKAGE...'
"$here/image.sh" > /dev/null
rootfs=$(newest_rootfs)
key=$({ cat "$0"; echo "$rootfs $*"; } | short_digest)
output=$suite_root/extra-$key
exec 9> "$suite_root/extra.lock"
flock 9

fetch() {
    make_scratch_apt "$suite_root/apt-extra" "$rootfs/var/lib/dpkg/status"
    fetch_indexes ''
    rm -f "$suite_root"/apt-extra/var/cache/apt/archives/*.deb
    scratch_apt apt-get --quiet=2 --yes --no-install-recommends --download-only --reinstall install "$@" >&2
    rm -rf "$output.new"
    mkdir "$output.new"
    mv "$suite_root"/apt-extra/var/cache/apt/archives/*.deb "$output.new/"
    mv "$output.new" "$output"
}

[ -d "$output" ] || timed "fetch $*" fetch "$@"
echo "$output"
