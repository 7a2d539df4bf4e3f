//! The daemon: one bus name, one coordinator, gone when it is not of use.

use std::path::Path;
use std::time::Duration;

use actix::Addr;
use anyhow::Context as _;
use apt_ostree::config::{Config, Keeper};
use apt_ostree::dbus::{self, Activity};
use apt_ostree::early;
use apt_ostree::host::programs::Original;
use apt_ostree::host::{self, paths, surroundings};
use apt_ostree::telemetry;
use apt_ostree_actors::blocking::SharedJournal;
use apt_ostree_actors::clock::BootClock;
use apt_ostree_actors::coordinator::{
    Coordinator, EndWaiting, Environment, LastResort, Publisher, Quiesce, Recover, Settings,
    SettingsChanges, WatchTransaction,
};
use apt_ostree_actors::download::Limits;
use apt_ostree_actors::journal::Journal;
use apt_ostree_proto::event::Event;
use apt_ostree_proto::status::Phase;
use apt_ostree_proto::{ErrorCode, Failure};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::UnboundedReceiver;

/// The exit status of a daemon that somebody has to help first: `EX_CONFIG` of sysexits.h(3head). The
/// unit is not restarted for it.
const CANNOT_SERVE: i32 = 78;

fn main() {
    telemetry::begin("info");
    // One thread runs the actors; what blocks has threads or processes of its own.
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the kernel gives a process its epoll instance")
    });
    let is_early = std::env::args_os().nth(1).is_some_and(|argument| argument == early::ARGUMENT);
    let ended = if is_early { system.block_on(put_in_order()) } else { system.block_on(run()) };
    let status = match ended {
        Ok(status) => status,
        Err(error) => {
            tracing::error!("{error:#}");
            1
        }
    };
    // The actors' bus connections can only be dropped within the runtime, which outlives them so.
    std::process::exit(status)
}

async fn put_in_order() -> anyhow::Result<i32> {
    early::put_in_order().await.context("the host is not what it should be")?;
    Ok(0)
}

/// Serves, or says why it cannot; answers the exit status.
async fn run() -> anyhow::Result<i32> {
    let bus = zbus::Connection::system().await.context("cannot reach the system bus")?;
    if !Path::new(paths::BOOTED).exists() {
        let text = "this host was not booted from an OSTree deployment";
        refuse(&bus, &Failure::new(ErrorCode::NotBooted, text)).await?;
        return Ok(0);
    }
    let (config, changes, unusable) =
        match Keeper::open(Path::new("/"), Path::new(paths::LAST_CONFIGURATION)) {
            Ok((keeper, config)) => (config, changes_of(keeper), None),
            Err(failure) => (Config::default(), SettingsChanges::none(), Some(failure)),
        };
    let parts = match prepare(&bus, &config, changes).await {
        Ok(parts) => parts,
        Err(failure) => return refuse(&bus, &failure).await,
    };
    // What was interrupted is put in order even where nothing new can be begun.
    parts.coordinator.send(Recover).await??;
    match unusable {
        None => serve(&bus, &config, parts).await.map(|()| 0),
        Some(failure) => {
            // Nobody could confirm it.
            parts.coordinator.send(EndWaiting).await?;
            refuse(&bus, &failure).await
        }
    }
}

/// A coordinator that has not recovered yet, and what it publishes.
struct Parts {
    coordinator: Addr<Coordinator>,
    events: UnboundedReceiver<Event>,
}

/// What the admin changes holds from the next transaction on.
fn changes_of(keeper: Keeper) -> SettingsChanges {
    SettingsChanges::asking(move || Some(keeper.changed()?.map(|config| settings(&config))))
}

