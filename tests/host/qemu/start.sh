#!/bin/bash
# qemu/start.sh NAME [IMAGE|--again]: runs the test host NAME under QEMU, with Debian's own kernel, and stays
# until it ends; --again boots the disk of its last run, whatever ended that. Slow (there is no hardware behind it), but all real: the kernel, PID 1, the devices, the boot.
# In the run directory: disk.ext4, shell.sock (a root shell), monitor.sock, console.log.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

name=$1
run=$run_root/$name
image=${2:-}
[ -n "$image" ] || image=$(KERNEL=1 "$here/image.sh")

# from_disk PATH FILE: copies a file out of the image, which nobody has mounted.
from_disk() { debugfs -R "dump $1 $2" "$run/disk.ext4" 2> /dev/null; }

# The default entry of the boot loader: what a machine would start.
read_boot_entry() {
    local loader entry
    loader=$(debugfs -R 'stat /boot/loader' "$run/disk.ext4" 2> /dev/null | sed -n 's/.*Fast link dest: "\(.*\)"/\1/p')
    entry=$(debugfs -R "ls -p /boot/$loader/entries" "$run/disk.ext4" 2> /dev/null \
        | awk -F/ '$6 ~ /conf$/ { print $6 }' | sort -V | tail -n 1)
    from_disk "/boot/$loader/entries/$entry" "$run/entry"
    from_disk "/boot$(sed -n 's/^linux //p' "$run/entry")" "$run/vmlinuz"
    from_disk "/boot$(sed -n 's/^initrd //p' "$run/entry")" "$run/initrd"
    options=$(sed -n 's/^options //p' "$run/entry")
}

# Unpacks the kernel here: the emulator would take ten seconds for it.
unpack_kernel() {
    local offset
    while IFS=: read -r offset _; do
        tail -c "+$((offset + 1))" "$run/vmlinuz" | xz --decompress --stdout --single-stream > "$run/vmlinux" 2> /dev/null || true
        [ "$(head -c 4 "$run/vmlinux" | tail -c 3)" != ELF ] || return 0
    done < <(LC_ALL=C grep --only-matching --byte-offset --binary --text --perl-regexp '\xfd7zXZ\x00' "$run/vmlinuz")
    cp "$run/vmlinuz" "$run/vmlinux"
}

# What a test has no use for, and an emulator much time.
masks() {
    local unit
    for unit in systemd-udev-trigger.service systemd-udevd.service systemd-udevd-kernel.socket \
        systemd-udevd-control.socket serial-getty@ttyS0.service getty@tty1.service e2scrub_reap.service \
        systemd-random-seed.service dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount; do
        printf 'systemd.mask=%s ' "$unit"
    done
}

mkdir -p "$run"
if [ "$image" = --again ]; then
    # What the file system's journal holds belongs to it; whoever reads the disk without mounting it has to know.
    status=0
    e2fsck -p -E journal_only "$run/disk.ext4" > "$run/fsck.log" || status=$?
    [ "$status" -le 1 ] || die "the disk of $name cannot be read: see $run/fsck.log"
else
    cp --sparse=always --reflink=auto "$image" "$run/disk.ext4"
fi
read_boot_entry
unpack_kernel
rm -f "$run"/*.sock
exec qemu-system-x86_64 -M q35 -accel tcg,thread=multi,tb-size=512 -cpu Nehalem -m 1024 -smp 1 \
    -nodefaults -display none -no-reboot -nic none \
    -kernel "$run/vmlinux" -initrd "$run/initrd" \
    -append "$options $(masks) quiet mitigations=off nokaslr tsc=reliable" \
    -drive "file=$run/disk.ext4,if=virtio,format=raw,cache=unsafe" \
    -serial "file:$run/console.log" \
    -serial "unix:$run/shell.sock,server=on,wait=off" \
    -monitor "unix:$run/monitor.sock,server=on,wait=off" < /dev/null
