//! Kernels: Debian's packages have them in `/boot`, OSTree beside their modules, one to a tree.
//!
//! Sources: ostree-admin-deploy(1) and libostree's `ostree-sysroot-deploy.c`
//! (`usr/lib/modules/VERSION/vmlinuz`, `initramfs.img`), linux-base's `linux-update-symlinks`(1).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree::host::packages::version;
use apt_ostree::host::tree::layout::KERNEL_FILES;
use apt_ostree_proto::{ErrorCode, Failure};

/// Below `/usr`, in one directory for each kernel.
pub(super) const MODULES: &str = "lib/modules";
const INITRAMFS: &str = "initramfs.img";

/// Links that packages lead to the kernel that boots next: the boot loader's entries do that here.
const LINKS: &[&str] = &["vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"];

/// What the staged packages have done about kernels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kernels {
    /// Files of the private root's `boot`, by name, each with its place below `/usr`.
    pub(super) moved: Vec<(PathBuf, PathBuf)>,
    /// What goes from below `/usr`, for another kernel boots.
    pub(super) removed: Vec<PathBuf>,
}

/// Where the kernels of a tree are.
pub(super) struct Places<'a> {
    /// The private root.
    pub(super) root: &'a Path,
    /// The running `/usr`.
    pub(super) lower_usr: &'a Path,
    /// What the packages have changed of it.
    pub(super) upper_usr: &'a Path,
}

impl Places<'_> {
    /// Finds them. Changes nothing. `UnsupportedPackage` for a kernel that could not boot.
    pub(super) fn find(&self) -> Result<Kernels, Failure> {
        let unread = |error: io::Error| {
            Failure::caused(ErrorCode::CommitFailed, "the staged kernels cannot be read", &error)
        };
        let staged = names(&self.root.join("boot")).map_err(unread)?;
        let new: BTreeSet<&str> =
            staged.iter().filter_map(|name| name.strip_prefix("vmlinuz-")).collect();
        let Some(newest) = new.iter().copied().max_by(|a, b| version::compare(a, b)) else {
            return Ok(Kernels::default());
        };
        let has = |directory: &Path, part: &str| directory.join(part).exists();
        let modules = Path::new(MODULES).join(newest);
        if !has(self.upper_usr, &modules.to_string_lossy()) {
            return Err(unsupported(&format!("the kernel {newest} comes without modules")));
        }
        let before = names(&self.lower_usr.join(MODULES)).map_err(unread)?;
        let had_initramfs =
            before.iter().any(|old| has(&self.lower_usr.join(MODULES).join(old), INITRAMFS));
        if had_initramfs && !staged.contains(&format!("initrd.img-{newest}")) {
            return Err(unsupported(&format!(
                "nothing has made an initramfs for the kernel {newest}, and the present one has one"
            )));
        }
        let moved = KERNEL_FILES.iter().filter_map(|(prefix, part)| {
            let name = format!("{prefix}{newest}");
            staged.contains(&name).then(|| (PathBuf::from(name), modules.join(part)))
        });
        let moved = moved.collect();
        let mut removed = Vec::new();
        for old in before.iter().filter(|old| *old != newest) {
            removed.extend(self.leftovers(old).map_err(unread)?);
        }
        Ok(Kernels { moved, removed })
    }

    /// What is left of a kernel that does not boot any more: its modules, as long as their package is
    /// installed.
    fn leftovers(&self, old: &str) -> io::Result<Vec<PathBuf>> {
        let directory = Path::new(MODULES).join(old);
        let parts: Vec<&str> = KERNEL_FILES.iter().map(|(_, part)| *part).collect();
        let gone = |name: &String| is_whiteout(&self.upper_usr.join(&directory).join(name));
        let mut others = names(&self.lower_usr.join(&directory))?;
        others.retain(|name| !parts.contains(&name.as_str()) && !gone(name));
        Ok(if others.is_empty() {
            vec![directory]
        } else {
            parts
                .iter()
                .map(|part| directory.join(part))
                .filter(|part| self.lower_usr.join(part).exists())
                .collect()
        })
    }
}

impl Kernels {
    /// Whether a path that stands outside `/usr`, `/etc` and `/var` is a kernel's, and has its place.
    pub(super) fn explains(&self, outside: &Path) -> bool {
        if self.moved.is_empty() {
            return false;
        }
        let in_boot = outside.strip_prefix("boot").ok();
        let name = in_boot.unwrap_or(outside).to_str().unwrap_or_default();
        let is_part =
            in_boot.is_some() && KERNEL_FILES.iter().any(|(prefix, _)| name.starts_with(prefix));
        is_part || LINKS.contains(&name)
    }
}

