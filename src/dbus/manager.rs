//! `org.aptostree1.Manager`

use actix::Addr;
use apt_ostree_actors::coordinator::{
    BeginTransaction, CancelTransaction, ConfirmTransaction, Coordinator, DescribeState, FindPlan,
    InspectHost, MendHost, ReadHistory, ReadRecord, RepairHost, RestartOutdated, WatchTransaction,
};
use apt_ostree_proto::dbus::{
    ACTION_CANCEL, ACTION_CHECK, ACTION_POINTS, ACTION_REPAIR, ACTION_ROLL_BACK, ACTION_UPDATE,
    ReceivedOptions, transaction_path,
};
use apt_ostree_proto::record::FinishedTransaction;
use apt_ostree_proto::request::{RestartPolicy, Selection, Target, UpdateRequest};
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio_util::sync::CancellationToken;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedObjectPath;
use zbus::{fdo, interface};

use super::activity::Activity;
use super::attendance::attend;
use super::authority::Authority;
use super::error::Error;
use super::objects::Objects;
use super::options::{Reader, apply_options};
use super::outdated::Looking;
use super::points;

/// How many lines of a transaction's log one answer holds at the most: the end of it matters.
const MOST_LOG_LINES: usize = 2_000;

/// How many packages a transaction's title names: it is one line, and the request has them all.
const MOST_NAMED: usize = 10;

/// The manager object.
#[derive(Debug)]
pub(super) struct Manager {
    objects: Objects,
    coordinator: Addr<Coordinator>,
    authority: Authority,
    activity: Activity,
    /// Held by the one comparison that is made.
    comparing: tokio::sync::Mutex<()>,
    looking: Looking,
}

impl Manager {
    pub(super) fn new(objects: Objects) -> Self {
        Self {
            coordinator: objects.coordinator.clone(),
            authority: objects.authority.clone(),
            activity: objects.activity.clone(),
            objects,
            comparing: tokio::sync::Mutex::default(),
            looking: Looking::default(),
        }
    }

    /// Begins a transaction; its object is on the bus when this returns.
    async fn begin(
        &self,
        header: &Header<'_>,
        request: BeginTransaction,
    ) -> Result<OwnedObjectPath, Error> {
        if self.activity.is_superseded() {
            let text = "apt-ostree itself was updated, and its daemon is about to start anew";
            return Err(Failure::new(ErrorCode::Busy, text).into());
        }
        let id = self.coordinator.send(request).await??;
        self.listen(header, id);
        self.objects.get(id).await?;
        path_of(id)
    }

    /// Has whoever began the transaction hear what its tools print. It goes on without, too.
    fn listen(&self, header: &Header<'_>, id: TransactionId) {
        let Objects { connection, listeners, .. } = &self.objects;
        if let Err(failure) = listeners.add(connection, header, Some(id)) {
            tracing::warn!(%failure, "a caller does not hear what tools print");
        }
    }
}

fn path_of(id: TransactionId) -> Result<OwnedObjectPath, Error> {
    let path = OwnedObjectPath::try_from(transaction_path(id));
    path.map_err(|error| zbus::Error::Variant(error).into())
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| {
        Failure::caused(ErrorCode::Internal, "an answer cannot be written down", &error).into()
    })
}

fn title_of(request: &UpdateRequest) -> String {
    let list = |verb: &str, specs: &[apt_ostree_proto::package::PackageSpec]| {
        let mut names: Vec<String> =
            specs.iter().take(MOST_NAMED).map(ToString::to_string).collect();
        if specs.len() > MOST_NAMED {
            names.push(format!("{} more", specs.len() - MOST_NAMED));
        }
        (!names.is_empty()).then(|| format!("{verb} {}", names.join(", ")))
    };
    match &request.target {
        Target::Packages(selection) if selection.is_whole_upgrade() => "upgrade".to_owned(),
        Target::Packages(Selection { upgrade, install, remove }) => {
            let parts =
                [list("upgrade", upgrade), list("install", install), list("remove", remove)];
            parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
        }
        Target::Commit(commit) => format!("switch to {}", commit.short()),
        Target::Pending => "switch to the pending deployment".to_owned(),
        Target::Before(id) => format!("roll back {id}"),
    }
}

#[interface(name = "org.aptostree1.Manager")]
impl Manager {
    /// Begins an update.
    async fn apply_live(
        &self,
        options: ReceivedOptions,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        self.activity.note();
        let read = apply_options(options)?;
        let action = if read.dry_run { ACTION_CHECK } else { ACTION_UPDATE };
        let caller = self.authority.allow(&header, action).await?;
        let mut request = read.request;
        if let Some(prefix) = read.plan {
            let (id, target) = self.coordinator.send(FindPlan(prefix)).await??;
            request.plan = Some(id);
            if !read.names_target {
                request.target = target;
            }
        }
        let title = title_of(&request);
        self.begin(&header, BeginTransaction { title, request, dry_run: read.dry_run, caller })
            .await
    }

