//! What each command does.

use std::collections::HashMap;
use std::io::Write as _;

use apt_ostree_proto::TransactionId;
use apt_ostree_proto::dbus::{ManagerProxy, Options, transaction_path};
use apt_ostree_proto::plan::Plan;
use apt_ostree_proto::record::{FinishedTransaction, HistoryEntry, HistoryRecord};
use apt_ostree_proto::request::When;
use apt_ostree_proto::status::{HostState, Outcome};
use clap::CommandFactory as _;
use futures_util::StreamExt as _;
use zbus::Connection;
use zbus::zvariant::{OwnedObjectPath, Value};

use super::arguments::{ApplyLive, Arguments, Command, Config, Global};
use super::connect::{explain, manager, read};
use super::follow::{Signals, Told, recorded, transaction};
use super::progress::Display;
use super::terminal::{self, one_line};
use super::{configuration, exit, inspection, outdated, points, render};

/// Runs the command; answers the exit status.
pub(super) async fn run(arguments: &Arguments) -> anyhow::Result<u8> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Status(asked) if asked.verify => inspection::verify(global).await,
        Command::Status(_) => status(global).await,
        Command::Check(check) => {
            let options = HashMap::from([("refresh", Value::from(!check.no_refresh))]);
            let begin = async |manager: &ManagerProxy<'_>| manager.check(&options).await;
            plan(global, begin, false).await
        }
        Command::ApplyLive(apply) => apply_live(global, apply).await,
        Command::Rollback(rollback) => {
            let (id, mut options) = points::rollback_to(rollback.to.as_deref())?;
            options.insert("dry-run", Value::from(rollback.dry_run));
            let begin = async |manager: &ManagerProxy<'_>| manager.rollback(id, &options).await;
            if rollback.dry_run {
                plan(global, begin, false).await
            } else {
                change(global, begin, false).await
            }
        }
        Command::Point(point) => points::point(global, point).await,
        Command::Diff(diff) => points::diff(global, diff).await,
        Command::Services(asked) => outdated::services(global, asked).await,
        Command::Cancel => {
            let (_, manager) = manager().await?;
            manager.cancel().await.map_err(explain)?;
            Ok(exit::DONE)
        }
        Command::Confirm => {
            let begin = async |manager: &ManagerProxy<'_>| manager.confirm().await;
            change(global, begin, false).await
        }
        Command::Repair(repair) => inspection::repair(global, repair.dry_run).await,
        Command::History(history) => {
            let (_, manager) = manager().await?;
            let text = manager.get_history(history.limit).await.map_err(explain)?;
            let entries: Vec<HistoryEntry> = read(&text)?;
            render::data(global, &entries, render::history)
        }
        Command::Show { id } => {
            let (_, manager) = manager().await?;
            let text = manager.get_record(*id).await.map_err(explain)?;
            let finished: FinishedTransaction = read(&text)?;
            render::data(global, &finished, render::finished)
        }
        Command::Monitor => monitor(global).await,
        Command::Config(Config::Check) => configuration::check(global).await,
        Command::Config(Config::Show) => configuration::show(global),
        Command::Completions { shell } => {
            // Into memory first: the generator takes a reader that has enough for a bug.
            let (mut command, mut script) = (Arguments::command(), Vec::new());
            clap_complete::generate(*shell, &mut command, "apt-ostree", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(exit::DONE)
        }
        Command::ManualPage => {
            clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout())?;
            Ok(exit::DONE)
        }
    }
}

async fn status(global: &Global) -> anyhow::Result<u8> {
    let (_, manager) = manager().await?;
    let state: HostState = read(&manager.get_status().await.map_err(explain)?)?;
    render::data(global, &state, render::state)
}

async fn apply_live(global: &Global, apply: &ApplyLive) -> anyhow::Result<u8> {
    let options = options_of(apply);
    let begin = async |manager: &ManagerProxy<'_>| manager.apply_live(&options).await;
    if apply.dry_run {
        plan(global, begin, apply.unchanged_exit_77).await
    } else {
        change(global, begin, apply.unchanged_exit_77).await
    }
}

