#!/bin/sh
# First on the path of maintainer scripts: notes the wish, and does nothing. A question is
# systemctl's to answer.
tool=${0##*/}
verb=
name=
for word; do
    case $word in
        -*) ;;
        *) case $tool in
            deb-systemd-invoke) if [ -z "$verb" ]; then verb=$word; else name=$word; fi ;;
            *) if [ -z "$name" ]; then name=$word; elif [ -z "$verb" ]; then verb=$word; fi ;;
        esac ;;
    esac
done
case $verb in
    status | is-active) exec /run/shim/systemctl "$verb" "$name" ;;
    '') exit 0 ;;
esac

note() { printf '%s\037' "$@"; }
record=$(note "$tool" "${DPKG_MAINTSCRIPT_PACKAGE:-}" "${DPKG_MAINTSCRIPT_NAME:-}" "$@")
printf '%s\036' "$record" >> /run/rec/log
