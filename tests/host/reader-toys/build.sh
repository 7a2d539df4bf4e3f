#!/bin/bash
# build.sh: builds reader-toys as a Debian package below target/, unless it is up to date: a file for each of
# those who keep in memory what they once read (polkit, udev, AppArmor, ldconfig's cache), and no script.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

output=$host_root/reader-toys

write() {
    mkdir -p "$(dirname "$1")"
    cat > "$1"
}

put_files() {
    write usr/share/polkit-1/actions/org.example.toy.policy <<'POLICY'
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1/policyconfig.dtd">
<policyconfig>
  <action id="org.example.toy.play">
    <description>Play</description>
    <message>Who plays?</message>
    <defaults>
      <allow_any>no</allow_any><allow_inactive>no</allow_inactive><allow_active>yes</allow_active>
    </defaults>
  </action>
</policyconfig>
POLICY
    write usr/lib/udev/rules.d/80-reader-toys.rules \
        <<< 'ACTION=="add", SUBSYSTEM=="net", KERNEL=="toy*", RUN+="/usr/bin/touch /run/seen-%k"'
    write etc/apparmor.d/reader-toys <<< 'profile reader-toys /usr/lib/reader-toys/none { }'
    write etc/ld.so.conf.d/reader-toys.conf <<< /usr/lib/reader-toys
    write DEBIAN/conffiles < <(printf '%s\n' /etc/apparmor.d/reader-toys /etc/ld.so.conf.d/reader-toys.conf)
    mkdir -p usr/lib/reader-toys
    cc -shared -nostdlib -Wl,-soname,libreadertoys.so.1 -o usr/lib/reader-toys/libreadertoys.so.1 -x c /dev/null
    write DEBIAN/triggers <<< 'activate-noawait ldconfig'
}

build() (
    mkdir -p "$output/work"
    cd "$output/work"
    write DEBIAN/control <<CONTROL
Package: reader-toys
Version: 1
Architecture: $architecture
Maintainer: The apt-ostree test host <test@example.org>
Description: files that others keep in memory
CONTROL
    put_files
    dpkg-deb --root-owner-group --build . "$output" > /dev/null
)

mkdir -p "$host_root"
exec 9> "$output.lock"
flock 9
key=$(short_digest < "$here/reader-toys/build.sh")
[ "$(cat "$output/key" 2> /dev/null)" != "$key" ] || exit 0
rm -rf "$output"
build
rm -rf "$output/work"
echo "$key" > "$output/key"
