//! `org.aptostree1.Transaction`

use actix::Addr;
use apt_ostree_actors::coordinator::{CancelTransaction, Coordinator, ReadPlan, ReadRecord};
use apt_ostree_proto::dbus::ACTION_CANCEL;
use apt_ostree_proto::status::TransactionStatus;
use apt_ostree_proto::{ErrorCode, Failure};
use zbus::interface;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use super::activity::Activity;
use super::authority::Authority;
use super::error::Error;

/// One transaction's object.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) status: TransactionStatus,
    coordinator: Addr<Coordinator>,
    authority: Authority,
    activity: Activity,
}

impl Transaction {
    pub(super) fn new(
        status: TransactionStatus,
        coordinator: Addr<Coordinator>,
        authority: Authority,
        activity: Activity,
    ) -> Self {
        Self { status, coordinator, authority, activity }
    }
}

fn json<T: serde::Serialize>(value: Option<T>) -> Result<String, Error> {
    let text = value.map(|value| serde_json::to_string(&value)).transpose();
    text.map(Option::unwrap_or_default).map_err(|error| {
        Failure::caused(ErrorCode::Internal, "an answer cannot be written down", &error).into()
    })
}

#[interface(name = "org.aptostree1.Transaction")]
impl Transaction {
    /// Cancels it.
    async fn cancel(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        self.activity.note();
        self.authority.allow(&header, ACTION_CANCEL).await?;
        Ok(self.coordinator.send(CancelTransaction(self.status.id)).await??)
    }

    /// Its plan.
    async fn get_plan(&self) -> Result<String, Error> {
        self.activity.note();
        json(self.coordinator.send(ReadPlan(self.status.id)).await??)
    }

    /// Its record.
    async fn get_record(&self) -> Result<String, Error> {
        self.activity.note();
        match self.coordinator.send(ReadRecord(self.status.id)).await? {
            Ok((record, _)) => json(Some(record)),
            Err(failure) if failure.code == ErrorCode::NotFound => Ok(String::new()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// What was asked for.
    #[zbus(property(emits_changed_signal = "const"))]
    fn title(&self) -> &str {
        &self.status.title
    }

    /// `running`, `undoing` or `finished`.
    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.status.phase.state()
    }

    /// The step or the outcome.
    #[zbus(property)]
    fn status(&self) -> &'static str {
        self.status.phase.detail()
    }

    /// 0 to 100, or 101.
    #[zbus(property)]
    fn percentage(&self) -> u32 {
        self.status.percentage
    }

    /// Bytes a second.
    #[zbus(property(emits_changed_signal = "false"))]
    fn speed(&self) -> u64 {
        self.status.speed
    }

    /// Seconds.
    #[zbus(property(emits_changed_signal = "false"))]
    fn remaining_time(&self) -> u32 {
        u32::try_from(self.status.remaining_seconds).unwrap_or(u32::MAX)
    }

    /// Whether a cancel will be heard.
    #[zbus(property)]
    fn allow_cancel(&self) -> bool {
        self.status.cancellable
    }

    /// The state or the step changed.
    #[zbus(signal)]
    pub(super) async fn phase_changed(
        emitter: &SignalEmitter<'_>,
        state: &str,
        detail: &str,
    ) -> zbus::Result<()>;

    /// The whole transaction's progress.
    #[zbus(signal)]
    pub(super) async fn progress(
        emitter: &SignalEmitter<'_>,
        percentage: u32,
        speed: u64,
        remaining_time: u32,
    ) -> zbus::Result<()>;

    /// One package's or unit's progress.
    #[zbus(signal)]
    pub(super) async fn item_progress(
        emitter: &SignalEmitter<'_>,
        item: &str,
        status: &str,
        percentage: u32,
    ) -> zbus::Result<()>;

    /// A line for people.
    #[zbus(signal)]
    pub(super) async fn message(
        emitter: &SignalEmitter<'_>,
        level: &str,
        text: &str,
    ) -> zbus::Result<()>;

    /// It failed.
    #[zbus(signal)]
    pub(super) async fn error(
        emitter: &SignalEmitter<'_>,
        code: &str,
        message: &str,
        hint: &str,
    ) -> zbus::Result<()>;

    /// It ended.
    #[zbus(signal)]
    pub(super) async fn finished(
        emitter: &SignalEmitter<'_>,
        outcome: &str,
        exit_status: u32,
    ) -> zbus::Result<()>;
}
