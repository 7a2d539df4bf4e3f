//! What runs old code now: joins what the processes show with what the service manager knows.

use std::collections::BTreeMap;
use std::rc::Rc;

use actix::{Handler, Message, ResponseFuture};
use apt_ostree_proto::outdated::{Others, Outdated, Place};
use apt_ostree_proto::{ErrorCode, Failure};
use tokio_util::sync::CancellationToken;

use super::decide::MOST_REASONS;
use super::{ServiceActor, Strategies, effects};
use crate::port::{PortResult, ProcessUse, Processes, Systemd, TreeChange};

/// How many units are listed, and how many others: far more than any admin reads, and few enough for
/// one message of the bus, whose brokers cut those of more than 32 MiB.
const MOST_LISTED: usize = 512;

/// Request: find what runs old code now, and decide what a restart of it would do. Changes nothing.
/// Errors: `Cancelled`.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<Outdated>")]
pub struct FindOutdated {
    /// What updates have changed since the host booted.
    pub changes: Vec<TreeChange>,
    /// What the configuration says about units.
    pub strategies: Strategies,
    /// Ends the look.
    pub cancel: CancellationToken,
}

impl Handler<FindOutdated> for ServiceActor {
    type Result = ResponseFuture<PortResult<Outdated>>;

    fn handle(&mut self, request: FindOutdated, _: &mut Self::Context) -> Self::Result {
        let (systemd, processes) = (Rc::clone(&self.systemd), Rc::clone(&self.processes));
        Box::pin(async move {
            tokio::select! {
                biased;
                () = request.cancel.cancelled() => {
                    Err(Failure::new(ErrorCode::Cancelled, "cancelled while processes were looked at"))
                }
                found = find(systemd.as_ref(), processes.as_ref(), &request) => found,
            }
        })
    }
}

async fn find(
    systemd: &dyn Systemd,
    processes: &dyn Processes,
    request: &FindOutdated,
) -> PortResult<Outdated> {
    let seen = processes.outdated(&request.changes).await?;
    let is_of_unit = |found: &ProcessUse| found.unit.is_some() && found.place == Place::Host;
    let (of_units, of_others): (Vec<ProcessUse>, Vec<ProcessUse>) =
        seen.uses.into_iter().partition(is_of_unit);
    let plan = if of_units.is_empty() {
        super::ServicePlan::default()
    } else {
        effects::of_uses(systemd, of_units, &request.strategies).await?
    };
    let (mut units, mut others) = (plan.effects, by_place(of_others));
    let left_out = [cut(&mut units), cut(&mut others)].iter().sum();
    let mut followers = plan.followers;
    followers.truncate(MOST_LISTED);
    Ok(Outdated {
        units,
        followers,
        others,
        left_out,
        processes: seen.processes,
        kernel: seen.kernel,
    })
}

/// Cuts a list to what is listed; answers how many went.
fn cut<T>(list: &mut Vec<T>) -> u64 {
    let more = list.len().saturating_sub(MOST_LISTED);
    list.truncate(MOST_LISTED);
    more as u64
}

/// One entry for each place, with the reasons of its first process.
fn by_place(uses: Vec<ProcessUse>) -> Vec<Others> {
    let mut places: BTreeMap<Place, (Vec<u32>, Others)> = BTreeMap::new();
    for found in uses {
        let (pids, others) = places.entry(found.place.clone()).or_insert_with(|| {
            let place = found.place.clone();
            (Vec::new(), Others { place, processes: 0, reasons: Vec::new() })
        });
        // They come process by process.
        if pids.last() != Some(&found.pid) {
            pids.push(found.pid);
            others.processes += 1;
        }
        if pids.len() == 1 && others.reasons.len() < MOST_REASONS {
            others.reasons.push(found.reason());
        }
    }
    places.into_values().map(|(_, others)| others).collect()
}

#[cfg(test)]
mod tests {
    use actix::Actor as _;
    use apt_ostree_proto::service::{Reason, UnitAction};
    use apt_ostree_proto::strategy::Strategy;
    use apt_ostree_proto::{UnitName, UnitPattern};

    use super::*;
    use crate::port::{Manner, UnitDependencies};
    use crate::service::StrategyRule;
    use crate::sim::{Faults, SimFault, SimProcesses, SimSystemd, SimUnit};

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    fn used(pid: u32, unit: Option<&str>, place: Place, path: &str) -> ProcessUse {
        let unit = unit.map(|name| UnitName::parse(name).unwrap());
        ProcessUse { pid, unit, place, path: path.into(), manner: Manner::Maps }
    }

    async fn found(systemd: &SimSystemd, uses: Vec<ProcessUse>, vetoed: &[&str]) -> Outdated {
        let processes = SimProcesses::new();
        for found in uses {
            processes.add_outdated(found);
        }
        let rule = |name: &&str| StrategyRule {
            units: UnitPattern::parse(*name).unwrap(),
            strategy: Strategy::Never,
            group: None,
        };
        let strategies = Strategies::new(vetoed.iter().map(rule).collect());
        let cancel = CancellationToken::new();
        let request = FindOutdated { changes: Vec::new(), strategies, cancel };
        find(systemd, &processes, &request).await.unwrap()
    }

    fn host(names: &[&str]) -> SimSystemd {
        let systemd = SimSystemd::new();
        for name in names {
            systemd.define(&unit(name), SimUnit::default());
            systemd.boot(&unit(name));
        }
        systemd
    }

