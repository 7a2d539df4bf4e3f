#!/bin/bash
# newer.sh SUFFIX DEB [FILE...]: makes a newer version out of a package, by appending SUFFIX to its version
# and to each FILE in it, so that these are other files; prints its path. FILEs may be patterns, in which a *
# stands for slashes too.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"

[ $# -ge 2 ] || die 'usage: newer.sh SUFFIX DEB [FILE...]'
suffix=$1 deb=$2
shift 2
key=$({ cat "$0"; echo "$suffix $deb $*"; } | short_digest)
output=$suite_root/newer-$key
mkdir -p "$suite_root"
exec 9> "$suite_root/newer.lock"
flock 9

repack() {
    local tree=$output.new/tree pattern file files
    rm -rf "$output.new"
    mkdir -p "$output.new"
    dpkg-deb --raw-extract "$deb" "$tree"
    sed -i -E "s/^(Version: .*)/\1$suffix/" "$tree/DEBIAN/control"
    for pattern; do
        mapfile -t files < <(find "$tree" -type f -path "$tree/$pattern")
        [ ${#files[@]} -gt 0 ] || die "$deb has no $pattern"
        for file in "${files[@]}"; do
            printf '%s' "$suffix" >> "$file"
        done
    done
    # Quick to make and to unpack; nobody looks at its size.
    dpkg-deb -Zgzip -z1 --build "$tree" "$output.new" > /dev/null
    rm -rf "$tree" "$output"
    mv "$output.new" "$output"
}

[ -d "$output" ] || timed "make a newer $(basename "$deb")" repack "$@"
find "$output" -name '*.deb'
