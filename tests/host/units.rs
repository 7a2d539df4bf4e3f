//! Units of every kind in an update that is put back by itself, one that is kept, and a rollback.

use serde_json::Value;

use crate::support::{Host, Repository};

const UPDATE: [&str; 4] = ["--quiet", "apply-live", "--restart-services", "--packages=unit-toys"];
/// One of a cycle at a time: systemd would break it by leaving one out.
const START: &str = "systemctl start toy-socket.socket toy-hang toy-masked toy-old toy-gone
    for unit in a b c; do systemctl start toy-cycle-$unit; done
    systemctl mask toy-masked
    ! systemctl start toy-failed
    curl --silent --max-time 5 http://127.0.0.1:9100/";
/// What all of them are, in the order of their names; the processes of those that run.
const LOOK: &str =
    "for unit in bus cycle-a cycle-b cycle-c failed gone hang masked new old socket; do
        echo $unit $(systemctl show --property=ActiveState,MainPID --value toy-$unit.service)
    done";

/// State and main process of each unit.
#[derive(Debug, PartialEq, Eq)]
struct Units(Vec<(String, String, u32)>);

impl Units {
    fn of(host: &Host) -> Self {
        let text = host.shell(LOOK);
        let read = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let [unit, one, other] = words[..] else { panic!("{text}") };
            // In the order that systemd likes.
            let (pid, state) = if one.parse::<u32>().is_ok() { (one, other) } else { (other, one) };
            (unit.to_owned(), state.to_owned(), pid.parse().expect("a number"))
        };
        Self(text.lines().map(read).collect())
    }

    fn state(&self, unit: &str) -> &str {
        &self.find(unit).1
    }

    fn pid(&self, unit: &str) -> u32 {
        self.find(unit).2
    }

    fn find(&self, unit: &str) -> &(String, String, u32) {
        self.0.iter().find(|(name, ..)| name == unit).expect("it was looked at")
    }

    /// Fails the test unless each of these has another process than `before`.
    #[track_caller]
    fn are_restarted(&self, before: &Self, units: &[&str]) {
        for unit in units {
            assert_eq!(self.state(unit), "active", "{unit}: {self:?}");
            assert_ne!(self.pid(unit), before.pid(unit), "{unit}: {self:?}");
        }
    }
}

/// Starts the service if it does not run, as the bus does.
fn on_bus(host: &Host) -> String {
    let call = ["call", "org.example.Toy", "/", "org.example.Toy", "Version"];
    host.busctl(call).expect("it answers")["data"][0].as_str().expect("a text").to_owned()
}

/// Why the newest update left a unit alone.
fn left_because(record: &Value, unit: &str) -> String {
    let units = record["units"].as_array().expect("a list");
    let effect = units.iter().find(|effect| effect["unit"] == unit);
    let effect = effect.unwrap_or_else(|| panic!("no {unit} in {record:#}"));
    effect["left_because"].as_str().unwrap_or_else(|| panic!("{effect}")).to_owned()
}

/// How long the units of the newest update took to start, in milliseconds.
fn starting(record: &Value) -> u64 {
    let mut steps = record["steps"].as_array().expect("a list").iter();
    let step = steps.find(|step| step[0] == "start-units").expect("it came so far");
    step[1].as_u64().expect("milliseconds")
}

#[test]
fn units_of_every_kind_get_through_updates_and_a_rollback() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::unit_toys(1));
    host.apt_ostree(["--quiet", "apply-live", "--install=unit-toys"]).success();
    host.shell(START);
    assert_eq!(on_bus(&host), "version=1");
    let (before, first) = (host.snapshot(), Units::of(&host));

    // Its new unit does not start: the old one comes back, and the one that was dropped.
    host.mirror().publish(&Repository::unit_toys(3));
    let failed = host.apt_ostree(UPDATE);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    assert!(failed.stderr.contains("toy-new.service"), "{}", failed.stderr);
    host.snapshot().assert_same_as(&before);
    assert_eq!(Units::of(&host).pid("masked"), first.pid("masked"));

    host.mirror().publish(&Repository::unit_toys(2));
    let (clients, first) = (host.poll(9100), Units::of(&host));
    host.apt_ostree(UPDATE).success();
    let polls = clients.stop();
    assert!(polls.failed == 0 && polls.answered > 10, "{polls:?}");
    assert_eq!(polls.bodies, ["version=1", "version=2"]);
    let second = Units::of(&host);
    second
        .are_restarted(&first, &["bus", "cycle-a", "cycle-b", "cycle-c", "hang", "socket", "new"]);
    assert_eq!(on_bus(&host), "version=2");
    assert_eq!(second.find("masked"), first.find("masked"));
    assert_eq!(second.state("failed"), "failed");
    for unit in ["old", "gone"] {
        assert_eq!((second.state(unit), second.pid(unit)), ("inactive", 0));
    }
    the_report_says_so(&host.newest_record());

    // A service that waits for its first call goes on waiting.
    host.shell("systemctl stop toy-bus");
    let clients = host.poll(9100);
    host.apt_ostree(["--quiet", "rollback"]).success();
    let polls = clients.stop();
    assert!(polls.failed == 0 && polls.answered > 10, "{polls:?}");
    assert_eq!(polls.bodies, ["version=2", "version=1"]);
    let third = Units::of(&host);
    assert_eq!((third.state("bus"), third.state("new")), ("inactive", "inactive"));
    assert_eq!(on_bus(&host), "version=1");
    third.are_restarted(&second, &["cycle-a", "cycle-b", "cycle-c", "hang", "old", "gone"]);
    // The old tree is checked out anew, and OSTree's units for a staged deployment have run.
    host.snapshot().assert_same_but_for(&before, &["mounts: /usr /", "units: ostree-finalize-"]);
}

fn the_report_says_so(record: &Value) {
    for (unit, why) in
        [("toy-masked.service", "masked"), ("toy-failed.service", "had failed before")]
    {
        let told = left_because(record, unit);
        assert!(told.contains(why), "{unit}: {told}");
    }
    let warnings = record["warnings"].to_string();
    for warning in [
        "toy-cycle-a.service is ordered after toy-cycle-c.service",
        "the new tree has no toy-gone.service: it was stopped",
    ] {
        assert!(warnings.contains(warning), "no {warning:?} in {warnings}");
    }
    // Two seconds until it is killed, and not much more.
    let took = starting(record);
    assert!((2_000..20_000).contains(&took), "{took}");
}
