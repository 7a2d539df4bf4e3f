#!/bin/bash
# state.sh NAME: what the test host NAME consists of, one fact a line: its /usr and /etc byte for byte,
# packages (whose database lies in /usr), units and mounts. Equal output is "as before".
# Times are left out: OSTree keeps none, and a file that was put back is another inode. So are mount,
# process and loop device numbers (a disk gets another after a power cut), units that come and go by themselves, and what the product keeps in /run.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"

# shellcheck disable=SC2016 # expanded inside
"$here/enter" "$1" sh -ec '
label() { sed "s/^/$1: /"; }
find /usr /etc -xdev \( -type d -printf "%p d %m %U %G\n" -o -printf "%p %y %m %U %G %s %l\n" \) | label files
find /usr /etc -xdev -type f -print0 | xargs -0 sha256sum | label contents
{ getfattr --recursive --physical --dump --match=- --absolute-names /usr /etc 2> /dev/null || true; } \
    | awk "/^# file:/ { file = \$0; next } NF { print file, \$0 }" | label attributes
dpkg-query --show --showformat="\${Package}:\${Architecture} \${Version} \${Status}\n" | label packages
systemctl list-units --all --plain --no-legend --full --type=service,socket,target,timer,path \
    | awk "\$1 !~ /^(apt-ostree|run-|systemd-(hostnamed|timedated|localed)|polkit|user)/ { print \$1, \$2, \$3, \$4 }" \
    | label units
awk "\$5 !~ /^\/run\/(credentials|user|apt-ostree)/ { gsub(/\/dev\/loop[0-9]+/, \"disk\"); print \$5, \$4, \$6, \$9, \$10 }" /proc/1/mountinfo | label mounts
' | LC_ALL=C sort
