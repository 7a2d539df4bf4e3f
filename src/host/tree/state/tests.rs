use std::os::unix::fs::symlink;

use super::*;

const BOOTED: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A host on the disk, as far as it is read.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn booted() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        host.write("run/ostree-booted", "");
        host.mounts("");
        host.directory("var/lib");
        host.directory("usr/lib/sysimage/dpkg");
        symlink("../../usr/lib/sysimage/dpkg", host.path("var/lib/dpkg")).unwrap();
        host.deployment(BOOTED, "");
        host.boot_entry(1, BOOTED);
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.path(path)).unwrap();
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn mounts(&self, more: &str) {
        let deployment = format!("/ostree/deploy/debian/deploy/{BOOTED}.0");
        let text = format!(
            "1 0 8:1 {deployment} / rw - ext4 /dev/a rw\n2 1 8:1 {deployment}/usr /usr ro - ext4 /dev/a rw\n{more}"
        );
        self.write("proc/1/mountinfo", text);
    }

    fn deployment(&self, commit: &str, origin: &str) {
        self.directory(&format!("sysroot/ostree/deploy/debian/deploy/{commit}.0"));
        self.write(&format!("sysroot/ostree/deploy/debian/deploy/{commit}.0.origin"), origin);
    }

    fn boot_entry(&self, version: u32, commit: &str) {
        let link = format!("ostree/boot.1/debian/{version}");
        self.directory("sysroot/ostree/boot.1/debian");
        let target = format!("../../../deploy/debian/deploy/{commit}.0");
        symlink(target, self.path("sysroot").join(&link)).unwrap();
        self.write(
            &format!("boot/loader/entries/ostree-{version}-debian.conf"),
            format!("title Debian\nversion {version}\noptions root=/dev/a ostree=/{link} rw\n"),
        );
    }

    fn read(&self) -> PortResult<HostTree> {
        StateReader::below(self.root.path()).read()
    }
}

#[test]
fn a_fresh_host_runs_boots_and_next_boots_one_commit() {
    let state = Host::booted().read().unwrap();
    assert_eq!(state.os_name, "debian");
    let commits = [&state.booted, &state.running, &state.next].map(CommitId::as_str);
    assert_eq!(commits, [BOOTED; 3]);
    assert!(!state.foreign_pending);
}

#[test]
fn the_tree_on_top_of_usr_runs() {
    let host = Host::booted();
    host.mounts("3 2 8:1 /ostree/live/7/tree/usr /usr ro - ext4 /dev/a rw\n");
    host.write("sysroot/ostree/live/7/commit", OTHER);
    let state = host.read().unwrap();
    assert_eq!((state.booted.as_str(), state.running.as_str()), (BOOTED, OTHER));
}

#[test]
fn without_its_note_the_running_commit_is_known_by_its_ref() {
    let host = Host::booted();
    host.mounts("3 2 8:1 /ostree/live/7/tree/usr /usr ro - ext4 /dev/a rw\n");
    assert_eq!(host.read().unwrap_err().code, ErrorCode::Internal);
    host.write("sysroot/ostree/repo/refs/heads/apt-ostree/live/7", format!("{OTHER}\n"));
    assert_eq!(host.read().unwrap().running.as_str(), OTHER);
}

#[test]
fn a_pending_deployment_is_foreign_unless_its_origin_says_otherwise() {
    let host = Host::booted();
    host.boot_entry(2, OTHER);
    host.deployment(OTHER, "[origin]\nrefspec=x:y\napt-ostree=true\n");
    let state = host.read().unwrap();
    assert_eq!(state.next.as_str(), OTHER);
    assert!(state.foreign_pending, "a mark in another group is none");
    host.deployment(OTHER, "[origin]\nrefspec=x:y\n\n[libostree-transient]\napt-ostree=true\n");
    assert!(!host.read().unwrap().foreign_pending);
    host.deployment(OTHER, "");
    host.write("sysroot/ostree/repo/refs/heads/apt-ostree/live/7", OTHER);
    assert!(host.read().unwrap().foreign_pending, "a commit that we know, deployed by another");
}

#[test]
fn a_staged_deployment_boots_next() {
    let host = Host::booted();
    host.deployment(OTHER, "");
    // As libostree 2022.7 writes it.
    let file = format!(
        "target\0\0name\0\0\0\0{OTHER}.0\0\0s\x05\0\0osname\0\0debian\0\0s\x07\0merge-deployment\0\0\0name\0\0\0\0{BOOTED}.0\0\0s"
    );
    host.write("run/ostree/staged-deployment", file);
    let state = host.read().unwrap();
    assert_eq!(state.next.as_str(), OTHER);
    assert!(state.foreign_pending);
    fs::remove_dir(host.path(&format!("sysroot/ostree/deploy/debian/deploy/{OTHER}.0"))).unwrap();
    assert_eq!(host.read().unwrap().next.as_str(), BOOTED, "the file outlived its deployment");
}

#[test]
fn a_deployment_is_found_whether_it_is_listed_or_not() {
    let host = Host::booted();
    let other = CommitId::parse(OTHER).unwrap();
    let reader = StateReader::below(host.root.path());
    assert!(!reader.has_deployment(&other).unwrap());
    host.directory("sysroot/ostree/deploy/empty");
    host.deployment(OTHER, "");
    assert!(reader.has_deployment(&other).unwrap());
}

#[test]
fn a_host_that_ostree_did_not_boot_is_told_so() {
    let host = Host::booted();
    fs::remove_file(host.path("run/ostree-booted")).unwrap();
    assert_eq!(host.read().unwrap_err().code, ErrorCode::NotBooted);
    let host = Host::booted();
    host.write("proc/1/mountinfo", "1 0 8:1 / / rw - ext4 /dev/a rw\n");
    assert_eq!(host.read().unwrap_err().code, ErrorCode::NotBooted);
}

#[test]
fn the_database_must_be_reached_by_a_link_into_usr() {
    for target in ["../../srv/dpkg", "/usr/../srv/dpkg", "nowhere", "../../usr/lib/missing"] {
        let host = Host::booted();
        host.directory("srv/dpkg");
        fs::remove_file(host.path("var/lib/dpkg")).unwrap();
        symlink(target, host.path("var/lib/dpkg")).unwrap();
        assert_eq!(host.read().unwrap_err().code, ErrorCode::DatabaseOutsideTree, "{target}");
    }
    let host = Host::booted();
    fs::remove_file(host.path("var/lib/dpkg")).unwrap();
    host.directory("var/lib/dpkg");
    assert_eq!(host.read().unwrap_err().code, ErrorCode::DatabaseOutsideTree);
    let host = Host::booted();
    let database = StateReader::below(host.root.path()).database().unwrap();
    assert_eq!(database, Path::new("lib/sysimage/dpkg"));
}

#[test]
fn deployments_are_known_by_their_path_below_any_prefix() {
    let good = format!("/@/ostree/deploy/debian/deploy/{BOOTED}.3/etc");
    let deployment = DeploymentPath::parse(Path::new(&good)).unwrap();
    assert_eq!((deployment.os_name.as_str(), deployment.serial), ("debian", 3));
    let directory = format!("/sysroot/ostree/deploy/debian/deploy/{BOOTED}.3");
    assert_eq!(deployment.directory, Path::new(&directory));
    for bad in ["/", "/ostree/deploy/debian/var", "/ostree/deploy/debian/deploy/x.0"] {
        assert!(DeploymentPath::parse(Path::new(bad)).is_none(), "{bad}");
    }
}
