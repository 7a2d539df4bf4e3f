//! Deployments: what boots next.

use apt_ostree::host::tree::state::{OURS_KEY, TRANSIENT_GROUP};
use apt_ostree::host::tree::task::DeploymentRequest;
use apt_ostree_proto::{ErrorCode, Failure};
use ostree::glib::KeyFile;
use ostree::{Deployment, Sysroot, SysrootSimpleWriteDeploymentFlags, SysrootWriteDeploymentsOpts};

use super::etc_copy;
use super::lock::open_locked;
use super::namespace::make_private;
use super::repository::{NEVER, commit_id, failed};

/// Makes a plain deployment of the commit the default of the next boot. Idempotent. The booted
/// deployment itself moves to the front when it is the one asked for.
pub(crate) fn deploy(request: &DeploymentRequest) -> Result<(), Failure> {
    make_private()?;
    let sysroot = open_locked(ErrorCode::DeployFailed)?;
    let host = Host::of(&sysroot)?;
    let commit = request.commit.as_str();
    if host.deployments.first().is_some_and(|first| first.csum() == commit && !first.is_staged()) {
        return Ok(());
    }
    host.refuse_foreign(commit)?;
    if host.booted.csum() == commit {
        return host.move_booted_to_front(&sysroot);
    }
    let kargs = host.kernel_arguments();
    let kargs: Vec<&str> = kargs.iter().map(String::as_str).collect();
    let os_name = host.booted.osname();
    etc_copy::take()?;
    let deployment = sysroot
        .deploy_tree(
            Some(&os_name),
            commit,
            Some(&host.origin()?),
            Some(&host.booted),
            &kargs,
            NEVER,
        )
        .map_err(|error| {
            failed(ErrorCode::DeployFailed, "the commit cannot be deployed", &error)
        })?;
    etc_copy::keep_for(&deployment, &host.booted)?;
    // Cleaning prunes the repository, which takes long: that is the clean-up's work.
    sysroot
        .simple_write_deployment(
            Some(&os_name),
            &deployment,
            Some(&host.booted),
            SysrootSimpleWriteDeploymentFlags::NO_CLEAN,
            NEVER,
        )
        .map_err(|error| {
            failed(ErrorCode::DeployFailed, "the boot configuration cannot be written", &error)
        })
}

/// Stages the commit for the shutdown, unless it is staged or needs no merge of `/etc`.
pub(crate) fn stage_deployment(request: &DeploymentRequest) -> Result<(), Failure> {
    make_private()?;
    let sysroot = open_locked(ErrorCode::DeployFailed)?;
    let host = Host::of(&sysroot)?;
    let commit = request.commit.as_str();
    let staged = sysroot.staged_deployment().is_some_and(|staged| staged.csum() == commit);
    // The booted deployment has the live /etc itself.
    if staged || host.booted.csum() == commit {
        return Ok(());
    }
    host.refuse_foreign(commit)?;
    let kargs = host.kernel_arguments();
    let kargs: Vec<&str> = kargs.iter().map(String::as_str).collect();
    sysroot
        .stage_tree(
            Some(&host.booted.osname()),
            commit,
            Some(&host.origin()?),
            Some(&host.booted),
            &kargs,
            NEVER,
        )
        .map(drop)
        .map_err(|error| failed(ErrorCode::DeployFailed, "the commit cannot be staged", &error))
}

/// Removes the deployments of the commit but the booted one. Idempotent.
pub(crate) fn undeploy(request: &DeploymentRequest) -> Result<(), Failure> {
    make_private()?;
    let sysroot = open_locked(ErrorCode::DeployFailed)?;
    let host = Host::of(&sysroot)?;
    let commit = request.commit.as_str();
    let stay = |deployment: &&Deployment| {
        deployment.csum() != commit || deployment.equal(&host.booted) || !is_ours(deployment)
    };
    let rest: Vec<Deployment> = host.deployments.iter().filter(stay).cloned().collect();
    if rest.len() == host.deployments.len() {
        return Ok(());
    }
    write(&sysroot, &rest)
}

/// Whether the deployment has our mark.
pub(super) fn is_ours(deployment: &Deployment) -> bool {
    deployment
        .origin()
        .is_some_and(|origin| origin.has_key(TRANSIENT_GROUP, OURS_KEY).unwrap_or(false))
}

/// Writes the list of deployments, without the long cleaning.
pub(super) fn write(sysroot: &Sysroot, deployments: &[Deployment]) -> Result<(), Failure> {
    let options = SysrootWriteDeploymentsOpts { do_postclean: false };
    sysroot.write_deployments_with_options(deployments, &options, NEVER).map_err(|error| {
        failed(ErrorCode::DeployFailed, "the boot configuration cannot be written", &error)
    })
}

struct Host {
    booted: Deployment,
    deployments: Vec<Deployment>,
}

impl Host {
    fn of(sysroot: &Sysroot) -> Result<Self, Failure> {
        let booted = sysroot.booted_deployment().ok_or_else(|| {
            Failure::new(ErrorCode::NotBooted, "OSTree knows no booted deployment of this host")
        })?;
        Ok(Self { booted, deployments: sysroot.deployments() })
    }

    /// Deploying drops what waits for the next boot: refused unless it is ours, or the same commit.
    fn refuse_foreign(&self, commit: &str) -> Result<(), Failure> {
        let foreign = self
            .deployments
            .iter()
            .take_while(|deployment| !deployment.equal(&self.booted))
            .find(|deployment| !is_ours(deployment) && deployment.csum() != commit);
        let Some(foreign) = foreign else { return Ok(()) };
        let how = if foreign.is_staged() { "staged" } else { "pending" };
        let message = format!(
            "a deployment of commit {} is {how}, which we did not make",
            commit_id(&foreign.csum())?.short()
        );
        Err(Failure::new(ErrorCode::PendingDeployment, message))
    }

    fn move_booted_to_front(&self, sysroot: &Sysroot) -> Result<(), Failure> {
        let others = self
            .deployments
            .iter()
            .filter(|deployment| !deployment.equal(&self.booted) && !deployment.is_staged());
        let list: Vec<Deployment> = std::iter::once(&self.booted).chain(others).cloned().collect();
        write(sysroot, &list)
    }

    /// Those of the booted deployment; libostree replaces `ostree=` itself.
    fn kernel_arguments(&self) -> Vec<String> {
        let options = self.booted.bootconfig().and_then(|config| config.get("options"));
        options.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    /// The booted deployment's origin with our mark, without its own transient state.
    fn origin(&self) -> Result<KeyFile, Failure> {
        let origin = KeyFile::new();
        if let Some(booted) = self.booted.origin() {
            origin.load_from_data(&booted.to_data(), ostree::glib::KeyFileFlags::NONE).map_err(
                |error| {
                    failed(
                        ErrorCode::DeployFailed,
                        "the booted deployment's origin cannot be read",
                        &error,
                    )
                },
            )?;
            Deployment::origin_remove_transient_state(&origin);
        }
        origin.set_boolean(TRANSIENT_GROUP, OURS_KEY, true);
        Ok(origin)
    }
}
