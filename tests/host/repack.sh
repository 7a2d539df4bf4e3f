#!/bin/bash
# repack.sh COUNT: makes up for what the archive lacks, so that COUNT packages of the image have something
# newer: real packages of the release pocket with a higher version and the same content. They say so in
# their description and their repository. Prints the directory; real.list plus its repacked.list are the COUNT.
#
# What an update cannot take live (the C library, systemd, the kernel, OSTree) is not repacked, and all
# binaries of one source are, or none: they depend on each other's exact versions.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"
. "$here/archive.sh"

count=${1:?usage: repack.sh COUNT}
suffix=+repack1
next_boot='^(glibc|systemd|dbus|linux.*|ostree|base-files|base-passwd|init-system-helpers|dpkg|initramfs-tools|bubblewrap|apt-ostree|hello-svc)$'
# A library that services map, and services, come first.
first='^(openssl|nginx|openssh)$'

mirror=$("$here/upgrades.sh")
rootfs=$(newest_rootfs)
output=$suite_root/repacked-$count
work=$output.work

# "source package version", the first ones first, of what may be repacked.
candidates() {
    # shellcheck disable=SC2016 # dpkg-query expands these
    dpkg-query --admindir="$rootfs/var/lib/dpkg" --show --showformat='${source:Package} ${Package} ${Version}\n' \
        | awk -v excluded="$next_boot" -v first="$first" '
            FILENAME == ARGV[1] { newer[$1] = 1; next }
            $2 in newer { has_newer[$1] = 1 }
            { line[++lines] = $0; source[lines] = $1 }
            END {
                for (pass = 0; pass < 2; pass++)
                    for (i = 1; i <= lines; i++)
                        if (!(source[i] in has_newer) && source[i] !~ excluded && (source[i] ~ first) != pass)
                            print line[i]
            }' "$mirror/real.list" -
}

# As many whole sources as fit into the number of packages that are missing.
choose() {
    awk -v missing="$1" '
        { size[$1]++; text[$1] = text[$1] $0 "\n"; if (size[$1] == 1) order[++sources] = $1 }
        END {
            for (i = 1; i <= sources; i++)
                if (size[order[i]] <= missing) { missing -= size[order[i]]; printf "%s", text[order[i]] }
            exit missing > 0
        }'
}

# Exact versions are pinned among the chosen packages alone.
repack() {
    local deb=$1 tree=$work/tree
    rm -rf "$tree"
    dpkg-deb --raw-extract "$deb" "$tree"
    sed -i -E -f "$work/relations.sed" -e "s/^(Version: .*)/\1$suffix/" -e 's/^(Description: .*)/\1 (repacked)/' "$tree/DEBIAN/control"
    dpkg-deb -Zxz -z3 --build "$tree" "$output.new" > /dev/null
}

build() {
    local source package version deb missing=$((count - $(wc -l < "$mirror/real.list")))
    rm -rf "$work" "$output.new"
    mkdir -p "$work/debs" "$output.new"
    [ $missing -gt 0 ] || missing=0
    candidates | choose "$missing" > "$work/chosen" || die "the image has too few packages for $count upgrades"
    make_scratch_apt "$suite_root/apt-release" "$rootfs/var/lib/dpkg/status"
    fetch_indexes ''
    local packages=()
    while read -r source package version; do
        packages+=("$package=$version")
        printf '%s %s%s\n' "$package" "$version" "$suffix" >> "$output.new/repacked.list"
        printf 's/(\\b%s \\(= %s)\\)/\\1%s)/g\n' "${package//[+.]/\\&}" "${version//[+.]/\\&}" "${suffix/+/\\+}"
    done < "$work/chosen" > "$work/relations.sed"
    if [ ${#packages[@]} -gt 0 ]; then
        (cd "$work/debs" && scratch_apt apt-get --quiet=2 download "${packages[@]}")
        for deb in "$work"/debs/*.deb; do
            repack "$deb"
        done
    fi
    rm -rf "$work" "$output"
    mv "$output.new" "$output"
}

key=$({ cat "$0" "$mirror/real.list"; echo "$rootfs"; } | short_digest)
exec 9> "$suite_root/repack.lock"
flock 9
if [ "$(cat "$output/key" 2> /dev/null)" != "$key" ]; then
    timed "repack real packages up to $count" build
    echo "$key" > "$output/key"
fi
echo "$output"