/// A character device of number 0: Documentation/filesystems/overlayfs.rst.
fn is_whiteout(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    fs::symlink_metadata(path)
        .is_ok_and(|status| status.file_type().is_char_device() && status.rdev() == 0)
}

/// The names in a directory, which may not be there; those that are not UTF-8 are nobody's.
fn names(directory: &Path) -> io::Result<BTreeSet<String>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.file_name()))
            .filter_map(|name| name.map(|name| name.into_string().ok()).transpose())
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
        Err(error) => Err(error),
    }
}

fn unsupported(message: &str) -> Failure {
    Failure::new(ErrorCode::UnsupportedPackage, message)
        .with_hint("Install initramfs-tools or dracut into the image, or build the kernel into it.")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn with(paths: &[&str]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for path in paths {
                let path = tree.0.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "x").unwrap();
            }
            tree
        }

        fn find(&self) -> Result<Kernels, Failure> {
            let below = |name| self.0.path().join(name);
            let (root, lower, upper) = (below("root"), below("lower"), below("upper"));
            Places { root: &root, lower_usr: &lower, upper_usr: &upper }.find()
        }
    }

    fn pairs(kernels: &Kernels) -> Vec<String> {
        kernels.moved.iter().map(|(a, b)| format!("{} {}", a.display(), b.display())).collect()
    }

    const OLD: &[&str] = &[
        "lower/lib/modules/6.1.0-9/vmlinuz",
        "lower/lib/modules/6.1.0-9/initramfs.img",
        "lower/lib/modules/6.1.0-9/modules.dep",
    ];

    #[test]
    fn a_new_kernel_goes_beside_its_modules_and_the_old_one_boots_no_more() {
        let new = [
            "root/boot/vmlinuz-6.1.0-10",
            "root/boot/initrd.img-6.1.0-10",
            "root/boot/System.map-6.1.0-10",
            "upper/lib/modules/6.1.0-10/modules.dep",
        ];
        let kernels = Tree::with(&[OLD, &new].concat()).find().unwrap();
        assert_eq!(
            pairs(&kernels),
            [
                "vmlinuz-6.1.0-10 lib/modules/6.1.0-10/vmlinuz",
                "initrd.img-6.1.0-10 lib/modules/6.1.0-10/initramfs.img",
                "System.map-6.1.0-10 lib/modules/6.1.0-10/System.map",
            ]
        );
        let old = Path::new("lib/modules/6.1.0-9");
        assert_eq!(kernels.removed, [old.join("vmlinuz"), old.join("initramfs.img")]);
        for (path, explained) in [
            ("boot/vmlinuz-6.1.0-10", true),
            ("boot/initrd.img", true),
            ("vmlinuz.old", true),
            ("boot/grub", false),
            ("vmlinuz-6.1.0-10", false),
        ] {
            assert_eq!(kernels.explains(Path::new(path)), explained, "{path}");
        }
    }

    #[test]
    fn an_old_kernel_without_modules_of_a_package_goes_whole() {
        let paths = [
            "lower/lib/modules/1/vmlinuz",
            "root/boot/vmlinuz-2",
            "upper/lib/modules/2/modules.dep",
        ];
        let kernels = Tree::with(&paths).find().unwrap();
        assert_eq!(kernels.removed, [Path::new("lib/modules/1")]);
    }

    #[test]
    fn a_kernel_that_could_not_boot_is_refused() {
        let without_modules = Tree::with(&["root/boot/vmlinuz-2"]).find().unwrap_err();
        assert!(without_modules.message.contains("without modules"), "{without_modules}");
        let new = ["root/boot/vmlinuz-6.1.0-10", "upper/lib/modules/6.1.0-10/modules.dep"];
        let without_initramfs = Tree::with(&[OLD, &new].concat()).find().unwrap_err();
        assert!(without_initramfs.message.contains("initramfs"), "{without_initramfs}");
    }

    #[test]
    fn packages_without_a_kernel_do_nothing_about_kernels() {
        let kernels = Tree::with(&[OLD, &["root/boot/grub/grub.cfg"]].concat()).find().unwrap();
        assert_eq!(kernels, Kernels::default());
        assert!(!kernels.explains(Path::new("boot/vmlinuz-1")));
    }
}
