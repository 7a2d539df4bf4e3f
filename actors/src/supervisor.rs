//! The supervisor: starts the worker actors, replaces one that panicked, and tells how often.
//!
//! actix's own supervisor does not restart an actor whose handler panicked: its senders find the
//! mailbox closed. This one is asked for the workers before each step and looks whether they are
//! still connected.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message, MessageResult};
use tokio::time::Instant;

use crate::download::DownloadActor;
use crate::health::HealthActor;
use crate::overlay::OverlayActor;
use crate::package::PackageActor;
use crate::port::Host;
use crate::service::ServiceActor;
use crate::verification::VerificationActor;

/// How many replacements of one worker are made within [`REPLACEMENT_WINDOW`]. More than that is no
/// accident: the step fails instead, and the transaction unwinds.
const MOST_REPLACEMENTS: usize = 3;
/// The time over which replacements are counted.
const REPLACEMENT_WINDOW: Duration = Duration::from_secs(60);

/// The addresses of the worker actors.
#[derive(Clone, Debug)]
pub struct Workers {
    /// Fetches packages.
    pub download: Addr<DownloadActor>,
    /// Checks packages.
    pub verification: Addr<VerificationActor>,
    /// Stages, commits, switches, deploys.
    pub overlay: Addr<OverlayActor>,
    /// Plans and installs.
    pub package: Addr<PackageActor>,
    /// Stops and starts units.
    pub service: Addr<ServiceActor>,
    /// Watches units.
    pub health: Addr<HealthActor>,
}

/// Owns the worker actors.
#[derive(Debug)]
pub struct Supervisor {
    host: Host,
    workers: Workers,
    replaced: VecDeque<(&'static str, Instant)>,
}

impl Supervisor {
    /// Starts the worker actors on `host`. To be called within an actix system.
    pub fn new(host: Host) -> Self {
        let workers = Workers {
            download: download(&host).start(),
            verification: verification(&host).start(),
            overlay: OverlayActor::new(&host).start(),
            package: PackageActor::new(&host).start(),
            service: service(&host).start(),
            health: HealthActor::new(&host).start(),
        };
        Self { host, workers, replaced: VecDeque::new() }
    }

    /// Replaces the workers that are gone, within bounds.
    fn mend(&mut self) {
        macro_rules! mend {
            ($($worker:ident: $make:expr),*) => {
                $(if !self.workers.$worker.connected() && self.may_replace(stringify!($worker)) {
                    self.workers.$worker = $make(&self.host).start();
                })*
            };
        }
        mend!(
            download: download,
            verification: verification,
            overlay: OverlayActor::new,
            package: PackageActor::new,
            service: service,
            health: HealthActor::new
        );
    }

    fn may_replace(&mut self, worker: &'static str) -> bool {
        let now = Instant::now();
        self.replaced.retain(|(_, at)| now.duration_since(*at) < REPLACEMENT_WINDOW);
        let recently = self.replaced.iter().filter(|(name, _)| *name == worker).count();
        if recently >= MOST_REPLACEMENTS {
            tracing::error!(worker, recently, "a worker actor panics again and again: given up");
            return false;
        }
        tracing::warn!(worker, "a worker actor panicked: replaced");
        self.replaced.push_back((worker, now));
        true
    }
}

fn download(host: &Host) -> DownloadActor {
    DownloadActor::new(Rc::clone(&host.http), Rc::clone(&host.packages))
}

fn verification(host: &Host) -> VerificationActor {
    VerificationActor::new(Rc::clone(&host.archive))
}

fn service(host: &Host) -> ServiceActor {
    ServiceActor::new(Rc::clone(&host.systemd), Rc::clone(&host.processes))
}

impl Actor for Supervisor {
    type Context = Context<Self>;
}

/// Request: the workers, each alive where replacing it is still within bounds.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Workers")]
pub struct GetWorkers;

impl Handler<GetWorkers> for Supervisor {
    type Result = MessageResult<GetWorkers>;

    fn handle(&mut self, _: GetWorkers, _: &mut Self::Context) -> Self::Result {
        self.mend();
        MessageResult(self.workers.clone())
    }
}
