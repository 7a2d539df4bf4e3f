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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// A unit of the system manager.
    Unit(UnitName),
    /// A user's session, or no unit at all.
    Nobody,
    /// A container.
    Container,
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
    if parts().any(is_of_container) {
        return Owner::Container;
    }
    // Slices nest; what follows the first unit that is no slice is the unit's own business.
    let unit = parts().find(|part| part.strip_suffix(".slice").is_none());
    if parts().any(|part| part == "user.slice") {
        return Owner::Nobody;
    }
    unit.map(|part| part.strip_prefix('_').unwrap_or(part))
        .filter(|part| !part.starts_with("user@"))
        .and_then(|part| UnitName::parse(part).ok())
        .map_or(Owner::Nobody, Owner::Unit)
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
        for (text, expected) in [
            ("0::/system.slice/nginx.service", Some("nginx.service")),
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            ("0::/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("0::/system.slice/docker.service/init", Some("docker.service")),
            ("0::/system.slice/lxc.service", Some("lxc.service")),
            ("0::/custom.slice/custom-a.slice/a.service/sub/group", Some("a.service")),
            ("0::/init.scope", Some("init.scope")),
            ("0::/system.slice/_cgroup.service", Some("cgroup.service")),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", None),
            ("0::/user.slice/user-1000.slice/session-4.scope", None),
            ("0::/", None),
            ("0::/system.slice", None),
            ("", None),
            ("0::/../../elsewhere", None),
            (&long, Some("container")),
            ("0::/machine.slice/machine-a.scope", Some("container")),
            ("0::/docker/0123abcd", Some("container")),
            ("0::/lxc.payload.a/system.slice/nginx.service", Some("container")),
            ("0::/machine.slice/libpod-aa.scope/container", Some("container")),
            ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope", Some("container")),
        ] {
            let found = match owner(text, &Root::of("0::/init.scope\n")) {
                Owner::Unit(unit) => Some(unit.to_string()),
                Owner::Nobody => None,
                Owner::Container => Some("container".to_owned()),
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
