#!/bin/sh
# First on the path of maintainer scripts. Wishes are noted, questions about running units are
# answered with the live host's state, and all else is done to the staged files alone.
units=/run/rec/units

note() { printf '%s\037' "$@"; }
record() {
    line=$(note systemctl "${DPKG_MAINTSCRIPT_PACKAGE:-}" "${DPKG_MAINTSCRIPT_NAME:-}" "$@")
    printf '%s\036' "$line" >> /run/rec/log
}

full_name() {
    case $1 in
        *.service | *.socket | *.device | *.mount | *.automount | *.swap | *.target | *.path | *.timer | *.slice | *.scope) echo "$1" ;;
        *) echo "$1.service" ;;
    esac
}

# state UNIT FIELD: load, active or sub of a unit, as it was when the update began.
state() {
    awk -F '\t' -v name="$(full_name "$1")" -v field="$2" '
        $1 == name { found = 1; print $(field == "load" ? 2 : field == "active" ? 3 : 4) }
        END { if (!found) print (field == "load" ? "not-found" : field == "active" ? "inactive" : "dead") }
    ' "$units"
}

# property UNIT NAME
property() {
    case $2 in
        Id | Names) full_name "$1" ;;
        LoadState) state "$1" load ;;
        ActiveState) state "$1" active ;;
        SubState) state "$1" sub ;;
        UnitFileState) SYSTEMD_OFFLINE=1 /usr/bin/systemctl is-enabled "$1" 2> /dev/null ;;
        MainPID | ControlPID | NRestarts) echo 0 ;;
    esac
}

quiet=
user=
verb=
value=
properties=
names=
skip=
for word; do
    if [ -n "$skip" ]; then
        [ "$skip" != property ] || properties="$properties $(echo "$word" | tr , ' ')"
        skip=
        continue
    fi
    case $word in
        -q | --quiet) quiet=1 ;;
        --user | --global) user=1 ;;
        --value) value=1 ;;
        -p | --property) skip=property ;;
        -p*) properties="$properties $(echo "${word#-p}" | tr , ' ')" ;;
        --property=*) properties="$properties $(echo "${word#--property=}" | tr , ' ')" ;;
        -t | --type | -s | --signal | -n | --lines | -o | --output | -H | -M | --root | --state) skip=other ;;
        -*) ;;
        *) if [ -z "$verb" ]; then verb=$word; else names="$names $word"; fi ;;
    esac
done

case $verb in
    start | stop | restart | try-restart | condrestart | reload | reload-or-restart | force-reload | \
        try-reload-or-restart | reload-or-try-restart | daemon-reload | daemon-reexec)
        [ -n "$user" ] || record "$@"
        exit 0
        ;;
    is-active | is-failed)
        [ "$verb" = is-active ] && wanted=active || wanted=failed
        [ "$wanted" = active ] && status=3 || status=1
        for name in $names; do
            active=$(state "$name" active)
            [ -n "$quiet" ] || echo "$active"
            [ "$active" != "$wanted" ] || status=0
        done
        exit $status
        ;;
    status)
        status=4
        for name in $names; do
            load=$(state "$name" load)
            active=$(state "$name" active)
            echo "$(full_name "$name")"
            echo "     Loaded: $load"
            echo "     Active: $active ($(state "$name" sub))"
            case $load/$active in
                */active | */reloading) status=0 ;;
                not-found/*) status=4 ;;
                *) status=3 ;;
            esac
        done
        exit $status
        ;;
    show)
        for name in $names; do
            for one in ${properties:-Id LoadState ActiveState SubState UnitFileState}; do
                [ -n "$value" ] && property "$name" "$one" || echo "$one=$(property "$name" "$one")"
            done
        done
        exit 0
        ;;
    is-system-running)
        [ -n "$quiet" ] || echo running
        exit 0
        ;;
    list-units | list-jobs | list-timers | list-sockets)
        exit 0
        ;;
    kill | isolate | reset-failed | set-property | clean | freeze | thaw | set-environment | \
        unset-environment | import-environment | reboot | poweroff | halt | kexec | suspend | rescue | \
        emergency | default)
        exit 0
        ;;
    *)
        SYSTEMD_OFFLINE=1 exec /usr/bin/systemctl "$@"
        ;;
esac
