//! Holds the real ports of a booted test host to their contract: `host-contract COMMAND…`, each a daemon
//! of its own without a bus name, which ends with the contract's report as a line of JSON.

#![expect(clippy::print_stdout, reason = "a command that answers on its standard output")]

use std::error::Error;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::Addr;
use apt_ostree::host::{self, paths, surroundings};
use apt_ostree_actors::blocking::SharedJournal;
use apt_ostree_actors::clock::BootClock;
use apt_ostree_actors::contract::{Contract, Subjects, at_rest, there_and_back};
use apt_ostree_actors::coordinator::{
    BeginTransaction, ConfirmTransaction, Coordinator, Environment, LastResort, NewestUpdate,
    Publisher, ReadHistory, Recover, Settings, SettingsChanges,
};
use apt_ostree_actors::download::Limits;
use apt_ostree_actors::journal::Journal;
use apt_ostree_actors::port::{Host, InstallTest, Probes, ReplacedFile};
use apt_ostree_actors::service::Strategies;
use apt_ostree_actors::{Reporter, StepContext};
use apt_ostree_proto::event::Event;
use apt_ostree_proto::package::PackageSpec;
use apt_ostree_proto::request::{Caller, RestartPolicy, Selection, Target, UpdateRequest};
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::{CommitId, PackageName, PointName, TransactionId, UnitName};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

type Ended<T> = Result<T, Box<dyn Error>>;

/// What is updated.
const PACKAGE: &str = "hello-svc";
/// A number that no transaction of the daemon has.
const NOBODYS: TransactionId = TransactionId(900_000);
/// Longer than the confirmation takes to come.
const CONFIRM_SECONDS: u32 = 600;
/// For a tree on a busy disk.
const LONGEST_SWEEP: Duration = Duration::from_secs(60);
/// How often it is looked whether a sweep is over.
const POLL: Duration = Duration::from_millis(100);
/// Nobody waits longer for a tool.
const LONGEST_INSTALL: Duration = Duration::from_secs(600);

fn main() -> Ended<()> {
    apt_ostree::telemetry::begin("warn");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let system = actix::System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the kernel gives a process its epoll instance")
    });
    system.block_on(run(arguments))
}

async fn run(arguments: Vec<String>) -> Ended<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let contract = Contract::default();
    let bus = zbus::Connection::system().await?;
    let host = contract.around(&host::open(&bus, LONGEST_INSTALL).await?);
    let outcome = match words.as_slice() {
        ["rest"] => {
            at_rest(&host, &subjects()?).await?;
            "done"
        }
        ["there-and-back"] => {
            there_and_back(&host, NOBODYS).await?;
            wait_for_sweep(&host).await?;
            "done"
        }
        ["recover"] => Daemon::start(&host).await?.newest().await?.name(),
        ["apply"] => Daemon::start(&host).await?.transact(update()?).await?.name(),
        ["apply-until", phase] => Daemon::start(&host).await?.leave_in(phase).await?,
        ["confirm"] => Daemon::start(&host).await?.confirm().await?.name(),
        ["rollback"] => {
            let mut daemon = Daemon::start(&host).await?;
            let newest = daemon.coordinator.send(NewestUpdate).await??.ok_or("no update")?;
            daemon.transact(UpdateRequest::new(Target::Before(newest))).await?.name()
        }
        _ => {
            return Err(
                "usage: host-contract rest | there-and-back | apply | apply-until PHASE | …".into(),
            );
        }
    };
    println!("{}", json!({ "outcome": outcome, "contract": contract.report() }));
    // As a daemon that is killed: nothing is tidied up that is under way.
    std::process::exit(0)
}

