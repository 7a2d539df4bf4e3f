//! What a later rollback leads back to is held by refs, and measured.

use std::collections::BTreeMap;

use apt_ostree::host::paths;
use apt_ostree::host::tree::task::HoldRequest;
use apt_ostree_actors::port::{Retention, Undoable};
use apt_ostree_proto::point::KeptUpdate;
use apt_ostree_proto::{CommitId, ErrorCode, Failure};
use ostree::{Deployment, Repo};

use super::namespace::make_private;
use super::repository::{self, NEVER, failed};
use super::size::Objects;
use super::target::check_complete;

/// Holds a commit under a point's name, or lets go of it. Idempotent. `NotFound` when the repository
/// has not all of the commit.
pub(crate) fn hold(request: &HoldRequest) -> Result<(), Failure> {
    make_private()?;
    let repo = repository::open_to_write()?;
    if let Some(commit) = &request.commit {
        check_complete(&repo, commit)?;
    }
    set_ref(&repo, &paths::point_ref(&request.point), request.commit.as_ref())?;
    repository::sync(&repo)
}

/// Which of the wanted updates can be undone: those whose base is there, as many as fit. Newest first.
pub(super) fn decide(
    repo: &Repo,
    retention: &Retention,
    deployments: &[Deployment],
) -> Result<Vec<KeptUpdate>, Failure> {
    let is_there = |update: &&Undoable| check_complete(repo, &update.base).is_ok();
    let updates: Vec<&Undoable> = retention.wanted().iter().filter(is_there).collect();
    if updates.is_empty() {
        return Ok(Vec::new());
    }
    let mut objects = Objects::of(repo);
    for commit in held_otherwise(repo, retention, deployments)? {
        if let Err(failure) = objects.add(&commit) {
            // What is there only in part is somebody else's affair.
            tracing::debug!(%failure, "not counted");
        }
    }
    let sizes =
        updates.iter().map(|update| objects.add(&update.base)).collect::<Result<Vec<_>, _>>()?;
    let kept = retention.fitting(&sizes);
    let answer = |(update, bytes): (&Undoable, u64)| KeptUpdate {
        id: update.id,
        commit: update.base.clone(),
        bytes,
    };
    Ok(updates.into_iter().zip(sizes).take(kept).map(answer).collect())
}

/// Commits that stay whatever is kept for rollbacks: deployments, named points, other people's refs.
fn held_otherwise(
    repo: &Repo,
    retention: &Retention,
    deployments: &[Deployment],
) -> Result<Vec<CommitId>, Failure> {
    let refs = refs(repo)?;
    let is_foreign = |name: &str| !is_below(name, paths::OUR_REFS) && !is_of_deployment(name);
    let foreign = refs.into_iter().filter(|(name, _)| is_foreign(name));
    let deployed = deployments
        .iter()
        .filter_map(|deployment| CommitId::parse(deployment.csum().as_str()).ok());
    let points = retention.points.iter().map(|(_, commit)| commit.clone());
    let mut held: Vec<CommitId> =
        deployed.chain(points).chain(foreign.map(|(_, commit)| commit)).collect();
    held.sort();
    held.dedup();
    Ok(held)
}

/// `ostree/0/1/2`: libostree's own refs of the deployments, which are told by their list: that of a
/// deployment that was dropped stays until libostree cleans up.
fn is_of_deployment(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix("ostree/").is_some_and(|rest| rest.split('/').all(is_number))
}

/// Makes the refs be those of the kept updates and of the named points. A point whose commit is gone
/// has none; whoever goes back to it is told.
pub(super) fn hold_all(
    repo: &Repo,
    retention: &Retention,
    kept: &[KeptUpdate],
) -> Result<(), Failure> {
    let bases = kept.iter().map(|update| (paths::base_ref(update.id), update.commit.clone()));
    let there = |point: &&(_, CommitId)| check_complete(repo, &point.1).is_ok();
    let points = retention.points.iter().filter(there);
    let points = points.map(|(name, commit)| (paths::point_ref(name), commit.clone()));
    let wanted: BTreeMap<String, CommitId> = bases.chain(points).collect();
    let mut present = refs(repo)?;
    present.retain(|name, _| is_below(name, paths::BASE_REFS) || is_below(name, paths::POINT_REFS));
    for (name, commit) in &wanted {
        if present.get(name) != Some(commit) {
            set_ref(repo, name, Some(commit))?;
        }
    }
    for name in present.keys().filter(|name| !wanted.contains_key(*name)) {
        set_ref(repo, name, None)?;
    }
    Ok(())
}

/// The repository's refs and what they hold.
fn refs(repo: &Repo) -> Result<BTreeMap<String, CommitId>, Failure> {
    // Only without a prefix does every version of libostree give the whole names.
    let listed = repo.list_refs(None, NEVER).map_err(|error| {
        failed(ErrorCode::Internal, "the repository's refs cannot be read", &error)
    })?;
    let held = |(name, commit): (String, String)| Some((name, CommitId::parse(commit).ok()?));
    Ok(listed.into_iter().filter_map(held).collect())
}

fn is_below(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

/// Writes a ref, or removes it for none. Idempotent.
fn set_ref(repo: &Repo, name: &str, commit: Option<&CommitId>) -> Result<(), Failure> {
    let write = || {
        if commit.is_none() && repo.resolve_rev(name, true)?.is_none() {
            return Ok(());
        }
        repo.set_ref_immediate(None, name, commit.map(CommitId::as_str), NEVER)
    };
    write().map_err(|error: ostree::glib::Error| {
        failed(ErrorCode::CommitFailed, &format!("the ref {name} cannot be written"), &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refs_of_deployments_are_told_from_those_that_others_made() {
        for (name, expected) in [
            ("ostree/0/1/0", true),
            ("ostree/1/0/12", true),
            ("ostree/container/image/debian", false),
            ("ostree/", false),
            ("debian/0/1", false),
            ("apt-ostree/live/7", false),
        ] {
            assert_eq!(is_of_deployment(name), expected, "{name}");
        }
    }
}
