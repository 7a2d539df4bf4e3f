#!/bin/bash
# repository.sh [OPTION...] DIRECTORY DEB...: makes DIRECTORY a package repository (suite "stable",
# component "main") that offers exactly these packages. It appears whole or not at all.
#   --signed=good      with the key that the test host trusts for it (default)
#   --signed=wrong     with a key that the test host does not know
#   --signed=no        not at all
#   --expired          valid until a day that has passed
#   --origin=LABEL     as Origin and Label of the repository
#   --alter-index=SED  changes the index that is signed, not the packages: `s/^Version: 2/Version: 3/`
#   --alter-late=SED   changes the index after its digest was signed
set -euo pipefail
. "$(dirname -- "$0")/settings.sh"

signed=good expired='' origin=toys alter='' alter_late=''
while [ $# -gt 0 ]; do
    case $1 in
        --signed=*) signed=${1#*=} ;;
        --expired) expired=1 ;;
        --origin=*) origin=${1#*=} ;;
        --alter-index=*) alter=${1#*=} ;;
        --alter-late=*) alter_late=${1#*=} ;;
        --*) die "unknown option $1" ;;
        *) break ;;
    esac
    shift
done
[ $# -ge 1 ] || die 'usage: repository.sh [OPTION...] DIRECTORY DEB...'
target=$1
shift

new=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$new"' EXIT
chmod 755 "$new"
index=dists/stable/main/binary-$architecture
mkdir -p "$new/pool" "$new/$index"
[ $# = 0 ] || cp -- "$@" "$new/pool/"

release_options() {
    local field
    for field in "Origin=$origin" "Label=$origin" Suite=stable Codename=stable Components=main "Architectures=$architecture"; do
        printf '%s\n' -o "APT::FTPArchive::Release::$field"
    done
}

# sign KEY: with a copy of the key and so an agent of its own; others may sign at the same time.
sign() {
    local home
    home=$(mktemp -d)
    cp -a "$("$here/key.sh" "$1")/." "$home"
    gpg --homedir "$home" --batch --quiet --clearsign --output dists/stable/InRelease dists/stable/Release
    gpgconf --homedir "$home" --kill gpg-agent
    rm -rf "$home"
}

cd "$new"
apt-ftparchive packages pool > "$index/Packages"
[ -z "$alter" ] || sed -i -E "$alter" "$index/Packages"
gzip --keep --no-name "$index/Packages"
mapfile -t options < <(release_options)
apt-ftparchive "${options[@]}" release dists/stable > Release
[ -z "$expired" ] || sed -i "s/^Date: .*/Date: $(date -u -R -d '3 days ago')\nValid-Until: $(date -u -R -d '2 days ago')/" Release
mv Release dists/stable/
[ -z "$alter_late" ] || { sed -i -E "$alter_late" "$index/Packages"; gzip --keep --no-name --force "$index/Packages"; }
case $signed in
    good) key=toys ;;
    wrong) key=stranger ;;
    no) key= ;;
    *) die "not a way to sign: $signed" ;;
esac
[ -z "$key" ] || sign "$key"
# apt asks for what changed since a second: two versions must not be of the same one.
stamp=$(date +%s)
if [ -e "$target/dists/stable/Release" ]; then
    last=$(stat -c %Y "$target/dists/stable/Release")
    [ "$stamp" -gt "$last" ] || stamp=$((last + 1))
fi
find "$new/dists" -type f -exec touch --date="@$stamp" {} +
rm -rf "$target"
mv "$new" "$target"
trap - EXIT
