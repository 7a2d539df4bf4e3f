//! Drives the tree and sandbox ports on a booted test host: `host-trees update ID NAME…`.

#![expect(clippy::print_stdout, reason = "a command that answers on its standard output")]

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use apt_ostree::host::paths;
use apt_ostree::host::sandbox::{Bubblewrap, Limits};
use apt_ostree::host::tree::OstreeTree;
use apt_ostree::host::tree::state::StateReader;
use apt_ostree::host::tree::task::{self, PrepareRequest};
use apt_ostree::host::worker;
use apt_ostree::host::worker::tasks::{self, FetchRequest, ResolveRequest};
use apt_ostree_actors::context::{Report, Reporter, StepContext};
use apt_ostree_actors::port::{Resolution, Retention, Sandbox, Tree, TreeMetadata, Undoable};
use apt_ostree_proto::package::{PackageChange, PackageSpec};
use apt_ostree_proto::request::Selection;
use apt_ostree_proto::{CommitId, PlanId, TransactionId};
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Nobody waits longer for a tool.
const LONGEST_INSTALL: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let tree = OstreeTree::new();
    match words.as_slice() {
        ["state"] => println!("{:#?}", timed("state", tree.state()).await?),
        ["running"] => {
            let state = StateReader::default();
            let mounts = state.mounts()?;
            println!("{}", state.running(&mounts, &state.booted(&mounts)?)?.usr.display());
        }
        ["stage", id] => {
            let base = tree.state().await?.running;
            timed("stage", tree.stage(&base, &context(id.parse()?))).await?;
        }
        ["prepare", id, base @ ..] => {
            let context = context(id.parse()?);
            let base = base_or_running(&tree, base).await?;
            let request = PrepareRequest { transaction: context.transaction, base };
            let () = timed("prepare", worker::run(task::PREPARE, &request, &context)).await?;
        }
        ["commit-stage", id, base @ ..] => {
            let base = base_or_running(&tree, base).await?;
            let metadata = metadata(Vec::new(), "staged by hand")?;
            let context = context(id.parse()?);
            let made =
                timed("commit and check out", tree.commit(&base, &metadata, &context)).await?;
            println!("{} replaced, {} changed", made.replaced.len(), made.changed.len());
        }
        // Begins an installation, and cancels it when dpkg says its first word.
        ["cancel", id, names @ ..] => cancel(&tree, id.parse()?, names).await?,
        ["is-deployed", commit] => {
            println!("{}", tree.is_deployed(&CommitId::parse(*commit)?).await?);
        }
        ["stage-deployment", commit] => {
            let commit = CommitId::parse(*commit)?;
            timed("stage", tree.stage_deployment(&commit, &context(0))).await?;
        }
        ["update", id, names @ ..] => update(&tree, id.parse()?, names).await?,
        ["check-out", id, commit] => {
            let context = context(id.parse()?);
            let base = tree.state().await?.running;
            let commit = CommitId::parse(*commit)?;
            let made = timed("check out", tree.check_out(&base, &commit, &context)).await?;
            println!("{} replaced, {} changed", made.replaced.len(), made.changed.len());
        }
        ["find-target"] => println!("{}", tree.find_target(None).await?),
        ["find-target", commit] => {
            println!("{}", tree.find_target(Some(&CommitId::parse(*commit)?)).await?);
        }
        ["deploy", id, commit] => {
            let context = context(id.parse()?);
            timed("deploy", tree.deploy(&CommitId::parse(*commit)?, &context)).await?;
        }
        ["undeploy", commit] => {
            timed("undeploy", tree.undeploy(&CommitId::parse(*commit)?)).await?;
        }
        ["drop", id] => {
            let id = TransactionId(id.parse()?);
            timed("drop stage", tree.drop_stage(id)).await?;
            timed("drop commit", tree.drop_commit(id)).await?;
        }
        ["clean-up", keep @ ..] => {
            let base = tree.state().await?.running;
            let update = |id| Undoable { id: TransactionId(id), base: base.clone() };
            let updates: Result<Vec<_>, _> = keep.iter().map(|id| id.parse().map(update)).collect();
            let retention =
                Retention { updates: updates?, count: keep.len(), ..Retention::default() };
            timed("clean up", tree.clean_up(&retention)).await?;
        }
        _ => {
            return Err(
                "usage: host-trees state | update ID NAME… | check-out ID COMMIT | …".into()
            );
        }
    }
    Ok(())
}

