//! Updates that are put back unless somebody confirms them in time.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::support::{Host, Listener, MANAGER, Output, Repository, Snapshot};

/// Longer than everything that a test does while an update waits.
const LONG: &str = "--confirm-timeout=600";
/// Shorter than a person needs, long enough for a test to look around.
const SHORT_SECONDS: &str = "8";

fn host_to_confirm() -> Host {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host
}

/// Begins an update; its client's output is kept.
fn begin(host: &Host, timeout: &str) -> Child {
    let update = ["apt-ostree", "apply-live", "--restart-services", "--packages=hello-svc"];
    let mut command = host.command(update.into_iter().chain([timeout]));
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

/// Begins an update as somebody who cannot be told anything afterwards.
fn begin_and_leave(host: &Host) {
    let options = ["a{sv}", "3", "packages", "as", "1", "hello-svc", "restart", "s", "affected"];
    let timeout = ["confirm-timeout", "u", SHORT_SECONDS];
    let call = ["call"].into_iter().chain(MANAGER).chain(["ApplyLive"]);
    host.busctl(call.chain(options).chain(timeout)).expect("root may");
}

#[track_caller]
fn is_applied(host: &Host) {
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
    let state = host.json(0, ["status"]);
    assert_ne!(state["running"], state["booted"], "{state}");
    assert_eq!(state["next"], state["booted"], "{state}");
}

#[track_caller]
fn is_kept(host: &Host) {
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
    let state = host.json(0, ["status"]);
    assert_eq!(state["next"], state["running"], "{state}");
    assert_eq!(host.newest_record()["outcome"], "committed");
    host.assert_in_order();
}

#[track_caller]
fn is_put_back(host: &Host, before: &Snapshot, outcome: &str, code: &str) {
    host.snapshot().assert_same_as(before);
    host.assert_in_order();
    assert!(host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", host.hello());
    let history = host.json(0, ["history", "--limit=2"]);
    let records = history.as_array().expect("a list");
    let is_change = |record: &&Value| record["outcome"] != "planned";
    let record = records.iter().find(is_change).expect("an update");
    assert_eq!((&record["outcome"], &record["failure"]["code"]), (&outcome.into(), &code.into()));
}

fn active_state(host: &Host) -> String {
    host.shell("systemctl show -P ActiveState apt-ostreed").trim().to_owned()
}

#[test]
fn an_update_waits_for_its_confirmation_and_is_put_back_without_it() {
    let host = host_to_confirm();
    let before = host.snapshot();
    let refused = host.apt_ostree(["confirm"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("no update waits"), "{}", refused.stderr);
    let refused = host.apt_ostree(["apply-live", "--confirm-timeout=2"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("5 to 86400"), "{}", refused.stderr);

    let output = end(begin(&host, "--confirm-timeout=5"));
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    for told in
        ["unless somebody runs: apt-ostree confirm", "within 5 s", "NotConfirmed", "as it was"]
    {
        assert!(output.stderr.contains(told), "{told} in\n{}", output.stderr);
    }
    is_put_back(&host, &before, "rolled-back", "NotConfirmed");

    let mut listener = host.listen();
    let client = begin(&host, LONG);
    listener.wait_until(|told| told.begins("confirm"));
    let told = listener.wait_until(|told| told.member == "Progress" && told.number(2) > 0);
    assert!((500..=600).contains(&told.number(2)), "{told:?}");
    is_applied(&host);
    assert_eq!(host.shell("systemd-inhibit --list --no-legend"), "", "a reboot is a way back");
    let shown = host.apt_ostree(["status"]).success();
    assert!(shown.contains("waits for confirmation"), "{shown}");
    let waits = host.json(0, ["status"])["transaction"].take();
    assert_eq!(waits["phase"]["detail"], "confirm", "{waits}");
    assert!(waits["confirmation"]["remaining_seconds"].as_u64().expect("a number") > 500);
    let busy = host.apt_ostree(["apply-live"]);
    assert_eq!(busy.code, Some(7), "{}", busy.stderr);
    assert!(busy.stderr.contains("apt-ostree confirm"), "{}", busy.stderr);
    host.apt_ostree(["apply-live", "--dry-run"]).success();

    host.apt_ostree(["cancel"]).success();
    assert_eq!(end(client).code, Some(130));
    assert_eq!(listener.outcome(), "planned");
    assert_eq!(listener.outcome(), "cancelled");
    is_put_back(&host, &before, "cancelled", "Cancelled");

    let client = begin(&host, LONG);
    listener.wait_until(|told| told.begins("confirm"));
    listener.wait_until(|told| told.member == "Progress" && told.number(2) > 0);
    let confirmed = host.apt_ostree(["confirm"]);
    assert_eq!(confirmed.code, Some(0), "{}", confirmed.stderr);
    assert_eq!(end(client).code, Some(0));
    is_kept(&host);
    host.reboot();
    assert!(host.hello().starts_with("version=2"), "{}", host.hello());
    host.shell("ostree fsck --quiet");
}

/// Until then a daemon that is asked to stop puts the update back.
fn wait_until_it_waits(listener: &mut Listener) {
    listener.wait_until(|told| told.begins("confirm"));
    listener.wait_until(|told| told.member == "Progress" && told.number(2) > 0);
}

#[test]
fn the_end_of_a_daemon_neither_keeps_an_update_nor_ends_its_wait() {
    let host = host_to_confirm();
    let before = host.snapshot();
    // Killed, and nobody confirms.
    let mut listener = host.listen();
    begin_and_leave(&host);
    listener.wait_until(|told| told.begins("confirm"));
    host.shell("systemctl kill --kill-whom=main --signal=KILL apt-ostreed");
    assert_eq!(listener.outcome(), "rolled-back");
    is_put_back(&host, &before, "rolled-back", "NotConfirmed");

    // Stopped; and nobody calls it, nor could anybody over the network.
    begin_and_leave(&host);
    wait_until_it_waits(&mut listener);
    host.shell("systemctl stop apt-ostreed; ip link set lo down");
    assert_eq!(active_state(&host), "inactive");
    assert_eq!(host.shell("cat /usr/share/hello-svc/version"), "2\n");
    assert_eq!(listener.outcome(), "rolled-back");
    host.shell("ip link set lo up");
    is_put_back(&host, &before, "rolled-back", "NotConfirmed");

    // Killed and stopped, and confirmed then; the client has seen it all.
    let client = begin(&host, LONG);
    for end in ["kill --kill-whom=main --signal=KILL", "stop", "restart"] {
        wait_until_it_waits(&mut listener);
        host.shell(&format!("systemctl {end} apt-ostreed; systemctl reset-failed apt-ostreed"));
    }
    listener.wait_until(|told| told.begins("confirm"));
    is_applied(&host);
    host.apt_ostree(["confirm"]).success();
    let output = end(client);
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    is_kept(&host);
}

#[test]
fn a_host_that_goes_down_while_an_update_waits_boots_the_old_tree() {
    let host = host_to_confirm();
    // The snapshot is of a host that has booted with this configuration.
    host.reboot();
    let before = host.snapshot();
    for goes_down in [Host::reboot, Host::power_cut] {
        let mut listener = host.listen();
        let client = begin(&host, LONG);
        listener.wait_until(|told| told.begins("confirm"));
        goes_down(&host);
        end(client);
        host.recovered_record();
        is_put_back(&host, &before, "rolled-back", "NotConfirmed");
    }
    host.shell("ostree fsck --quiet");
}
