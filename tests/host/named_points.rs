//! Named rollback points, what is kept, and what differs between states.

use serde_json::Value;

use crate::support::{Host, MANAGER, Repository, empty_package};

const KEEP_ONE: &str = "[health]\ndwell-seconds = 1\n[rollback]\nkeep-updates = 1\n";
/// Less than any tree: only the newest update can be undone then.
const KEEP_FEW_BYTES: &str =
    "[health]\ndwell-seconds = 1\n[rollback]\nkeep-updates = 5\nkeep-bytes = 1\n";

fn apply(host: &Host, what: &str) -> String {
    host.apt_ostree(["apply-live", what]).success();
    host.newest_record()["id"].to_string()
}

/// The history's entry of a transaction.
fn entry(host: &Host, id: &str) -> Value {
    let entries = host.json(0, ["history"]);
    let entries = entries.as_array().expect("a list");
    let id: Value = id.parse().expect("a number");
    entries.iter().find(|entry| entry["id"] == id).expect("it is there").clone()
}

/// The paths of a difference with what became of them.
fn files(difference: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let files = difference["files"].as_array().expect("a list");
    files.iter().map(|file| (text(&file["path"]), text(&file["change"]))).collect()
}

#[track_caller]
fn refused(host: &Host, arguments: &[&str], status: i32, words: &[&str]) {
    let output = host.apt_ostree(arguments.iter().copied());
    assert_eq!(output.code, Some(status), "{arguments:?}: {}", output.stderr);
    for word in words {
        assert!(output.stderr.contains(word), "{arguments:?}: {word} in {}", output.stderr);
    }
}

