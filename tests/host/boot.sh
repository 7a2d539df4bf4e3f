#!/bin/bash
# boot.sh [--again | --image=FILE] NAME: boots a test host and waits until systemd says that it runs.
# --again boots the disk of its last run. `enter NAME`, `stop NAME` and `clean` go with it.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"

image=
again=
while [ $# -gt 1 ]; do
    case $1 in
        --again) again=1 ;;
        --image=*) image=${1#--image=} ;;
        *) die "unknown option $1" ;;
    esac
    shift
done
[ $# = 1 ] || die 'usage: boot.sh [--again | --image=FILE] NAME'
name=$1
run=$run_root/$name

start=$EPOCHREALTIME
if [ -n "$again" ]; then
    "$here/boot/make-run.sh" "$name"
else
    "$here/boot/make-run.sh" "$name" "${image:-$("$here/image.sh")}"
fi
setsid unshare --net --mount -- "$here/boot/supervise.sh" "$name" < /dev/null > "$run/console.log" 2>&1 &
"$here/wait" "$name" 1
say "host $name runs after $(seconds_since "$start") s; enter it with: $here/enter $name"
