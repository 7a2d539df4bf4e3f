//! The host itself is what the other tests take it for.

use std::collections::BTreeSet;

use crate::support::{Emulator, Host, Image, Repository, real_upgrades};

#[test]
fn the_host_boots_a_deployment_with_a_read_only_usr() {
    let host = Host::boot(Image::Default);
    assert_eq!(host.shell("systemctl is-system-running").trim(), "running");
    assert!(host.shell("ostree admin status").starts_with("* debian "));
    assert!(host.run(["touch", "/usr/intruder"]).stderr.contains("Read-only file system"));
    assert!(host.run(["touch", "/sysroot/intruder"]).stderr.contains("Read-only file system"));
    assert!(host.shell("curl -s http://127.0.0.1:9000/").starts_with("version=1 disk=1 conf=hi-1"));
}

#[test]
fn a_reboot_keeps_the_state_and_a_power_cut_loses_what_was_not_synced() {
    let host = Host::boot(Image::Default);
    let first = host.shell("cat /proc/sys/kernel/random/boot_id");
    host.shell("echo kept > /var/lib/kept; echo kept > /etc/kept");
    host.reboot();
    assert_ne!(host.shell("cat /proc/sys/kernel/random/boot_id"), first);
    assert_eq!(host.shell("cat /var/lib/kept /etc/kept"), "kept\nkept\n");

    host.shell("echo synced > /var/lib/synced; sync; echo lost > /var/lib/lost");
    host.power_cut();
    assert_eq!(
        host.shell("cat /var/lib/synced; [ ! -s /var/lib/lost ] && echo gone"),
        "synced\ngone\n"
    );
}

#[test]
fn apt_trusts_the_mirror_and_sees_what_was_chosen() {
    let host = Host::boot(Image::Default);
    host.mirror().publish(&Repository::hello(2));
    host.shell("apt-get --quiet=2 --error-on=any update");
    let simulated = host.shell("apt-get --simulate --with-new-pkgs upgrade");
    let offered: BTreeSet<String> = simulated
        .lines()
        .filter_map(|line| Some(line.strip_prefix("Inst ")?.split_once(' ')?.0.to_owned()))
        .collect();
    let chosen: BTreeSet<String> =
        real_upgrades().into_iter().chain(["hello-svc".to_owned()]).collect();
    assert_eq!(offered, chosen);
}

#[test]
fn repacked_packages_make_up_for_what_the_archive_lacks() {
    let host = Host::boot(Image::Default);
    let names = host.mirror().offer_upgrades(100).expect("the archive has fewer than 100");
    host.shell("apt-get --quiet=2 --error-on=any update");
    let simulated = host.shell("apt-get --simulate --with-new-pkgs upgrade");
    assert_eq!(simulated.lines().filter(|line| line.starts_with("Inst ")).count(), names.len());
}

#[test]
fn a_broken_package_is_what_its_signed_index_says() {
    let host = Host::boot(Image::WritableSysroot);
    for reason in ["parent-path", "absolute-path", "through-symlink", "device-node", "outside-usr"]
    {
        host.mirror().publish(&Repository::broken(reason));
        host.shell("apt-get --quiet=2 --error-on=any update; cd /tmp; apt-get --quiet=2 download hello-svc=9");
    }
}

#[test]
fn the_plain_image_has_the_same_services_on_an_ordinary_root() {
    let host = Host::boot(Image::Plain);
    assert!(!host.root().join("ostree").exists());
    let property = ["get-property", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"];
    let state = host
        .busctl(property.into_iter().chain(["org.freedesktop.systemd1.Manager", "SystemState"]))
        .expect("systemd answers");
    assert_eq!(state["data"], "running");
    host.shell("systemctl is-active nginx ssh hello-svc && touch /usr/writable");
}

#[test]
fn apt_refuses_repositories_that_it_should_not_trust() {
    let host = Host::boot(Image::Default);
    let hello = Repository::hello(2);
    for option in
        ["--signed=no", "--signed=wrong", "--expired", "--alter-late=s/^Size: .*/Size: 5/"]
    {
        host.mirror().publish(&hello.clone().option(option));
        let update = host.run(["apt-get", "--quiet=2", "--error-on=any", "update"]);
        assert_eq!(update.code, Some(100), "{option}: {}", update.stderr);
    }
}

#[test]
fn a_snapshot_sees_what_changes_and_nothing_else() {
    let host = Host::boot(Image::Default);
    let before = host.snapshot();
    host.snapshot().assert_same_as(&before);
    host.shell(
        "chmod 600 /etc/hello-svc/static.conf; systemctl stop nginx; mount --bind /usr /usr",
    );
    let differences = host.snapshot().differences(&before);
    for change in
        ["+ files: /etc/hello-svc/static.conf f 600", "- units: nginx.service", "+ mounts: /usr"]
    {
        assert!(differences.contains(change), "{change} in\n{differences}");
    }
}

#[test]
fn faults_of_the_mirror_reach_the_host_and_a_poller_sees_an_outage() {
    let host = Host::boot(Image::Default);
    let url = "http://127.0.0.1:8080/toys/dists/stable/InRelease";
    host.mirror().set_faults("*InRelease status 503 2\n");
    let statuses = host.shell(&format!(
        "for try in 1 2 3; do curl --silent --output /dev/null --write-out '%{{http_code}} ' {url}; done"
    ));
    assert_eq!(statuses, "503 503 200 ");
    assert!(host.mirror().log().iter().any(|line| line.starts_with("503 GET /toys/")));

    let poller = host.poll(9000);
    host.shell("curl -s --retry 5 --retry-connrefused http://127.0.0.1:9000/; systemctl stop hello-svc; systemctl start hello-svc");
    let polls = poller.stop();
    assert!(polls.answered > 0 && polls.failed > 0, "{polls:?}");
}

#[test]
fn the_same_host_boots_with_debians_kernel_under_qemu() {
    let host = Emulator::boot();
    assert_eq!(host.run("exit 3").code, Some(3));
    assert!(
        host.shell("uname -r").contains("-amd64") || host.shell("uname -r").contains("-cloud-")
    );
    assert!(host.shell("ostree admin status").starts_with("* debian "));
    assert!(host.shell("curl -s http://127.0.0.1:9000/").starts_with("version=1"));
}