    /// Makes the plan of a whole upgrade.
    async fn check(
        &self,
        options: ReceivedOptions,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        self.activity.note();
        let mut reader = Reader::new(options);
        let refresh = reader.flag("refresh")?.unwrap_or(true);
        reader.finish()?;
        let caller = self.authority.allow(&header, ACTION_CHECK).await?;
        let target = Target::Packages(Selection::default());
        let request = UpdateRequest { refresh, ..UpdateRequest::new(target) };
        let title = "check for updates".to_owned();
        self.begin(&header, BeginTransaction { title, request, dry_run: true, caller }).await
    }

    /// Begins a rollback.
    async fn rollback(
        &self,
        id: u64,
        options: ReceivedOptions,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<OwnedObjectPath, Error> {
        self.activity.note();
        let mut reader = Reader::new(options);
        let dry_run = reader.flag("dry-run")?.unwrap_or(false);
        let point = reader.text("point")?;
        reader.finish()?;
        if id != 0 && point.is_some() {
            let text = "a rollback goes back to a point or before a transaction, not both";
            return Err(Failure::new(ErrorCode::InvalidArgument, text).into());
        }
        let caller = self.authority.allow(&header, ACTION_ROLL_BACK).await?;
        let target = match &point {
            Some(name) => points::target(&self.coordinator, name).await?,
            None if id == 0 => Target::Before(self.newest_update().await?),
            None => Target::Before(TransactionId(id)),
        };
        // What runs the newer code is restarted, whoever asked for it when it came.
        let restart = RestartPolicy::Affected;
        let request = UpdateRequest { refresh: false, restart, ..UpdateRequest::new(target) };
        let title = point.map_or_else(|| title_of(&request), |name| format!("roll back to {name}"));
        self.begin(&header, BeginTransaction { title, request, dry_run, caller }).await
    }

    /// Cancels the running transaction.
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        self.activity.note();
        self.authority.allow(&header, ACTION_CANCEL).await?;
        if let Some(running) = self.coordinator.send(WatchTransaction).await? {
            let id = running.borrow().id;
            Ok(self.coordinator.send(CancelTransaction(id)).await??)
        } else {
            let text = "no transaction runs";
            Err(Failure::new(ErrorCode::NotFound, text).into())
        }
    }

    /// Confirms the update that waits for it.
    async fn confirm(&self, #[zbus(header)] header: Header<'_>) -> Result<OwnedObjectPath, Error> {
        self.activity.note();
        let caller = self.authority.allow(&header, ACTION_UPDATE).await?;
        path_of(self.coordinator.send(ConfirmTransaction { id: None, caller }).await??)
    }

    /// Takes up what is stuck.
    async fn repair(&self, #[zbus(header)] header: Header<'_>) -> Result<OwnedObjectPath, Error> {
        self.activity.note();
        self.authority.allow(&header, ACTION_REPAIR).await?;
        let id = self.coordinator.send(RepairHost).await??;
        self.listen(&header, id);
        self.objects.get(id).await?;
        path_of(id)
    }

    /// Compares the host with its record. It reads what only the superuser may, so it is for those who
    /// may look for updates.
    async fn verify(
        &self,
        options: ReceivedOptions,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        self.activity.note();
        let mut reader = Reader::new(options);
        let with_files = reader.flag("files")?.unwrap_or(true);
        reader.finish()?;
        self.authority.allow(&header, ACTION_CHECK).await?;
        let cancel = CancellationToken::new();
        let request = InspectHost { with_files, cancel: cancel.clone() };
        let work = self.coordinator.send(request);
        json(&attend(&self.objects, &header, cancel, work).await??)
    }

    /// Mends what differs from the record.
    async fn mend(
        &self,
        options: ReceivedOptions,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        self.activity.note();
        let mut reader = Reader::new(options);
        let dry_run = reader.flag("dry-run")?.unwrap_or(false);
        reader.finish()?;
        let action = if dry_run { ACTION_CHECK } else { ACTION_REPAIR };
        self.authority.allow(&header, action).await?;
        let cancel = CancellationToken::new();
        let work = self.coordinator.send(MendHost { dry_run, cancel: cancel.clone() });
        json(&attend(&self.objects, &header, cancel, work).await??)
    }

    /// Gives a state a name, by which it is kept.
    async fn name_point(
        &self,
        name: &str,
        id: u64,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        self.activity.note();
        points::parsed(name)?;
        let caller = self.authority.allow(&header, ACTION_POINTS).await?;
        json(&points::name(&self.coordinator, name, id, caller).await?)
    }

