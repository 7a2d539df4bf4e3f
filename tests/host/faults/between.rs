//! One update after the other, each disturbed in one step, on a host whose two states are known.

use std::cell::Cell;
use std::time::Instant;

use serde_json::Value;

use crate::support::{Host, Output, Repository, Snapshot, look, note_torture};

const UPDATE: [&str; 5] =
    ["apt-ostree", "--no-progress", "apply-live", "--restart-services", "--packages=hello-svc"];

/// A host between two states.
pub(super) struct Between {
    pub(super) host: Host,
    old: Snapshot,
    new: Snapshot,
    begun: Instant,
    cases: Cell<usize>,
}

impl Between {
    /// Boots a host and has it go there and back once.
    pub(super) fn boot() -> Self {
        let host = Host::boot_to_update();
        host.mirror().publish(&Repository::hello(2));
        host.run(UPDATE).success();
        let new = look(&host);
        host.apt_ostree(["rollback"]).success();
        // Users and data of a service stay behind, so that this is the state before from now on.
        let old = look(&host);
        Self { host, old, new, begun: Instant::now(), cases: Cell::new(0) }
    }

    /// Updates, runs the script `fault` as soon as `step` begins, and `mend` when the client has ended.
    /// The host must then be in one of its two states, all of it, and say which; in the newer one it is
    /// put back for whatever comes next. Answers the outcome, none where nothing had been begun.
    pub(super) fn run(&self, step: &str, fault: &str, mend: &str) -> Option<String> {
        let host = &self.host;
        let what = format!("{fault} in {step}");
        let last = host.newest_record()["id"].clone();
        let (output, _) = during(host, step, |host| host.run(["sh", "-c", fault]));
        let said = &output.stderr;
        host.shell(mend);

        let mut record = host.recovered_record();
        if record["outcome"] == "stuck" {
            // What an undo could not do while the host was disturbed, it can do now.
            assert!(said.contains("apt-ostree repair"), "{what}: {said}");
            assert_eq!(host.apt_ostree(["check"]).code, Some(6), "{what}");
            host.apt_ostree(["repair"]).success();
            record = host.newest_record();
        }
        let outcome = (record["id"] != last).then(|| text(&record["outcome"]));
        eprintln!(
            "{what}: {outcome:?}, exit {:?}: {}",
            output.code,
            text(&record["failure"]["message"])
        );
        let is_new = outcome.as_deref() == Some("committed");
        match output.code {
            Some(0 | 4) => assert!(is_new, "{what}: it claimed to be done: {said}\n{record}"),
            Some(3 | 6) => assert_eq!(outcome.as_deref(), Some("rolled-back"), "{what}: {said}"),
            Some(1) => {}
            other => panic!("{what}: exit {other:?}: {said}\n{record}"),
        }
        let expected = ["committed", "rolled-back", "failed"];
        assert!(
            outcome.as_deref().is_none_or(|outcome| expected.contains(&outcome)),
            "{what}: {record}"
        );
        let differences = look(host).differences(if is_new { &self.new } else { &self.old });
        assert!(differences.is_empty(), "{what}: {outcome:?}, but\n{differences}");
        host.assert_in_order();
        if is_new {
            host.apt_ostree(["rollback"]).success();
            look(host).assert_same_as(&self.old);
        }
        self.cases.set(self.cases.get() + 1);
        outcome
    }

    /// Notes that all were right.
    pub(super) fn note(&self, id: &str) {
        note_torture(&format!("host-{id}"), self.cases.get(), 0, self.begun);
    }
}

/// Updates, and does something as soon as `step` begins. Answers what the update's client said, and what
/// was done.
pub(super) fn during<T>(host: &Host, step: &str, act: impl FnOnce(&Host) -> T) -> (Output, T) {
    let mut listener = host.listen();
    std::thread::scope(|scope| {
        let client = scope.spawn(|| host.run(UPDATE));
        listener.wait_until(|told| told.begins(step));
        let answer = act(host);
        (client.join().expect("it ran"), answer)
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
