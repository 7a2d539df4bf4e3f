//! `status --verify` finds nothing on a host in order, and what is off on one that is not; `repair` mends
//! what it can and says what is left.

use serde_json::Value;

use crate::support::{Host, MANAGER, Repository};

const UPDATE: [&str; 3] = ["apply-live", "--restart-services", "--packages=hello-svc"];

/// No tree of a whole Debian has fewer files.
const FEWEST_FILES: u64 = 1_000;

/// What `status --verify` tells; it must end with `status`.
#[track_caller]
fn verify(host: &Host, status: i32) -> Value {
    host.json(status, ["status", "--verify"])
}

/// The kinds of findings in a list, sorted.
fn kinds(findings: &Value) -> Vec<&str> {
    let findings = findings.as_array().expect("a list").iter();
    let mut kinds: Vec<&str> =
        findings.map(|finding| finding["kind"].as_str().expect("a name")).collect();
    kinds.sort_unstable();
    kinds
}

#[track_caller]
fn assert_in_order(host: &Host, when: &str) {
    let output = host.apt_ostree(["--json", "status", "--verify"]);
    assert_eq!(output.code, Some(0), "{when}: {}{}", output.stdout, output.stderr);
    let found: Value = serde_json::from_str(&output.stdout).expect("JSON");
    assert_eq!(found["drifts"], serde_json::json!([]), "{when}");
    assert!(found["files"].as_u64().is_some_and(|files| files > FEWEST_FILES), "{when}: {found}");
}

#[track_caller]
fn assert_nothing_to_repair(host: &Host) {
    for arguments in [&["repair", "--dry-run"][..], &["repair"]] {
        let text = host.apt_ostree(arguments.iter().copied()).success();
        assert_eq!(text, "Nothing to repair.\n", "{arguments:?}");
    }
}

/// Runs a script where the physical root is writable.
fn behind_the_back(host: &Host, script: &str) {
    let private = "mount --make-rprivate /; mount -o remount,rw /sysroot; sh -ec \"$1\"";
    host.run(["unshare", "--mount", "sh", "-ec", private, "-", script]).success();
}

#[test]
fn a_host_in_order_has_no_drift_whatever_ran_on_it() {
    let host = Host::boot_to_update();
    assert_in_order(&host, "new");
    assert_nothing_to_repair(&host);

    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    assert_in_order(&host, "updated");
    host.shell("echo 'and mine' >> /etc/hello-svc/hello.conf");
    let found = verify(&host, 0);
    assert!(kinds(&found["notes"]).contains(&"etc-edited"), "{found}");

    host.mirror().publish(&Repository::hello(3));
    assert_eq!(host.apt_ostree(UPDATE).code, Some(3));
    assert_in_order(&host, "rolled back by itself");
    host.apt_ostree(["rollback"]).success();
    assert_in_order(&host, "rolled back");

    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    host.reboot();
    assert_in_order(&host, "rebooted");
    host.apt_ostree(["apply-live", "--remove=hello-svc"]).success();
    host.power_cut();
    assert_in_order(&host, "without power");
    assert_nothing_to_repair(&host);

    let call = ["call"].into_iter().chain(MANAGER).chain(["Verify", "a{sv}", "1"]);
    let answer = host.busctl(call.chain(["files", "b", "false"])).expect("root may");
    let found: Value =
        serde_json::from_str(answer["data"][0].as_str().expect("a text")).expect("JSON");
    assert_eq!((&found["drifts"], &found["files"]), (&serde_json::json!([]), &0.into()));
}

#[test]
fn what_is_off_is_named_and_what_can_be_mended_is() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    // Two transactions of which nothing may be left.
    for _ in 0..2 {
        host.apt_ostree(["check"]).success();
    }
    host.shell("mount -o remount,bind,rw /usr; mkdir -p /var/lib/apt-ostree/delta/3");
    host.shell("ostree admin undeploy 0; ostree admin undeploy 0");
    behind_the_back(
        &host,
        "cd /sysroot/ostree; rm repo/refs/heads/apt-ostree/live/1; mkdir -p live/2/stage/usr",
    );
    let expected = ["leftover-tree", "leftover-tree", "next-boot", "ref-missing", "usr-writable"];
    let found = verify(&host, 1);
    assert_eq!(kinds(&found["drifts"]), expected, "{found}");

    let foreseen = host.json(0, ["repair", "--dry-run"]);
    assert_eq!(kinds(&foreseen["mended"]), expected, "{foreseen}");
    assert_eq!(verify(&host, 1)["drifts"], found["drifts"], "a dry run changes nothing");
    let mended = host.json(0, ["repair"]);
    assert_eq!(kinds(&mended["mended"]), expected, "{mended}");
    assert_eq!(mended["left"], serde_json::json!([]));
    assert_in_order(&host, "repaired");
    assert_nothing_to_repair(&host);
    host.assert_in_order();
    host.reboot();
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
    assert_in_order(&host, "rebooted");

    // Nothing is ever written into a running tree, to mend it neither.
    host.shell(
        "mount -o remount,bind,rw /usr; cd /usr/share/hello-svc; echo spoilt >> version
        echo intruder > intruder; rm files/added; chmod 700 files; mount -o remount,bind,ro /usr",
    );
    let found = verify(&host, 1);
    let spoilt = ["file-changed", "file-changed", "file-missing", "file-unknown"];
    assert_eq!(kinds(&found["drifts"]), spoilt, "{found}");
    let output = host.apt_ostree(["repair"]);
    assert_eq!(output.code, Some(1), "{}", output.stdout);
    for word in ["Left:", "/usr/share/hello-svc/version", "apply-live --target=COMMIT"] {
        assert!(output.stdout.contains(word), "{word} in\n{}", output.stdout);
    }
    assert_eq!(kinds(&verify(&host, 1)["drifts"]), spoilt);
}
