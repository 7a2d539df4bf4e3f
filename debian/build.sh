#!/bin/bash
# Builds the Debian package from a profile's binaries: build.sh [PROFILE], default release.
# The package lands in target/deb/; with SUITE= for another suite than the machine's in target/SUITE/deb/.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${1:-release}
machine_suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
if [ "${SUITE:-$machine_suite}" != "$machine_suite" ]; then
    exec debian/chroot.sh "$SUITE" debian/build.sh "$profile"
fi

target=${CARGO_TARGET_DIR:-$PWD/target}
case $profile in
    dev) output=$target/debug ;;
    *) output=$target/$profile ;;
esac
root=$target/deb/root
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
architecture=$(dpkg --print-architecture)

build() {
    cargo build --locked --profile "$profile" --bin apt-ostree --bin apt-ostreed --bin apt-ostree-worker
    # The rescue helper has to run when nothing below /usr can be loaded any more.
    cargo rustc --locked --profile "$profile" --bin apt-ostree-rescue -- -C target-feature=+crt-static
}

install_files() {
    rm -rf "$root"
    install -D -m 755 -t "$root/usr/bin" "$output/apt-ostree"
    install -D -m 755 -t "$root/usr/libexec" "$output"/{apt-ostreed,apt-ostree-worker,apt-ostree-rescue}
    if [ "$profile" = dev ]; then strip --strip-debug "$root"/usr/bin/* "$root"/usr/libexec/*; fi
    install -D -m 644 -t "$root/usr/lib/systemd/system" debian/apt-ostreed.service debian/apt-ostree.slice \
        debian/apt-ostree-recover.service
    # Not by way of /etc, which may be what has to be put back.
    install -d "$root/usr/lib/systemd/system/sysinit.target.wants"
    ln -s ../apt-ostree-recover.service "$root/usr/lib/systemd/system/sysinit.target.wants/"
    install -D -m 644 -t "$root/usr/share/dbus-1/system-services" debian/org.aptostree1.service
    install -D -m 644 -t "$root/usr/share/dbus-1/system.d" debian/org.aptostree1.conf
    install -D -m 644 -t "$root/usr/share/polkit-1/actions" debian/org.aptostree1.policy
    install -D -m 644 -t "$root/usr/share/doc/apt-ostree" debian/copyright
    install -D -m 644 debian/apt.conf "$root/etc/apt/apt.conf.d/05apt-ostree"
    install -D -m 644 debian/services.toml "$root/usr/lib/apt-ostree/config.d/10-services.toml"
    install -D -m 644 debian/tests.toml "$root/usr/lib/apt-ostree/config.d/10-tests.toml"
    install -d "$root/usr/lib/apt-ostree/check"/{required,wanted}.d "$root/usr/lib/apt-ostree"/{green,red}.d
    install -d "$root/usr/share/man/man8"
    install -d "$root/usr/share/bash-completion/completions" "$root/usr/share/zsh/vendor-completions"
    "$output/apt-ostree" manual-page | gzip -9n > "$root/usr/share/man/man8/apt-ostree.8.gz"
    "$output/apt-ostree" completions bash > "$root/usr/share/bash-completion/completions/apt-ostree"
    "$output/apt-ostree" completions zsh > "$root/usr/share/zsh/vendor-completions/_apt-ostree"
}

# libapt's own shlibs file names the point release that it was built in, although its interface does
# not change within a series: a host that lacks the newest one must be able to install this, too.
library_dependencies() {
    local scratch
    scratch=$(mktemp -d)
    mkdir "$scratch/debian"
    printf 'Source: apt-ostree\n\nPackage: apt-ostree\nArchitecture: any\n' > "$scratch/debian/control"
    local binaries=("$root"/usr/bin/apt-ostree "$root"/usr/libexec/apt-ostree{d,-worker})
    (cd "$scratch" && dpkg-shlibdeps -O "${binaries[@]}" 2>/dev/null) \
        | sed -n 's/^shlibs:Depends=//p' | sed -E 's/(libapt-pkg[0-9.]+) \(>= ([0-9]+\.[0-9]+)\.[0-9]+\)/\1 (>= \2)/'
    rm -rf "$scratch"
}

control_files() {
    local dependencies script
    dependencies=$(library_dependencies)
    [ -n "$dependencies" ] || { echo 'dpkg-shlibdeps found no library dependencies' >&2; exit 1; }
    install -d "$root/DEBIAN"
    sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SHLIBS@/$dependencies/" \
        debian/control > "$root/DEBIAN/control"
    echo /etc/apt/apt.conf.d/05apt-ostree > "$root/DEBIAN/conffiles"
    for script in postinst prerm postrm; do
        install -m 755 "debian/$script" "$root/DEBIAN/$script"
    done
}

build
install_files
control_files
dpkg-deb --root-owner-group --build "$root" "$target/deb" >/dev/null
ls "$target/deb/apt-ostree_${version}_${architecture}.deb"
