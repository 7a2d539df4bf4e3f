//! The real ports keep what their contract promises: the same that the simulated host is held to.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use apt_ostree_actors::contract::{ContractReport, Promise};
use serde::Deserialize;

use crate::support::{Host, Repository};

/// Where the example is inside.
const PROGRAM: &str = "/var/lib/host-contract";

/// A program that is not there any more runs.
const RUN_OLD_CODE: &str = "mkdir /opt/old
    cp /usr/bin/sleep /opt/old/sleep
    systemd-run --quiet --unit=old --property=Type=exec /opt/old/sleep infinity
    rm /opt/old/sleep";

/// What one daemon did, and how the ports kept their promises.
#[derive(Debug, Deserialize)]
struct Answer {
    outcome: String,
    contract: ContractReport,
}

/// A host without a daemon, for one that is held to the contract.
struct Held {
    host: Host,
    kept: BTreeSet<String>,
}

impl Held {
    fn boot() -> Self {
        let host = Host::boot_to_update();
        let example = build_example();
        std::fs::copy(&example, host.root().join(PROGRAM.trim_start_matches('/')))
            .unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        host.shell("systemctl stop apt-ostreed; systemctl mask --quiet --runtime apt-ostreed");
        Self { host, kept: BTreeSet::new() }
    }

    /// Runs the example, as a unit whose processes all end with it; every promise must be kept.
    #[track_caller]
    fn run<'a>(&mut self, command: impl IntoIterator<Item = &'a str>) -> String {
        let unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--", PROGRAM];
        let output = self.host.run(unit.into_iter().chain(command));
        assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
        let last = output.stdout.lines().last().unwrap_or_default();
        let answer: Answer =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let Answer { outcome, contract } = answer;
        assert_eq!(contract.broken, [], "{}", output.stderr);
        assert_eq!(contract.unseen, 0, "{}", output.stderr);
        self.kept.extend(contract.kept.into_keys());
        outcome
    }
}

/// Builds it unless it is up to date.
fn build_example() -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--example", "host-contract"])
        .current_dir(root)
        .status()
        .expect("cargo can be run");
    assert!(built.success(), "{built}");
    let own = std::env::current_exe().expect("a process has a program");
    let target = own.ancestors().nth(3).expect("target/debug/deps/host");
    target.join("debug/examples/host-contract")
}

#[test]
fn the_real_ports_keep_every_promise_that_the_simulated_ones_keep() {
    let mut held = Held::boot();
    let before = held.host.snapshot();
    for exercise in ["rest", "there-and-back"] {
        assert_eq!(held.run([exercise]), "done");
        held.host.snapshot().assert_same_as(&before);
    }

    for version in [3, 4] {
        held.host.mirror().publish(&Repository::hello(version));
        assert_eq!(held.run(["apply"]), "rolled-back", "{version}");
        held.host.snapshot().assert_same_as(&before);
    }
    held.host.mirror().publish(&Repository::hello(2));
    for phase in ["install", "start-units"] {
        assert_eq!(held.run(["apply-until", phase]), "left");
        assert_eq!(held.run(["recover"]), "rolled-back", "{phase}");
        held.host.snapshot().assert_same_as(&before);
    }
    assert_eq!(held.run(["confirm"]), "committed");
    assert!(held.host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", held.host.hello());
    // Two calls of what appends the logs tell of one update.
    let logged = "grep -c 'status installed hello-svc:[a-z0-9]* 2$' /var/log/dpkg.log";
    assert_eq!(held.host.shell(logged), "1\n");
    held.host.shell(RUN_OLD_CODE);
    assert_eq!(held.run(["rest"]), "done");
    assert_eq!(held.run(["rollback"]), "committed");
    assert!(held.host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", held.host.hello());
    assert_eq!(held.run(["apply-until", "finalize"]), "left");
    assert_eq!(held.run(["recover"]), "committed");
    held.host.assert_in_order();

    let unseen: Vec<&Promise> =
        Promise::ALL.iter().filter(|promise| !held.kept.contains(promise.text())).collect();
    assert_eq!(unseen, Vec::<&Promise>::new());
    held.host.shell("systemctl unmask --quiet --runtime apt-ostreed");
    held.host.apt_ostree(["status", "--verify"]).success();
}
