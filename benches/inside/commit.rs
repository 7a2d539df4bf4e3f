//! The commit of 200 changed files, by the worker, on the tree that runs.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};
use apt_ostree::host::paths;
use apt_ostree::host::tree::OstreeTree;
use apt_ostree::host::tree::task::{self, CommitRequest, PrepareRequest, TransactionRequest};
use apt_ostree::host::worker;
use apt_ostree_actors::port::{CommittedTree, Tree, TreeMetadata};
use apt_ostree_actors::{Reporter, StepContext};
use apt_ostree_proto::{PlanId, TransactionId};
use tokio_util::sync::CancellationToken;

/// Files that change.
const CHANGED: usize = 200;
/// A number that no transaction of the daemon has yet.
const FIRST: u64 = 800_000;

/// Milliseconds of `rounds` commits. The checkout of what runs is ready before each, as it is after
/// an installation.
pub(super) fn run(rounds: u64) -> Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut times = Vec::new();
        for round in 0..rounds {
            times.push(one(TransactionId(FIRST + round)).await?);
        }
        Ok(times)
    })
}

async fn one(transaction: TransactionId) -> Result<f64> {
    let context =
        StepContext { transaction, cancel: CancellationToken::new(), report: Reporter::silent() };
    let tree = OstreeTree::new();
    let base = tree.state().await?.running;
    let whose = TransactionRequest { transaction };
    let () = worker::run(task::STAGE, &whose, &context).await?;
    change(transaction)?;
    let prepare = PrepareRequest { transaction, base: base.clone() };
    let () = worker::run(task::PREPARE, &prepare, &context).await?;
    let metadata = TreeMetadata {
        plan: PlanId::parse("0".repeat(64))?,
        changes: Vec::new(),
        reason: "a benchmark".to_owned(),
    };
    let request = CommitRequest { transaction, base, metadata };
    let begun = Instant::now();
    let made: CommittedTree = worker::run(task::COMMIT, &request, &context).await?;
    let took = begun.elapsed().as_secs_f64() * 1000.0;
    ensure!(made.changed.len() >= CHANGED, "{} changed", made.changed.len());
    tree.drop_stage(transaction).await?;
    tree.drop_commit(transaction).await?;
    Ok(took)
}

/// Changes files as an installation would: they are in the overlay's upper directory.
fn change(transaction: TransactionId) -> Result<()> {
    let script = format!(
        "mount -o remount,bind,rw /sysroot
        mkdir -p {stage}/usr/upper/share/bench/changed
        for number in $(seq {CHANGED}); do
            echo {transaction} $number > {stage}/usr/upper/share/bench/changed/$number
        done
        sync",
        stage = paths::stage(transaction).display(),
    );
    let made = Command::new("unshare").args(["--mount", "sh", "-ec", &script]).status()?;
    ensure!(made.success(), "the files cannot be changed");
    Ok(())
}
