#!/bin/bash
# build.sh: builds hello-svc versions 1 to 5 as Debian packages below target/, unless they are up to date.
# Between 1 and 2 everything happens to files that can: modes, capabilities, attributes, hard links,
# removals, directories that become links and the reverse, and conffiles, of which the admin edits one.
set -euo pipefail
. "$(dirname -- "$0")/../settings.sh"

source=$here/hello-svc
output=$host_root/hello-svc

# fill FILE...: puts version and architecture in.
fill() { sed -i "s/@VERSION@/$version/g; s/@ARCHITECTURE@/$architecture/g" "$@"; }

put_service() {
    install -D -m 755 "$source/hello" usr/lib/hello-svc/hello
    install -D -m 644 "$source/hello-svc.service" lib/systemd/system/hello-svc.service
    fill lib/systemd/system/hello-svc.service
    mkdir -p usr/share/hello-svc
    echo "$version" > usr/share/hello-svc/version
    [ "$version" != 3 ] || touch usr/share/hello-svc/does-not-start
}

put_configuration() {
    mkdir -p etc/hello-svc
    printf '# hello-svc %s\ngreeting=hi-%s\n' "$version" "$version" > etc/hello-svc/hello.conf
    echo "for the admin, as of version $version" > etc/hello-svc/admin.conf
    echo 'the same in every version' > etc/hello-svc/static.conf
    printf '/etc/hello-svc/%s.conf\n' hello admin static > DEBIAN/conffiles
}

put_programs() {
    local kind
    for kind in setuid setgid with-capability; do
        install -m 755 /bin/true "usr/lib/hello-svc/$kind"
        echo "$version" >> "usr/lib/hello-svc/$kind"
    done
    chmod u+s usr/lib/hello-svc/setuid
    chmod g+s usr/lib/hello-svc/setgid
}

put_changing_files() {
    cd usr/share/hello-svc
    echo "version $version" > hard-link-1
    ln hard-link-1 hard-link-2
    mkdir files
    echo same > files/same
    if [ "$version" = 1 ]; then
        echo old > files/removed
        mkdir -p removed-directory/sub directory-then-link
        echo old > removed-directory/sub/file
        echo old > directory-then-link/file
        ln -s files link-then-directory
    else
        echo new > files/added
        mkdir link-then-directory
        echo new > link-then-directory/file
        ln -s files directory-then-link
    fi
    cd ../../..
}

build() (
    version=$1
    tree=$output/work/$version
    mkdir -p "$tree/DEBIAN"
    cd "$tree"
    cp "$source"/debian/* DEBIAN/
    fill DEBIAN/*
    chmod 755 DEBIAN/p*
    put_service
    put_configuration
    put_programs
    put_changing_files
    dpkg-deb --root-owner-group --build . "$output" > /dev/null
)

key=$(cat "$source"/hello* "$source"/debian/* "$source/build.sh" | short_digest)
[ "$(cat "$output/key" 2> /dev/null)" != "$key" ] || exit 0
rm -rf "$output"
mkdir -p "$output"
for version in 1 2 3 4 5; do
    build "$version"
done
rm -rf "$output/work"
echo "$key" > "$output/key"
