#!/bin/bash
# remove-cgroup.sh DIRECTORY: kills what is left in this cgroup of ours and removes it.
set -euo pipefail

cgroup=$1
[ -d "$cgroup" ] || exit 0
echo 1 > "$cgroup/cgroup.kill" 2> /dev/null || true
# A killed process stays in its cgroup until the kernel has let go of it.
for _ in $(seq 100); do
    find "$cgroup" -depth -type d -exec rmdir {} + 2> /dev/null || true
    [ -d "$cgroup" ] || exit 0
    sleep 0.05
done
echo "still busy: $cgroup" >&2
exit 1
