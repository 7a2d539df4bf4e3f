//! The coordinator's events, as signals and properties.

use apt_ostree_proto::TransactionId;
use apt_ostree_proto::dbus::{MANAGER_PATH, transaction_path};
use apt_ostree_proto::event::{Event, MessageLevel};
use apt_ostree_proto::status::{Outcome, Phase};
use apt_ostree_proto::step::Step;
use tokio::sync::mpsc::UnboundedReceiver;
use zbus::Connection;
use zbus::object_server::{InterfaceRef, SignalEmitter};
use zbus::zvariant::OwnedObjectPath;

use super::activity::Activity;
use super::manager::Manager;
use super::objects::Objects;
use super::transaction::Transaction;

/// How many ended transactions keep their object, so that a client that looks late finds it.
const KEPT_OBJECTS: usize = 32;

/// Publishes events. A subscriber that does not read delays nobody: the bus queues for it.
#[derive(Debug)]
pub(super) struct Relay {
    connection: Connection,
    activity: Activity,
    objects: Objects,
    known: Vec<TransactionId>,
}

impl Relay {
    pub(super) fn new(connection: Connection, activity: Activity, objects: Objects) -> Self {
        Self { connection, activity, objects, known: Vec::new() }
    }

    pub(super) async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        while let Some(event) = events.recv().await {
            self.activity.note();
            if let Err(error) = self.publish(event).await {
                tracing::warn!(%error, "an event could not be published");
            }
        }
    }

    async fn publish(&mut self, event: Event) -> zbus::Result<()> {
        let object = self.object(event.transaction()).await?;
        let emitter = object.signal_emitter().clone();
        match event {
            Event::PhaseChanged { phase, .. } => enter(&object, &emitter, phase).await,
            Event::Progress { percentage, speed, remaining_seconds, .. } => {
                let remaining = u32::try_from(remaining_seconds).unwrap_or(u32::MAX);
                {
                    let transaction = object.get().await;
                    transaction.update(|status| {
                        status.percentage = percentage;
                        status.speed = speed;
                        status.remaining_seconds = remaining_seconds;
                    });
                    transaction.percentage_changed(&emitter).await?;
                }
                Transaction::progress(&emitter, percentage, speed, remaining).await
            }
            Event::Item { item, status, percentage, .. } => {
                Transaction::item_progress(&emitter, &item, &status, percentage).await
            }
            // What scripts print may be confidential.
            Event::Message { id, level: level @ MessageLevel::Log, text } => {
                for client in self.objects.listeners.to(id) {
                    let emitter = match client {
                        Some(name) => emitter.clone().set_destination(name.into()),
                        None => emitter.clone(),
                    };
                    Transaction::message(&emitter, level_name(level), &text).await?;
                }
                Ok(())
            }
            Event::Message { level, text, .. } => {
                Transaction::message(&emitter, level_name(level), &text).await
            }
            Event::Failed { failure, .. } => {
                let code = failure.code.name();
                Transaction::error(&emitter, code, &failure.message, &failure.hint).await?;
                object.get().await.update(|status| status.failure = Some(failure));
                Ok(())
            }
            Event::Finished { id, outcome } => {
                let exit_status = u32::from(outcome.exit_status());
                Transaction::finished(&emitter, outcome.name(), exit_status).await?;
                self.ended(id, outcome).await
            }
        }
    }

    async fn ended(&mut self, id: TransactionId, outcome: Outcome) -> zbus::Result<()> {
        self.objects.listeners.ended(id);
        let manager = SignalEmitter::new(&self.connection, MANAGER_PATH)?;
        let path = OwnedObjectPath::try_from(transaction_path(id))?;
        Manager::transaction_removed(&manager, path, outcome.name()).await?;
        let object = self.connection.object_server().interface::<_, Manager>(MANAGER_PATH).await?;
        object.get().await.active_transaction_changed(&manager).await?;
        Manager::updates_changed(&manager).await
    }

    /// The transaction's object; the oldest object goes when there are too many.
    async fn object(&mut self, id: TransactionId) -> zbus::Result<InterfaceRef<Transaction>> {
        let object = self.objects.get(id).await?;
        if self.known.last() != Some(&id) {
            self.known.push(id);
            if self.known.len() > KEPT_OBJECTS {
                let oldest = self.known.remove(0);
                self.objects.remove(oldest).await?;
            }
        }
        Ok(object)
    }
}

async fn enter(
    object: &InterfaceRef<Transaction>,
    emitter: &SignalEmitter<'_>,
    phase: Phase,
) -> zbus::Result<()> {
    {
        let transaction = object.get().await;
        transaction.update(|status| {
            status.phase = phase;
            status.cancellable = matches!(phase, Phase::Running(step) if step < Step::Deploy);
        });
        transaction.state_changed(emitter).await?;
        transaction.status_changed(emitter).await?;
        transaction.allow_cancel_changed(emitter).await?;
    }
    Transaction::phase_changed(emitter, phase.state(), phase.detail()).await
}

fn level_name(level: MessageLevel) -> &'static str {
    match level {
        MessageLevel::Log => "log",
        MessageLevel::Info => "info",
        MessageLevel::Warning => "warning",
    }
}
