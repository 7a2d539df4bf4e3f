//! Rollback points: any of the last updates can be undone, with all that came later.

use crate::support::{Host, Repository, empty_package};

/// Whether the host has a package.
fn has(host: &Host, package: &str) -> bool {
    host.run(["dpkg-query", "--show", package]).code == Some(0)
}

fn update(host: &Host, what: &str) -> String {
    host.apt_ostree(["apply-live", what]).success();
    host.newest_record()["id"].to_string()
}

#[test]
fn an_earlier_update_can_be_undone_with_all_that_came_later_after_a_reboot_too() {
    let host = Host::boot_to_update();
    host.configure("[health]\ndwell-seconds = 1\n[rollback]\nkeep-updates = 2\n");
    let toys = ["toy-a", "toy-b", "toy-c"].map(|name| empty_package(name, "1", ""));
    let offered =
        toys.iter().map(|toy| toy.path.clone()).fold(Repository::hello(2), Repository::with);
    host.mirror().publish(&offered);

    update(&host, "--packages=hello-svc");
    update(&host, "--install=toy-a");
    host.shell("echo 'and mine' >> /etc/hello-svc/admin.conf");
    let wanted = update(&host, "--install=toy-b");
    update(&host, "--install=toy-c");
    host.reboot();

    let before = host.snapshot();
    let refused = host.apt_ostree(["rollback", "99"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("NotFound"), "{}", refused.stderr);
    host.snapshot().assert_same_as(&before);

    host.apt_ostree(["rollback", &wanted]).success();
    for restart in [false, true] {
        if restart {
            host.reboot();
        }
        assert!(has(&host, "toy-a") && !has(&host, "toy-b") && !has(&host, "toy-c"));
        assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
        assert!(host.shell("cat /etc/hello-svc/admin.conf").ends_with("and mine\n"));
        host.assert_in_order();
    }
    host.shell("ostree fsck --quiet");
}
