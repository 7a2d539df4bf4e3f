#!/bin/bash
# demo.sh: the main job, on a host called "demo": real upgrades while it runs, two broken ones that are put
# back by themselves, a rollback, and a reboot. Ends with status 0 only if all of it happened.
# KEEP=1 leaves the host running.
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"

host=demo
run=$run_root/$host
work=$run/demo
summary=()

inside() { "$here/enter" "$host" "$@"; }
publish() { "$here/repository.sh" "$run/mirror/toys" "$host_root/hello-svc/hello-svc_$1"_*.deb; }
heading() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

finish() {
    local status=$?
    stop_clients
    if [ -n "${KEEP:-}" ]; then
        say "the host still runs: $here/enter $host; make demo-clean removes it"
    else
        "$here/clean" "$host"
    fi
    [ $status = 0 ] || say 'the demo FAILED'
}

# step RESULT TITLE COMMAND...: the command must end with the status RESULT; its time goes into the summary.
step() {
    local expected=$1 title=$2 start status=0
    shift 2
    heading "$title"
    printf '$ %s\n' "$*"
    start=$EPOCHREALTIME
    inside "$@" || status=$?
    summary+=("$title|$(seconds_since "$start") s|exit $status")
    [ $status = "$expected" ] || die "exit $status where $expected was due: $title"
}

# check TITLE COMMAND...: something that must be so.
check() {
    local title=$1
    shift
    "$@" || die "not so: $title"
    printf '  ok: %s\n' "$title"
    summary+=("$title||ok")
}

# Clients ask the services all the time; what they were told ends up in one file each. They end by themselves:
# a signal from out here does not reach them.
start_clients() {
    local port
    inside touch /run/polling
    for port in 80 9000; do
        # shellcheck disable=SC2016 # expanded inside
        inside sh -c 'while [ -e /run/polling ]; do curl -s -m 2 -o /dev/null -w "%{http_code}\n" "http://127.0.0.1:$1/" || true; sleep 0.02; done' \
            - $port > "$work/client-$port" &
        clients+=($!)
    done
}

clients=()
stop_clients() {
    [ ${#clients[@]} -gt 0 ] || return 0
    inside rm -f /run/polling || true
    wait "${clients[@]}"
    clients=()
}

report_clients() {
    local port
    for port in 80 9000; do
        summary+=("client of port $port during the update|$(wc -l < "$work/client-$port") requests|$(grep -vc '^200$' "$work/client-$port" || true) failed")
    done
}

# installed LIST: every package of LIST has the version that LIST says.
installed() {
    # shellcheck disable=SC2016 # dpkg-query expands these
    inside dpkg-query --show --showformat='${Package} ${Version}\n' > "$work/installed"
    [ -z "$(LC_ALL=C comm -23 <(LC_ALL=C sort -u "$1") <(LC_ALL=C sort -u "$work/installed"))" ]
}

hello_is() { [[ $(inside curl -s http://127.0.0.1:9000/) == "version=$1 disk=$1 "* ]]; }
as_before() { "$here/state.sh" "$host" | diff "$work/state" - | head -n 40; }
unchanged() { [ -z "$(as_before)" ] || { as_before >&2; return 1; }; }

prepare_upgrades() {
    local mirror
    mirror=$("$here/upgrades.sh")
    cp "$mirror/real.list" "$work/upgrades"
    # Where the archive has too little that is newer, real packages are repacked, and say so.
    if [ "$(wc -l < "$work/upgrades")" -lt 5 ] || [ ! -s "$mirror/libraries.list" ] || [ ! -s "$mirror/services.list" ]; then
        mirror=$("$here/repack.sh" 10)
        "$here/repository.sh" --origin=repacked "$run/mirror/repacked" "$mirror"/*.deb
        cat "$mirror/repacked.list" >> "$work/upgrades"
    fi
    [ "$(wc -l < "$work/upgrades")" -ge 5 ] || die 'there is nothing newer than the image, and nothing to repack'
    echo 'hello-svc 2' >> "$work/upgrades"
    publish 2
}

broken_upgrade() {
    local version=$1 what=$2
    publish "$version"
    "$here/state.sh" "$host" > "$work/state"
    step 3 "hello-svc $version, $what, is put back" apt-ostree apply-live --restart-services
    check 'files, packages, units and mounts are as before' unchanged
    check 'hello-svc 2 still answers' hello_is 2
}

print_summary() {
    heading summary
    printf '%s\n' "${summary[@]}" | awk -F'|' '{ printf "%-62s %16s  %s\n", $1, $2, $3 }'
}

trap finish EXIT
"$here/boot.sh" "$host"
mkdir -p "$work"
prepare_upgrades
inside apt-get --quiet=2 update
step 0 'what runs' apt-ostree status
step 0 'what is newer' apt-ostree check
step 0 'what an update would do' apt-ostree apply-live --restart-services --dry-run

start_clients
step 0 'the real upgrades and hello-svc 2, live' apt-ostree apply-live --restart-services
stop_clients
report_clients
check "$(wc -l < "$work/upgrades") packages have their new versions" installed "$work/upgrades"
check 'hello-svc 2 answers' hello_is 2

broken_upgrade 3 'which does not start'
broken_upgrade 4 'which cannot be configured'

publish 2
step 0 'rollback on demand' apt-ostree rollback
check 'hello-svc 1 answers again' hello_is 1
step 0 'the same upgrades once more' apt-ostree apply-live --restart-services

heading 'reboot'
start=$EPOCHREALTIME
inside systemctl reboot || true
"$here/wait" "$host" 2
summary+=("reboot|$(seconds_since "$start") s|")
check 'the new versions are there after the reboot' installed "$work/upgrades"
check 'hello-svc 2 answers after the reboot' hello_is 2
step 0 "OSTree's repository is sound" ostree fsck --quiet
step 0 'what happened' apt-ostree history
print_summary
