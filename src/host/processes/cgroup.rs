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

/// The control group that the host's tree begins at: PID 1's, without its own `init.scope`. Empty
/// unless the host itself runs in a container without a control group namespace.
pub(super) fn root_of(init: &str) -> String {
    let path = path_of(init).unwrap_or_default();
    path.strip_suffix("/init.scope").unwrap_or(path).trim_end_matches('/').to_owned()
}

/// Whose the process is that `text` is the file of. `root` comes from [`root_of`].
pub(super) fn owner(text: &str, root: &str) -> Owner {
    let Some(path) = path_of(text).and_then(|path| path.strip_prefix(root)) else {
        return Owner::Nobody;
    };
    let parts = || path.split('/').filter(|part| !part.is_empty());
    if parts().any(is_of_container) {
        return Owner::Container;
    }
    // Slices nest; what follows the first unit that is no slice is the unit's own business.
    let unit = parts().find(|part| !part.ends_with(".slice"));
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

/// The path in the hierarchy that systemd manages: the only one, or the one named `systemd`.
fn path_of(text: &str) -> Option<&str> {
    let find =
        |prefix: &str| text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(prefix));
    find("name=systemd:").or_else(|| find(":"))
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
            // The hybrid hierarchy: systemd's own line counts.
            (
                "12:pids:/other\n1:name=systemd:/system.slice/ssh.service\n0::/system.slice/x.service",
                Some("ssh.service"),
            ),
            (&long, Some("container")),
            ("0::/machine.slice/machine-a.scope", Some("container")),
            ("0::/docker/0123abcd", Some("container")),
            ("0::/lxc.payload.a/system.slice/nginx.service", Some("container")),
            ("0::/machine.slice/libpod-aa.scope/container", Some("container")),
            ("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-1.scope", Some("container")),
        ] {
            let found = match owner(text, "") {
                Owner::Unit(unit) => Some(unit.to_string()),
                Owner::Nobody => None,
                Owner::Container => Some("container".to_owned()),
            };
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_host_in_a_container_has_its_tree_below_its_init() {
        let root = root_of("0::/docker/abc/init.scope\n");
        assert_eq!(root, "/docker/abc");
        let unit = UnitName::parse("nginx.service").unwrap();
        assert_eq!(owner("0::/docker/abc/system.slice/nginx.service", &root), Owner::Unit(unit));
        assert_eq!(owner("0::/elsewhere/nginx.service", &root), Owner::Nobody);
        assert_eq!(root_of("0::/init.scope\n"), "");
        assert_eq!(root_of("0::/\n"), "");
    }
}
