# The services with a process that executes, or maps to be executed, another file than the one at its path.
# A path whose mount is gone begins at that mount's root.
for process in /proc/[0-9]*; do
    unit=$(sed -n 's,^0::.*/\([^/]*\.service\).*,\1,p' "$process/cgroup" 2> /dev/null) || continue
    [ "$process" != /proc/1 ] || unit=systemd-manager
    [ -n "$unit" ] && [ "$unit" != apt-ostreed.service ] || continue
    awk '$2 ~ /x/ && $5 != 0 && $6 ~ "^/(usr|lib|bin|sbin|libexec)/" { print $5, $6 }' \
        "$process/maps" 2> /dev/null | sort -u | while read -r inode path; do
        at=$path
        [ -e "$at" ] || at=/usr$path
        if [ "$(stat -L -c %i "$at" 2> /dev/null)" != "$inode" ]; then
            echo "$unit"
            break
        fi
    done
done | sort -u
