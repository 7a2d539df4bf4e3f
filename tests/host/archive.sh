# shellcheck shell=bash
# What this machine's own apt says about Debian's archive. Sourced, never run.
# shellcheck disable=SC2016 # apt expands $(REPO_URI)
# No registry is ever named here: the addresses come from apt's configuration at run time.

archive_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# archive_pocket_uri "" | -updates | -security: the base address of that pocket, or nothing.
archive_pocket_uri() {
    local machine_suite
    machine_suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
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
