//! Trees that are ready: a commit, or the deployment that waits for the next boot.

use crate::support::{Host, Snapshot};

/// Makes a commit in the host: the booted tree with another hello-svc, which its dpkg database has as
/// version 1.5, another default in `/usr/etc`, and a user more.
fn commit_a_tree(host: &Host) -> String {
    let commit = host.shell(
        "booted=$(ostree admin status | sed -n 's/^\\* debian \\([0-9a-f]*\\)\\.[0-9]*.*/\\1/p')
        tree=/var/tmp/tree; database=$(readlink -f /var/lib/dpkg)
        mkdir -p $tree/usr/share/hello-svc $tree/usr/etc/hello-svc $tree/usr/lib/systemd/system $tree$database
        echo 7 > $tree/usr/share/hello-svc/version
        ostree cat $booted /usr/etc/hello-svc/hello.conf | sed 's/^greeting=.*/greeting=hi-target/' > $tree/usr/etc/hello-svc/hello.conf
        for file in passwd group; do ostree cat $booted /usr/etc/$file > $tree/usr/etc/$file; done
        echo 'target-user:x:987:987::/nonexistent:/usr/sbin/nologin' >> $tree/usr/etc/passwd
        echo 'target-user:x:987:' >> $tree/usr/etc/group
        ostree cat $booted /usr/lib/systemd/system/hello-svc.service | sed 's/^Description=.*/& of the target/' \
            > $tree/usr/lib/systemd/system/hello-svc.service
        awk '/^Package: / { own = $2 == \"hello-svc\" } own && /^Version: / { $2 = \"1.5\" } { print }' \
            /var/lib/dpkg/status > $tree$database/status
        ostree commit --branch=target --parent=$booted --tree=ref=$booted --tree=dir=$tree",
    );
    commit.trim().to_owned()
}

fn the_target_runs(host: &Host, commit: &str) {
    assert!(host.hello().starts_with("version=7 disk=7 conf=hi-target"), "{}", host.hello());
    assert_eq!(host.version_of("hello-svc"), "1.5");
    assert_eq!(host.shell("getent passwd target-user | cut -d: -f1,3"), "target-user:987\n");
    assert!(
        host.shell("systemctl show --property=Description hello-svc").contains("of the target")
    );
    assert_eq!(host.json(0, ["status"])["running"], commit);
    host.assert_in_order();
}

fn is_put_back(host: &Host, before: &Snapshot) {
    host.apt_ostree(["rollback"]).success();
    host.snapshot().assert_same_but_for(before, &["mounts: /usr /", "units: ostree-finalize-"]);
    assert!(host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", host.hello());
}

#[test]
fn a_commit_and_a_pending_deployment_are_applied_live_and_put_back_and_kept_over_a_reboot() {
    let host = Host::boot_to_update();
    let commit = commit_a_tree(&host);
    let before = host.snapshot();
    let target = format!("--target={commit}");
    let plan = host.json(0, ["apply-live", &target, "--dry-run"]);
    let changes = plan["changes"].as_array().expect("a list");
    assert_eq!(changes.len(), 1, "{changes:#?}");
    let change = &changes[0];
    assert_eq!(change["name"], "hello-svc");
    assert_eq!((&change["old_version"], &change["new_version"]), (&"1".into(), &"1.5".into()));

    host.apt_ostree(["apply-live", &target]).success();
    the_target_runs(&host, &commit);
    is_put_back(&host, &before);

    host.shell(&format!("ostree admin deploy --os=debian --stage {commit}"));
    let refused = host.apt_ostree(["apply-live"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("[PendingDeployment]"), "{}", refused.stderr);
    host.apt_ostree(["apply-live", "--target=pending"]).success();
    the_target_runs(&host, &commit);
    host.reboot();
    the_target_runs(&host, &commit);
    assert_eq!(host.json(0, ["status"])["booted"], commit.as_str());
    host.shell("ostree fsck --quiet");
}

#[test]
fn a_commit_that_is_not_there_is_refused() {
    let host = Host::boot_to_update();
    let refused = host.apt_ostree(["apply-live", &format!("--target={}", "0".repeat(64))]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("[NotFound]"), "{}", refused.stderr);
    let nothing = host.apt_ostree(["apply-live", "--target=pending"]);
    assert_eq!(nothing.code, Some(1), "{}", nothing.stderr);
    assert!(nothing.stderr.contains("[NotFound]"), "{}", nothing.stderr);
}
