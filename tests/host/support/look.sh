# shellcheck shell=sh
# What the host consists of, one fact a line, as state.sh has it, in a fraction of its time: files of /usr
# are told by the OSTree objects that they are links to, which `ostree fsck` has read. And /var besides,
# but for what programs note for themselves at any time: logs, caches, times, seeds, and our own journal.
# The number of the transaction that made a tree is left out.
label() { sed "s/^/$1: /"; }
digests() { xargs -0 --no-run-if-empty sha256sum; }

find /sysroot/ostree/repo/objects -name '*.file' -printf '%i %P\n' > /run/objects
find /usr -xdev \( -type d -printf '0 0 %p d %m %U %G\n' -o -printf '%i %n %p %y %m %U %G %s %l\n' \) \
    | awk 'FNR == NR { object[$1] = $2; next } { $1 = ($1 in object) ? object[$1] : "-"; $2 = ""; print }' /run/objects - \
    | tee /run/usr | sed -E 's#(/apt-ostree-live-)[0-9]+#\1N#' | label files
# Empty files are no links.
awk '$1 == "-" && $3 == "f" && $7 != 0 { printf "%s%c", $2, 0 }' /run/usr | digests | label contents
rm /run/objects /run/usr

find /etc -xdev \( -type d -printf '%p d %m %U %G\n' -o -printf '%p %y %m %U %G %s %l\n' \) | label files
find /etc -xdev -type f -print0 | digests | label contents
getfattr --recursive --physical --dump --match=- --absolute-names /etc 2> /dev/null \
    | awk '/^# file:/ { file = $0; next } NF { print file, $0 }' | label attributes

notes='( -path /var/log -o -path /var/cache -o -path /var/tmp -o -path /var/lib/apt/lists -o -path /var/lib/apt/periodic
    -o -path /var/lib/apt-ostree -o -path /var/lib/systemd/random-seed -o -path /var/lib/systemd/timers
    -o -path /var/lib/systemd/timesync ) -prune'
set -f
# shellcheck disable=SC2086 # a list of words
find /var -xdev $notes -o \( -type d -printf '%p d %m %U %G\n' -o -printf '%p %y %m %U %G %l\n' \) | label files
# How often hello-svc has started says nothing.
# shellcheck disable=SC2086
find /var -xdev $notes -o -type f ! -path /var/lib/hello-svc/data/starts -print0 | digests | label contents

# Units that come and go by themselves, those that nothing needs among them, and what the product keeps in /run,
# are left out.
systemctl list-units --all --plain --no-legend --full --type=service,socket,target,timer,path \
    | awk '$4 != "dead" && $1 !~ /^(apt-ostree|run-|systemd-(hostnamed|timedated|localed)|polkit|user)/ { print $1, $2, $3, $4 }' | label units
# A deployment is told by its commit: OSTree numbers those of one commit.
awk '$5 !~ /^\/run\/(credentials|user|apt-ostree)/ { gsub(/\/dev\/loop[0-9]+/, "disk"); print $5, $4, $6, $9, $10 }' /proc/1/mountinfo \
    | sed -E 's#(/deploy/[0-9a-f]{64})\.[0-9]+#\1#; s#/ostree/live/[0-9]+/#/ostree/live/N/#' | label mounts