fn options_of(apply: &ApplyLive) -> Options<'_> {
    let mut options = Options::new();
    for (key, names) in
        [("packages", &apply.packages), ("install", &apply.install), ("remove", &apply.remove)]
    {
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            options.insert(key, Value::from(names));
        }
    }
    if let Some(target) = &apply.target {
        options.insert("target", Value::from(target.as_str()));
    }
    if let Some(plan) = &apply.plan {
        options.insert("plan", Value::from(plan.as_str()));
    }
    let restart = match (apply.restart_services, apply.no_restart_services) {
        (true, _) => "affected",
        (_, true) => "never",
        _ => "as-packages-ask",
    };
    options.insert("restart", Value::from(restart));
    let when = match (apply.live_only, apply.next_boot) {
        (true, _) => When::Live,
        (_, true) => When::NextBoot,
        _ => When::Soonest,
    };
    options.insert("when", Value::from(when.name()));
    options.insert("force", Value::from(apply.force));
    options.insert("refresh", Value::from(!apply.no_refresh));
    options.insert("dry-run", Value::from(apply.dry_run));
    if let Some(seconds) = apply.confirm_timeout {
        options.insert("confirm-timeout", Value::from(seconds));
    }
    options
}

/// One transaction that was followed to its end.
struct Followed {
    bus: Connection,
    signals: Signals,
    path: OwnedObjectPath,
    outcome: Outcome,
}