/// Waits until nothing is left of what was moved aside: the journal knows no transaction of that number.
async fn wait_for_sweep(host: &Host) -> Ended<()> {
    let context = StepContext {
        transaction: NOBODYS,
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    };
    let swept = async {
        while host.tree.look(&[], &context).await?.trash > 0 {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    };
    tokio::time::timeout(LONGEST_SWEEP, swept).await?
}

/// What there is on every test host.
fn subjects() -> Ended<Subjects> {
    Ok(Subjects {
        unit: UnitName::parse("hello-svc.service")?,
        file: PathBuf::from("hello-svc/hello.conf"),
        fragment: PathBuf::from("/usr/lib/tmpfiles.d/legacy.conf"),
        mapped: program_of_bus()?,
        point: PointName::parse("contract")?,
        nowhere: CommitId::parse("0".repeat(64))?,
    })
}

/// The bus runs on every host.
fn program_of_bus() -> Ended<ReplacedFile> {
    let path = PathBuf::from("/usr/bin/dbus-daemon");
    let file = std::fs::metadata(&path)?;
    Ok(ReplacedFile { path, device: file.dev(), inode: file.ino() })
}

/// What is tried of each update.
fn test() -> Ended<InstallTest> {
    Ok(InstallTest {
        name: "contract".to_owned(),
        packages: vec![PackageName::parse(PACKAGE)?],
        arguments: vec!["/bin/true".to_owned()],
        timeout: Duration::from_secs(30),
    })
}

fn update() -> Ended<UpdateRequest> {
    let upgrade = vec![PackageSpec::parse(PACKAGE)?];
    let selection = Selection { upgrade, ..Selection::default() };
    let mut request = UpdateRequest::new(Target::Packages(selection));
    request.restart = RestartPolicy::Affected;
    Ok(request)
}

/// A coordinator on the checked ports, with the host's own journal.
struct Daemon {
    coordinator: Addr<Coordinator>,
    events: UnboundedReceiver<Event>,
}

impl Daemon {
    async fn start(host: &Host) -> Ended<Self> {
        let (publish, events) = Publisher::channel();
        let journal =
            Journal::open_on(Path::new(paths::STATE_DIRECTORY), &surroundings::of_host()?)?;
        let environment = Environment {
            host: host.clone(),
            journal: SharedJournal::new(journal),
            boot: host::boot_id(),
            clock: BootClock::of_kernel(),
            publish,
            last_resort: LastResort::abort(),
            changes: SettingsChanges::none(),
        };
        let settings = Settings {
            state_directory: paths::STATE_DIRECTORY.into(),
            archives: paths::ARCHIVES.into(),
            download: Limits::default(),
            dwell: Duration::from_secs(1),
            tests: vec![test()?],
            probes: Probes::new(),
            hook_timeout: Duration::from_secs(30),
            confirm_timeout: None,
            keep_updates: 5,
            keep_bytes: None,
            strategies: Strategies::default(),
            reads: [].into(),
        };
        let coordinator = Coordinator::start_in(environment, settings);
        coordinator.send(Recover).await??;
        Ok(Self { coordinator, events })
    }

    async fn begin(&self, request: UpdateRequest) -> Ended<TransactionId> {
        let title = "held to the contract".to_owned();
        let begin = BeginTransaction { title, request, dry_run: false, caller: Caller::default() };
        Ok(self.coordinator.send(begin).await??)
    }

    async fn transact(&mut self, request: UpdateRequest) -> Ended<Outcome> {
        let id = self.begin(request).await?;
        self.end(id).await
    }

    async fn end(&mut self, id: TransactionId) -> Ended<Outcome> {
        while let Some(event) = self.events.recv().await {
            match event {
                Event::Failed { failure, .. } => eprintln!("{failure}"),
                Event::Finished { id: ended, outcome } if ended == id => return Ok(outcome),
                _ => {}
            }
        }
        Err("the coordinator is gone".into())
    }

    /// Begins an update and answers when it is in this phase.
    async fn leave_in(&mut self, phase: &str) -> Ended<&'static str> {
        let id = self.begin(update()?).await?;
        self.reach(id, phase).await?;
        Ok("left")
    }

    async fn reach(&mut self, id: TransactionId, wanted: &str) -> Ended<()> {
        while let Some(event) = self.events.recv().await {
            match event {
                Event::PhaseChanged { phase: Phase::Running(step), .. }
                    if step.to_string() == wanted =>
                {
                    return Ok(());
                }
                Event::Finished { id: ended, outcome } if ended == id => {
                    return Err(format!("it ended before {wanted}: {}", outcome.name()).into());
                }
                _ => {}
            }
        }
        Err("the coordinator is gone".into())
    }

    /// An update that waits for its confirmation, and gets it.
    async fn confirm(&mut self) -> Ended<Outcome> {
        let mut request = update()?;
        request.confirm_timeout_seconds = Some(CONFIRM_SECONDS);
        let id = self.begin(request).await?;
        self.reach(id, "confirm").await?;
        loop {
            match self.events.recv().await {
                Some(Event::Progress { remaining_seconds: 1.., .. }) => break,
                Some(Event::Finished { outcome, .. }) => return Ok(outcome),
                Some(_) => {}
                None => return Err("the coordinator is gone".into()),
            }
        }
        let confirm = ConfirmTransaction { id: Some(id), caller: Caller::default() };
        self.coordinator.send(confirm).await??;
        self.end(id).await
    }

    /// How the newest transaction ended.
    async fn newest(&self) -> Ended<Outcome> {
        let history = self.coordinator.send(ReadHistory { limit: 1 }).await??;
        Ok(history.first().ok_or("no history")?.record.outcome)
    }
}
