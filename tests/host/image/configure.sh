#!/bin/bash
# configure.sh ROOT: makes the Debian tree in ROOT this project's test host: names, apt sources, quiet timers.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

root=$1
mirror=http://127.0.0.1:8080

# Empty, not a newline: systemd fills it in at the first boot.
: > "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/etc/resolv.conf"
: > "$root/etc/fstab"
echo testhost > "$root/etc/hostname"
printf '127.0.0.1 localhost testhost\n' > "$root/etc/hosts"

sed -i 's,^root:[^:]*:,root::,' "$root/etc/shadow"

rm -f "$root/etc/apt/sources.list"
cat > "$root/etc/apt/sources.list.d/debian.list" <<SOURCES
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror/debian $suite-updates main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror/debian-security $suite-security main
SOURCES
cat > "$root/etc/apt/sources.list.d/toys.list" <<SOURCES
deb [signed-by=/usr/share/keyrings/toys.gpg] $mirror/toys stable main
deb [signed-by=/usr/share/keyrings/toys.gpg] $mirror/repacked stable main
SOURCES
install -m 644 "$host_root/keys/toys.gpg" "$root/usr/share/keyrings/toys.gpg"
cat > "$root/etc/apt/apt.conf.d/90test-host" <<CONFIGURATION
Acquire::Languages "none";
Acquire::PDiffs "false";
APT::Install-Recommends "false";
CONFIGURATION

# These would take apt's and dpkg's locks at random times.
for timer in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer e2scrub_all.timer; do
    ln -sf /dev/null "$root/etc/systemd/system/$timer"
done

# In the emulator, a root shell on the second serial port takes the place of `enter`.
cat > "$root/etc/systemd/system/control-shell.service" <<'UNIT'
[Unit]
Description=Control shell of the test host
ConditionPathExists=/dev/ttyS1
ConditionVirtualization=!container

[Service]
ExecStartPre=/bin/stty -F /dev/ttyS1 raw -echo 115200
ExecStart=/bin/bash
StandardInput=file:/dev/ttyS1
StandardOutput=file:/dev/ttyS1
# Not a terminal, so that the shell does not take itself for interactive and prompt.
StandardError=journal
Environment=HOME=/root LANG=C.UTF-8
Restart=always

[Install]
WantedBy=multi-user.target
UNIT
ln -sf /etc/systemd/system/control-shell.service "$root/etc/systemd/system/multi-user.target.wants/control-shell.service"
