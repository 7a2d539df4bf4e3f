#!/bin/bash
# tree-zoo.sh ID [prepared]: run inside a test host. Changes a staged /usr in every way that overlayfs can express,
# commits it with `host-trees commit-stage`, and compares the checkout with what was staged, entry by entry.
set -euo pipefail
id=$1
live=/sysroot/ostree/live/$id
stage=$live/stage

# One line an entry, of all that a commit keeps.
manifest() {
    python3 -I - "$1" << 'PY'
import hashlib, os, stat, sys
root, links = sys.argv[1], {}
for directory, directories, files in os.walk(root):
    directories.sort()
    for name in sorted(directories + files) + (['.'] if directory == root else []):
        path = os.path.join(directory, name)
        below = os.path.relpath(path, root)
        # What a commit adds by itself.
        if below.startswith('etc/') or below == 'etc' or below.startswith('lib/sysusers.d/apt-ostree-live'):
            continue
        status = os.lstat(path)
        attributes = sorted((k, os.getxattr(path, k, follow_symlinks=False)) for k in os.listxattr(path, follow_symlinks=False) if not k.startswith('trusted.'))
        content = ''
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(open(path, 'rb').read()).hexdigest()
        zoo = below.startswith('share/zoo')
        group = links.setdefault(status.st_ino, below) if zoo and stat.S_ISREG(status.st_mode) else ''
        print(below.encode(errors='surrogateescape'), oct(status.st_mode), status.st_uid, status.st_gid, content, attributes, group)
PY
}

if [ -z "${ZOO_NAMESPACE:-}" ]; then
    host-trees stage "$id"
    ZOO_NAMESPACE=1 unshare -m --propagation private "$0" "$id"
    # With a checkout that was prepared, and without.
    [ "${2:-}" != prepared ] || host-trees prepare "$id"
    host-trees commit-stage "$id"
    manifest "$live/tree/usr" > /tmp/committed
    diff /tmp/staged /tmp/committed > /tmp/difference || { head -n 20 /tmp/difference; exit 1; }
    echo "equal in $(wc -l < /tmp/staged) entries"
    exit
fi
mount -o remount,bind,rw /sysroot
lower=$(host-trees running)
mkdir -p /run/zoo
mount -t overlay -o "lowerdir=$lower,upperdir=$stage/usr/upper,workdir=$stage/usr/work,redirect_dir=off,metacopy=off,index=off,xino=off" zoo /run/zoo
cd /run/zoo

# Deletions, of files, of trees, and of a tree that comes back with other content (opaque).
rm share/hello-svc/version
rm -r share/perl5/Debconf
rm -r share/bash-completion; mkdir share/bash-completion; echo new > share/bash-completion/only
# Types: directory to link and back, file to directory, link to file.
rm -r share/doc-base 2> /dev/null || true; ln -s doc share/doc-base
rm -r share/common-licenses; ln -s zoo share/common-licenses
rm share/hello-svc/hard-link-1; mkdir share/hello-svc/hard-link-1; touch share/hello-svc/hard-link-1/inside
rm -r share/hello-svc/files; echo file > share/hello-svc/files
# Owners, modes, set-id bits, sticky and closed directories, capabilities, attributes.
mkdir -p share/zoo/closed; chmod 0700 share/zoo/closed; chown 7:8 share/zoo/closed
mkdir share/zoo/sticky; chmod 3777 share/zoo/sticky
cp bin/true share/zoo/setuid; chown 1:2 share/zoo/setuid; chmod 6755 share/zoo/setuid
cp bin/true share/zoo/capable; setcap cap_net_raw+ep share/zoo/capable
cp bin/true share/zoo/attributed; python3 -I -c 'import os; os.setxattr("share/zoo/attributed", "user.origin", b"a\0b"); os.setxattr("share/zoo/closed", "user.empty", b"")'
chmod 2711 share/hello-svc; chown 3:4 share/misc
chmod u+s bin/cat
# Hard links, also across directories and onto a file of the lower tree.
echo linked > share/zoo/one; ln share/zoo/one share/zoo/closed/two; ln share/zoo/one share/zoo/three
ln bin/ls share/zoo/ls
# Names and sizes.
mkdir "share/zoo/ spaced  "; touch "share/zoo/ spaced  /new
line" 'share/zoo/quo"te' 'share/zoo/back\slash' share/zoo/ünïcode "share/zoo/$(printf 'x%.0s' {1..255})"
touch share/zoo/.wh.not-a-whiteout share/zoo/...
: > share/zoo/empty; head -c 5000000 /dev/urandom > share/zoo/large; truncate -s 3000000 share/zoo/sparse
ln -s nowhere share/zoo/dangling; ln -s "$(printf 'y%.0s' {1..4000})" share/zoo/long; chown -h 5:6 share/zoo/dangling
deep=share/zoo; for n in {1..60}; do deep=$deep/d$n; done; mkdir -p "$deep"; echo deep > "$deep/file"
chmod 0000 share/zoo/empty
# Copied up, but equal.
touch share/misc/magic bin/dash 2> /dev/null || true

manifest . > /tmp/staged
cd /
umount /run/zoo
