//! What an update would do, and that exactly this is done.

use serde_json::{Value, json};

use crate::support::{Host, Repository, empty_package};

/// Leaves the repository of toys alone, so that a whole upgrade is a matter of seconds.
fn boot_with_toys_only() -> Host {
    let host = Host::boot_to_update();
    host.shell("rm /etc/apt/sources.list.d/debian.list");
    host
}

fn names<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().expect("a list").iter().filter_map(|item| item[key].as_str()).collect()
}

#[test]
fn a_dry_run_tells_what_would_be_done_and_does_nothing() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.shell("echo 'and mine' >> /etc/hello-svc/admin.conf");
    let before = host.snapshot();
    let dry_run = ["apply-live", "--restart-services", "--dry-run"];
    let plan = host.json(0, dry_run);
    let text = host.apt_ostree(dry_run).success();

    let changes = plan["changes"].as_array().expect("a list");
    let change_of = |name: &str| {
        let found = changes.iter().find(|change| change["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {changes:#?}"))
    };
    let hello = change_of("hello-svc");
    assert_eq!((&hello["old_version"], &hello["new_version"]), (&"1".into(), &"2".into()));
    assert_eq!(hello["origin"]["label"], "toys");
    assert!(hello["file"]["size_bytes"].as_u64().is_some_and(|size| size > 10_000));
    assert_eq!(change_of("libssl3")["old_version"], host.version_of("libssl3").as_str());
    assert!(
        change_of("libssl3")["origin"]["codename"].as_str().is_some_and(|name| name.contains('-'))
    );
    let units = names(&plan["units"], "unit");
    for unit in ["hello-svc.service", "nginx.service", "ssh.service"] {
        assert!(units.contains(&unit), "{unit} in {units:?}");
    }
    assert_eq!(names(&plan["etc_conflicts"], "path"), ["/etc/hello-svc/admin.conf"]);
    for space in plan["space"].as_array().expect("a list") {
        assert!(space["needed_bytes"].as_u64() < space["available_bytes"].as_u64(), "{space}");
    }
    for word in [
        "hello-svc",
        "libssl3",
        host.version_of("libssl3").as_str(),
        "toys",
        "nginx.service",
        "/etc/hello-svc/admin.conf",
        &plan["id"].as_str().expect("an id")[..12],
    ] {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    host.snapshot().assert_same_as(&before);
}

#[test]
fn a_plan_is_applied_exactly_or_refused_as_stale() {
    let host = boot_with_toys_only();
    let extra = empty_package("toy-extra", "1", "");
    host.mirror().publish(&Repository::hello(2).with(extra.path.clone()));
    let plan = host.json(0, ["apply-live", "--packages=hello-svc", "--dry-run"]);
    let id = plan["id"].as_str().expect("an id").to_owned();

    host.mirror().publish(&Repository::hello(3).with(extra.path.clone()));
    host.shell("apt-get --quiet=2 update");
    let refused = host.apt_ostree(["apply-live", &format!("--plan={id}")]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("hello-svc: 2 became 3"), "{}", refused.stderr);
    assert!(refused.stderr.contains("[StalePlan]"), "{}", refused.stderr);

    host.mirror().publish(&Repository::hello(2).with(extra.path.clone()));
    let plan = host.json(0, ["apply-live", "--packages=hello-svc", "--dry-run"]);
    let id = plan["id"].as_str().expect("an id")[..12].to_owned();
    let record = host.json(0, ["apply-live", &format!("--plan={id}")]);
    assert_eq!(record["changes"], plan["changes"]);
    assert_eq!(host.version_of("hello-svc"), "2");
    let again = host.apt_ostree(["apply-live", &format!("--plan={id}")]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("the tree changed from"), "{}", again.stderr);
    let unknown = host.apt_ostree(["apply-live", "--plan=000000000000"]);
    assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
}

#[test]
fn packages_are_upgraded_installed_and_removed_by_name() {
    let host = boot_with_toys_only();
    let needed = empty_package("toy-needed", "1", "");
    let extra = empty_package("toy-extra", "1", "Depends: toy-needed\n");
    let repository = Repository::hello(2).with(needed.path.clone()).with(extra.path.clone());
    host.mirror().publish(&repository);

    host.apt_ostree(["apply-live", "--install=toy-extra"]).success();
    assert_eq!(host.version_of("toy-extra") + &host.version_of("toy-needed"), "11");
    assert_eq!(host.version_of("hello-svc"), "1");
    assert_eq!(host.shell("apt-mark showauto toy-extra toy-needed"), "toy-needed\n");

    host.apt_ostree(["apply-live", "--packages=hello-svc", "--remove=toy-extra,toy-needed"])
        .success();
    assert_eq!(host.version_of("hello-svc"), "2");
    assert_ne!(host.run(["dpkg-query", "--show", "toy-extra"]).code, Some(0));
    assert_eq!(host.run(["dpkg", "--status", "toy-needed"]).code, Some(1));

    let nothing = host.apt_ostree(["apply-live"]).success();
    assert!(nothing.contains("Nothing to do"), "{nothing}");
    assert_eq!(host.newest_record()["outcome"], "nothing-to-do");
    assert_eq!(host.apt_ostree(["apply-live", "--unchanged-exit-77"]).code, Some(77));
    assert_eq!(host.apt_ostree(["apply-live", "--dry-run", "--unchanged-exit-77"]).code, Some(77));
}

#[test]
fn packages_that_need_the_next_boot_are_refused_by_name_and_left_out_of_an_upgrade() {
    let host = boot_with_toys_only();
    let udev = empty_package("udev", "999", "");
    let bus = empty_package("dbus", "999", "Provides: dbus-system-bus, default-dbus-system-bus\n");
    host.mirror().publish(&Repository::hello(2).with(udev.path.clone()).with(bus.path.clone()));

    for (package, reason) in [("dbus", "message bus"), ("udev", "the service manager")] {
        let packages = format!("--packages={package}");
        let refused = host.apt_ostree(["apply-live", "--live-only", &packages]);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        for word in [package, reason, "[NextBootOnly]"] {
            assert!(refused.stderr.contains(word), "{word} in\n{}", refused.stderr);
        }
    }
    let plan = host.json(0, ["apply-live", "--dry-run"]);
    assert_eq!(names(&plan["changes"], "name"), ["hello-svc"]);
    let mut waiting = names(&plan["next_boot"], "name");
    waiting.sort_unstable();
    assert_eq!(waiting, ["dbus", "udev"]);
    let plan = host.json(0, ["apply-live", "--live-only", "--dry-run"]);
    assert_eq!(names(&plan["changes"], "name"), ["hello-svc"]);
    let mut refused = names(&plan["refused"], "subject");
    refused.sort_unstable();
    assert_eq!(refused, ["dbus", "udev"]);
    assert!(names(&plan["refused"], "reason").iter().any(|reason| reason.contains("message bus")));

    host.apt_ostree(["apply-live", "--live-only"]).success();
    assert_eq!(host.version_of("hello-svc"), "2");
    assert_ne!(host.version_of("dbus"), "999");
    assert_eq!(host.json(0, ["status"])["awaits_boot"], json!(null));
}
