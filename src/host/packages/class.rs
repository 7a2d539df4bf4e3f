//! When a package's change can take effect, by what the package is.

use apt_ostree_proto::package::UpdateClass;

use super::version::upstream;

/// Packages that the running system holds on to so that no restart brings the new version in, or
/// whose restart would take the host down.
const NEXT_BOOT: &[(&[&str], &str)] = &[
    (
        &["systemd", "systemd-sysv", "libsystemd-shared", "udev"],
        "it belongs to the service manager, which runs from boot to shutdown",
    ),
    (&["init", "sysvinit-core"], "it is what the kernel starts first"),
    (
        &["initramfs-tools", "initramfs-tools-core", "dracut", "dracut-core", "tiny-initramfs"],
        "it builds the initramfs, which belongs to the boot",
    ),
    (&["ostree-boot"], "it mounts the tree at boot"),
    (&["intel-microcode", "amd64-microcode"], "microcode is loaded at boot"),
    (&["libcuda1", "zfsutils-linux", "zfs-zed"], PAIRED),
];

/// The same by the beginnings of names.
const NEXT_BOOT_PREFIXES: &[(&[&str], &str)] = &[
    (&["linux-image-", "linux-modules-"], "the running kernel cannot be exchanged"),
    (
        &["grub-", "grub2", "shim-", "systemd-boot", "u-boot", "extlinux", "syslinux"],
        "it is a boot loader",
    ),
    (&["firmware-", "linux-firmware"], "firmware is loaded by drivers at boot"),
    (&["nvidia-", "libnvidia-", "xserver-xorg-video-nvidia", "libzfs"], PAIRED),
];

/// The same by their ends.
const NEXT_BOOT_SUFFIXES: &[(&[&str], &str)] = &[(&["-dkms"], "it builds a driver of the kernel")];

/// One half in the kernel, one in programs: they understand each other in one version only.
const PAIRED: &str = "it is one of a pair with a driver, and the running kernel has the other";

/// Packages that everything holds on to, and that mix with what runs as long as they are of one upstream
/// version: a fix in a stable release takes effect as services are restarted, on any Debian host.
const NEXT_BOOT_WHEN_MAJOR: &[(&[&str], &str)] = &[
    (&["libc6"], "every process has it and its loader mapped, the service manager included"),
    (
        &["dbus", "dbus-daemon", "dbus-broker"],
        "the message bus cannot be restarted without its clients",
    ),
];

/// The class of the change of a package from one version to another, and the reason for any class but
/// live.
pub fn classify(name: &str, old: Option<&str>, new: Option<&str>) -> (UpdateClass, Option<String>) {
    let is_major = old.map(upstream) != new.map(upstream);
    let rules = by(NEXT_BOOT, name, |name, known| name == known)
        .or_else(|| by(NEXT_BOOT_PREFIXES, name, |name, start| name.starts_with(start)))
        .or_else(|| by(NEXT_BOOT_SUFFIXES, name, |name, end| name.ends_with(end)))
        .or_else(|| by(NEXT_BOOT_WHEN_MAJOR, name, |name, known| is_major && name == known));
    match rules {
        Some(reason) if new.is_none() => {
            (UpdateClass::NextBoot, Some(format!("{reason}; it goes with the next boot")))
        }
        Some(reason) => (UpdateClass::NextBoot, Some(reason.to_owned())),
        None => (UpdateClass::Live, None),
    }
}

/// The reason of the rule that the name falls under.
fn by(
    rules: &[(&[&str], &'static str)],
    name: &str,
    is_meant: impl Fn(&str, &str) -> bool,
) -> Option<&'static str> {
    let rule = rules.iter().find(|(names, _)| names.iter().any(|known| is_meant(name, known)));
    rule.map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_boot_can_exchange_is_next_boot_with_a_reason() {
        for name in [
            "systemd",
            "libsystemd-shared",
            "systemd-sysv",
            "udev",
            "initramfs-tools-core",
            "linux-image-6.1.0-25-amd64",
            "linux-image-amd64",
            "grub-efi-amd64-signed",
            "shim-signed",
            "firmware-iwlwifi",
            "intel-microcode",
            "ostree-boot",
            "nvidia-driver",
            "libnvidia-glcore",
            "v4l2loopback-dkms",
        ] {
            let (class, reason) = classify(name, Some("1.2-3"), Some("1.2-4"));
            assert_eq!(class, UpdateClass::NextBoot, "{name}");
            assert!(reason.is_some(), "{name}");
        }
    }

    #[test]
    fn what_everything_holds_on_to_waits_when_its_upstream_version_changes() {
        for name in ["libc6", "dbus-daemon"] {
            for (old, new, expected) in [
                (Some("2.36-9+deb12u9"), Some("2.36-9+deb12u10"), UpdateClass::Live),
                (Some("2.36-9"), Some("2.37-1"), UpdateClass::NextBoot),
                (Some("2.36-9"), Some("1:2.36-9"), UpdateClass::NextBoot),
                (Some("2.36-9"), None, UpdateClass::NextBoot),
                (None, Some("2.36-9"), UpdateClass::NextBoot),
            ] {
                assert_eq!(classify(name, old, new).0, expected, "{name} {old:?} {new:?}");
            }
        }
    }

    #[test]
    fn everything_else_is_live() {
        for name in [
            "libssl3",
            "nginx",
            "openssh-server",
            "libc6-dev",
            "systemd-timesyncd",
            "linux-libc-dev",
            "dbus-x11",
            "linux-headers-6.1.0-25-amd64",
            "libgrub",
            "dkms",
        ] {
            let class = classify(name, Some("1"), Some("2"));
            assert_eq!(class, (UpdateClass::Live, None), "{name}");
        }
    }
}