    /// Takes a point's name away.
    async fn remove_point(
        &self,
        name: &str,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(), Error> {
        self.activity.note();
        points::parsed(name)?;
        self.authority.allow(&header, ACTION_POINTS).await?;
        points::remove(&self.coordinator, name).await
    }

    /// What differs from one state to another.
    async fn diff(
        &self,
        old: &str,
        new: &str,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        self.activity.note();
        let states = points::states(old, new)?;
        self.authority.allow(&header, ACTION_CHECK).await?;
        // Each takes a worker and some memory: one at a time.
        let _turn = self.comparing.lock().await;
        json(&self.coordinator.send(states).await??)
    }

    /// What runs old code now. It tells what other users run, so it is for those who may look for
    /// updates.
    async fn find_outdated(
        &self,
        options: ReceivedOptions,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        self.activity.note();
        Reader::new(options).finish()?;
        self.authority.allow(&header, ACTION_CHECK).await?;
        json(&self.looking.look(&self.coordinator).await?)
    }

    /// Restarts what runs old code.
    async fn restart_outdated(
        &self,
        options: ReceivedOptions,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        self.activity.note();
        Reader::new(options).finish()?;
        self.authority.allow(&header, ACTION_UPDATE).await?;
        let cancel = CancellationToken::new();
        let work = self.coordinator.send(RestartOutdated { cancel: cancel.clone() });
        json(&attend(&self.objects, &header, cancel, work).await??)
    }

    /// Has the caller hear what tools print.
    async fn follow_log(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        self.activity.note();
        self.authority.allow(&header, ACTION_CHECK).await?;
        let Objects { connection, listeners, .. } = &self.objects;
        Ok(listeners.add(connection, &header, None)?)
    }

    /// The host's state.
    async fn get_status(&self) -> Result<String, Error> {
        self.activity.note();
        json(&self.coordinator.send(DescribeState).await??)
    }

    /// The history.
    async fn get_history(&self, limit: u32) -> Result<String, Error> {
        self.activity.note();
        json(&self.coordinator.send(ReadHistory { limit }).await??)
    }

    /// One finished transaction. What scripts printed may be confidential: it is for those who may
    /// look for updates.
    async fn get_record(
        &self,
        id: u64,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<String, Error> {
        self.activity.note();
        let (record, path) = self.coordinator.send(ReadRecord(TransactionId(id))).await??;
        let entry = points::annotated(&self.coordinator, record).await?;
        if self.authority.allow(&header, ACTION_CHECK).await.is_err() {
            return json(&FinishedTransaction { entry, log: Vec::new() });
        }
        let log = match tokio::fs::read_to_string(&path).await {
            Ok(text) => {
                let lines: Vec<String> = text.lines().map(str::to_owned).collect();
                let skipped = lines.len().saturating_sub(MOST_LOG_LINES);
                lines.into_iter().skip(skipped).collect()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => vec![format!("the log cannot be read: {error}")],
        };
        json(&FinishedTransaction { entry, log })
    }

    /// A transaction began.
    #[zbus(signal)]
    pub(super) async fn transaction_added(
        emitter: &SignalEmitter<'_>,
        transaction: OwnedObjectPath,
    ) -> zbus::Result<()>;

    /// A transaction ended.
    #[zbus(signal)]
    pub(super) async fn transaction_removed(
        emitter: &SignalEmitter<'_>,
        transaction: OwnedObjectPath,
        outcome: &str,
    ) -> zbus::Result<()>;

    /// What an update leads to has changed.
    #[zbus(signal)]
    pub(super) async fn updates_changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    /// The daemon's version.
    #[zbus(property)]
    #[expect(clippy::unused_self, reason = "properties are read from an object")]
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// The running transaction's object, or `/`.
    #[zbus(property)]
    async fn active_transaction(&self) -> fdo::Result<OwnedObjectPath> {
        let running = self.coordinator.send(WatchTransaction).await.map_err(failed)?;
        let path = running.map_or_else(|| "/".to_owned(), |r| transaction_path(r.borrow().id));
        OwnedObjectPath::try_from(path).map_err(failed)
    }

    /// The commit of the booted deployment.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn booted_commit(&self) -> fdo::Result<String> {
        let state = self.coordinator.send(DescribeState).await.map_err(failed)?.map_err(failed)?;
        Ok(state.booted.to_string())
    }

    /// The commit that runs.
    #[zbus(property(emits_changed_signal = "false"))]
    async fn running_commit(&self) -> fdo::Result<String> {
        let state = self.coordinator.send(DescribeState).await.map_err(failed)?.map_err(failed)?;
        Ok(state.running.to_string())
    }
}

impl Manager {
    async fn newest_update(&self) -> Result<TransactionId, Error> {
        let newest = self.coordinator.send(apt_ostree_actors::coordinator::NewestUpdate).await??;
        newest.ok_or_else(|| {
            let text = "there is no update that could be rolled back";
            Failure::new(ErrorCode::NotFound, text).into()
        })
    }
}

fn failed(error: impl std::fmt::Display) -> fdo::Error {
    fdo::Error::Failed(error.to_string())
}
