//! `org.aptostree1.Transaction`

use std::sync::{Mutex, MutexGuard, PoisonError};

use actix::Addr;
use apt_ostree_actors::coordinator::{
    CancelTransaction, ConfirmTransaction, Coordinator, ReadPlan, ReadRecord,
};
use apt_ostree_proto::dbus::{ACTION_CANCEL, ACTION_UPDATE};
use apt_ostree_proto::status::TransactionStatus;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use zbus::interface;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use super::activity::Activity;
use super::authority::Authority;
use super::error::Error;

/// One transaction's object.
#[derive(Debug)]
pub(super) struct Transaction {
    id: TransactionId,
    /// Changed behind a shared reference: a method that waits for polkit, and polkit for a person,
    /// holds the object for reading, and must not hold up what is told to everybody else.
    status: Mutex<TransactionStatus>,
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
        Self { id: status.id, status: Mutex::new(status), coordinator, authority, activity }
    }

    /// Changes what the properties show.
    pub(super) fn update(&self, change: impl FnOnce(&mut TransactionStatus)) {
        change(&mut self.shown());
    }

    fn shown(&self) -> MutexGuard<'_, TransactionStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
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
        Ok(self.coordinator.send(CancelTransaction(self.id)).await??)
    }

    /// Confirms it.
    async fn confirm(&self, #[zbus(header)] header: Header<'_>) -> Result<(), Error> {
        self.activity.note();
        let caller = self.authority.allow(&header, ACTION_UPDATE).await?;
        let request = ConfirmTransaction { id: Some(self.id), caller };
        Ok(self.coordinator.send(request).await?.map(drop)?)
    }

    /// Its plan.
    async fn get_plan(&self) -> Result<String, Error> {
        self.activity.note();
        json(self.coordinator.send(ReadPlan(self.id)).await??)
    }

    /// Its record.
    async fn get_record(&self) -> Result<String, Error> {
        self.activity.note();
        match self.coordinator.send(ReadRecord(self.id)).await? {
            Ok((record, _)) => json(Some(record)),
            Err(failure) if failure.code == ErrorCode::NotFound => Ok(String::new()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// What was asked for.
    #[zbus(property(emits_changed_signal = "const"))]
    fn title(&self) -> String {
        self.shown().title.clone()
    }

    /// `running`, `undoing` or `finished`.
    #[zbus(property)]
    fn state(&self) -> &'static str {
        self.shown().phase.state()
    }

    /// The step or the outcome.
    #[zbus(property)]
    fn status(&self) -> &'static str {
        self.shown().phase.detail()
    }

    /// 0 to 100, or 101.
    #[zbus(property)]
    fn percentage(&self) -> u32 {
        self.shown().percentage
    }

    /// Bytes a second.
    #[zbus(property(emits_changed_signal = "false"))]
    fn speed(&self) -> u64 {
        self.shown().speed
    }

    /// Seconds.
    #[zbus(property(emits_changed_signal = "false"))]
    fn remaining_time(&self) -> u32 {
        u32::try_from(self.shown().remaining_seconds).unwrap_or(u32::MAX)
    }

    /// Whether a cancel will be heard.
    #[zbus(property)]
    fn allow_cancel(&self) -> bool {
        self.shown().cancellable
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
