//! Reads `/proc/PID/cgroup`: cgroups(7), and systemd's naming of control groups.

use apt_ostree_proto::UnitName;

/// Parts of a control group's path that container managers make: machines of systemd, Docker,
/// podman, LXC, containerd, CRI-O and Kubernetes.
const CONTAINER_PREFIXES: &[&str] = &[
    "machine.slice",
    "docker-",
    "libpod-",
    "lxc.payload",
    "lxc.monitor",
    "cri-containerd-",
    "crio-",
    "kubepods",
    "nspawn-",
];

/// The same, as whole parts.
const CONTAINER_PARTS: &[&str] = &["docker", "lxc", "podman", "containerd"];

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// A unit of the system manager.
    Unit(UnitName),
    /// A user, by number; and the unit of that user's own manager, or the session's scope.
    User(u32, Option<UnitName>),
    /// A container, and what its control group is called.
    Container(String),
    /// No unit at all.
    Nobody,
}

/// Where systemd's tree of control groups is, as PID 1's own group tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// The hierarchy's name between the colons: empty for the unified one, `name=systemd` for the
    /// legacy one. Which of them systemd uses shows where its own `init.scope` is.
    hierarchy: String,
    /// The path that the tree begins at; empty unless the host itself runs in a container without
    /// a control group namespace.
    path: String,
}

impl Root {
    /// Reads PID 1's file.
    pub(super) fn of(init: &str) -> Self {
        let find = |hierarchy: &'static str| Some((hierarchy, path_of(init, hierarchy)?));
        let is_init = |(_, path): &(&str, &str)| path.ends_with("/init.scope");
        let (hierarchy, path) = find("")
            .filter(is_init)
            .or_else(|| find("name=systemd").filter(is_init))
            .or_else(|| find(""))
            .or_else(|| find("name=systemd"))
            .unwrap_or_default();
        let path = path.strip_suffix("/init.scope").unwrap_or(path).trim_end_matches('/');
        Self { hierarchy: hierarchy.to_owned(), path: path.to_owned() }
    }
}

/// Whose the process is that `text` is the file of.
pub(super) fn owner(text: &str, root: &Root) -> Owner {
    let path = path_of(text, &root.hierarchy);
    let Some(path) = path.and_then(|path| path.strip_prefix(root.path.as_str())) else {
        return Owner::Nobody;
    };
    let parts = || path.split('/').filter(|part| !part.is_empty());
    // Below what is a user's, that user chooses the names.
    let mut of_nobody_else = parts().take_while(|part| user_of(part).is_none());
    if let Some(start) = of_nobody_else.position(is_of_container) {
        return Owner::Container(container_name(parts().skip(start)));
    }
    if let Some(uid) = parts().find_map(user_of) {
        // Below that user's manager stand the units of it.
        let manager = parts().position(|part| part.starts_with("user@"));
        return Owner::User(uid, first_unit(parts().skip(manager.map_or(0, |at| at + 1))));
    }
    if parts().any(|part| part == "user.slice") {
        return Owner::Nobody;
    }
    first_unit(parts()).map_or(Owner::Nobody, Owner::Unit)
}

fn is_slice(part: &str) -> bool {
    part.strip_suffix(".slice").is_some()
}

/// Slices nest; what follows the first unit that is no slice is the unit's own business.
fn first_unit<'a>(mut parts: impl Iterator<Item = &'a str>) -> Option<UnitName> {
    let part = parts.find(|part| !is_slice(part))?;
    UnitName::parse(part.strip_prefix('_').unwrap_or(part)).ok()
}

/// The number in `user-1000.slice` and `user@1000.service`.
fn user_of(part: &str) -> Option<u32> {
    let slice = part.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice"));
    let manager = || part.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
    slice.or_else(manager)?.parse().ok()
}

/// What the container is called: `web` for `machine.slice/machine-web.scope`. `parts` begins with
/// what a manager of containers makes.
fn container_name<'a>(parts: impl Iterator<Item = &'a str>) -> String {
    let parts: Vec<&str> = parts.collect();
    let is_name = |part: &&&str| !is_slice(part) && !CONTAINER_PARTS.contains(part);
    let part = parts.iter().find(is_name).or(parts.first()).copied().unwrap_or_default();
    let name = part.strip_suffix(".scope").unwrap_or(part);
    name.strip_prefix("machine-").or(name.strip_prefix("lxc.payload.")).unwrap_or(name).to_owned()
}

