//! Finding out who runs old code, against needrestart on the same processes: after the tree was switched
//! under them, and after an ordinary upgrade by dpkg.
//!
//! Forty units, half of which map a library that is then replaced: each has ten processes, and the host's
//! own daemons are there besides. Who truly runs old code is told by a third one: a shell that compares
//! every executable mapping's inode with that of the path.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::guest::Guest;
use super::row::{Goal, Row, median};
use super::support::Repository;

/// `grep` maps it, and `sleep` does not.
const LIBRARY: &str = "libpcre2-8-0";
const UNITS: usize = 20;
/// Of which ten are the unit's own and one is the shell that holds them.
const PROCESSES_AT_LEAST: usize = 400;
const ROUNDS: &str = "10";
/// Where the later pockets are named.
const SOURCES: &str = "/etc/apt/sources.list.d/debian.list";
const NEEDRESTART: [&str; 4] = ["needrestart", "-b", "-r", "l"];

/// Both.
pub(super) fn run() -> Result<Vec<Row>> {
    let mut rows = after_a_switch()?;
    rows.extend(after_dpkg()?);
    Ok(rows)
}

fn after_a_switch() -> Result<Vec<Row>> {
    let guest = Guest::boot()?;
    offer_peer(&guest);
    guest.apply(&["apply-live", "--no-refresh", "--install=needrestart"], 0)?;
    guest.host.shell(&format!("mv /var/tmp/debian.list {SOURCES}"));
    // A boot on the tree with both: nothing is old.
    guest.host.reboot();
    guest.make_ready();
    start_processes(&guest)?;
    let selection = format!("--packages={LIBRARY}");
    let update = ["apply-live", "--no-refresh", "--no-restart-services", &selection];
    guest.apply(&update, 0)?;
    let ours = guest.inside(&["time", ROUNDS, "apt-ostree", "services", "--needrestart"])?;
    let found = guest.host.shell("apt-ostree services --needrestart");
    compare(&guest, "services-switch", "after a switch of /usr", ours, &found)
}

fn after_dpkg() -> Result<Vec<Row>> {
    let guest = Guest::boot_plain()?;
    offer_peer(&guest);
    let apt_get = "DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet=2 install";
    guest
        .host
        .shell(&format!("{apt_get} needrestart > /dev/null; rm /etc/apt/apt.conf.d/99needrestart"));
    guest.host.shell(&format!("mv /var/tmp/debian.list {SOURCES}"));
    guest.make_ready();
    start_processes(&guest)?;
    guest.host.shell(&format!("{apt_get} --only-upgrade {LIBRARY} > /dev/null"));
    let look = [super::guest::PROGRAM, super::inside::WORD, "outdated"];
    let timed: Vec<&str> = ["time", ROUNDS].into_iter().chain(look).collect();
    let ours = guest.inside(&timed)?;
    let units: Vec<String> = guest.inside(&["outdated"])?;
    let found: String = units.iter().map(|unit| format!("NEEDRESTART-SVC: {unit}\n")).collect();
    compare(&guest, "services-dpkg", "after an upgrade by dpkg", ours, &found)
}

/// Has the host's mirror offer needrestart and what it needs, as of the image's own release and nothing
/// newer; the image has neither.
fn offer_peer(guest: &Guest) {
    guest.host.shell(&format!("mv {SOURCES} /var/tmp/"));
    let mut repository = Repository::default();
    for package in Repository::of_the_release("needrestart") {
        repository = repository.with(package);
    }
    guest.host.mirror().publish(&repository);
    guest.make_ready();
}

/// Half of the units read from a pipe that says nothing, with a program that maps the library; the other
/// half sleep.
fn start_processes(guest: &Guest) -> Result<()> {
    guest.host.shell(
        "mkdir -p /run/bench
        for kind in old new; do
            { echo '[Service]'; echo 'Type=exec'; echo \"ExecStart=/bin/sh /run/bench/$kind\"; } \
                > /run/systemd/system/bench-$kind@.service
        done
        mkfifo /run/bench/pipe
        echo 'exec 3<> /run/bench/pipe; for i in 1 2 3 4 5 6 7 8 9 10; do grep x <&3 & done; wait' > /run/bench/old
        echo 'for i in 1 2 3 4 5 6 7 8 9 10; do sleep infinity & done; wait' > /run/bench/new
        systemctl daemon-reload",
    );
    let names = ["old", "new"]
        .iter()
        .flat_map(|kind| (1..=UNITS).map(move |number| format!("bench-{kind}@{number}")));
    let names: Vec<String> = names.collect();
    guest.host.shell(&format!("systemctl start {}", names.join(" ")));
    let count = "ls -d /proc/[0-9]*/exe | wc -l";
    let expected = "until [ $(pgrep -cx 'grep|sleep') -ge 400 ]; do sleep 0.1; done";
    guest.host.shell(&format!("timeout 60 sh -c {expected:?}"));
    let processes: usize = guest.host.shell(count).trim().parse()?;
    ensure!(processes >= PROCESSES_AT_LEAST, "only {processes} processes run");
    Ok(())
}

fn compare(guest: &Guest, id: &str, when: &str, ours: Vec<f64>, found: &str) -> Result<Vec<Row>> {
    let timed: Vec<&str> = ["time", ROUNDS].into_iter().chain(NEEDRESTART).collect();
    let theirs: Vec<f64> = guest.inside(&timed)?;
    let truth: BTreeSet<String> =
        guest.host.shell(include_str!("services.sh")).lines().map(str::to_owned).collect();
    ensure!(truth.len() >= UNITS, "only {} units run old code", truth.len());
    let services = |text: &str| -> BTreeSet<String> {
        let named = text.lines().filter_map(|line| line.strip_prefix("NEEDRESTART-SVC: "));
        named.map(str::to_owned).collect()
    };
    let peers = guest.host.run(NEEDRESTART);
    let (found, peers) = (services(found), services(&peers.stdout));
    for (who, found) in [("ours", &found), ("needrestart", &peers)] {
        let missed: Vec<&String> = truth.difference(found).collect();
        let false_ones: Vec<&String> = found.difference(&truth).collect();
        eprintln!("  {id} {who}: missed {missed:?}, false {false_ones:?}");
    }
    #[expect(clippy::cast_precision_loss, reason = "some hundred units")]
    let counts =
        |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).count() as f64;
    let count = |what: &str, (ours, peer): (f64, f64)| {
        let id = format!("{id}-{what}");
        Row::new(
            id,
            format!("units {what}, of {}", truth.len()),
            (ours, Some(peer)),
            "",
            Goal::Limit(0.0),
        )
    };
    let (ours, theirs) = (median(ours)?, median(theirs)?);
    Ok(vec![
        Row::new(
            id,
            format!("who runs old code, of 440 processes and the host's own, {when}; needrestart"),
            (ours, Some(theirs)),
            "ms",
            Goal::Share(0.2),
        ),
        count("missed", (counts(&truth, &found), counts(&truth, &peers))),
        count("false", (counts(&found, &truth), counts(&peers, &truth))),
    ])
}
