//! Journals that something happened to: nothing is guessed, what cannot be read is kept, and a host that may
//! be between two states is not taken for one in order.

use std::process::Stdio;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::{Host, MANAGER, Repository};

const UPDATE: [&str; 3] = ["apply-live", "--restart-services", "--packages=hello-svc"];
/// Also forgets how often it was started: systemd allows five starts in ten seconds.
const STOP: &str = "systemctl stop apt-ostreed; systemctl reset-failed apt-ostreed";

/// What a journal consists of while its log is not written into it.
const PARTS: [&str; 3] = ["state.db", "state.db-wal", "state.db-shm"];

/// Stops the daemon, and has SQLite write its log into the database, which is whole without it then; `act`
/// may do more. On a copy: SQLite follows the link to the host's root to the machine's own.
fn close_journal(host: &Host, act: impl FnOnce(&Connection)) {
    host.shell(STOP);
    let live = host.root().join("var/lib/apt-ostree");
    let copy = tempfile::tempdir().expect("a directory can be made");
    for part in PARTS {
        if live.join(part).exists() {
            std::fs::copy(live.join(part), copy.path().join(part)).expect("it can be read");
            std::fs::remove_file(live.join(part)).expect("it can be removed");
        }
    }
    let journal = Connection::open(copy.path().join(PARTS[0])).expect("it is a database");
    act(&journal);
    // The log is opened by the first look, and written into the database when who opened it closes it.
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = journal.query_row(tables, [], |row| row.get(0)).expect("it can be read");
    assert!(tables > 0);
    journal.close().map_err(|(_, error)| error).expect("the log can be written");
    std::fs::copy(copy.path().join(PARTS[0]), live.join(PARTS[0])).expect("it can be written");
}

fn status(host: &Host) -> Value {
    host.json(0, ["status"])
}

/// Has the daemon go on without what was lost; nothing else is off.
#[track_caller]
fn accept(host: &Host) {
    let found = host.json(1, ["status", "--verify"]);
    let drifts = found["drifts"].as_array().expect("a list");
    assert!(drifts.iter().all(|drift| drift["kind"] == "journal-lost"), "{found}");
    let text = host.apt_ostree(["repair"]).success();
    assert!(text.contains("journal-lost"), "{text}");
    assert_eq!(status(host)["lost"], Value::Null);
    host.apt_ostree(["status", "--verify"]).success();
}

#[test]
fn a_journal_that_cannot_be_used_is_kept_aside_and_the_host_works_on() {
    let host = Host::boot_to_update();
    let aside = |why: &str| host.shell(&format!("cd /var/lib/apt-ostree; ls -d state.db.{why}-*"));

    status(&host);
    host.shell(&format!("{STOP}; echo 0123456789abcdef0123456789abcdef > /etc/machine-id"));
    let lost = status(&host)["lost"].take();
    assert!(lost["reason"].as_str().is_some_and(|why| why.contains("another host")), "{lost}");
    assert_eq!(lost["kept_as"].as_str().map(|name| format!("{name}\n")), Some(aside("foreign")));
    accept(&host);

    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    // The host is known by its trees, whatever it is called.
    host.shell(&format!("{STOP}; echo fedcba9876543210fedcba9876543210 > /etc/machine-id"));
    let state = status(&host);
    assert_eq!((&state["lost"], &state["last"]["outcome"]), (&Value::Null, &"committed".into()));

    let damages = [
        ("garbage", "seq 9999 > state.db"),
        ("truncated", "truncate --size=5000 state.db"),
        (
            "overwritten",
            "dd if=/dev/urandom of=state.db bs=4096 seek=1 count=3 conv=notrunc 2> /dev/null",
        ),
    ];
    for (how, damage) in damages {
        close_journal(&host, |_| {});
        host.shell(&format!("cd /var/lib/apt-ostree; {damage}; cp state.db /run/{how}"));
        let text = host.apt_ostree(["status"]).success();
        assert!(text.contains("could not be read") && !text.contains("stuck"), "{how}: {text}");
        let lost = status(&host)["lost"].take();
        let name = lost["kept_as"].as_str().expect("a name").to_owned();
        host.shell(&format!("cmp /run/{how} /var/lib/apt-ostree/{name}"));
        assert_eq!(host.json(0, ["history"]), serde_json::json!([]), "{how}");
        accept(&host);
    }

    host.shell(&format!("{STOP}; rm -r /var/lib/apt-ostree"));
    let lost = status(&host)["lost"].take();
    assert!(lost["reason"].as_str().is_some_and(|why| why.contains("was gone")), "{lost}");
    accept(&host);
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
    let has_lost_tree = || host.live_trees().lines().any(|name| name == "1");
    assert!(has_lost_tree(), "it is what runs");
    host.apt_ostree(["apply-live", "--remove=hello-svc"]).success();
    assert!(host.newest_record()["id"].as_u64().is_some_and(|id| id > 1), "a number of its own");
    // Nothing holds the tree any more that the lost journal knew of.
    assert!(!has_lost_tree(), "{}", host.live_trees());
    host.reboot();
    host.apt_ostree(["status", "--verify"]).success();
    host.shell("ostree fsck --quiet");
}