async fn update(tree: &OstreeTree, id: u64, names: &[&str]) -> Outcome<()> {
    let context = context(id);
    let base = timed("state", tree.state()).await?.running;
    let changes = resolve(names, &context).await?;
    timed("stage", tree.stage(&base, &context)).await?;
    let sandbox =
        Bubblewrap::new(zbus::Connection::system().await?, Limits::lasting(LONGEST_INSTALL));
    let report = timed("install", sandbox.install(&changes, &context)).await?;
    for request in &report.requests {
        let unit = request.unit.as_ref().map_or("", |unit| unit.as_str());
        println!("  {} {}: {:?} {unit}", request.package, request.script, request.verb);
    }
    let metadata = metadata(changes, "update")?;
    let made = timed("commit and check out", tree.commit(&base, &metadata, &context)).await?;
    println!("{} replaced, {} changed, {}", made.replaced.len(), made.changed.len(), made.commit);
    timed("deploy", tree.deploy(&made.commit, &context)).await?;
    assert!(tree.is_deployed(&made.commit).await?);
    timed("stage deployment", tree.stage_deployment(&made.commit, &context)).await?;
    println!("{:#?}", timed("state", tree.state()).await?);
    Ok(())
}

async fn cancel(tree: &OstreeTree, id: u64, names: &[&str]) -> Outcome<()> {
    let (report, mut reports) = Reporter::channel();
    let transaction = TransactionId(id);
    let cancel = CancellationToken::new();
    let context = StepContext { transaction, cancel: cancel.clone(), report };
    let base = tree.state().await?.running;
    let changes = resolve(names, &context).await?;
    tree.stage(&base, &context).await?;
    tokio::spawn(async move {
        while let Some(report) = reports.recv().await {
            if matches!(&report, Report::Log(line) if line.starts_with("Unpacking")) {
                cancel.cancel();
            }
        }
    });
    let sandbox =
        Bubblewrap::new(zbus::Connection::system().await?, Limits::lasting(LONGEST_INSTALL));
    let failure = timed("install", sandbox.install(&changes, &context)).await.err();
    println!("{failure:?}");
    timed("drop stage", tree.drop_stage(transaction)).await?;
    timed("drop commit", tree.drop_commit(transaction)).await?;
    Ok(())
}

async fn base_or_running(tree: &OstreeTree, base: &[&str]) -> Outcome<CommitId> {
    match base {
        [commit] => Ok(CommitId::parse(*commit)?),
        _ => Ok(tree.state().await?.running),
    }
}

async fn resolve(names: &[&str], context: &StepContext) -> Outcome<Vec<PackageChange>> {
    let specs: Result<Vec<_>, _> = names.iter().map(|name| PackageSpec::parse(name)).collect();
    let selection = Selection { install: specs?, ..Selection::default() };
    let request = ResolveRequest { selection, kept: Vec::new() };
    let plan: Resolution = timed("resolve", worker::run(tasks::RESOLVE, &request, context)).await?;
    for change in &plan.changes {
        fetch(change, context).await?;
    }
    println!("{} packages", plan.changes.len());
    Ok(plan.changes)
}

/// apt leaves files of `file:` sources where they are: they are copied into its cache here.
async fn fetch(change: &PackageChange, context: &StepContext) -> Outcome<()> {
    let Some(file) = &change.file else { return Ok(()) };
    if let Some(path) = file.uris.iter().find_map(|uri| uri.strip_prefix("file:")) {
        let path = path.replace("%2b", "+").replace("%7e", "~").replace("%3a", ":");
        std::fs::copy(path, Path::new(paths::ARCHIVES).join(&file.cache_name))?;
        return Ok(());
    }
    let request = FetchRequest { change: change.clone() };
    Ok(worker::run(tasks::FETCH, &request, context).await?)
}

fn metadata(changes: Vec<PackageChange>, reason: &str) -> Outcome<TreeMetadata> {
    let plan = PlanId::parse("0".repeat(64))?;
    Ok(TreeMetadata { plan, changes, reason: reason.to_owned() })
}

async fn timed<T>(what: &str, step: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = step.await;
    println!("{what}: {:.1} ms", start.elapsed().as_secs_f64() * 1000.0);
    result
}

fn context(id: u64) -> StepContext {
    let (report, mut reports) = Reporter::channel();
    tokio::spawn(async move {
        while let Some(report) = reports.recv().await {
            match report {
                Report::Log(line) => println!("    {line}"),
                Report::Warning(text) => println!("  warning: {text}"),
                _ => {}
            }
        }
    });
    StepContext { transaction: TransactionId(id), cancel: CancellationToken::new(), report }
}