#[test]
fn a_named_state_is_kept_compared_and_gone_back_to_after_reboots_and_any_number_of_updates() {
    let host = Host::boot_to_update();
    host.configure(KEEP_ONE);
    let toys = ["toy-a", "toy-b", "toy-c"].map(|name| empty_package(name, "1", ""));
    let offered =
        toys.iter().map(|toy| toy.path.clone()).fold(Repository::hello(2), Repository::with);
    host.mirror().publish(&offered);

    let point = host.json(0, ["point", "fresh"]);
    assert_eq!((&point["name"], &point["after"]), (&"fresh".into(), &0.into()));
    host.apt_ostree(["point", "fresh"]).success();
    let first = apply(&host, "--packages=hello-svc");
    refused(&host, &["point", "fresh"], 2, &["\"fresh\" already", "point --remove fresh"]);
    host.apt_ostree(["point", "with-hello", &first]).success();
    host.reboot();
    let second = apply(&host, "--install=toy-a");
    apply(&host, "--install=toy-b");
    let last = apply(&host, "--install=toy-c");

    // What is kept, and for whom.
    let state = host.json(0, ["status"]);
    assert_eq!(state["kept"][0]["id"].to_string(), last, "{state}");
    assert_eq!(state["kept"].as_array().map(Vec::len), Some(1), "{state}");
    assert!(state["kept"][0]["bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{state}");
    let names = state["points"].as_array().expect("a list").iter().map(|p| p["name"].clone());
    assert_eq!(names.collect::<Vec<_>>(), ["fresh", "with-hello"]);
    assert_eq!(entry(&host, &first)["rollback"], "possible");
    assert_eq!(entry(&host, &first)["points"][0], "with-hello");
    assert_eq!(entry(&host, &second)["rollback"], "possible");
    assert_eq!(entry(&host, &last)["rollback"], "possible");
    let history = host.apt_ostree(["history"]).success();
    assert!(history.contains("root") && history.contains("with-hello"), "{history}");
    assert!(host.apt_ostree(["show", &first]).success().contains("rollback: possible"));

    the_states_are_told_apart(&host, &first);
    // What is kept for the way back is no leftover.
    host.apt_ostree(["status", "--verify"]).success();

    host.shell("echo late > /etc/late-edit");
    host.apt_ostree(["rollback", "fresh"]).success();
    host.reboot();
    assert!(host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", host.hello());
    assert_eq!(host.json(0, ["status"])["running"], point["commit"]);
    assert_eq!(host.shell("cat /etc/late-edit"), "late\n");
    for toy in ["toy-a", "toy-b", "toy-c"] {
        assert_ne!(host.run(["dpkg-query", "--show", toy]).code, Some(0), "{toy}");
    }
    host.assert_in_order();
    assert_eq!(entry(&host, &last)["rollback"], "undone");
    let nothing = host.apt_ostree(["rollback", "fresh"]).success();
    assert!(nothing.contains("Nothing to do"), "{nothing}");

    host.apt_ostree(["point", "--remove", "with-hello"]).success();
    refused(&host, &["rollback", "with-hello"], 1, &["NotFound", "\"with-hello\""]);
    refused(&host, &["point", "--remove", "with-hello"], 1, &["NotFound"]);
    assert_eq!(host.shell("ostree refs | grep apt-ostree/point"), "apt-ostree/point/fresh\n");
    host.shell("ostree fsck --quiet");
}

fn the_states_are_told_apart(host: &Host, first: &str) {
    let told = host.json(0, ["diff", "fresh", first]);
    assert_eq!(told["packages"][0]["name"], "hello-svc", "{told}");
    assert_eq!(told["packages"].as_array().map(Vec::len), Some(1), "{told}");
    let files = files(&told);
    let has = |path: &str, change: &str| files.contains(&(path.into(), change.into()));
    assert!(has("/usr/share/hello-svc/version", "changed"), "{files:?}");
    assert!(has("/usr/etc/hello-svc/hello.conf", "changed"), "{files:?}");
    let back = host.json(0, ["diff", first, "fresh"]);
    assert_eq!(back["packages"][0]["action"], "downgrade", "{back}");

    let told = host.json(0, ["diff", "with-hello"]);
    let packages = told["packages"].as_array().expect("a list").iter();
    let packages: Vec<_> = packages.map(|change| change["name"].clone()).collect();
    assert_eq!(packages, ["toy-a", "toy-b", "toy-c"]);
    assert_eq!(told["counts"]["removed"], 0, "{told}");
    let text = host.apt_ostree(["diff", "fresh", "next"]).success();
    assert!(text.contains("Defaults of /etc") && text.contains("4 packages;"), "{text}");

    let same = host.apt_ostree(["diff", "running", "next"]).success();
    assert!(same.contains("Nothing differs"), "{same}");
    let running = host.json(0, ["status"])["running"].as_str().expect("a text").to_owned();
    let same = host.json(0, ["diff", &running[..12], &running]);
    assert_eq!(same["packages"], Value::Array(Vec::new()));

    refused(host, &["diff", "nowhere"], 1, &["NotFound", "\"nowhere\""]);
    refused(host, &["diff", "99"], 1, &["NotFound", "99"]);
    refused(host, &["diff", &"a".repeat(64)], 1, &["NotFound", "aaaaaaaaaaaa"]);
    refused(host, &["diff", "../x"], 2, &["\"../x\""]);
    refused(host, &["point", "a\u{1b}[2Jb"], 2, &[r"\u{1b}"]);
    refused(host, &["point", "running"], 2, &["\"running\""]);
    refused(host, &["rollback", "nowhere"], 1, &["NotFound"]);
    refused(host, &["point", "x", "99"], 1, &["NotFound", "99"]);
    let call = |member: &str, arguments: &[&str]| {
        let call = ["call"].into_iter().chain(MANAGER).chain([member]);
        host.busctl(call.chain(arguments.iter().copied()))
    };
    let told = call("Diff", &["ss", "fresh", "running"]).expect("an answer");
    assert!(told["data"][0].as_str().is_some_and(|text| text.contains("hello-svc")), "{told}");
    call("NamePoint", &["st", "by-bus", "0"]).expect("may name");
    call("RemovePoint", &["s", "by-bus"]).expect("may remove");
}

#[test]
fn bytes_bound_what_is_kept_and_a_point_whose_tree_is_gone_is_refused() {
    let host = Host::boot_to_update();
    host.configure(KEEP_FEW_BYTES);
    let toys = ["toy-a", "toy-b", "toy-c"].map(|name| empty_package(name, "1", ""));
    let offered =
        toys.iter().map(|toy| toy.path.clone()).fold(Repository::hello(2), Repository::with);
    host.mirror().publish(&offered);
    let first = apply(&host, "--packages=hello-svc");
    let second = apply(&host, "--install=toy-a");
    // What began under the first tree would keep it.
    host.reboot();
    let third = apply(&host, "--install=toy-b");
    let kept = host.json(0, ["status"])["kept"].clone();
    // The first leads back to a tree that is deployed, but the second is in between.
    assert_eq!(kept.as_array().map(Vec::len), Some(1), "{kept}");
    assert_eq!(kept[0]["id"].to_string(), third, "{kept}");
    assert_eq!(entry(&host, &second)["rollback"], "gone");
    refused(
        &host,
        &["rollback", &second],
        1,
        &["NotFound", "not kept any more", "apt-ostree history"],
    );
    refused(&host, &["point", "late", &first], 1, &["NotFound"]);

    // Somebody else removes what a name holds.
    let point = host.json(0, ["point", "lost"]);
    let commit = point["commit"].as_str().expect("a text");
    apply(&host, "--install=toy-c");
    for ours in ["point", "base", "live"] {
        host.shell(&format!("ostree refs --delete apt-ostree/{ours}"));
    }
    host.shell("ostree prune --refs-only --depth=0");
    assert_ne!(host.run(["ostree", "show", commit]).code, Some(0));
    let before = host.snapshot();
    refused(&host, &["rollback", "lost"], 1, &["NotFound"]);
    refused(&host, &["diff", "lost"], 1, &["NotFound"]);
    host.snapshot().assert_same_as(&before);
    host.apt_ostree(["point", "--remove", "lost"]).success();
}
