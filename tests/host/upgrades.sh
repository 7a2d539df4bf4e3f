#!/bin/bash
# upgrades.sh: finds out what Debian's archive has newer for the test host's image, and lays out a mirror
# of it below target/: the archive's own signed indexes of the security and updates pockets, bit for bit,
# and the newer packages. real.list names them, one "package version" a line; services.list and
# libraries.list are the part of them that a running service is, or maps.
# What the archive offers too little of is made up for by repack.sh, and labelled so.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"
. "$here/archive.sh"

minimum=5
mirror=$suite_root/mirror

rootfs=$(newest_rootfs)
security_uri=$(archive_pocket_uri -security)
updates_uri=$(archive_pocket_uri -updates)
make_scratch_apt "$suite_root/apt" "$rootfs/var/lib/dpkg/status"

# The path below the mirror for an address of the archive, with its %-escapes undone.
mirror_path() {
    local path
    case $1 in
        "${security_uri:-none}"*) path=debian-security/${1#"$security_uri"} ;;
        "${updates_uri:-none}"*) path=debian/${1#"$updates_uri"} ;;
        *) die "no pocket of the archive has $1" ;;
    esac
    printf '%b\n' "${path//%/\\x}"
}

# Copies each pocket's InRelease and Packages to where the archive has them, after a look whether the one
# vouches for the other: apt keeps them exactly as they came.
lay_out_indexes() {
    local release_uri index_uri meta_key file release path digest
    # shellcheck disable=SC2016 # apt expands these
    while read -r release_uri index_uri meta_key file; do
        release=${file%%_"${meta_key//\//_}"*}_InRelease
        digest=$(sha256sum "$file" | cut -d' ' -f1)
        grep -q "^ $digest .*$meta_key.xz$" "$release" || die "not as $release says: $file"
        path=$mirror/$(mirror_path "$release_uri")
        install -D -m 644 "$release" "$path/InRelease"
        install -D -m 644 "$file" "$path/$meta_key.xz"
        install -D -m 644 "$file" "$path/$(dirname "$meta_key")/by-hash/SHA256/$digest"
    done < <(scratch_apt apt-get indextargets --format '$(BASE_URI) $(URI) $(METAKEY) $(FILENAME)' 'Identifier: Packages')
}

# "package version" of all that apt-get upgrade would take, new dependencies included.
upgradable() {
    scratch_apt apt-get --simulate --with-new-pkgs upgrade \
        | sed -nE 's/^Inst ([^ ]+) (\[[^]]*\] )?\(([^ ]+) .*/\1 \3/p'
}

download() {
    local packages=() package version uri name path
    while read -r package version; do
        packages+=("$package=$version")
    done
    while read -r uri name _; do
        uri=${uri//\'/}
        path=$mirror/$(mirror_path "$uri")
        [ -s "$path" ] || { mkdir -p "${path%/*}"; printf '%s %s\n' "$name" "$path"; }
    done < <(scratch_apt apt-get --quiet=2 --print-uris download "${packages[@]}") > "$mirror/wanted"
    mkdir -p "$mirror/partial"
    (cd "$mirror/partial" && scratch_apt apt-get --quiet=2 download "${packages[@]}")
    while read -r name path; do
        mv "$mirror/partial/$name" "$path"
    done < "$mirror/wanted"
    rm -rf "$mirror/partial" "$mirror/wanted"
}

# Names on standard input that the image's dpkg database says hold a shared library, or a service.
with_files() {
    local package file pattern=$1
    while read -r package _; do
        for file in "$rootfs/var/lib/dpkg/info/$package"{,":$architecture"}.list; do
            if [ -e "$file" ] && grep -qE "$pattern" "$file"; then echo "$package"; fi
        done
    done
}

# The archive's security pocket expires after a week; a mirror of it must not be older.
is_fresh() {
    local until
    [ "$(cat "$mirror/key" 2> /dev/null)" = "$key" ] || return 1
    while read -r until; do
        [ "$(date -d "$until" +%s)" -gt "$(date -d '1 hour' +%s)" ] || return 1
    done < <(find "$mirror" -name InRelease -exec sed -n 's/^Valid-Until: //p' {} +)
}

key=$({ echo "$rootfs"; cat "$0"; } | short_digest)
exec 9> "$suite_root/mirror.lock"
flock 9
if ! is_fresh; then
    rm -rf "$mirror"
    mkdir -p "$mirror"
    timed 'fetch the indexes of the later pockets' fetch_indexes -updates -security
    lay_out_indexes
    upgradable > "$mirror/real.list"
    [ ! -s "$mirror/real.list" ] || timed 'download what is newer' download < "$mirror/real.list"
    with_files '/lib[^/]*\.so\.' < "$mirror/real.list" > "$mirror/libraries.list"
    with_files '/systemd/system/[^/]*\.service$' < "$mirror/real.list" > "$mirror/services.list"
    if [ "$(wc -l < "$mirror/real.list")" -lt $minimum ] || [ ! -s "$mirror/libraries.list" ] || [ ! -s "$mirror/services.list" ]; then
        say 'the archive has too little that is newer than the release pocket: packages have to be repacked'
    fi
    echo "$key" > "$mirror/key"
fi
echo "$mirror"
