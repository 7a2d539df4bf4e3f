# shellcheck shell=bash
# Where the test host's files are and how they are named. Sourced by every script here, never run.

here=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")
project=$(realpath -- "$here/../..")

# Debian's suite of this machine, unless SUITE names another: the binaries under test must match it.
machine_suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
suite=${SUITE:-$machine_suite}
architecture=$(dpkg --print-architecture)

# Everything that is built or run here lies below target/; where the product for that suite is built:
build_root=$project/target
[ "$suite" = "$machine_suite" ] || build_root+=/$suite
host_root=${TEST_HOST_DIR:-$project/target/host}
suite_root=$host_root/$suite
run_root=$host_root/run

say() { printf '%s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2; exit 1; }

# timed LABEL COMMAND...: runs COMMAND and says how long it took.
timed() {
    local label=$1 start=$EPOCHREALTIME
    shift
    "$@"
    say "$(printf '  %-44s %6.1f s' "$label" "$(seconds_since "$start")")"
}

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }'; }

# digest_of TEXT-OR-FILE CONTENTS on standard input -> 16 hexadecimal digits.
short_digest() { sha256sum | cut -c1-16; }
