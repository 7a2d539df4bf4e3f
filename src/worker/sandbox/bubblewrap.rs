//! How bubblewrap is called: bwrap(1).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;

use apt_ostree::host::sandbox::task::{Inner, SCRIPT_PATH, SandboxRequest};
use apt_ostree::host::tree::layout::Stage;

/// What maintainer scripts need of root's powers: owners, modes, set-id bits, capabilities of files,
/// nodes in chroots of their own, other users' processes in the sandbox.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_SETFCAP",
    "CAP_MKNOD",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
];

/// What tests need besides: services try to listen where they will.
const CAPABILITY_OF_TESTS: &str = "CAP_NET_BIND_SERVICE";

/// Where `/etc/resolv.conf` may lead to.
const RESOLVERS: &[&str] = &["/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf"];

/// What everything in the sandbox finds in its environment.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", SCRIPT_PATH),
    ("HOME", "/root"),
    ("SHELL", "/bin/sh"),
    ("LC_ALL", "C.UTF-8"),
    ("DEBIAN_FRONTEND", "noninteractive"),
    ("DEBCONF_NONINTERACTIVE_SEEN", "true"),
    ("APT_LISTCHANGES_FRONTEND", "none"),
    ("NEEDRESTART_SUSPEND", "1"),
    // Byte code would be committed, and differ from build to build.
    ("PYTHONDONTWRITEBYTECODE", "1"),
];

/// Where the sandbox has the worker: its own file, so that it need not be part of the tree.
const WORKER: &str = "/run/worker";

/// The command that runs the worker's inner task in the staged root. Packages are installed without a
/// network; tests have the host's, for names and addresses in a configuration must be what they will be.
///
/// `filter` must stay open until the command runs.
pub(super) fn command(
    stage: &Stage,
    request: &SandboxRequest,
    filter: &File,
) -> io::Result<Command> {
    let is_test = matches!(request.inner, Inner::Test(_));
    let mut command = Command::new("bwrap");
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
    if !is_test {
        command.arg("--unshare-net");
    }
    command.args(["--unshare-cgroup-try", "--die-with-parent", "--new-session"]);
    command.arg("--bind").arg(stage.root()).arg("/");
    command.args(["--dev", "/dev", "--proc", "/proc", "--ro-bind", "/sys", "/sys"]);
    command.arg("--bind").arg(stage.run()).arg("/run");
    if is_test {
        for resolver in RESOLVERS {
            command.args(["--ro-bind-try", resolver, resolver]);
        }
    }
    // Anyone's: apt checks signatures as a user without rights.
    command.args(["--perms", "1777", "--tmpfs", "/tmp"]);
    command.arg("--ro-bind").arg(std::env::current_exe()?).arg(WORKER);
    // The package files may be on a file system of their own, which an overlay does not show.
    let archives = Path::new("/var/cache/apt");
    if archives.is_dir() {
        for name in ["archives", "lists"] {
            let directory = if name == "lists" { Path::new("/var/lib/apt") } else { archives };
            let directory = directory.join(name);
            if is_mount_point(&directory)? {
                command.arg("--ro-bind").arg(&directory).arg(&directory);
            }
        }
    }
    command.arg("--seccomp").arg(filter.as_raw_fd().to_string());
    command.args(["--cap-drop", "ALL"]);
    for capability in CAPABILITIES {
        command.args(["--cap-add", capability]);
    }
    if is_test {
        command.args(["--cap-add", CAPABILITY_OF_TESTS]);
    }
    command.arg("--clearenv");
    for (key, value) in ENVIRONMENT {
        command.args(["--setenv", key, value]);
    }
    if !request.kernel_changes {
        // The kernel packages' hooks heed it: linux-base(7), initramfs-tools(7).
        command.args(["--setenv", "INITRD", "No"]);
    }
    command.args(["--chdir", "/", "--", WORKER, request.inner.task()]);
    Ok(command)
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| Ok::<_, io::Error>(std::fs::metadata(path)?.dev());
    match path.parent() {
        Some(parent) if path.is_dir() => Ok(device(path)? != device(parent)?),
        _ => Ok(false),
    }
}
