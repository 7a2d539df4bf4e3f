//! The fault matrix: every call of a port and every write of the journal goes wrong in every way, one
//! by one, two by two, and many by chance.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use apt_ostree_actors::coordinator::{BeginTransaction, RepairHost};
use apt_ostree_actors::sim::{Faults, SimFault, SimHost, WorldState};
use apt_ostree_proto::TransactionId;
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::request::{Target, UpdateRequest};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::step::Step;

use crate::daemon::{
    Daemon, FIRST, Golden, begin_upgrade, directory, golden, in_system, live_through,
    live_through_on,
};
use crate::torture::note_torture;

pub(crate) const EACH: [SimFault; 5] = [
    SimFault::ErrorBefore,
    SimFault::ErrorAfter,
    SimFault::Panic,
    SimFault::Hang,
    SimFault::HangAfter,
];

/// A journal does not panic, and one that hangs is one whose daemon was killed in the write.
pub(crate) const OF_WRITES: [SimFault; 4] =
    [SimFault::ErrorBefore, SimFault::ErrorAfter, SimFault::Hang, SimFault::HangAfter];

/// Has the call with the number `index` go wrong; answers where all calls are written.
pub(crate) fn nth(index: usize, fault: SimFault) -> (Faults, Rc<RefCell<Vec<String>>>) {
    let calls: Rc<RefCell<Vec<String>>> = Rc::default();
    let seen = Rc::clone(&calls);
    let faults = Faults::from_hook(move |call| {
        let mut seen = seen.borrow_mut();
        seen.push(call.to_owned());
        (seen.len() == index + 1).then_some(fault)
    });
    (faults, calls)
}

/// Faults of the first daemon only.
pub(crate) fn of_the_first(
    ports: Faults,
    journal: Faults,
) -> impl FnMut(usize) -> (Faults, Faults) {
    move |life| if life == 0 { (ports.clone(), journal.clone()) } else { Default::default() }
}

/// Checks that the host is in the state that the record names. A stuck host is repaired first.
#[track_caller]
pub(crate) fn is_before_or_after(
    golden: &Golden,
    host: &SimHost,
    state: &Path,
    record: &HistoryRecord,
    what: &str,
) {
    host.set_faults(&Faults::default());
    host.packages.drop_lock();
    let outcome = match record.outcome {
        Outcome::Stuck => in_system(async {
            let mut daemon = Daemon::start(host, state).await;
            daemon.coordinator.send(RepairHost).await.unwrap().expect(what);
            daemon.end(FIRST).await.outcome
        }),
        outcome => outcome,
    };
    let expected = if outcome.is_success() { &golden.after } else { &golden.before };
    assert_ne!(outcome, Outcome::Stuck, "{what}: {record:?}");
    if record.warnings.iter().any(|warning| warning.starts_with(Step::Finalize.title())) {
        // What is left after the pivot is the next update's to do.
        assert_eq!(after_another(host, state), after_another_of_two(), "{what}: {record:?}");
    } else {
        assert_eq!(&host.state(), expected, "{what}: {record:?}");
    }
    assert_eq!(record.failure.is_some(), !outcome.is_success(), "{what}: {record:?}");
}

/// The host once nothing has disturbed another update.
fn after_another(host: &SimHost, state: &Path) -> WorldState {
    let record = in_system(async { Daemon::start(host, state).await.update().await });
    assert_eq!(record.outcome, Outcome::Committed);
    host.state()
}

fn after_another_of_two() -> WorldState {
    let (host, state) = (SimHost::booted(), directory());
    after_another(&host, state.path());
    after_another(&host, state.path())
}

#[test]
fn whatever_one_call_of_a_port_does_the_host_ends_before_or_after() {
    let begun = Instant::now();
    let golden = in_system(golden());
    for (index, call) in golden.calls.iter().enumerate() {
        for fault in EACH {
            let (host, state) = (SimHost::booted(), directory());
            let (ports, _) = nth(index, fault);
            let record = live_through(&host, state.path(), of_the_first(ports, Faults::default()));
            let what = format!("{fault:?} at call {index}, {call}");
            assert_ne!(record.outcome, Outcome::Stuck, "{what}: {record:?}");
            is_before_or_after(&golden, &host, state.path(), &record, &what);
        }
    }
    note_torture("simulated-calls", golden.calls.len() * EACH.len(), 0, begun);
}

/// A host that has been updated once, and the request to undo that.
fn updated() -> (SimHost, tempfile::TempDir, BeginTransaction) {
    let (host, state) = (SimHost::booted(), directory());
    let record = live_through(&host, state.path(), |_| Default::default());
    assert_eq!(record.outcome, Outcome::Committed);
    let request = UpdateRequest::new(Target::Before(FIRST));
    (host, state, BeginTransaction { request, ..begin_upgrade() })
}

#[test]
fn whatever_one_call_of_a_rollback_does_the_host_ends_before_or_after() {
    const SECOND: TransactionId = TransactionId(2);
    let live = |host: &SimHost, state: &Path, request: &BeginTransaction, ports: Faults| {
        let faults = of_the_first(ports, Faults::default());
        live_through_on(&host.ports(), host, state, SECOND, request, false, faults)
    };
    let (host, state, request) = updated();
    let before = host.state();
    let (recording, calls) = nth(usize::MAX - 1, SimFault::Hang);
    assert_eq!(live(&host, state.path(), &request, recording).outcome, Outcome::Committed);
    let golden = Golden { before, after: host.state(), calls: calls.borrow().clone() };
    for (index, call) in golden.calls.iter().enumerate() {
        for fault in EACH {
            let (host, state, request) = updated();
            let record = live(&host, state.path(), &request, nth(index, fault).0);
            let what = format!("{fault:?} at call {index}, {call}");
            assert_ne!(record.outcome, Outcome::Stuck, "{what}: {record:?}");
            is_before_or_after(&golden, &host, state.path(), &record, &what);
        }
    }
}

