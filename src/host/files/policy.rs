//! Which paths of `/etc` and `/var` get what treatment: Debian's ways, named one by one.

use std::path::Path;

use super::changes::ends_with;
use super::users;

/// What becomes of a path that a staged change touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Never carried over.
    LeftOut,
    /// Made from other files and never edited: replaced whatever it is now.
    Generated,
    /// A package's or a tool's register of what is installed: replaced unless it changed meanwhile.
    Register,
    /// Looked at like any other file.
    Plain,
}

/// For a path of `/etc`.
pub(super) fn of_etc(path: &Path) -> Treatment {
    if users::is_backup_or_lock(path)
        || LEFT_OUT_OF_ETC.iter().any(|(left, _)| path == Path::new(left))
    {
        return Treatment::LeftOut;
    }
    if [".dpkg-new", ".dpkg-tmp"].iter().any(|suffix| ends_with(path, suffix)) {
        return Treatment::LeftOut;
    }
    if path == Path::new("ld.so.cache") { Treatment::Generated } else { Treatment::Plain }
}

/// For a path of `/etc` that the host itself changed, not a package.
pub(super) fn of_own_etc(path: &Path) -> Treatment {
    let is_of_the_moment =
        ["machine-id", "mtab", ".updated"].iter().any(|own| path == Path::new(own));
    if is_of_the_moment || users::is_backup_or_lock(path) {
        Treatment::LeftOut
    } else {
        Treatment::Plain
    }
}

/// For a path of `/var`.
pub(super) fn of_var(path: &Path) -> Treatment {
    if LEFT_OUT_OF_VAR.iter().any(|(left, _)| path.starts_with(left)) {
        Treatment::LeftOut
    } else if REGISTERS.iter().any(|(register, _)| path.starts_with(register)) {
        Treatment::Register
    } else {
        Treatment::Plain
    }
}

/// Files of `/etc` that belong to the host, or to the sandbox, and why.
const LEFT_OUT_OF_ETC: &[(&str, &str)] = &[
    ("machine-id", "the host's own identity"),
    ("mtab", "a link into /proc"),
    ("resolv.conf", "the network's"),
    ("hostname", "the host's own name"),
    (".updated", "systemd's note of when it last ran for a new /usr"),
    ("adjtime", "the clock's"),
    (".resolv.conf.systemd-resolved.bak", "the network's"),
];

/// Trees of `/var` that are not part of a change, and why.
const LEFT_OUT_OF_VAR: &[(&str, &str)] = &[
    ("cache/apt", "apt's caches and archives; apt makes them anew"),
    ("cache/ldconfig", "ldconfig's own cache"),
    ("cache/man", "man-db's index; a timer makes it anew"),
    ("cache/fontconfig", "made anew by whoever needs a font"),
    ("lib/apt/lists", "apt's lists; the daemon refreshes them itself"),
    ("lib/apt/periodic", "time stamps of apt's timers"),
    ("lib/apt/mirrors", "apt's note of mirrors"),
    ("lib/dpkg", "the package database, which is in /usr"),
    ("lib/apt-ostree", "our own state"),
    ("lib/dbus/machine-id", "the host's own identity"),
    ("lib/systemd/random-seed", "the host's own entropy"),
    ("log/apt", "written by the transaction itself when it is done"),
    ("log/dpkg.log", "written by the transaction itself when it is done"),
    ("log/alternatives.log", "the sandbox's log"),
    ("log/bootstrap.log", "the image's log"),
    ("tmp", "temporary files of the scripts"),
    ("run", "a link to /run"),
    ("lock", "a link to /run/lock"),
];

/// Registers in `/var`, and whose. A prefix stands for all that begins with it as whole path parts.
const REGISTERS: &[(&str, &str)] = &[
    ("lib/systemd/deb-systemd-helper-enabled", "deb-systemd-helper: units that packages enabled"),
    ("lib/systemd/deb-systemd-helper-masked", "deb-systemd-helper: units that packages masked"),
    ("lib/systemd/deb-systemd-user-helper-enabled", "the same for user units"),
    ("lib/systemd/deb-systemd-user-helper-masked", "the same for user units"),
    ("lib/systemd/catalog", "journald's message catalogue, made from /usr"),
    ("lib/ucf", "ucf: digests of the configuration that it handed out"),
    ("cache/debconf", "debconf: questions and answers"),
    ("lib/apt/extended_states", "apt: which packages were installed automatically"),
    ("lib/pam", "pam-auth-update: the profiles in use"),
    ("lib/xml-core", "update-xmlcatalog: catalogues"),
    ("lib/sgml-base", "update-catalog: catalogues"),
    ("lib/emacsen-common", "emacsen-common: add-on packages"),
    ("lib/python", "dh-python: runtime scripts"),
    ("lib/dictionaries-common", "dictionaries-common: dictionaries"),
    ("cache/dictionaries-common", "dictionaries-common: made from the above"),
    ("lib/aspell", "aspell: compiled dictionaries"),
    ("lib/ispell", "ispell: compiled dictionaries"),
    ("lib/ghostscript", "ghostscript: font map"),
    ("lib/shells.state", "update-shells: the shells that packages added"),
    ("lib/locales", "locales: which are supported"),
    ("lib/initramfs-tools", "initramfs-tools: which kernels have an image"),
    ("lib/ca-certificates-java", "ca-certificates-java: its key store's state"),
    ("lib/apache2", "a2enmod and friends: what packages enabled"),
    ("lib/php", "phpenmod: what packages enabled"),
    ("lib/vim", "vim-addons: made by packages"),
    ("lib/usbutils", "usb.ids, shipped by a package"),
    ("lib/misc", "made by packages' scripts"),
];
