//! Which units a changed file concerns, told by its path alone.

use std::path::Path;

use apt_ostree_proto::UnitName;

/// Where system units are read from, without the leading `/`: systemd.unit(5). `/run` is not part of
/// any tree.
const UNIT_DIRECTORIES: &[&str] = &[
    "usr/lib/systemd/system",
    "usr/local/lib/systemd/system",
    "lib/systemd/system",
    "etc/systemd/system",
];

/// Directories of `/etc` that no unit of the same name reads alone.
const SHARED_DIRECTORIES: &[&str] = &["default", "systemd", "init.d"];

/// The units that a unit file or drop-in describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Described {
    /// One unit, by its name.
    Unit(String),
    /// All units whose name begins and ends so: a template's instances, or what a drop-in with a
    /// truncated name (`foo-.service.d`) applies to.
    Family { prefix: String, suffix: String },
}

impl Described {
    /// Reads `path`, with or without its leading `/`. None when it is no unit file: dependencies by
    /// symbolic link (`.wants/`) do not change what a unit runs, and drop-ins for a whole type
    /// (`service.d`) concern every unit, which nobody means to restart.
    pub(crate) fn by(path: &Path) -> Option<Self> {
        let path = path.to_str()?.trim_start_matches('/');
        if let Some(script) = path.strip_prefix("etc/init.d/") {
            return (!script.is_empty() && !script.contains('/'))
                .then(|| Self::Unit(format!("{script}.service")));
        }
        let rest = UNIT_DIRECTORIES
            .iter()
            .find_map(|directory| path.strip_prefix(directory)?.strip_prefix('/'))?;
        let name = match rest.split_once('/') {
            None => rest,
            Some((directory, file)) => {
                file.strip_suffix(".conf").filter(|file| !file.contains('/'))?;
                directory.strip_suffix(".d")?
            }
        };
        let (stem, kind) = name.rsplit_once('.')?;
        if stem.is_empty() || !is_unit_kind(kind) {
            return None;
        }
        if stem.ends_with('@') || (stem.ends_with('-') && rest.contains('/')) {
            return Some(Self::Family { prefix: stem.to_owned(), suffix: format!(".{kind}") });
        }
        Some(Self::Unit(name.to_owned()))
    }

    /// Whether it describes `unit`.
    pub(super) fn concerns(&self, unit: &UnitName) -> bool {
        let unit = unit.as_str();
        match self {
            Self::Unit(name) => unit == name,
            Self::Family { prefix, suffix } => {
                unit.len() > prefix.len() + suffix.len()
                    && unit.starts_with(prefix.as_str())
                    && unit.ends_with(suffix.as_str())
            }
        }
    }

    /// The unit's name, or the family's as its file has it: `foo@.service`.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Unit(name) => name.clone(),
            Self::Family { prefix, suffix } => format!("{prefix}{suffix}"),
        }
    }

    /// The unit, when it is one alone.
    pub(super) fn unit(&self) -> Option<UnitName> {
        match self {
            Self::Unit(name) => UnitName::parse(name.as_str()).ok(),
            Self::Family { .. } => None,
        }
    }
}

/// Whether `text` is a type of unit.
fn is_unit_kind(text: &str) -> bool {
    matches!(
        text,
        "service"
            | "socket"
            | "timer"
            | "path"
            | "target"
            | "mount"
            | "automount"
            | "swap"
            | "slice"
    )
}

/// The name that a file of `/etc` goes by: `nginx` for `/etc/nginx/…`, `/etc/nginx.conf`,
/// `/etc/nginx.d/…` and `/etc/default/nginx`. A service of that name is taken to read it.
pub(super) fn configures(path: &Path) -> Option<&str> {
    let rest = path.to_str()?.trim_start_matches('/').strip_prefix("etc/")?;
    if let Some(name) = rest.strip_prefix("default/") {
        return (!name.is_empty() && !name.contains('/')).then_some(name);
    }
    let (first, is_directory) =
        rest.split_once('/').map_or((rest, false), |(directory, _)| (directory, true));
    if SHARED_DIRECTORIES.contains(&first) {
        return None;
    }
    let name = if is_directory {
        first.strip_suffix(".d").unwrap_or(first)
    } else {
        first.strip_suffix(".conf")?
    };
    (!name.is_empty()).then_some(name)
}

/// A service's name without its instance and type: `postgresql` of `postgresql@15-main.service`.
pub(super) fn stem(unit: &UnitName) -> &str {
    let stem = unit.as_str().rsplit_once('.').map_or(unit.as_str(), |(stem, _)| stem);
    stem.split_once('@').map_or(stem, |(stem, _)| stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    #[test]
    fn unit_files_and_drop_ins_name_their_units() {
        for (path, concerned, not_concerned) in [
            ("usr/lib/systemd/system/nginx.service", "nginx.service", "nginx.socket"),
            ("/etc/systemd/system/nginx.service", "nginx.service", "nginx-x.service"),
            ("etc/systemd/system/nginx.service.d/limits.conf", "nginx.service", "n.service"),
            ("lib/systemd/system/getty@.service", "getty@tty1.service", "getty.service"),
            ("usr/lib/systemd/system/a@.service.d/b.conf", "a@x.service", "a@x.socket"),
            ("usr/lib/systemd/system/app-.service.d/b.conf", "app-x.service", "app.service"),
            ("etc/init.d/sysv", "sysv.service", "other.service"),
        ] {
            let described = Described::by(Path::new(path)).unwrap();
            assert!(described.concerns(&unit(concerned)), "{path}");
            assert!(!described.concerns(&unit(not_concerned)), "{path}");
        }
    }

    #[test]
    fn other_files_describe_no_unit() {
        for path in [
            "usr/lib/systemd/system/multi-user.target.wants/nginx.service",
            "usr/lib/systemd/system/service.d/10-all.conf",
            "usr/lib/systemd/user/pipewire.service",
            "usr/lib/systemd/system/.service",
            "usr/lib/systemd/system/README",
            "usr/share/doc/nginx.service",
            "etc/init.d/",
        ] {
            assert_eq!(Described::by(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn configuration_goes_by_the_name_of_its_service() {
        for (path, name) in [
            ("etc/nginx/sites-enabled/default", Some("nginx")),
            ("/etc/nginx/nginx.conf", Some("nginx")),
            ("etc/rsyslog.conf", Some("rsyslog")),
            ("etc/rsyslog.d/50-default.conf", Some("rsyslog")),
            ("etc/default/ssh", Some("ssh")),
            ("etc/passwd", None),
            ("etc/systemd/system.conf", None),
            ("usr/lib/nginx/nginx.conf", None),
        ] {
            assert_eq!(configures(Path::new(path)), name, "{path}");
        }
        assert_eq!(stem(&unit("postgresql@15-main.service")), "postgresql");
    }
}
