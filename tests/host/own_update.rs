//! An update of apt-ostree itself, by the daemon that it replaces.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Host, Repository};

const UPDATE: [&str; 2] = ["apply-live", "--packages=hello-svc,apt-ostree"];

/// The package under test with a higher version whose helpers fail in all that they are asked: more
/// different from the running daemon's no real version could be.
struct Successor {
    package: PathBuf,
    _directory: tempfile::TempDir,
}

impl Successor {
    fn build(host: &Host) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a package");
        let (root, package) =
            (directory.path().join("root"), directory.path().join("apt-ostree_next.deb"));
        let version = host.version_of("apt-ostree");
        let script = format!(
            ". tests/host/settings.sh
             dpkg-deb -R \"$build_root\"/deb/apt-ostree_{version}_*.deb {root}
             sed -i 's/^Version: .*/&+next1/' {root}/DEBIAN/control
             for helper in worker rescue; do cp /bin/false {root}/usr/libexec/apt-ostree-$helper; done
             printf 'next' >> {root}/usr/libexec/apt-ostreed
             dpkg-deb --root-owner-group -Zgzip -z1 -b {root} {package}",
            root = root.display(),
            package = package.display()
        );
        let status = Command::new("/bin/bash")
            .args(["-ec", &script])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .status()
            .expect("a shell can be run");
        assert!(status.success(), "{script}: {status}");
        Self { package, _directory: directory }
    }

    fn publish(&self, host: &Host, hello: u32) {
        host.mirror().publish(&Repository::hello(hello).with(self.package.clone()));
    }
}

fn daemon(host: &Host) -> String {
    host.shell("systemctl show -P MainPID apt-ostreed.service").trim().to_owned()
}

#[test]
fn an_update_of_apt_ostree_itself_ends_with_the_helpers_that_it_began_with() {
    let host = Host::boot_to_update();
    let (successor, version) = (Successor::build(&host), host.version_of("apt-ostree"));
    let before = host.snapshot();

    successor.publish(&host, 3);
    assert_eq!(host.apt_ostree(UPDATE).code, Some(3));
    host.snapshot().assert_same_as(&before);
    host.assert_in_order();

    successor.publish(&host, 2);
    let predecessor = daemon(&host);
    host.apt_ostree(UPDATE).success();
    assert_eq!(host.version_of("apt-ostree"), format!("{version}+next1"));
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
    host.assert_in_order();

    // It makes room by itself, long before it would for want of work.
    host.shell(&format!("timeout 30 tail --pid={predecessor} -f /dev/null"));
    assert_eq!(host.newest_record()["outcome"], "committed");
    assert_ne!(daemon(&host), predecessor);
    host.reboot();
    host.assert_in_order();
    assert_eq!(host.version_of("hello-svc"), "2");
    host.shell("ostree fsck --quiet");
}
