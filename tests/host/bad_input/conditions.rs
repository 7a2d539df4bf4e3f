//! Hosts that a live update is not for, now or ever.

use super::{Bench, Refusal};
use crate::support::{Host, Image, Repository, Snapshot};

const UPGRADE: &[&str] = &["apply-live", "--packages=hello-svc", "--no-refresh"];

#[test]
fn a_disk_that_is_too_small_is_refused_in_the_plan_with_the_numbers() {
    let bench = Bench::boot();
    bench.host.mirror().publish(&Repository::hello(2));
    bench.host.shell("apt-ostree check >&2; systemctl stop apt-ostreed");
    let dry_run = ["apply-live", "--packages=hello-svc", "--no-refresh", "--dry-run"];
    let too_small = |place: &str, before: &Snapshot| {
        for arguments in [UPGRADE, &dry_run] {
            let names = [place, "bytes available", "needs up to "];
            let refusal = Refusal::failed("NoSpace", &names, "Free the space");
            bench.refuses_from(place, arguments, refusal, before);
        }
        let (code, message) = bench.error_of_transaction(&[
            "2",
            "packages",
            "as",
            "1",
            "hello-svc",
            "refresh",
            "b",
            "false",
        ]);
        assert_eq!(code, "NoSpace");
        let mut numbers = message.split(' ').filter_map(|word| word.parse::<u64>().ok());
        let (available, needed) = (numbers.next().expect("two"), numbers.next().expect("two"));
        assert!(available < needed, "{message}");
        available
    };
    // File systems of their own, which have room for less than what goes there.
    for (place, size) in [("/var/cache/apt/archives", 8 << 10), ("/var/lib/apt-ostree", 12 << 20)] {
        let mount = format!("mount -t tmpfs -o size={size},mode=755 tmpfs {place}");
        bench.host.shell(&format!("systemctl stop apt-ostreed; {mount}"));
        let before = bench.host.snapshot();
        assert!(too_small(place, &before) <= size, "{place}");
        bench.host.shell(&format!("systemctl stop apt-ostreed; umount {place}"));
        bench.assert_as_before();
    }
    // The disk itself: with room for the daemon's own notes only, then with none at all.
    let left = 40 << 20;
    let all_but_left = "$(stat --file-system --format='%f * %S' /var)";
    let fill_most = format!("fallocate --length $(({all_but_left} - {left})) /var/filler.most");
    let fill_up =
        "dd if=/dev/zero of=/var/filler.rest bs=64k 2> /dev/null || test -s /var/filler.rest";
    for fill in [&fill_most, fill_up] {
        bench.host.shell(fill);
        assert!(too_small("/sysroot", &bench.before) <= left, "{fill}");
        // The lists cannot be had either, and no repository is to blame for it.
        let refusal =
            Refusal::failed("NoSpace", &["/var/lib/apt/lists", "are needed"], "Free the space");
        bench.refuses("lists", &["check"], refusal);
    }
    bench.host.shell("rm /var/filler.*");
    bench.host.run([&["apt-ostree"], UPGRADE].concat()).success();
}

#[test]
fn what_others_have_on_usr_or_for_the_next_boot_is_not_built_upon() {
    let bench = Bench::boot();
    bench.host.mirror().publish(&Repository::hello(2));
    bench.host.shell("apt-ostree check >&2");

    bench.host.shell(
        "dir=/var/lib/extensions/other/usr/lib/extension-release.d; mkdir -p $dir; \
         echo ID=_any > $dir/extension-release.other; systemd-sysext merge",
    );
    let merged = bench.host.snapshot();
    let refusal =
        Refusal::failed("ForeignMount", &["systemd-sysext", "/usr"], "systemd-sysext unmerge");
    bench.refuses_from("sysext", UPGRADE, refusal, &merged);
    let (code, message) = bench.error_of_transaction(&["0"]);
    assert_eq!(code, "ForeignMount");
    assert!(message.contains("systemd-sysext"), "{message}");
    bench.host.shell("systemd-sysext unmerge; rm -r /var/lib/extensions/other");
    bench.assert_as_before();

    let status = bench.host.run(["apt-ostree", "--json", "status"]).success();
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let booted = status["booted"].as_str().expect("a commit");
    bench.host.shell(&super::locks::with_writable_usr(&format!(
        "ostree commit --repo=/sysroot/ostree/repo --branch=other --tree=ref={booted} --subject=other"
    )));
    bench.host.shell("ostree admin deploy --stage other");
    let staged = bench.host.snapshot();
    let refusal = Refusal::failed("PendingDeployment", &["next boot"], "--target=pending");
    bench.refuses_from("staged", UPGRADE, refusal, &staged);
    let (code, _) = bench.error_of_transaction(&["0"]);
    assert_eq!(code, "PendingDeployment");
    bench.host.shell("ostree admin undeploy 0");

    bench.host.shell("ostree admin unlock >&2");
    let unlocked = bench.host.snapshot();
    let refusal = Refusal::failed("ForeignMount", &["ostree admin unlock", "/usr"], "reboot");
    bench.refuses_from("unlock", UPGRADE, refusal, &unlocked);
}

#[test]
fn a_database_outside_the_tree_is_refused() {
    let bench = Bench::boot();
    for (change, telling) in [
        ("mkdir /var/lib/dpkg", "a directory of the host"),
        ("mkdir /var/database; ln -s ../database /var/lib/dpkg", "\"/var/database\""),
        ("ln -s ../../usr/lib/nowhere /var/lib/dpkg", "\"/usr/lib/nowhere\""),
    ] {
        // The comparison asks dpkg, which needs its database.
        bench.host.shell(&format!("mv /var/lib/dpkg /var/lib/dpkg.tree; {change}"));
        let names = ["/var/lib/dpkg", telling];
        let refusal = Refusal::failed("DatabaseOutsideTree", &names, "symbolic link");
        for arguments in [UPGRADE, &["status"]] {
            bench.answers(change, arguments, refusal);
        }
        bench.host.shell("rm -r /var/lib/dpkg; mv /var/lib/dpkg.tree /var/lib/dpkg");
        bench.assert_as_before();
    }
}

#[test]
fn a_host_that_ostree_did_not_boot_is_told_so_at_once() {
    let host = Host::boot(Image::Plain);
    let before = host.snapshot();
    let refusal = Refusal::failed("NotBooted", &["not booted from an OSTree deployment"], "OSTree");
    for arguments in [UPGRADE, &["status"], &["rollback"]] {
        let output = host.run(["apt-ostree"].iter().chain(arguments));
        refusal.assert_told("plain", &output);
    }
    let (error, _) = host.call_refused("GetStatus", &());
    assert_eq!(error, "org.aptostree1.Error.NotBooted");
    host.snapshot().assert_same_as(&before);
}
