//! Updates that fail, are cancelled or are cut off: the host is as it was.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{Host, Output, Repository, Snapshot};

/// Long enough that everything which must happen within the dwell does.
const LONG_DWELL: &str = "[health]\ndwell-seconds = 60\n";
const UPDATE: [&str; 3] = ["apply-live", "--restart-services", "--packages=hello-svc"];

/// Checks that the host is as `before` and answers the newest record.
#[track_caller]
fn is_as(host: &Host, before: &Snapshot, outcome: &str, code: &str) -> Value {
    host.snapshot().assert_same_as(before);
    host.assert_in_order();
    assert!(host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", host.hello());
    assert_eq!(host.version_of("hello-svc"), "1");
    let record = host.newest_record();
    assert_eq!((&record["outcome"], &record["failure"]["code"]), (&outcome.into(), &code.into()));
    record
}

/// Begins an update; its client's output is kept.
fn begin(host: &Host) -> Child {
    let mut command = host.command(std::iter::once("apt-ostree").chain(UPDATE));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("enter can be run")
}

fn end(client: Child) -> Output {
    let output = client.wait_with_output().expect("a child can be waited for");
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn an_update_that_does_not_work_is_put_back_by_itself_with_its_reason() {
    let host = Host::boot_to_update();
    let before = host.snapshot();
    for (version, code, reason) in [
        (3, "UnitFailed", "hello-svc.service"),
        (4, "InstallFailed", "hello-svc: version 4 cannot be configured"),
    ] {
        host.mirror().publish(&Repository::hello(version));
        let output = host.apt_ostree(UPDATE);
        assert_eq!(output.code, Some(3), "{}", output.stderr);
        for word in [code, reason, "the host is as it was"] {
            assert!(output.stderr.contains(word), "{word} in\n{}", output.stderr);
        }
        is_as(&host, &before, "rolled-back", code);
    }
    // The next good one is none the worse for it.
    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
}

#[test]
fn a_unit_that_dies_in_the_dwell_and_a_cancel_at_any_time_put_everything_back() {
    let host = Host::boot_to_update();
    host.configure(LONG_DWELL);
    host.mirror().publish(&Repository::hello(2));
    let before = host.snapshot();

    let mut listener = host.listen();
    let client = begin(&host);
    listener.wait_until(|told| told.begins("check-health"));
    host.shell("systemctl kill --signal=KILL hello-svc");
    let output = end(client);
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    let unhealthy =
        output.stderr.contains("hello-svc.service") && output.stderr.contains("Unhealthy");
    assert!(unhealthy, "{}", output.stderr);
    is_as(&host, &before, "rolled-back", "Unhealthy");
    assert_eq!(listener.outcome(), "rolled-back");

    let client = begin(&host);
    listener.wait_until(|told| told.member == "Message" && told.text(1).starts_with("Unpacking"));
    host.apt_ostree(["cancel"]).success();
    let output = end(client);
    assert_eq!(output.code, Some(130), "{}", output.stderr);
    is_as(&host, &before, "cancelled", "Cancelled");
    assert_eq!(listener.outcome(), "cancelled");

    let client = begin(&host);
    let told = listener.wait_until(|told| told.begins("check-health"));
    let transaction = ["org.aptostree1", &told.path, "org.aptostree1.Transaction"];
    host.busctl(["call"].into_iter().chain(transaction).chain(["Cancel"])).expect("may cancel");
    assert_eq!(end(client).code, Some(130));
    is_as(&host, &before, "cancelled", "Cancelled");
}

#[test]
fn a_daemon_that_is_killed_in_mid_update_puts_the_host_back_when_it_starts_again() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    let before = host.snapshot();
    for step in ["install", "start-units"] {
        let mut listener = host.listen();
        let client = begin(&host);
        listener.wait_until(|told| told.begins(step));
        host.shell("systemctl kill --kill-whom=main --signal=KILL apt-ostreed");
        let output = end(client);
        assert!(output.stderr.contains("the daemon went away"), "{step}: {}", output.stderr);
        host.recovered_record();
        is_as(&host, &before, "rolled-back", "Interrupted");
    }
    host.apt_ostree(UPDATE).success();
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
}

#[test]
fn a_daemon_that_is_asked_to_stop_in_mid_update_puts_the_host_back_first() {
    let host = Host::boot_to_update();
    host.configure(LONG_DWELL);
    host.mirror().publish(&Repository::hello(2));
    let before = host.snapshot();
    for step in ["install", "check-health"] {
        let mut listener = host.listen();
        let client = begin(&host);
        listener.wait_until(|told| told.begins(step));
        host.shell("systemctl stop apt-ostreed");
        assert_eq!(host.shell("systemctl show -P Result apt-ostreed"), "success\n");
        let output = end(client);
        assert_eq!(output.code, Some(3), "{step}: {}", output.stderr);
        assert_eq!(listener.outcome(), "rolled-back", "{step}");
        is_as(&host, &before, "rolled-back", "Interrupted");
    }
}

#[test]
fn a_host_that_is_rebooted_in_mid_update_boots_the_old_tree() {
    let host = Host::boot_to_update();
    host.configure(LONG_DWELL);
    host.mirror().publish(&Repository::hello(2));
    // The snapshot is of a host that has booted with this configuration.
    host.reboot();
    let before = host.snapshot();
    for step in ["install", "check-health"] {
        let mut listener = host.listen();
        let client = begin(&host);
        listener.wait_until(|told| told.begins(step));
        let lock = host.shell("systemd-inhibit --list --no-legend");
        assert_eq!(lock.contains("apt-ostree"), step == "check-health", "{lock}");
        host.reboot();
        end(client);
        host.recovered_record();
        host.snapshot().assert_same_as(&before);
        // A service that the shutdown stops first looks unhealthy.
        assert_eq!(host.newest_record()["outcome"], "rolled-back");
        assert_eq!(host.version_of("hello-svc"), "1");
    }
    host.shell("ostree fsck --quiet");
}

#[test]
fn a_daemon_that_loses_the_bus_in_mid_update_puts_the_host_back_when_it_is_there_again() {
    let host = Host::boot_to_update();
    host.configure(LONG_DWELL);
    host.mirror().publish(&Repository::hello(2));
    let before = host.snapshot();
    let mut listener = host.listen();
    let client = begin(&host);
    listener.wait_until(|told| told.begins("check-health"));
    host.shell("systemctl kill --kill-whom=main --signal=KILL dbus");
    end(client);
    host.recovered_record();
    let record = host.newest_record();
    assert_eq!(record["outcome"], "rolled-back", "{record}");
    host.snapshot().assert_same_as(&before);
}

#[test]
fn a_host_that_loses_its_power_in_mid_update_boots_the_old_tree() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    // The snapshot is of a host that has booted with this configuration.
    host.reboot();
    let before = host.snapshot();
    for step in ["install", "start-units"] {
        let mut listener = host.listen();
        let client = begin(&host);
        listener.wait_until(|told| told.begins(step));
        host.power_cut();
        end(client);
        host.recovered_record();
        is_as(&host, &before, "rolled-back", "Interrupted");
    }
    host.shell("ostree fsck --quiet");
    host.apt_ostree(UPDATE).success();
}

/// As any user may below a home: nobody but that user may look in, not even root.
const MOUNT_OF_A_USER: &str = "useradd --create-home alice
    mkdir ~alice/mine
    [ -e /dev/fuse ] || mknod /dev/fuse c 10 229
    options=fd=5,rootmode=040000,user_id=$(id -u alice),group_id=$(id -g alice)
    systemd-run --quiet --unit=mine --property=Type=exec sh -ec \
        \"exec 5<>/dev/fuse; mount -i -t fuse.mine -o $options mine $(echo ~alice)/mine; exec sleep infinity\"
    for try in $(seq 100); do ! grep -q fuse.mine /proc/self/mountinfo || break; sleep 0.1; done
    ! ls ~alice/mine";

#[test]
fn a_file_system_that_a_user_has_mounted_is_in_no_rollbacks_way() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    host.shell(MOUNT_OF_A_USER);
    let told = host.apt_ostree(["rollback"]).success();
    assert!(host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", host.hello());
    // Whoever is the owner of what is there, nobody else gets that number.
    assert!(told.contains("the user \"hello-spool\" stays") && told.contains("mine"), "{told}");
    host.shell("getent passwd hello-spool");
    host.assert_in_order();
}