fn is_of_container(part: &str) -> bool {
    // A manager of containers is a service as any other.
    !part.ends_with(".service")
        && (CONTAINER_PARTS.contains(&part)
            || CONTAINER_PREFIXES.iter().any(|prefix| part.starts_with(prefix)))
}

/// The path in one hierarchy: the line `NUMBER:HIERARCHY:PATH`.
fn path_of<'a>(text: &'a str, hierarchy: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.strip_prefix(hierarchy)?.strip_prefix(':')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_groups_tell_whose_a_process_is() {
        let long = format!("0::/system.slice/docker-{}.scope", "a".repeat(64));
        let long_name = format!("container docker-{}", "a".repeat(64));
        for (text, expected) in [
            ("0::/system.slice/nginx.service", Some("nginx.service")),
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            ("0::/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("0::/system.slice/docker.service/init", Some("docker.service")),
            ("0::/system.slice/lxc.service", Some("lxc.service")),
            ("0::/custom.slice/custom-a.slice/a.service/sub/group", Some("a.service")),
            ("0::/init.scope", Some("init.scope")),
            ("0::/system.slice/_cgroup.service", Some("cgroup.service")),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service",
                Some("1000: a.service"),
            ),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/init.scope",
                Some("1000: init.scope"),
            ),
            ("0::/user.slice/user-1000.slice/user@1000.service", Some("1000: -")),
            ("0::/user.slice/user-1000.slice/session-4.scope", Some("1000: session-4.scope")),
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/docker-x.scope",
                Some("1000: docker-x.scope"),
            ),
            ("0::/user.slice/user-1000.slice/machine.slice/a.scope", Some("1000: a.scope")),
            ("0::/user.slice/x", None),
            ("0::/", None),
            ("0::/system.slice", None),
            ("", None),
            ("0::/../../elsewhere", None),
            (&long, Some(long_name.as_str())),
            ("0::/machine.slice/machine-a.scope", Some("container a")),
            ("0::/docker/0123abcd", Some("container 0123abcd")),
            ("0::/lxc.payload.a/system.slice/nginx.service", Some("container a")),
            ("0::/docker", Some("container docker")),
            ("0::/machine.slice/libpod-aa.scope/container", Some("container libpod-aa")),
            (
                "0::/machine.slice/systemd-nspawn@b.service/payload",
                Some("container systemd-nspawn@b.service"),
            ),
            (
                "0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope",
                Some("container cri-containerd-1"),
            ),
        ] {
            let found = match owner(text, &Root::of("0::/init.scope\n")) {
                Owner::Unit(unit) => Some(unit.to_string()),
                Owner::User(uid, Some(unit)) => Some(format!("{uid}: {unit}")),
                Owner::User(uid, None) => Some(format!("{uid}: -")),
                Owner::Nobody => None,
                Owner::Container(name) => Some(format!("container {name}")),
            };
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_tree_begins_where_the_manager_is() {
        let unit = Owner::Unit(UnitName::parse("nginx.service").unwrap());
        for (init, process, expected) in [
            ("0::/init.scope\n", "0::/system.slice/nginx.service", &unit),
            // A legacy hierarchy beside it that nobody manages.
            (
                "1:name=systemd:/\n0::/init.scope\n",
                "1:name=systemd:/\n0::/system.slice/nginx.service\n",
                &unit,
            ),
            // The hybrid and the legacy layout.
            (
                "1:name=systemd:/init.scope\n0::/init.scope\n",
                "1:name=systemd:/system.slice/nginx.service\n0::/system.slice/nginx.service\n",
                &unit,
            ),
            (
                "4:pids:/\n1:name=systemd:/init.scope\n0::/\n",
                "4:pids:/x\n1:name=systemd:/system.slice/nginx.service\n0::/\n",
                &unit,
            ),
            // The host itself in a container.
            ("0::/docker/abc/init.scope\n", "0::/docker/abc/system.slice/nginx.service\n", &unit),
            ("0::/docker/abc/init.scope\n", "0::/elsewhere/nginx.service\n", &Owner::Nobody),
            ("0::/\n", "0::/system.slice/nginx.service", &unit),
        ] {
            assert_eq!(&owner(process, &Root::of(init)), expected, "{init}");
        }
    }
}
