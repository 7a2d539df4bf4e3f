//! Power cuts at any write to the disk: the host boots the old state or the new one, all of it.
//!
//! `make torture` goes through some hundred cuts, `make test` through one in each interesting phase.
//! What failed is repeated alone with `POWER_CUT=WRITES:SEED`, as the message says.

mod recording;
mod write_log;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use serde_json::Value;

use crate::support::{Host, Snapshot, look, note_torture};
use recording::{Recording, Script};
use write_log::PowerCut;

/// As many as there are places for hosts.
const HOSTS: usize = 2;

/// How many cuts pass between two lines that say how many did.
const PROGRESS: usize = 20;

/// Where `make test` takes the power away: in the middle of each.
const INTERESTING: [&str; 12] = [
    "update running install",
    "update running commit",
    "update running stop-units",
    "update running switch",
    "update running start-units",
    "update running deploy",
    "update running finalize",
    "rolled-back update running switch",
    "rolled-back update undoing switch",
    "rolled-back update undoing commit",
    "rolled-back update was told",
    "reboot",
];

#[test]
fn a_power_cut_at_any_write_ends_in_the_state_before_or_the_state_after() {
    let begun = Instant::now();
    let recording = Recording::of_image();
    let cuts = chosen(&recording);
    let next = AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let work = || {
            let mut wrong = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(cut) = cuts.get(number) else { break };
                if number > 0 && number.is_multiple_of(PROGRESS) {
                    eprintln!("{number} of {} power cuts", cuts.len());
                }
                wrong.extend(failure_of(&recording, *cut));
            }
            wrong
        };
        let workers: Vec<_> = (0..HOSTS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("it catches panics")).collect()
    });
    let seconds = begun.elapsed().as_secs();
    eprintln!("{} power cuts, {} wrong, in {seconds} s", cuts.len(), wrong.len());
    if std::env::var_os("POWER_CUT").is_none() {
        note_torture("power-cuts", cuts.len(), wrong.len(), begun);
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cuts.len(), wrong.join("\n"));
}

/// The cuts that are asked for: `POWER_CUT=WRITES:SEED` for one, `POWER_CUTS=NUMBER` for so many of
/// all, else one in each interesting phase.
fn chosen(recording: &Recording) -> Vec<PowerCut> {
    if let Ok(cut) = std::env::var("POWER_CUT") {
        let (writes, seed) = cut.split_once(':').expect("POWER_CUT=WRITES:SEED");
        let number = |text: &str| text.parse().expect("POWER_CUT is made of numbers");
        return vec![PowerCut { writes: number(writes), seed: number(seed) as u64 }];
    }
    let all = candidates(recording);
    if let Ok(count) = std::env::var("POWER_CUTS") {
        let count: usize = count.parse().expect("POWER_CUTS is a number");
        return (0..count.min(all.len()))
            .map(|index| all[index * all.len() / count.max(1)])
            .collect();
    }
    let phases = &recording.script.phases;
    let in_the_middle = |name: &str| {
        let index = phases.iter().position(|phase| phase.name == name).unwrap_or_else(|| {
            panic!("there is no phase \"{name}\" in {phases:?}");
        });
        let middle = usize::midpoint(phases[index].from, phases[index + 1].from);
        all.iter().copied().min_by_key(|cut| cut.writes.abs_diff(middle)).expect("there are cuts")
    };
    INTERESTING.iter().map(|name| in_the_middle(name)).collect()
}

/// Two cuts for every flush: right behind it, with nothing at stake, and somewhere before the next,
/// where luck decides about all writes since.
fn candidates(recording: &Recording) -> Vec<PowerCut> {
    let phases = &recording.script.phases;
    let (begin, end) = (phases[0].from, phases[phases.len() - 1].from);
    let flushes: Vec<usize> =
        recording.log.flushes().filter(|flush| (begin..end).contains(flush)).collect();
    let mut cuts = Vec::new();
    for (index, flush) in flushes.iter().enumerate() {
        let next = flushes.get(index + 1).copied().unwrap_or(end);
        let seed = index as u64;
        cuts.push(PowerCut { writes: flush + 1, seed });
        let between = next.saturating_sub(flush + 1);
        if between > 0 {
            cuts.push(PowerCut { writes: flush + 2 + index * 7 % between, seed });
        }
    }
    cuts
}

/// Boots the host as the cut leaves it, and answers what is wrong with it.
fn failure_of(recording: &Recording, cut: PowerCut) -> Option<String> {
    let phase = recording.script.phase(cut.writes);
    let name = format!("POWER_CUT={}:{} ({phase})", cut.writes, cut.seed);
    let caught = catch_unwind(AssertUnwindSafe(|| boots_old_or_new(recording, cut))).err()?;
    let message = caught
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| caught.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked");
    eprintln!("{name}: {message}");
    Some(format!("{name}: {}", message.lines().next().unwrap_or_default()))
}

fn boots_old_or_new(recording: &Recording, cut: PowerCut) {
    let host = Host::boot_from(&recording.disk, |run| {
        recording.log.replay(cut, &run.join("disk.ext4")).expect("there is room for a disk");
    });
    let first = Findings::of(&host);
    first.are_old_or_new(&recording.script, cut);
    host.shell("ostree fsck --quiet");
    host.reboot();
    let second = Findings::of(&host);
    second.state.assert_same_as(&first.state);
    assert_eq!((&second.told, &second.left), (&first.told, &first.left), "after a second boot");
}

/// All that is looked at.
#[derive(Debug)]
struct Findings {
    state: Snapshot,
    /// What `status` and `history` answer.
    told: (Value, Value),
    /// What transactions keep beside the tree.
    left: String,
}

impl Findings {
    fn of(host: &Host) -> Self {
        let running = host.shell("systemctl is-system-running --wait");
        assert_eq!(running, "running\n");
        let left = host.live_trees();
        let left = left
            + &host.shell(
                "cd /var/lib/apt-ostree/delta 2> /dev/null && ls -d * || true
            ostree refs --list apt-ostree; ostree admin status",
            );
        let told = (host.json(0, ["status"]), host.json(0, ["history"]));
        Self { state: look(host), told, left }
    }

    fn are_old_or_new(&self, script: &Script, cut: PowerCut) {
        let (status, history) = &self.told;
        assert_eq!((&status["transaction"], &status["stuck"]), (&Value::Null, &false.into()));
        for tree in ["running", "next"] {
            assert_eq!(status[tree], status["booted"], "{status}");
        }
        let outcome = |id: u64| {
            let records = history.as_array().expect("a list").iter();
            let mut found = records.filter(|record| record["id"] == id);
            found.next().map(|record| record["outcome"].as_str().expect("text").to_owned())
        };
        let (good, bad) = (outcome(1), outcome(2));
        let is_new = good.as_deref() == Some("committed");
        self.state.assert_same_as(if is_new { &script.new } else { &script.old });
        if cut.writes <= script.start("update running deploy") {
            assert!(!is_new, "the update was kept before its time: {history}");
        }
        if cut.writes >= script.start("update was told") {
            assert!(is_new, "the update was lost: {history}");
        }
        assert!(
            is_new || matches!(good.as_deref(), None | Some("failed" | "rolled-back")),
            "{history}"
        );
        assert!(matches!(bad.as_deref(), None | Some("failed" | "rolled-back")), "{history}");
        if cut.writes >= script.start("rolled-back update was told") {
            assert_eq!(bad.as_deref(), Some("rolled-back"), "{history}");
        }
    }
}