    #[tokio::test]
    async fn each_unit_is_told_once_with_every_reason_and_what_a_restart_would_do() {
        let systemd = host(&["nginx.service", "dbus.service", "db.service", "base.service"]);
        let base = UnitDependencies {
            required_by: vec![unit("top.service")],
            ..UnitDependencies::default()
        };
        systemd.define(&unit("base.service"), SimUnit { dependencies: base, ..SimUnit::default() });
        systemd.define(&unit("top.service"), SimUnit::default());
        systemd.boot(&unit("top.service"));
        let ssl = "/usr/lib/libssl.so.3";
        let mut script = used(10, Some("nginx.service"), Place::Host, "/usr/lib/n.py");
        script.manner = Manner::Interprets;
        let uses = vec![
            used(10, Some("nginx.service"), Place::Host, ssl),
            script,
            used(11, Some("nginx.service"), Place::Host, ssl),
            used(12, Some("dbus.service"), Place::Host, ssl),
            used(13, Some("db.service"), Place::Host, ssl),
            used(14, Some("base.service"), Place::Host, ssl),
        ];
        let found = found(&systemd, uses, &["db.service"]).await;
        let told: Vec<(&str, UnitAction, usize, bool)> = found
            .units
            .iter()
            .map(|one| {
                (one.unit.as_str(), one.action, one.reasons.len(), one.left_because.is_some())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("base.service", UnitAction::Restart, 1, false),
                ("db.service", UnitAction::Leave, 1, true),
                ("dbus.service", UnitAction::Leave, 1, true),
                ("nginx.service", UnitAction::Restart, 2, false),
            ]
        );
        assert_eq!(found.followers, [unit("top.service")]);
        let interpreted = Reason::Interpreted { pid: 10, path: "/usr/lib/n.py".into() };
        assert!(found.units[3].reasons.contains(&interpreted));
        assert!(found.others.is_empty() && found.left_out == 0 && found.processes == 6);
    }

    #[tokio::test]
    async fn a_unit_that_does_not_run_any_more_is_told_by_what_is_left_of_it() {
        let systemd = SimSystemd::new();
        systemd.define(&unit("gone.service"), SimUnit::default());
        let uses = vec![
            used(1, Some("gone.service"), Place::Host, "/usr/bin/a"),
            used(2, Some("run-1.scope"), Place::Host, "/usr/bin/a"),
        ];
        let found = found(&systemd, uses, &[]).await;
        let names: Vec<&str> = found.units.iter().map(|one| one.unit.as_str()).collect();
        assert_eq!(names, ["gone.service", "run-1.scope"]);
        assert!(found.units.iter().all(|one| one.action == UnitAction::Leave));
    }

    #[tokio::test]
    async fn what_is_no_unit_of_the_systems_is_told_by_whose_it_is() {
        let alice = || Place::User { uid: 1000, unit: Some(unit("app.service")) };
        let container = || Place::Container { name: "web".to_owned() };
        let jail = || Place::Chroot { root: "/srv/jail".into(), unit: Some(unit("jail.service")) };
        let uses = vec![
            used(1, None, alice(), "/usr/lib/a.so"),
            used(1, None, alice(), "/usr/lib/b.so"),
            used(2, None, container(), "/usr/lib/a.so"),
            used(3, None, alice(), "/usr/lib/c.so"),
            used(4, None, jail(), "/usr/lib/a.so"),
            used(5, None, Place::Host, "/usr/lib/a.so"),
        ];
        let found = found(&host(&["jail.service"]), uses, &[]).await;
        assert!(found.units.is_empty());
        let told: Vec<(&Place, u64, usize)> = found
            .others
            .iter()
            .map(|others| (&others.place, others.processes, others.reasons.len()))
            .collect();
        let expected = [(Place::Host, 1, 1), (alice(), 2, 2), (container(), 1, 1), (jail(), 1, 1)];
        assert_eq!(told.len(), expected.len());
        for (place, processes, reasons) in expected {
            assert!(told.contains(&(&place, processes, reasons)), "{place:?} in {told:?}");
        }
    }

    #[test]
    fn a_look_that_nobody_waits_for_is_given_up() {
        let processes = SimProcesses::new();
        let hang = |call: &str| (call == "processes.outdated").then_some(SimFault::Hang);
        processes.set_faults(Faults::from_hook(hang));
        actix::System::new().block_on(async {
            let (systemd, processes) = (Rc::new(host(&[])), Rc::new(processes));
            let service = ServiceActor::new(systemd, Rc::clone(&processes) as _).start();
            let cancel = CancellationToken::new();
            let (changes, strategies) = (Vec::new(), Strategies::default());
            let request = FindOutdated { changes, strategies, cancel: cancel.clone() };
            let (found, ()) = tokio::join!(service.send(request), async { cancel.cancel() });
            assert_eq!(found.unwrap().unwrap_err().code, ErrorCode::Cancelled);
        });
    }

    #[tokio::test]
    async fn an_answer_has_a_limit_and_says_what_it_lacks() {
        let uses = (0..600)
            .map(|uid| used(uid, None, Place::User { uid, unit: None }, "/usr/lib/a.so"))
            .collect();
        let found = found(&host(&[]), uses, &[]).await;
        assert_eq!((found.others.len(), found.left_out), (MOST_LISTED, 88));
    }
}
