//! Debian's own kernel, which an emulator runs: a whole update, its end by `kill -9` of the machine, and
//! a clock that somebody sets in the middle.

use std::time::Instant;

use serde_json::Value;

use crate::support::{Emulator, Output, Repository, note_torture};

/// The steps in which the machine is killed: between the switch and the pivot, and behind that. `make
/// torture` has more of them in `EMULATED_CUTS`.
const CUTS: &str = "start-units finalize";
/// Longer than a step of this update takes on an emulated processor, and shorter than the clock is set.
const LONGEST_STEP_MILLISECONDS: u64 = 15 * 60 * 1000;

/// A line of shell that ends once a file has a line with this text.
fn wait_for(text: &str, file: &str) -> String {
    format!("grep --quiet --max-count=1 '{text}' < <(tail --lines=+1 --follow {file})")
}

impl Emulator {
    fn boot_to_update() -> Self {
        let host = Self::boot();
        host.publish(&Repository::hello(2));
        host.shell(
            "mkdir -p /etc/apt-ostree; printf '[health]\\ndwell-seconds = 1\\n' > /etc/apt-ostree/config.toml
            systemctl stop apt-ostreed",
        );
        host
    }

    fn json(&self, command: &str) -> Value {
        let text = self.shell(&format!("apt-ostree --json {command}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Begins an update, runs each script as soon as the step before it in the list begins, and then
    /// `last`.
    fn during(&self, acts: &[(&str, &str)], last: &str) -> Output {
        let acts: String = acts
            .iter()
            .map(|(step, act)| {
                let begins = format!("\"running\",\"{step}\"");
                format!("{}\n{act}\n", wait_for(&begins, "/run/told"))
            })
            .collect();
        self.run(&format!(
            "set -e
            busctl --json=short monitor org.aptostree1 > /run/told 2> /run/listens &
            {}
            apt-ostree apply-live --restart-services --no-progress > /run/client 2>&1 &
            client=$!
            {acts}{last}",
            wait_for("Monitoring", "/run/listens")
        ))
    }

    #[track_caller]
    fn is_in_order(&self, version: u32, outcome: &str) {
        let hello = self.shell("curl -s http://127.0.0.1:9000/");
        let expected = format!("version={version} disk={version} conf=hi-{version}");
        assert!(hello.starts_with(&expected), "{hello}");
        let record = self.json("history --limit=1")[0].take();
        assert_eq!(record["outcome"], outcome, "{record}");
        let mounts = self.shell("awk '$5 == \"/usr\" { print $4, $6 }' /proc/1/mountinfo");
        assert_eq!(mounts.trim().lines().count(), 1, "{mounts}");
        assert!(mounts.contains(" ro,"), "{mounts}");
        assert_eq!(self.shell("systemctl --failed --no-legend --plain").trim(), "");
    }
}

/// Version 2 takes 150 MiB with each start.
const HOARDS: &str = r#"
mkdir -p /etc/systemd/system/hello-svc.service.d
cat > /etc/systemd/system/hello-svc.service.d/hoards.conf <<'END'
[Service]
ExecStartPost=/etc/hello-svc-hoards
END
cat > /etc/hello-svc-hoards <<'END'
#!/usr/bin/python3
import os, time
if open("/usr/share/hello-svc/version").read() != "1\n":
    hoard = b"x" * (150 << 20)
    if os.fork() == 0:
        os.closerange(0, 3)
        time.sleep(1000)
END
chmod 755 /etc/hello-svc-hoards
systemctl daemon-reload
"#;

#[test]
fn an_update_and_its_rollback_work_on_debians_own_kernel() {
    let host = Emulator::boot_to_update();
    host.publish(&Repository::hello(2).with(Repository::reader_package()));
    host.shell(HOARDS);
    let confines =
        || host.shell("cat /sys/kernel/security/apparmor/profiles").contains("reader-toys ");
    assert!(!confines());
    let mounts = "awk '$5 == \"/usr\" { print $4, $6 }' /proc/1/mountinfo";
    let before = host.shell(mounts);

    host.shell(
        "apt-ostree apply-live --restart-services --no-progress --packages=hello-svc --install=reader-toys",
    );
    assert!(confines(), "its profile is loaded");
    // The switch stacked a tree, and the collapse took the old one away.
    host.is_in_order(2, "committed");
    assert_ne!(host.shell(mounts), before);
    // Namespaces have no memory controller everywhere; here the kernel accounts for it.
    let hoards = "hello-svc.service uses ";
    let told = host.json("history --limit=1")[0]["warnings"].to_string();
    assert!(told.contains(hoards) && told.contains(" MiB of memory after the update"), "{told}");

    host.shell("apt-ostree rollback --no-progress");
    host.is_in_order(1, "committed");
    assert!(!confines());
    let told = host.json("history --limit=1")[0]["warnings"].to_string();
    assert!(!told.contains(hoards), "{told}");

    // The clock is nobody's business: neither the dwell nor the guard nor the history go by it.
    let set = |hours: i64| format!("date --set=@$(($(date +%s) + {}))", hours * 3600);
    let (forth, back) = (set(6), set(-11));
    let acts = [("install", forth.as_str()), ("check-health", back.as_str())];
    let ended = host.during(&acts, "wait $client");
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, host.shell("cat /run/client"));
    host.is_in_order(2, "committed");
    let record = host.json("history --limit=1")[0].take();
    let took = record["duration_milliseconds"].as_u64().expect("a number");
    assert!((1_000..LONGEST_STEP_MILLISECONDS).contains(&took), "{record}");
    let steps = record["steps"].as_array().expect("a list");
    let times = steps.iter().map(|step| step[1].as_u64().expect("a number"));
    assert!(times.clone().all(|time| time < LONGEST_STEP_MILLISECONDS), "{record}");
    // They are parts of the whole.
    assert!(times.sum::<u64>() <= took, "{record}");
    let dwelt = steps.iter().find(|step| step[0] == "check-health").expect("it was watched");
    assert!(dwelt[1].as_u64().expect("a number") >= 1_000, "{record}");
}

#[test]
fn a_machine_that_is_killed_in_mid_update_boots_the_old_tree_or_the_new_one() {
    let begun = Instant::now();
    let cuts = std::env::var("EMULATED_CUTS").unwrap_or_else(|_| CUTS.to_owned());
    let mut host = Emulator::boot_to_update();
    for step in cuts.split_whitespace() {
        let reached = host.during(&[(step, "")], "");
        assert_eq!(reached.code, Some(0), "{step}: {}", reached.stdout);
        host.cut_power();
        let is_new = host.json("history --limit=1")[0]["outcome"] == "committed";
        match step {
            "finalize" => assert!(is_new, "{step} is behind the pivot"),
            "deploy" => {}
            _ => assert!(!is_new, "{step} is before the pivot"),
        }
        if is_new {
            host.is_in_order(2, "committed");
            host.shell("apt-ostree rollback --no-progress");
            host.is_in_order(1, "committed");
        } else {
            host.is_in_order(1, "rolled-back");
        }
    }
    note_torture("emulated-cuts", cuts.split_whitespace().count(), 0, begun);
}
