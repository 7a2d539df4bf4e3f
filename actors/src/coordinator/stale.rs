//! `--plan=ID`: exactly that plan, or a refusal that says what changed.

use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::plan::Plan;
use apt_ostree_proto::{ErrorCode, Failure, PlanId};

use crate::blocking::SharedJournal;

/// How many differences a refusal names.
const MOST_DIFFERENCES: usize = 10;

/// Refuses `now` unless it is the plan `wanted`.
pub(super) async fn refuse_if_stale(
    journal: &SharedJournal,
    wanted: &PlanId,
    now: &Plan,
) -> Result<(), Failure> {
    if now.id == *wanted {
        return Ok(());
    }
    let id = wanted.clone();
    let then = journal.with(move |journal| journal.plan(&id)).await?;
    let why = match then {
        Some(then) => differences(&then, now).join("; "),
        None => "no such plan is known on this host".to_owned(),
    };
    Err(Failure::new(ErrorCode::StalePlan, format!("plan {} is stale: {why}", wanted.short())))
}

/// What differs between two plans, for people.
fn differences(then: &Plan, now: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    if then.base != now.base {
        lines.push(format!("the tree changed from {} to {}", then.base.short(), now.base.short()));
    }
    let name = |change: &PackageChange| (change.name.clone(), change.architecture.clone());
    let version = |change: &PackageChange| match &change.new_version {
        Some(version) => version.to_string(),
        None => "removal".to_owned(),
    };
    for old in &then.changes {
        match now.changes.iter().find(|new| name(new) == name(old)) {
            None => lines.push(format!("{} would not change any more", old.name)),
            Some(new) if new.new_version != old.new_version => {
                lines.push(format!("{}: {} became {}", old.name, version(old), version(new)));
            }
            Some(_) => {}
        }
    }
    let added = now.changes.iter().filter(|new| !then.changes.iter().any(|o| name(o) == name(new)));
    lines.extend(added.map(|new| format!("{} would change too", new.name)));
    if lines.is_empty() {
        lines.push("the package database, lists, pins or options changed".to_owned());
    }
    if lines.len() > MOST_DIFFERENCES {
        let more = lines.len() - MOST_DIFFERENCES;
        lines.truncate(MOST_DIFFERENCES);
        lines.push(format!("and {more} more"));
    }
    lines
}
