//! The D-Bus interface, by itself: as `busctl` and any client of the system bus see it.

use std::{
    collections::{BTreeSet, HashMap},
    process::Stdio,
};

use serde_json::Value;

use crate::support::{Host, MANAGER, Repository, STEPS, Told};

/// `ApplyLive` of hello-svc, for `busctl call`.
const APPLY_HELLO: [&str; 11] = [
    "ApplyLive",
    "a{sv}",
    "2",
    "packages",
    "as",
    "1",
    "hello-svc",
    "restart",
    "s",
    "affected",
    "--",
];
const UPDATE: [&str; 4] =
    ["apt-ostree", "apply-live", "--restart-services", "--packages=hello-svc"];

fn call<'a>(
    host: &Host,
    object: [&'a str; 3],
    method: impl IntoIterator<Item = &'a str>,
) -> Result<Value, String> {
    let method = method.into_iter().filter(|word| *word != "--");
    host.busctl(["call"].into_iter().chain(object).chain(method))
}

fn property(host: &Host, object: [&str; 3], name: &str) -> Value {
    let answer = host.busctl(["get-property"].into_iter().chain(object).chain([name]));
    answer.expect("the daemon answers")["data"].take()
}

/// Checks that the percentages never fall, and answers the last one.
fn last_percentage(heard: &[Told]) -> u64 {
    let percentages: Vec<u64> = heard
        .iter()
        .filter(|told| told.member == "Progress")
        .map(|told| told.number(0))
        .filter(|percentage| *percentage != 101)
        .collect();
    assert!(percentages.is_sorted() && percentages.len() > 5, "{percentages:?}");
    *percentages.last().expect("there are some")
}

#[test]
fn an_update_by_busctl_alone_tells_everything_and_a_second_one_is_refused_as_busy() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    let mut listener = host.listen();
    let answer = call(&host, MANAGER, APPLY_HELLO).expect("root may");
    let path = answer["data"][0].as_str().expect("an object").to_owned();
    let transaction = ["org.aptostree1", &path, "org.aptostree1.Transaction"];
    assert_eq!(property(&host, MANAGER, "ActiveTransaction"), path.as_str());
    assert_eq!(property(&host, transaction, "State"), "running");

    assert_eq!(host.apt_ostree(["apply-live"]).code, Some(7));
    let refused = host.run(["runuser", "-u", "nobody", "--", "apt-ostree", "cancel"]);
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);
    let (name, _) =
        host.call_refused("ApplyLive", &(HashMap::<&str, zbus::zvariant::Value>::new(),));
    assert_eq!(name, "org.aptostree1.Error.Busy");

    assert_eq!(listener.outcome(), "committed");
    let told: BTreeSet<&str> = listener.heard.iter().map(|told| told.member.as_str()).collect();
    for member in ["PhaseChanged", "Progress", "ItemProgress", "Finished"] {
        assert!(told.contains(member), "{member} in {told:?}");
    }
    assert!(!told.contains("Error"), "{:#?}", listener.heard);
    assert!(listener.heard.iter().all(|told| told.path == path));
    let phases: Vec<&str> = listener
        .heard
        .iter()
        .filter(|told| told.member == "PhaseChanged" && told.text(0) == "running")
        .map(|told| told.text(1))
        .collect();
    assert_eq!(phases, STEPS);
    assert_eq!(last_percentage(&listener.heard), 100);
    assert_eq!(listener.heard.last().expect("the end").number(1), 0);

    assert_eq!(property(&host, transaction, "State"), "finished");
    assert_eq!(property(&host, transaction, "Status"), "committed");
    assert_eq!(property(&host, transaction, "Percentage"), 100);
    assert_eq!(property(&host, transaction, "AllowCancel"), false);
    assert_eq!(property(&host, MANAGER, "ActiveTransaction"), "/");
    let record = call(&host, transaction, ["GetRecord"]).expect("it has ended");
    let record: Value =
        serde_json::from_str(record["data"][0].as_str().expect("a text")).expect("JSON");
    assert_eq!(record["commit"], property(&host, MANAGER, "RunningCommit"));
    assert_eq!(record["base"], property(&host, MANAGER, "BootedCommit"));
}

