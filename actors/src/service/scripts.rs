//! What the maintainer scripts of all packages, taken together, want of each unit.

use std::collections::BTreeMap;

use apt_ostree_proto::UnitName;
use apt_ostree_proto::service::{Reason, ScriptRequest, ScriptVerb, UnitState};

use crate::port::UnitDependencies;

/// What is wanted of one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    /// Let it run if it is enabled; it is no reason to restart it.
    Start,
    /// Have it read its configuration again.
    Reload,
    /// Restart it.
    Restart,
    /// Down before the switch, up after it.
    StopStart,
    /// Down before the switch, for good.
    Stop,
}

/// Everything that scripts asked of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    /// One reason for each package and verb, in the order of the requests.
    pub(super) reasons: Vec<Reason>,
    /// The place of the last request among all of them.
    pub(super) last: usize,
}

/// Joins the requests, which are in the order in which the scripts ran: a stop is for good unless
/// something later wants the unit up again; otherwise the strongest request counts. A pattern means what
/// of it is `loaded`.
pub(super) fn join(
    requests: &[ScriptRequest],
    loaded: &BTreeMap<UnitName, UnitState>,
) -> BTreeMap<UnitName, Asked> {
    let mut joined = BTreeMap::<UnitName, Asked>::new();
    for (last, request) in requests.iter().enumerate() {
        let Some(wish) = wish_of(request.verb) else { continue };
        let pattern = request.units.iter();
        let meant = pattern.flat_map(|all| loaded.keys().filter(|unit| all.matches(unit)));
        for unit in request.unit.iter().chain(meant) {
            let reason = Reason::Script { package: request.package.clone(), verb: request.verb };
            let asked = joined.entry(unit.clone()).or_insert_with(|| Asked {
                wish,
                reasons: Vec::new(),
                last,
            });
            asked.wish = then(asked.wish, wish);
            asked.last = last;
            if !asked.reasons.contains(&reason) {
                asked.reasons.push(reason);
            }
        }
    }
    joined
}

/// Has those start again that were stopped before something was started that they are a part of: a
/// package may stop the instances of a template, and start them all by way of another unit.
pub(super) fn start_parts_again(
    asked: &mut BTreeMap<UnitName, Asked>,
    dependencies: &BTreeMap<UnitName, UnitDependencies>,
) {
    let starts =
        |asked: &Asked| matches!(asked.wish, Wish::Start | Wish::Restart | Wish::StopStart);
    let wholes: Vec<(Asked, &[UnitName])> = asked
        .iter()
        .filter(|(_, asked)| starts(asked))
        .filter_map(|(unit, asked)| Some((asked.clone(), dependencies.get(unit)?)))
        .map(|(asked, own)| (asked, own.required_by.as_slice()))
        .collect();
    for (whole, parts) in wholes {
        for part in parts {
            let Some(part) = asked.get_mut(part) else { continue };
            if part.wish == Wish::Stop && part.last < whole.last {
                part.wish = Wish::StopStart;
                part.reasons.extend(whole.reasons.iter().cloned());
            }
        }
    }
}

fn wish_of(verb: ScriptVerb) -> Option<Wish> {
    match verb {
        ScriptVerb::Start => Some(Wish::Start),
        ScriptVerb::Stop => Some(Wish::Stop),
        ScriptVerb::Restart | ScriptVerb::TryRestart => Some(Wish::Restart),
        ScriptVerb::Reload | ScriptVerb::ReloadOrRestart | ScriptVerb::TryReloadOrRestart => {
            Some(Wish::Reload)
        }
        ScriptVerb::DaemonReload | ScriptVerb::DaemonReexec => None,
    }
}

fn then(before: Wish, next: Wish) -> Wish {
    match (before, next) {
        // A reload of a stopped unit does nothing.
        (_, Wish::Stop) | (Wish::Stop, Wish::Reload) => Wish::Stop,
        (Wish::Stop | Wish::StopStart, _) => Wish::StopStart,
        (before, next) => before.max(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_join_into_one_wish_for_each_unit() {
        use ScriptVerb::{
            DaemonReload, Reload, ReloadOrRestart, Restart, Start, Stop, TryReloadOrRestart,
            TryRestart,
        };
        for (verbs, wish) in [
            (&[Stop][..], Some(Wish::Stop)),
            (&[Stop, Start], Some(Wish::StopStart)),
            (&[Stop, Restart], Some(Wish::StopStart)),
            (&[Stop, Start, Reload], Some(Wish::StopStart)),
            (&[Stop, Reload], Some(Wish::Stop)),
            (&[Start, Stop], Some(Wish::Stop)),
            (&[Start], Some(Wish::Start)),
            (&[Restart], Some(Wish::Restart)),
            (&[TryRestart, Start], Some(Wish::Restart)),
            (&[Reload, TryReloadOrRestart], Some(Wish::Reload)),
            (&[ReloadOrRestart, Restart], Some(Wish::Restart)),
            (&[DaemonReload], None),
        ] {
            let requests: Vec<_> = verbs
                .iter()
                .map(|&verb| ScriptRequest {
                    package: "nginx".to_owned(),
                    script: "postinst".to_owned(),
                    verb,
                    unit: Some(UnitName::parse("nginx.service").unwrap()),
                    units: None,
                })
                .collect();
            let joined = join(&requests, &BTreeMap::new());
            assert_eq!(joined.values().next().map(|asked| asked.wish), wish, "{verbs:?}");
        }
    }

    #[test]
    fn the_same_request_twice_is_one_reason() {
        let request = ScriptRequest {
            package: "ssh".to_owned(),
            script: "postinst".to_owned(),
            verb: ScriptVerb::Restart,
            unit: Some(UnitName::parse("ssh.service").unwrap()),
            units: None,
        };
        let joined = join(&[request.clone(), request], &BTreeMap::new());
        assert_eq!(joined.values().next().unwrap().reasons.len(), 1);
    }
}
