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

#[test]
fn the_first_update_is_undone_with_a_later_one_though_its_old_tree_is_deployed_no_more() {
    let host = Host::boot_to_update();
    let toys = ["toy-a", "toy-b"].map(|name| empty_package(name, "1", ""));
    let offered =
        toys.iter().map(|toy| toy.path.clone()).fold(Repository::hello(2), Repository::with);
    host.mirror().publish(&offered);
    let fresh = host.json(0, ["status"])["booted"].clone();

    let first = update(&host, "--packages=hello-svc");
    update(&host, "--install=toy-a");
    host.reboot();
    // With this one OSTree drops the deployment that the host came with.
    update(&host, "--install=toy-b");
    host.shell("echo 'and mine' >> /etc/hello-svc/admin.conf; echo late > /etc/late-edit");

    let mut listener = host.listen();
    host.apt_ostree(["rollback", &first]).success();
    let mut switches = 0;
    listener.follow(|told| switches += u32::from(told.begins("switch")));
    assert_eq!(switches, 1);
    for restart in [false, true] {
        if restart {
            host.reboot();
        }
        let state = host.json(0, ["status"]);
        assert_eq!((&state["running"], &state["next"]), (&fresh, &fresh), "{state}");
        assert!(!has(&host, "toy-a") && !has(&host, "toy-b"));
        assert!(host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", host.hello());
        assert_eq!(host.shell("cat /etc/late-edit"), "late\n");
        assert!(host.shell("cat /etc/hello-svc/admin.conf").ends_with("and mine\n"));
        host.assert_in_order();
    }
    let state = host.json(0, ["status"]);
    assert_eq!(state["booted"], fresh, "it was deployed anew");
    host.shell("ostree fsck --quiet");
}