#[test]
fn a_failure_is_told_by_its_code_and_never_reaches_a_hundred_percent() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(4));
    let mut listener = host.listen();
    call(&host, MANAGER, APPLY_HELLO).expect("root may");
    let error = listener.wait_until(|told| told.member == "Error");
    assert_eq!(error.text(0), "InstallFailed");
    assert!(error.text(1).contains("hello-svc"), "{error:?}");
    assert!(!error.text(2).is_empty());
    assert_eq!(listener.outcome(), "rolled-back");
    assert_eq!(listener.heard.last().expect("the end").number(1), 3);
    assert!(last_percentage(&listener.heard) < 100);
    assert!(
        listener
            .heard
            .iter()
            .any(|told| told.member == "PhaseChanged" && told.text(0) == "undoing")
    );
}

#[test]
fn the_interface_describes_itself_and_the_bus_starts_a_daemon_that_left() {
    let host = Host::boot_to_update();
    let [name, path, interface] = MANAGER;
    let description = host.run(["busctl", "introspect", name, path, interface]).success();
    for (kind, members) in [
        ("method", "ApplyLive Check Rollback Cancel Confirm GetStatus GetHistory GetRecord"),
        ("signal", "TransactionAdded TransactionRemoved UpdatesChanged"),
        ("property", "Version ActiveTransaction BootedCommit RunningCommit"),
    ] {
        for member in members.split(' ') {
            let is_it = |line: &str| line.contains(&format!(".{member} ")) && line.contains(kind);
            assert!(description.lines().any(is_it), "{kind} {member} in\n{description}");
        }
    }
    host.configure("[daemon]\nidle-exit-seconds = 1\n");
    let first = host.apt_ostree(["status"]).success();
    let left = "timeout 30 sh -c 'while systemctl is-active --quiet apt-ostreed; do sleep 0.1; done'; \
                systemctl is-failed apt-ostreed || true";
    assert_eq!(host.shell(left), "inactive\n");
    assert_eq!(host.apt_ostree(["status"]).success(), first);
}

#[test]
fn a_client_that_dies_cancels_nothing() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    let mut listener = host.listen();
    let script = format!("echo $$ > /run/client; exec {}", UPDATE.join(" "));
    let mut client = host
        .command(["sh", "-ec", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("enter can be run");
    listener.wait_until(|told| told.begins("install"));
    host.shell("kill -KILL $(cat /run/client)");
    client.wait().expect("a child can be waited for");
    assert_eq!(listener.outcome(), "committed");
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
}

/// Follows everything as each of two users, and waits until both have heard of something.
const MONITOR: &str = "for user in root nobody; do
        systemd-run --quiet --unit=monitor-$user --uid=$user \
            --property=StandardOutput=file:/run/heard-$user apt-ostree monitor
    done
    for try in $(seq 50); do
        apt-ostree check --no-refresh > /dev/null
        [ ! -s /run/heard-root ] || [ ! -s /run/heard-nobody ] || exit 0
        sleep 0.1
    done
    exit 1";

#[test]
fn what_scripts_print_goes_to_whoever_may_look_for_updates_and_to_nobody_else() {
    let host = Host::boot_to_update();
    host.shell(MONITOR);
    // A later daemon knows nothing of who listened to the one before.
    host.shell("systemctl stop apt-ostreed");
    host.mirror().publish(&Repository::hello(2));
    host.run(UPDATE).success();
    host.shell(
        "for user in root nobody; do
            for try in $(seq 100); do
                ! grep -q 'finished: committed' /run/heard-$user || continue 2
                sleep 0.1
            done
            exit 1
        done",
    );
    let heard = |user: &str| host.shell(&format!("cat /run/heard-{user}"));
    assert!(heard("root").contains("log: Unpacking hello-svc"), "{}", heard("root"));
    assert!(!heard("nobody").contains("log: "), "{}", heard("nobody"));
    assert!(heard("nobody").contains("running install"), "{}", heard("nobody"));
}