/// Begins a transaction and follows it. Its failure, if any, is printed by whoever reads its record.
async fn follow(
    global: &Global,
    begin: impl AsyncFnOnce(&ManagerProxy<'_>) -> zbus::Result<OwnedObjectPath>,
) -> anyhow::Result<Followed> {
    let (bus, manager) = manager().await?;
    let mut signals = Signals::subscribe(&bus).await?;
    let path = begin(&manager).await.map_err(explain)?;
    let mut display = Display::new(global);
    let outcome = signals.follow(&bus, &path, |told| display.hear(told)).await?;
    Ok(Followed { bus, signals, path, outcome })
}

impl Followed {
    /// The transaction's record. A daemon that came later knows it by its number only.
    async fn record(&self) -> anyhow::Result<HistoryRecord> {
        match transaction(&self.bus, &self.path).await?.get_record().await {
            Ok(text) if !text.is_empty() => read(&text),
            _ => Ok(recorded(&self.bus, &self.path).await?.entry.record),
        }
    }

    /// Follows the transaction that has the rest take effect with the next boot.
    async fn follow_next(&mut self, global: &Global, next: TransactionId) -> anyhow::Result<()> {
        self.path = OwnedObjectPath::try_from(transaction_path(next))?;
        let mut display = Display::new(global);
        let hear = |told: &Told| display.hear(told);
        self.outcome = self.signals.follow(&self.bus, &self.path, hear).await?;
        Ok(())
    }
}

/// Makes and prints a plan.
async fn plan(
    global: &Global,
    begin: impl AsyncFnOnce(&ManagerProxy<'_>) -> zbus::Result<OwnedObjectPath>,
    unchanged_exit_77: bool,
) -> anyhow::Result<u8> {
    let Followed { bus, path, outcome, .. } = follow(global, begin).await?;
    let proxy = transaction(&bus, &path).await?;
    if !outcome.is_success() {
        let record: HistoryRecord = read(&proxy.get_record().await.map_err(explain)?)?;
        return ended(global, &record);
    }
    let plan: Plan = read(&proxy.get_plan().await.map_err(explain)?)?;
    render::data(global, &plan, render::plan)?;
    Ok(if plan.changes_nothing() && unchanged_exit_77 { exit::UNCHANGED } else { exit::DONE })
}

/// Changes the host and prints what came of it.
async fn change(
    global: &Global,
    begin: impl AsyncFnOnce(&ManagerProxy<'_>) -> zbus::Result<OwnedObjectPath>,
    unchanged_exit_77: bool,
) -> anyhow::Result<u8> {
    let mut followed = follow(global, begin).await?;
    let mut record = followed.record().await?;
    let mut status = ended(global, &record)?;
    if let Some(next) = record.followed_by {
        followed.follow_next(global, next).await?;
        record = followed.record().await?;
        // What has been done stays done: only a failure of the rest is told beside it.
        status = status.max(ended(global, &record)?);
    }
    let Followed { bus, path, outcome, .. } = followed;
    if outcome == Outcome::NothingToDo && !global.json && !global.quiet {
        // Why a package that was named did not change.
        let proxy = transaction(&bus, &path).await?;
        let plan: Option<Plan> = match proxy.get_plan().await.map_err(explain)?.as_str() {
            "" => None,
            text => Some(read(text)?),
        };
        if let Some(plan) = plan {
            render::why_nothing_is_done(&plan)?;
        }
    }
    let unchanged = outcome == Outcome::NothingToDo && unchanged_exit_77;
    Ok(if unchanged { exit::UNCHANGED } else { status })
}

/// Puts a stuck host in order. The transaction's own end is no success; that it is put back is.
/// `NotFound` when none is stuck.
pub(super) async fn undo_again(global: &Global) -> anyhow::Result<Outcome> {
    let begin = async |manager: &ManagerProxy<'_>| manager.repair().await;
    let Followed { bus, path, outcome, .. } = follow(global, begin).await?;
    let proxy = transaction(&bus, &path).await?;
    let record: HistoryRecord = read(&proxy.get_record().await.map_err(explain)?)?;
    ended(global, &record)?;
    Ok(outcome)
}

/// Prints an ended transaction: its record as data, its failure as a diagnostic.
fn ended(global: &Global, record: &HistoryRecord) -> anyhow::Result<u8> {
    if global.json || !global.quiet {
        render::data(global, record, render::record)?;
    }
    if let Some(failure) = &record.failure {
        render::failure(failure);
    }
    Ok(match &record.failure {
        Some(failure) if record.outcome == Outcome::Failed => {
            exit::status_of(&failure.clone().into())
        }
        _ => record.outcome.exit_status(),
    })
}

/// Prints what every transaction tells, until interrupted.
async fn monitor(global: &Global) -> anyhow::Result<u8> {
    let (bus, manager) = manager().await?;
    let mut signals = Signals::subscribe(&bus).await?;
    let mut daemons = manager.inner().receive_owner_changed().await?;
    follow_log(&manager).await;
    loop {
        let next = tokio::select! {
            biased;
            next = signals.next() => next?,
            Some(daemon) = daemons.next() => {
                // It came since, and knows of no listener yet.
                if daemon.is_some() {
                    follow_log(&manager).await;
                }
                continue;
            }
        };
        let Some((path, told)) = next else { return Ok(exit::DONE) };
        let number = path.rsplit('/').next().unwrap_or_default().to_owned();
        if global.json {
            terminal::print_json(&serde_json::json!({ "transaction": number, "told": told }))?;
        } else if let Some(line) = describe(&told) {
            terminal::print(&format!("{number}: {}\n", one_line(&line)))?;
        }
    }
}

/// Has the daemon tell what tools print too. Who may not hear that follows all else.
async fn follow_log(manager: &ManagerProxy<'_>) {
    if let Err(error) = manager.follow_log().await.map_err(explain) {
        terminal::complain(&format!("what tools print is not followed: {error}"));
    }
}

fn describe(told: &Told) -> Option<String> {
    Some(match told {
        Told::Phase { state, detail } => format!("{state} {detail}"),
        Told::Item { item, status, percentage } if *percentage <= 100 => {
            format!("{item} {status} {percentage} %")
        }
        Told::Item { item, status, .. } => format!("{item} {status}"),
        Told::Message { level, text } => format!("{level}: {text}"),
        Told::Error { code, message, hint } => format!("{code}: {message}. {hint}"),
        Told::Finished { outcome } => format!("finished: {outcome}"),
        Told::Progress { .. } => return None,
    })
}
