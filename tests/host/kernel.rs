//! A whole update on Debian's own kernel, which an emulator runs.

use crate::support::{Emulator, Repository};

#[test]
fn an_update_and_its_rollback_work_on_debians_own_kernel() {
    let host = Emulator::boot();
    host.publish(&Repository::hello(2));
    host.shell(
        "mkdir -p /etc/apt-ostree; printf '[health]\\ndwell-seconds = 1\\n' > /etc/apt-ostree/config.toml
        systemctl stop apt-ostreed",
    );
    let mounts = "awk '$5 == \"/usr\" { print $4, $6 }' /proc/1/mountinfo";
    let before = host.shell(mounts);

    host.shell("apt-ostree apply-live --restart-services --no-progress");
    assert!(host.shell("curl -s http://127.0.0.1:9000/").starts_with("version=2 disk=2 conf=hi-2"));
    // The switch stacked a tree, and the collapse took the old one away.
    let after = host.shell(mounts);
    assert_eq!(after.trim().lines().count(), 1, "{after}");
    assert_ne!(after, before);
    assert!(after.contains(" ro,"), "{after}");

    host.shell("apt-ostree rollback --no-progress");
    assert!(host.shell("curl -s http://127.0.0.1:9000/").starts_with("version=1 disk=1 conf=hi-1"));
    assert_eq!(host.shell(mounts).trim().lines().count(), 1);
    assert_eq!(host.shell("systemctl --failed --no-legend --plain").trim(), "");
    assert!(host.shell("apt-ostree history").contains("committed"));
}
