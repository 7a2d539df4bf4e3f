#!/bin/bash
# qemu.sh NAME: boots the test host NAME under QEMU with Debian's own kernel and waits until its shell
# answers. `qemu/enter NAME SCRIPT` runs things in it, `kill` of the process that is named ends it.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"

name=${1:?usage: qemu.sh NAME}
run=$run_root/$name
mkdir -p "$run"
start=$EPOCHREALTIME
setsid "$here/qemu/start.sh" "$name" > "$run/qemu.log" 2>&1 < /dev/null &
echo $! > "$run/supervisor"
"$here/qemu/enter" "$name" 'systemctl is-system-running --wait; uname -r; ostree admin status' "${BOOT_TIMEOUT:-240}" \
    || die "host $name does not answer: see $run/console.log and $run/qemu.log"
say "host $name runs under QEMU after $(seconds_since "$start") s; end it with: $here/clean $name"
