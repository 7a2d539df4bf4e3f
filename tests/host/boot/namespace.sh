#!/bin/bash
# namespace.sh NAME: becomes PID 1 of the test host NAME. Runs as the first process of new mount, pid,
# uts and ipc namespaces; takes a cgroup namespace of its own once it is in the host's cgroup.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"
. "$here/boot/capabilities.sh"

run=$run_root/$1

if [ "${IN_CGROUP:-}" != $$ ]; then
    echo 0 > "$(cat "$run/cgroup")/host/cgroup.procs"
    # systemd takes over whatever cgroup is the root of its namespace: it must not be the machine's.
    grep -q '^0::/apt-ostree-test-.*/host$' /proc/self/cgroup || die 'not in a cgroup of its own'
    IN_CGROUP=$$ exec unshare --cgroup -- "$0" "$@"
fi

root=$run/root
exec 3> "$run/leader.new"
# The /proc of the machine is still the one that is mounted: this is our number there.
read -r leader _ < /proc/self/stat
exec 4> "$run/boot_id"

mount_disk() {
    mount --make-rprivate /
    mount -t proc proc /proc
    mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
    mkdir -p "$root"
    # The loop device frees itself with the last mount of it, however this host ends.
    mount -o loop,rw "$run/disk.ext4" "$root"
}

# Sets `options` to the kernel command line of the deployment that a boot loader would start, or of the
# one that the run directory's boot-entry chooses, counted from the top of the menu, and
# makes that deployment the root, with OSTree's own code for the initial RAM disk.
prepare_deployment() {
    local entry deployment loader place=1
    # What somebody chose in the boot menu counts once.
    [ ! -e "$run/boot-entry" ] || { place=$(cat "$run/boot-entry"); rm "$run/boot-entry"; }
    entry=$(find -L "$root/boot/loader/entries" -name '*.conf' | sort -V | tail -n "$place" | head -n 1)
    options=$(sed -n 's/^options //p' "$entry")
    echo "$options" > /run/.cmdline
    mount --bind /run/.cmdline /proc/cmdline
    deployment=$(realpath "$root$(sed -n 's/.*ostree=\([^ ]*\).*/\1/p' <<< "$options")")
    loader=$(find "$deployment/usr/lib" -maxdepth 2 -name 'ld-linux-*.so.*' | head -n 1)
    "$loader" --library-path "$deployment/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)" \
        "$deployment/usr/lib/ostree/ostree-prepare-root" "$root"
}

# read_only PATH...: nothing inside changes it, whatever its permissions say.
read_only() {
    local path
    for path; do
        [ -e "$path" ] || continue
        mount --bind "$path" "$path"
        mount -o remount,bind,ro "$path"
    done
}

mount_kernel_files() {
    mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
    mount --bind /run/.cmdline "$root/proc/cmdline"
    # Kernel settings are the machine's, all but those of the network namespace; systemd-sysctl
    # would set them at every boot.
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
    mount -o remount,bind,ro "$root/proc/sys"
    read_only "$root"/proc/{sysrq-trigger,irq,bus,fs,acpi,scsi,timer_list}
    # Every boot is a new one to whoever compares boot ids.
    tee /run/.boot_id < /proc/sys/kernel/random/uuid >&4
    mount --bind /run/.boot_id "$root/proc/sys/kernel/random/boot_id"
    mount -o remount,bind,ro "$root/proc/sys/kernel/random/boot_id"
    mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
}

# Device nodes of its own: systemd changes modes and owners of what it finds in /dev, and a bind of
# the machine's nodes would pass that on to the machine. The console is a null device.
make_devices() {
    local dev=$root/dev node
    mount -t tmpfs -o mode=755,nosuid tmpfs "$dev"
    for node in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do
        # shellcheck disable=SC2086 # name, major and minor number
        set -- $node
        mknod -m 666 "$dev/$1" c "$2" "$3"
    done
    mknod -m 600 "$dev/console" c 1 3
    mkdir "$dev/pts" "$dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$dev/pts"
    mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$dev/shm"
    ln -s pts/ptmx "$dev/ptmx"
    ln -s /proc/self/fd "$dev/fd"
    ln -s /proc/self/fd/0 "$dev/stdin"
    ln -s /proc/self/fd/1 "$dev/stdout"
    ln -s /proc/self/fd/2 "$dev/stderr"
}

# Nothing of the machine stays visible. In a container systemd does not make the mounts shared as it
# does on a real host, so that is done here.
enter_root() {
    mount --move /run "$root/run"
    cd "$root"
    pivot_root . .
    umount -l .
    mount --make-rshared /
}

start_systemd() {
    local masks=() unit
    for unit in console-getty.service proc-sys-fs-binfmt_misc.automount dev-hugepages.mount \
        sys-kernel-debug.mount sys-kernel-tracing.mount; do
        masks+=("systemd.mask=$unit")
    done
    echo "$leader" >&3
    # shellcheck disable=SC2086 # the options are a list of words
    exec env -i container=test-host PATH=/usr/sbin:/usr/bin TERM=linux \
        setpriv --bounding-set="$forbidden_capabilities" \
        chroot . /usr/lib/systemd/systemd $options systemd.log_target=journal "${masks[@]}" 3>&- 4>&-
}

options=
mount_disk
if [ -d "$root/ostree" ]; then
    prepare_deployment
else
    echo 'root=LABEL=testhost rw' > /run/.cmdline
fi
mount_kernel_files
make_devices
enter_root
start_systemd
