#!/bin/bash
# make-run.sh NAME [IMAGE]: the run directory of the test host NAME, with its own copy of IMAGE as disk.
# Without IMAGE the disk of the host's last run stays. What a killed run left is removed first.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

name=$1
image=${2:-}
run=$run_root/$name

case $name in *[!a-zA-Z0-9_-]* | '') die "not a name for a host: $name" ;; esac
[ -n "$image" ] || [ -f "$run/disk.ext4" ] || die "host $name has no disk yet: name an image"
if [ -n "$image" ]; then "$here/clean" "$name"; else "$here/clean" --keep-disk "$name"; fi

# The newest build of the mirror's server.
mirror_server() {
    local built=()
    mapfile -t built < <(find "$project"/target/{debug,release}/examples -maxdepth 1 -name mirror -printf '%T@ %p\n' 2> /dev/null \
        | sort -rn | cut -d' ' -f2-)
    if [ ${#built[@]} = 0 ]; then
        cargo build --quiet --manifest-path "$project/Cargo.toml" --example mirror >&2 || die 'cannot build the mirror'
        built=("$project/target/debug/examples/mirror")
    fi
    echo "${built[0]}"
}

# The version 2 tree, also where version 1 is mounted beside it.
cgroups=/sys/fs/cgroup/unified
[ -d "$cgroups" ] || cgroups=/sys/fs/cgroup
[ "$(stat --file-system --format=%T "$cgroups")" = cgroup2fs ] || die "no version 2 cgroup tree at $cgroups"

mkdir -p "$run/root" "$run/mirror"
# A copy: another build may replace the file while the host runs.
cp "$(mirror_server)" "$run/mirror-server"
echo "$cgroups/apt-ostree-test-$(printf '%s' "$run" | short_digest)-$name" > "$run/cgroup"
# What the host has already, so that its sources are all there. Tests replace it.
"$here/repository.sh" "$run/mirror/toys" "$host_root"/hello-svc/hello-svc_1_*.deb
"$here/repository.sh" --origin=repacked "$run/mirror/repacked" ${REPACKED:+"$REPACKED"/*.deb}
[ -z "$image" ] || cp --sparse=always --reflink=auto "$image" "$run/disk.ext4"
