#!/bin/bash
# supervise.sh NAME: runs the test host NAME until it is switched off or standard input ends, boots it
# again when it reboots, and leaves nothing behind. Runs in the host's network namespace, which the
# mirror shares: 127.0.0.1 is the same for both, and the mirror lives on over reboots.
#
# In the run directory: leader (the machine's number of the host's PID 1, there while it runs),
# boots (how many so far), boot_id, cgroup, console.log, mirror.log, power (what to do after the next exit).
# A file `record` there names a file that every write to the disk is logged in.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

name=$1
run=$run_root/$name
cgroup=$(cat "$run/cgroup")
reboot_status=129 # 128 + SIGHUP: what reboot(2) does to PID 1 of a pid namespace
unshare_pid=
mirror_pid=
watch_pid=
recorder_pid=

end_host() {
    trap '' TERM INT HUP
    [ -z "$watch_pid" ] || kill "$watch_pid" 2> /dev/null || true
    [ -z "$mirror_pid" ] || kill "$mirror_pid" 2> /dev/null || true
    [ -z "$unshare_pid" ] || kill -KILL "$unshare_pid" 2> /dev/null || true
    echo 1 > "$cgroup/host/cgroup.kill" 2> /dev/null || true
    # The last writes come when the host's mounts go.
    [ -z "$unshare_pid" ] || wait "$unshare_pid" || true
    [ -z "$recorder_pid" ] || kill "$recorder_pid" 2> /dev/null || true
    wait
    # Out of the cgroup that is about to go.
    echo $$ > "${cgroup%/*}/cgroup.procs"
    "$here/boot/remove-cgroup.sh" "$cgroup"
    rm -f "$run/leader" "$run/supervisor"
    [ ! -e "$run/disposable" ] || rm -rf --one-file-system "$run"
}

start_mirror() {
    local roots=() root
    for root in "$run/mirror" "$suite_root/mirror"; do
        roots+=(--root "$root")
    done
    setpriv --pdeathsig KILL "$run/mirror-server" --listen 127.0.0.1:8080 --control "$run/mirror.control" "${roots[@]}" \
        > "$run/mirror.log" 2>&1 < /dev/null &
    mirror_pid=$!
}

# Puts a disk in place of the host's that writes to the same file and logs each write and each flush,
# in the format of the kernel's log-writes target. Mounted in our mount namespace alone, it goes with us.
start_recorder() {
    local log file
    log=$(cat "$run/record")
    file=$run/recorded.ext4
    mv "$run/disk.ext4" "$file"
    : > "$run/disk.ext4"
    truncate --size=0 "$log"
    truncate --size=8G "$log"
    setpriv --pdeathsig TERM qemu-storage-daemon \
        --blockdev "driver=file,node-name=disk,filename=$file" \
        --blockdev "driver=file,node-name=log,filename=$log" \
        --blockdev driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size=512 \
        --export "type=fuse,id=export,node-name=logged,mountpoint=$run/disk.ext4,writable=on" < /dev/null &
    recorder_pid=$!
    until grep -q " $run/disk.ext4 fuse" /proc/self/mounts; do
        kill -0 "$recorder_pid" 2> /dev/null || die 'the disk cannot be recorded'
        sleep 0.02
    done
}

# Whoever started us may be killed without a word; the kernel closes its end of the pipe all the same.
watch_standard_input() {
    [ -p /dev/stdin ] || return 0
    exec 5<&0
    (cat <&5 > /dev/null; kill -TERM $$) &
    watch_pid=$!
    exec 5<&- < /dev/null
}

# Boots once; the status says how the host ended.
boot() {
    rm -f "$run/power"
    : > "$run/leader.new"
    # A power cut leaves the cgroup frozen, and kills it: newer kernels then kill what is started straight into
    # one that was there at the time, as systemd 257 starts services.
    "$here/boot/remove-cgroup.sh" "$cgroup/host"
    mkdir "$cgroup/host"
    setpriv --pdeathsig KILL unshare --mount --pid --uts --ipc --fork --kill-child \
        "$here/boot/namespace.sh" "$name" < /dev/null &
    unshare_pid=$!
    while [ ! -s "$run/leader.new" ] && kill -0 "$unshare_pid" 2> /dev/null; do
        sleep 0.01
    done
    boots=$((boots + 1))
    echo "$boots" > "$run/boots"
    mv "$run/leader.new" "$run/leader"
    local status=0
    wait "$unshare_pid" || status=$?
    unshare_pid=
    rm -f "$run/leader"
    return "$status"
}

mkdir -p "$cgroup/host" "$cgroup/supervisor"
echo $$ > "$cgroup/supervisor/cgroup.procs"
trap end_host EXIT
trap 'exit 143' TERM INT HUP
echo $$ > "$run/supervisor"
ip link set lo up
start_mirror
[ ! -e "$run/record" ] || start_recorder
watch_standard_input

boots=0
while :; do
    status=0
    boot || status=$?
    echo "boot $boots ended with status $status"
    [ "$status" = "$reboot_status" ] || [ "$(cat "$run/power" 2> /dev/null)" = on ] || break
done