#[test]
fn a_journal_of_a_newer_version_is_left_alone_and_every_call_is_answered_with_that() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    let before = host.snapshot();
    let set_version = |version: i64| {
        close_journal(&host, |journal| {
            journal.pragma_update(None, "user_version", version).expect("it can be written");
        });
        host.shell("cp /var/lib/apt-ostree/state.db /run/marked");
    };
    set_version(255);
    for arguments in [&["status"][..], &UPDATE, &["repair"], &["status", "--verify"]] {
        let output = host.apt_ostree(arguments.iter().copied());
        assert_eq!(output.code, Some(1), "{}", output.stdout);
        for word in
            ["[StateUnreadable]", "newer version (schema 255, known 1)", "Install the newer"]
        {
            assert!(output.stderr.contains(word), "{word} in\n{}", output.stderr);
        }
    }
    let (name, text) = host.call_refused("GetStatus", &());
    assert_eq!(name, "org.aptostree1.Error.StateUnreadable");
    assert!(text.contains("newer version"), "{text}");
    host.shell("cd /var/lib/apt-ostree; cmp /run/marked state.db; ! ls state.db.*");
    host.reboot();
    host.snapshot().assert_same_but_for(&before, &["mounts: ", "units: "]);
    set_version(1);
    assert_eq!(host.newest_record()["outcome"], "committed");
    host.apt_ostree(["rollback"]).success();
}

/// Begins an update and has it wait in its last step before the deployment.
fn begin(host: &Host) -> std::process::Child {
    host.configure("[health]\ndwell-seconds = 300\n");
    host.mirror().publish(&Repository::hello(2));
    let mut listener = host.listen();
    let mut command = host.command(std::iter::once("apt-ostree").chain(UPDATE));
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    listener.wait_until(|told| told.begins("check-health"));
    assert!(host.hello().starts_with("version=2"), "{}", host.hello());
    client.expect("enter can be run")
}

/// What a host says that lost its journal in mid-update; and what a repair makes of it.
#[track_caller]
fn is_stuck_until_repaired(host: &Host, suspicion: &str) {
    let state = status(host);
    assert_eq!(state["stuck"], true, "{state}");
    let suspects = state["lost"]["suspects"].to_string();
    assert!(suspects.contains(suspicion), "{state}");
    let refused = host.apt_ostree(UPDATE);
    assert_eq!(refused.code, Some(6), "{}", refused.stderr);
    assert!(refused.stderr.contains("apt-ostree repair"), "{}", refused.stderr);
    let apply = ["call"].into_iter().chain(MANAGER).chain(["ApplyLive", "a{sv}", "0"]);
    assert!(host.busctl(apply).is_err());

    let foreseen = host.json(0, ["repair", "--dry-run"]);
    assert_eq!(status(host)["stuck"], true, "{foreseen}");
    let text = host.apt_ostree(["repair"]).success();
    assert!(text.contains("compare /etc with /usr/etc"), "{text}");
    host.apt_ostree(["status", "--verify"]).success();
    assert_eq!(status(host)["stuck"], false);
}

#[test]
fn a_host_whose_journal_is_damaged_in_mid_update_is_stuck_until_it_is_repaired() {
    let host = Host::boot_to_update();
    let client = begin(&host);
    // The service manager would start another one before the journal is damaged.
    host.shell(
        "mkdir -p /run/systemd/system/apt-ostreed.service.d
        printf '[Service]\\nRestart=no\\n' > /run/systemd/system/apt-ostreed.service.d/no.conf
        systemctl daemon-reload; systemctl kill --kill-whom=main --signal=KILL apt-ostreed
        while systemctl --quiet is-active apt-ostreed; do sleep 0.1; done
        cd /var/lib/apt-ostree; seq 9999 > state.db; rm state.db-wal state.db-shm
        systemctl reset-failed apt-ostreed",
    );
    client.wait_with_output().expect("it ran");
    is_stuck_until_repaired(&host, "runs and does not boot next");
    // What ran is what boots, with the files that go with it.
    host.reboot();
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
    host.assert_in_order();
    host.configure("[health]\ndwell-seconds = 1\n");
    host.apt_ostree(["apply-live", "--remove=hello-svc"]).success();
}

#[test]
fn a_boot_with_a_damaged_journal_keeps_late_edits_and_says_that_it_can_put_nothing_back() {
    let host = Host::boot_to_update();
    let client = begin(&host);
    host.shell(
        "seq 9999 > /var/lib/apt-ostree/state.db; rm -f /var/lib/apt-ostree/state.db-*; sync",
    );
    host.power_cut();
    client.wait_with_output().expect("it ran");
    let failed = host.shell("systemctl --failed --no-legend --plain");
    assert!(failed.contains("apt-ostree-recover.service"), "{failed}");
    is_stuck_until_repaired(&host, "staging area");
    assert_eq!(host.version_of("hello-svc"), "1");
    host.configure("[health]\ndwell-seconds = 1\n");
    host.apt_ostree(UPDATE).success();
    assert!(host.hello().starts_with("version=2 disk=2"), "{}", host.hello());
}
