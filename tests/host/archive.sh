# shellcheck shell=bash
# What this machine's own apt says about Debian's archive. Sourced, never run.
# shellcheck disable=SC2016 # apt expands $(REPO_URI)
# No registry is ever named here: the addresses come from apt's configuration at run time.

archive_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# archive_pocket_uri "" | -updates | -security: the base address of that pocket, or nothing.
archive_pocket_uri() {
    apt-get indextargets --format '$(REPO_URI)' "Codename: $machine_suite$1" \
        'Identifier: Packages' 'Origin: Debian' 'Component: main' | head -n 1
}

# archive_source "" | -updates | -security: one line for a sources.list.
archive_source() {
    local uri
    uri=$(archive_pocket_uri "$1")
    [ -n "$uri" ] || return 1
    printf 'deb [signed-by=%s] %s %s%s main\n' "$archive_keyring" "$uri" "$suite" "$1"
}

# The machine's proxy and TLS settings for apt, as options for another apt.
archive_connection_options() {
    apt-config dump --format '%F "%v"%n' Acquire::http Acquire::https 2>/dev/null | grep -v ' ""$' || true
}

# The tree that the image was made of.
newest_rootfs() {
    local rootfs
    rootfs=$(find "$suite_root" -maxdepth 1 -name 'rootfs-[0-9a-f]*' ! -name '*.new' | head -n 1)
    [ -n "$rootfs" ] || die 'there is no image yet: run image.sh'
    echo "$rootfs"
}

# make_scratch_apt ROOT STATUS: an apt with a root of its own, which believes that what the dpkg
# database STATUS lists is installed. It keeps indexes as compressed as they came.
make_scratch_apt() {
    scratch_root=$1
    scratch_options=(
        -o "Dir=$1" -o "Dir::State::status=$2" -o Dir::Bin::methods=/usr/lib/apt/methods
        -o Dir::Etc::trustedparts=/etc/apt/trusted.gpg.d -o "APT::Architecture=$architecture"
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::PDiffs=false
        -o Acquire::IndexTargets::deb::Packages::KeepCompressed=true
        -o Acquire::IndexTargets::deb::Packages::KeepCompressedAs=xz -o Acquire::CompressionTypes::Order::=xz
    )
    mkdir -p "$1"/etc/apt/{apt.conf.d,preferences.d,sources.list.d} "$1"/var/{lib/apt/lists,cache/apt/archives}/partial
    archive_connection_options | sed 's/$/;/' > "$1/etc/apt/apt.conf"
}

# scratch_apt COMMAND ARGUMENT...: apt-get and its like, on that root.
scratch_apt() {
    local command=$1
    shift
    "$command" "${scratch_options[@]}" "$@"
}

# fetch_indexes POCKET...: the archive's current indexes of these pockets, for scratch_apt.
fetch_indexes() {
    local pocket
    : > "$scratch_root/etc/apt/sources.list"
    for pocket; do
        archive_source "$pocket" >> "$scratch_root/etc/apt/sources.list" || say "this machine's apt has no $suite$pocket"
    done
    scratch_apt apt-get --quiet=2 update
}
