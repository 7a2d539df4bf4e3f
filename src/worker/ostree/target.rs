//! Ready trees: which commit is meant, and whether it can be trusted.

use apt_ostree::host::tree::task::TargetRequest;
use apt_ostree_proto::{CommitId, ErrorCode, Failure};
use ostree::glib::Bytes;
use ostree::{Deployment, Repo, RepoCommitState, RepoVerifyFlags, Sysroot};

use super::repository::{NEVER, commit_id, failed};

/// The prefix of our own refs.
const OUR_REFS: &str = "apt-ostree/live";

/// Finds the commit and verifies its signature where its remote demands one. Errors: `NotFound`,
/// `Untrusted`.
pub(crate) fn find_target(request: &TargetRequest) -> Result<CommitId, Failure> {
    let sysroot = Sysroot::new_default();
    sysroot.load(NEVER).map_err(|error| {
        failed(ErrorCode::Internal, "the OSTree deployments cannot be read", &error)
    })?;
    let booted = sysroot.booted_deployment().ok_or_else(|| {
        Failure::new(ErrorCode::NotBooted, "OSTree knows no booted deployment of this host")
    })?;
    let repo = sysroot.repo();
    let (commit, remote) = match &request.target {
        None => {
            let pending = pending(&sysroot, &booted)?;
            (commit_id(&pending.csum())?, remote_of(&pending))
        }
        Some(commit) => (commit.clone(), remote_with(&repo, commit)?.or(remote_of(&booted))),
    };
    check_complete(&repo, &commit)?;
    if let Some(remote) = remote.filter(|_| !is_ours(&repo, &commit)) {
        verify(&repo, &commit, &remote)?;
    }
    Ok(commit)
}

/// The deployment before the booted one in the boot order.
fn pending(sysroot: &Sysroot, booted: &Deployment) -> Result<Deployment, Failure> {
    sysroot
        .deployments()
        .into_iter()
        .next()
        .filter(|first| !first.equal(booted))
        .ok_or_else(|| Failure::new(ErrorCode::NotFound, "no deployment is staged or pending"))
}

/// The remote that a deployment's origin names: `REMOTE:REF`.
fn remote_of(deployment: &Deployment) -> Option<String> {
    let origin = deployment.origin()?;
    let refspec = ["refspec", "baserefspec", "container-image-reference"]
        .iter()
        .find_map(|key| origin.string("origin", key).ok())?;
    let (remote, _) = ostree::parse_refspec(&refspec).ok()?;
    remote.map(Into::into)
}

/// The remote whose ref the commit is the head of.
fn remote_with(repo: &Repo, commit: &CommitId) -> Result<Option<String>, Failure> {
    let refs = repo.list_refs(None, NEVER).map_err(|error| {
        failed(ErrorCode::Internal, "the repository's refs cannot be read", &error)
    })?;
    Ok(refs
        .into_iter()
        .filter(|(_, head)| head == commit.as_str())
        .find_map(|(name, _)| name.split_once(':').map(|(remote, _)| remote.to_owned())))
}

pub(super) fn check_complete(repo: &Repo, commit: &CommitId) -> Result<(), Failure> {
    let missing = |why: &str| {
        let message = format!("the repository has no complete commit {}{why}", commit.short());
        Failure::new(ErrorCode::NotFound, message)
            .with_hint("Fetch it first: ostree pull REMOTE COMMIT.")
    };
    match repo.load_commit(commit.as_str()) {
        Ok((_, state)) if state.contains(RepoCommitState::PARTIAL) => {
            Err(missing(": it was fetched in part"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(missing("")),
    }
}

/// Whether the commit was made here: by its ref, which nobody else writes.
fn is_ours(repo: &Repo, commit: &CommitId) -> bool {
    repo.list_refs(Some(OUR_REFS), NEVER)
        .is_ok_and(|refs| refs.values().any(|head| head == commit.as_str()))
}

fn verify(repo: &Repo, commit: &CommitId, remote: &str) -> Result<(), Failure> {
    let untrusted = |error: &ostree::glib::Error| {
        let what = format!(
            "the commit {} is not signed as the remote \"{remote}\" demands",
            commit.short()
        );
        failed(ErrorCode::Untrusted, &what, error)
    };
    if !repo.remote_list().iter().any(|known| known == remote) {
        // A remote that is not configured any more demands nothing.
        return Ok(());
    }
    if repo.remote_get_gpg_verify(remote).map_err(|error| untrusted(&error))? {
        let result = repo
            .verify_commit_for_remote(commit.as_str(), remote, NEVER)
            .map_err(|error| untrusted(&error))?;
        result.require_valid_signature().map_err(|error| untrusted(&error))?;
    }
    let sign = repo
        .remote_option(remote, "sign-verify", None)
        .map_err(|error| {
            failed(ErrorCode::Internal, "the remote's settings cannot be read", &error)
        })?
        .is_some_and(|value| !matches!(value.as_str(), "false" | "0" | ""));
    if sign {
        let (data, _) = repo.load_commit(commit.as_str()).map_err(|error| untrusted(&error))?;
        let detached = repo
            .read_commit_detached_metadata(commit.as_str(), NEVER)
            .map_err(|error| untrusted(&error))?
            .map_or_else(|| Bytes::from_static(b""), |metadata| metadata.data_as_bytes());
        repo.signature_verify_commit_data(
            remote,
            &data.data_as_bytes(),
            &detached,
            RepoVerifyFlags::NO_GPG,
        )
        .map_err(|error| untrusted(&error))?;
    }
    Ok(())
}