#[test]
fn whatever_one_write_of_the_journal_does_the_host_ends_before_or_after() {
    let begun = Instant::now();
    let golden = in_system(golden());
    let (none, writes) = nth(usize::MAX - 1, SimFault::Hang);
    let (host, state) = (SimHost::booted(), directory());
    live_through(&host, state.path(), of_the_first(Faults::default(), none));
    let writes = writes.borrow().len();
    assert!(writes > 20, "{writes}");
    for index in 0..writes {
        for fault in OF_WRITES {
            let (host, state) = (SimHost::booted(), directory());
            let (journal, _) = nth(index, fault);
            let record =
                live_through(&host, state.path(), of_the_first(Faults::default(), journal));
            let what = format!("{fault:?} at write {index}");
            assert_ne!(record.outcome, Outcome::Stuck, "{what}: {record:?}");
            is_before_or_after(&golden, &host, state.path(), &record, &what);
        }
    }
    note_torture("simulated-writes", writes * OF_WRITES.len(), 0, begun);
}

#[test]
fn a_reboot_in_any_call_ends_in_the_deployment_that_is_booted() {
    let begun = Instant::now();
    let golden = in_system(golden());
    for (index, call) in golden.calls.iter().enumerate() {
        for fault in [SimFault::Hang, SimFault::HangAfter] {
            let (host, state) = (SimHost::booted(), directory());
            let (ports, _) = nth(index, fault);
            let record = live_through(&host, state.path(), |life| {
                if life == 1 {
                    host.disk.reboot();
                }
                (if life == 0 { ports.clone() } else { Faults::default() }, Faults::default())
            });
            let (world, what) = (host.state().disk, format!("{fault:?} in call {index}, {call}"));
            let expected = if record.outcome.is_success() { &golden.after } else { &golden.before };
            assert_eq!(world.files, expected.disk.files, "{what}: {record:?}");
            assert_eq!(
                world.deployed.first(),
                expected.disk.deployed.first(),
                "{what}: {record:?}"
            );
        }
    }
    note_torture("simulated-reboots", golden.calls.len() * 2, 0, begun);
}

/// Every undo is disturbed, too: a daemon that dies in one is followed by one that runs it again. Of
/// the pairs each eighth is tried, or each `EVERY`th.
#[test]
fn whatever_a_second_call_does_in_the_unwind_the_host_ends_before_or_after() {
    let begun = Instant::now();
    let golden = in_system(golden());
    let every = number("EVERY").map_or(8, |every| usize::try_from(every).unwrap());
    let mut pairs = 0;
    for first in 0..golden.calls.len() {
        let unwound = {
            let (host, state) = (SimHost::booted(), directory());
            let (ports, calls) = nth(first, SimFault::ErrorBefore);
            live_through(&host, state.path(), of_the_first(ports, Faults::default()));
            calls.borrow().len()
        };
        for second in first + 1..unwound {
            for fault in EACH {
                pairs += 1;
                if pairs % every != 0 {
                    continue;
                }
                let (host, state) = (SimHost::booted(), directory());
                let ports = both(first, second, fault);
                let record =
                    live_through(&host, state.path(), of_the_first(ports, Faults::default()));
                let what = format!("an error at call {first}, then {fault:?} at call {second}");
                is_before_or_after(&golden, &host, state.path(), &record, &what);
            }
        }
    }
    assert!(pairs > 1_000, "{pairs}");
    note_torture("simulated-pairs", pairs / every, 0, begun);
}

fn both(first: usize, second: usize, fault: SimFault) -> Faults {
    let seen = RefCell::new(0);
    Faults::from_hook(move |_| {
        let index = seen.replace_with(|seen| *seen + 1);
        match index {
            _ if index == first => Some(SimFault::ErrorBefore),
            _ if index == second => Some(fault),
            _ => None,
        }
    })
}

/// Faults by chance, in ports and journal, of several daemons after each other. A seed that fails is
/// run by itself with `SEED=`; `SEEDS=` sets how many there are.
#[test]
fn whatever_goes_wrong_by_chance_the_host_ends_before_or_after() {
    let seeds = match number("SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("SEEDS").unwrap_or(150),
    };
    let count = usize::try_from(seeds.end() - seeds.start() + 1).unwrap();
    let begun = Instant::now();
    let golden = in_system(golden());
    for seed in seeds {
        let (host, state) = (SimHost::booted(), directory());
        let chance = Chance::of(seed);
        let record = live_through(&host, state.path(), |life| {
            if life < 4 {
                (chance.faults(&EACH), chance.faults(&OF_WRITES))
            } else {
                Default::default()
            }
        });
        is_before_or_after(&golden, &host, state.path(), &record, &format!("SEED={seed}"));
    }
    note_torture("simulated-chance", count, 0, begun);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// A sequence of numbers that its seed decides: `SplitMix64`.
#[derive(Clone)]
struct Chance(Rc<RefCell<u64>>);

impl Chance {
    fn of(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(seed)))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.borrow_mut();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// One call in thirty goes wrong, so that a daemon gets some way in most cases.
    fn faults(&self, ways: &'static [SimFault]) -> Faults {
        let chance = self.clone();
        Faults::from_hook(move |_| {
            let fails = chance.below(30) == 0;
            fails.then(|| ways[usize::try_from(chance.below(ways.len() as u64)).unwrap_or(0)])
        })
    }
}
