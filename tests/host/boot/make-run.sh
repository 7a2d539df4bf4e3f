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

cgroups=/sys/fs/cgroup/unified
[ -d "$cgroups" ] || cgroups=/sys/fs/cgroup
mkdir -p "$run/root" "$run/mirror"
echo "$cgroups/apt-ostree-test-$(printf '%s' "$run" | short_digest)-$name" > "$run/cgroup"
# What the host has already, so that its sources are all there. Tests replace it.
"$here/repository.sh" "$run/mirror/toys" "$host_root"/hello-svc/hello-svc_1_*.deb
"$here/repository.sh" --origin=repacked "$run/mirror/repacked" ${REPACKED:+"$REPACKED"/*.deb}
[ -z "$image" ] || cp --sparse=always --reflink=auto "$image" "$run/disk.ext4"
