//! When a package's change can take effect: the first form, by what the package is.

use apt_ostree_proto::package::UpdateClass;

/// Packages that the running system holds on to so that no restart brings the new version in, or
/// whose restart would take the host down.
const NEXT_BOOT: &[(&[&str], &str)] = &[
    (
        &["systemd", "systemd-sysv", "libsystemd-shared", "udev"],
        "it belongs to the service manager, which runs from boot to shutdown",
    ),
    (&["init", "sysvinit-core"], "it is what the kernel starts first"),
    (&["libc6"], "every process has it and its loader mapped, the service manager included"),
    (
        &["dbus", "dbus-daemon", "dbus-broker"],
        "the message bus cannot be restarted without its clients",
    ),
    (
        &["initramfs-tools", "initramfs-tools-core", "dracut", "dracut-core", "tiny-initramfs"],
        "it builds the initramfs, which belongs to the boot",
    ),
    (&["ostree-boot"], "it mounts the tree at boot"),
    (&["intel-microcode", "amd64-microcode"], "microcode is loaded at boot"),
];

/// The same by the beginnings of names.
const NEXT_BOOT_PREFIXES: &[(&[&str], &str)] = &[
    (&["linux-image-", "linux-modules-"], "the running kernel cannot be exchanged"),
    (
        &["grub-", "grub2", "shim-", "systemd-boot", "u-boot", "extlinux", "syslinux"],
        "it is a boot loader",
    ),
    (&["firmware-", "linux-firmware"], "firmware is loaded by drivers at boot"),
];

/// The class of a package's change, and the reason for any class but live.
pub fn classify(name: &str, is_removal: bool) -> (UpdateClass, Option<String>) {
    let exact = NEXT_BOOT.iter().filter(|(names, _)| names.contains(&name));
    let begins = NEXT_BOOT_PREFIXES
        .iter()
        .filter(|(prefixes, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    match exact.chain(begins).next() {
        Some((_, reason)) if is_removal => {
            (UpdateClass::NextBoot, Some(format!("{reason}; it goes with the next boot")))
        }
        Some((_, reason)) => (UpdateClass::NextBoot, Some((*reason).to_owned())),
        None => (UpdateClass::Live, None),
    }
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
            "libc6",
            "dbus-daemon",
            "initramfs-tools-core",
            "linux-image-6.1.0-25-amd64",
            "linux-image-amd64",
            "grub-efi-amd64-signed",
            "shim-signed",
            "firmware-iwlwifi",
            "intel-microcode",
            "ostree-boot",
        ] {
            let (class, reason) = classify(name, false);
            assert_eq!(class, UpdateClass::NextBoot, "{name}");
            assert!(reason.is_some(), "{name}");
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
        ] {
            assert_eq!(classify(name, false), (UpdateClass::Live, None), "{name}");
        }
    }
}