async fn prepare(
    bus: &zbus::Connection,
    config: &Config,
    changes: SettingsChanges,
) -> Result<Parts, Failure> {
    let longest_install = Duration::from_secs(config.install.longest_seconds);
    let host = host::open(bus, longest_install).await.map_err(|error| {
        let text = format!("the daemon cannot work on this host: {error:#}");
        Failure::new(ErrorCode::DaemonUnavailable, text)
    })?;
    let (publish, events) = Publisher::channel();
    let environment = Environment {
        host,
        journal: SharedJournal::new(Journal::open_on(
            Path::new(paths::STATE_DIRECTORY),
            &surroundings::of_host()?,
        )?),
        boot: host::boot_id(),
        clock: BootClock::of_kernel(),
        publish,
        last_resort: LastResort::abort(),
        changes,
    };
    Ok(Parts { coordinator: Coordinator::start_in(environment, settings(config)), events })
}

/// Answers all callers with `failure` for a moment; answers the exit status.
async fn refuse(bus: &zbus::Connection, failure: &Failure) -> anyhow::Result<i32> {
    tracing::error!(code = %failure.code, "cannot serve: {failure}");
    notify(NotifyState::Ready);
    dbus::refuse(bus, failure).await?;
    Ok(CANNOT_SERVE)
}

async fn serve(bus: &zbus::Connection, config: &Config, parts: Parts) -> anyhow::Result<()> {
    let Parts { coordinator, events } = parts;
    let idle = Duration::from_secs(config.daemon.idle_exit_seconds);
    let activity = Activity::new(idle, Original::at(paths::DAEMON));
    dbus::serve(bus, coordinator.clone(), events, activity.clone()).await?;
    notify(NotifyState::Ready);

    let mut terminate = signal(SignalKind::terminate()).context("cannot hear SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot hear SIGINT")?;
    let is_idle = tokio::select! {
        () = wait_until_idle(&coordinator, &activity) => true,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    notify(NotifyState::Stopping);
    if !is_idle {
        tracing::info!("asked to stop");
        // Clients see how their transaction ends: the name stays until it has.
        let is_at_work = coordinator.send(WatchTransaction).await?.is_some();
        coordinator.send(Quiesce).await?;
        if is_at_work && !leaves_work(&coordinator).await? {
            // A question that nobody answers would have the bus start another daemon.
            activity.farewell().await;
        }
    }
    // Calls that come from here on start another daemon.
    bus.release_name(apt_ostree_proto::dbus::BUS_NAME).await.context("cannot leave the bus")?;
    coordinator.send(Quiesce).await?;
    Ok(())
}

/// Whether an update waits for its confirmation, and does so without this daemon from here on: until
/// somebody calls the next one, or the guard does at the end of the wait.
async fn leaves_work(coordinator: &Addr<Coordinator>) -> anyhow::Result<bool> {
    let running = coordinator.send(WatchTransaction).await?;
    let left = running.filter(|running| !matches!(running.borrow().phase, Phase::Finished(_)));
    if let Some(left) = &left {
        tracing::info!("transaction {}: left to the next daemon as it waits", left.borrow().id);
    }
    Ok(left.is_some())
}

fn settings(config: &Config) -> Settings {
    Settings {
        state_directory: paths::STATE_DIRECTORY.into(),
        archives: paths::ARCHIVES.into(),
        download: Limits {
            connections: config.download.connections.into(),
            connections_per_host: config.download.connections_per_host.into(),
            stall_timeout: Duration::from_secs(config.download.stall_seconds),
            fruitless_rounds: config.download.attempts,
            ..Limits::default()
        },
        dwell: config.dwell(),
        tests: config.tests(),
        probes: config.probes(),
        hook_timeout: config.hook_timeout(),
        confirm_timeout: config.confirm_timeout(),
        keep_updates: config.rollback.keep_updates,
        keep_bytes: config.rollback.keep_bytes,
        strategies: config.strategies(),
        reads: config.services.reads.clone(),
    }
}

/// Returns once nobody has called for long enough and no transaction runs.
async fn wait_until_idle(coordinator: &actix::Addr<Coordinator>, activity: &Activity) {
    loop {
        activity.idle().await;
        let running = coordinator.send(apt_ostree_actors::coordinator::WatchTransaction).await;
        if matches!(running, Ok(None)) {
            return;
        }
    }
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
