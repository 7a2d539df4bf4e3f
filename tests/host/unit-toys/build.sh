#!/bin/bash
# build.sh: builds unit-toys versions 1 to 3 as Debian packages below target/, unless they are up to date:
# units of every kind that an update may meet. Between 1 and 2 all of them change but the socket; one is
# renamed, as packages do that, and one goes without a word. In version 3 the renamed one does not start.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

output=$host_root/unit-toys
source=$here/unit-toys

# unit NAME UNIT-LINES SERVICE-LINES: lines are separated by semicolons.
unit() {
    {
        printf '[Unit]\nDescription=%s of unit-toys %s\n' "$1" "$version"
        tr ';' '\n' <<< "$2"
        printf '[Service]\n'
        tr ';' '\n' <<< "$3"
    } > "usr/lib/systemd/system/$1.service"
}

put_units() {
    local work='ExecStart=/usr/lib/unit-toys/work infinity'
    printf '[Unit]\nDescription=Socket of unit-toys\n[Socket]\nListenStream=127.0.0.1:9100\n' \
        > usr/lib/systemd/system/toy-socket.socket
    unit toy-socket '' 'ExecStart=/usr/lib/unit-toys/answer'
    unit toy-bus '' 'Type=dbus;BusName=org.example.Toy;ExecStart=/usr/lib/unit-toys/on-bus'
    unit toy-hang '' 'TimeoutStopSec=2;ExecStart=/usr/lib/unit-toys/hang'
    unit toy-cycle-a 'After=toy-cycle-c.service' "$work"
    unit toy-cycle-b 'After=toy-cycle-a.service' "$work"
    unit toy-cycle-c 'After=toy-cycle-b.service' "$work"
    unit toy-masked '' "$work"
    unit toy-failed '' 'Type=oneshot;ExecStart=/bin/false'
    if [ "$version" = 1 ]; then
        unit toy-old '' "$work"
        unit toy-gone '' "$work"
    else
        [ "$version" != 3 ] || work='Type=oneshot;ExecStart=/bin/false'
        unit toy-new '' "$work"
        printf '[Install]\nWantedBy=multi-user.target\n' >> usr/lib/systemd/system/toy-new.service
    fi
}

put_programs() {
    install -D -m 755 -t usr/lib/unit-toys "$source/answer" "$source/on-bus"
    printf '#!/bin/sh\ntrap : TERM\nwhile :; do sleep 1000 & wait; done\n' > usr/lib/unit-toys/hang
    chmod 755 usr/lib/unit-toys/hang
    install -m 755 /bin/sleep usr/lib/unit-toys/work
    echo "$version" >> usr/lib/unit-toys/work
    mkdir -p usr/share/unit-toys usr/share/dbus-1/system.d usr/share/dbus-1/system-services
    echo "$version" > usr/share/unit-toys/version
    cat > usr/share/dbus-1/system-services/org.example.Toy.service <<'SERVICE'
[D-BUS Service]
Name=org.example.Toy
Exec=/bin/false
User=root
SystemdService=toy-bus.service
SERVICE
    cat > usr/share/dbus-1/system.d/org.example.Toy.conf <<'POLICY'
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <policy user="root"><allow own="org.example.Toy"/></policy>
  <policy context="default"><allow send_destination="org.example.Toy"/></policy>
</busconfig>
POLICY
}

put_scripts() {
    cat > DEBIAN/preinst <<'SCRIPT'
#!/bin/sh
set -e
[ "$1" != upgrade ] || deb-systemd-invoke stop toy-old.service
SCRIPT
    cat > DEBIAN/postinst <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ] && [ -n "$2" ]; then
    systemctl --system daemon-reload
    deb-systemd-helper enable toy-new.service > /dev/null
    deb-systemd-invoke start toy-new.service
    deb-systemd-invoke restart toy-masked.service toy-failed.service
fi
SCRIPT
    chmod 755 DEBIAN/p*inst
}

build() (
    version=$1
    tree=$output/work/$version
    mkdir -p "$tree/DEBIAN" "$tree/usr/lib/systemd/system"
    cd "$tree"
    cat > DEBIAN/control <<CONTROL
Package: unit-toys
Version: $version
Architecture: $architecture
Depends: init-system-helpers, python3-minimal
Maintainer: The apt-ostree test host <test@example.org>
Description: units of every kind
CONTROL
    put_units
    put_programs
    [ "$version" = 1 ] || put_scripts
    dpkg-deb --root-owner-group --build . "$output" > /dev/null
)

mkdir -p "$host_root"
exec 9> "$output.lock"
flock 9
key=$(cat "$source"/* | short_digest)
[ "$(cat "$output/key" 2> /dev/null)" != "$key" ] || exit 0
rm -rf "$output"
mkdir -p "$output"
for version in 1 2 3; do
    build "$version"
done
rm -rf "$output/work"
echo "$key" > "$output/key"
