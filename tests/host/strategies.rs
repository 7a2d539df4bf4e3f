//! How running units get their new code, as the configuration has it.

use serde_json::Value;

use crate::support::{Host, Repository};

const CONFIGURATION: &str = "[health]\ndwell-seconds = 1
[service.\"worker@.service\"]\nstrategy = \"rolling\"
[service.\"hello-svc.service\"]\nstrategy = \"defer\"\n";
const UPDATE: [&str; 4] =
    ["--quiet", "apply-live", "--restart-services", "--packages=workers,hello-svc"];

/// Number, main process and the moment of the last start in microseconds, of each worker.
fn workers(host: &Host) -> Vec<(u32, u64)> {
    let script = "for i in 1 2 3 4 5; do
        systemctl show --property=MainPID,ActiveEnterTimestampMonotonic --value worker@$i | paste -sd' '
    done";
    let text = host.shell(script);
    let read = |line: &str| {
        let (pid, moment) = line.split_once(' ').expect("two properties");
        (pid.parse().expect("a process"), moment.parse().expect("a time"))
    };
    let workers: Vec<_> = text.lines().map(read).collect();
    assert!(workers.iter().all(|(pid, _)| *pid != 0), "{text}");
    workers
}

fn effect<'a>(record: &'a Value, unit: &str) -> &'a Value {
    let units = record["units"].as_array().expect("a list");
    units.iter().find(|effect| effect["unit"] == unit).unwrap_or_else(|| panic!("{unit}: {record}"))
}

fn publish(host: &Host, workers: u32, hello: u32) {
    host.mirror().publish(&Repository::hello(hello).with(Repository::worker_package(workers)));
}

#[test]
fn units_get_their_new_code_as_the_configuration_says() {
    let host = Host::boot_to_update();
    host.configure(CONFIGURATION);
    publish(&host, 1, 1);
    host.apt_ostree(["--quiet", "apply-live", "--install=workers"]).success();
    host.shell("systemctl start worker@1 worker@2 worker@3 worker@4 worker@5");
    let first = workers(&host);
    let hello = host.hello();

    // One after the other, and what is deferred runs on.
    publish(&host, 2, 2);
    host.apt_ostree(UPDATE).success();
    let second = workers(&host);
    for (before, after) in first.iter().zip(&second) {
        assert_ne!(before.0, after.0, "restarted");
    }
    for pair in second.windows(2) {
        assert!(pair[1].1 >= pair[0].1 + 1_000_000, "each dwells for a second: {second:?}");
    }
    assert_eq!(host.hello(), hello.replace("disk=1", "disk=2"));
    let record = host.newest_record();
    let deferred = effect(&record, "hello-svc.service");
    assert_eq!((&deferred["action"], &deferred["strategy"]), (&"leave".into(), &"defer".into()));
    let why = deferred["left_because"].as_str().expect("a reason");
    assert!(why.contains("next boot") && why.contains("hello-svc.service"), "{why}");
    assert_eq!(effect(&record, "worker@3.service")["group"], "worker@");

    // The third does not start: those after it are not touched, those before it are put back.
    publish(&host, 3, 2);
    let failed = host.apt_ostree(UPDATE);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    assert!(failed.stderr.contains("worker@3.service"), "{}", failed.stderr);
    assert_eq!(host.version_of("workers"), "2");
    let third = workers(&host);
    assert_eq!(third[3..], second[3..], "the fourth and the fifth ran on");
    assert_ne!(third[0].0, second[0].0);
    host.assert_in_order();

    // The host's policy-rc.d comes with this one, and says no from the next update on.
    publish(&host, 4, 2);
    host.apt_ostree(UPDATE).success();
    let fourth = workers(&host);
    assert_ne!(fourth[1].0, third[1].0);
    host.apt_ostree(["--quiet", "rollback"]).success();
    let last = workers(&host);
    assert_eq!(last[1], fourth[1], "the policy forbids it");
    assert_ne!(last[2].0, fourth[2].0);
    let why = effect(&host.newest_record(), "worker@2.service")["left_because"].to_string();
    assert!(why.contains("policy-rc.d") && why.contains("forbidden"), "{why}");
    host.assert_in_order();
}
