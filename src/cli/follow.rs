//! Waits for a transaction's end and hands on what it tells meanwhile.

use std::time::Duration;

use anyhow::{Context as _, bail};
use apt_ostree_proto::dbus::{BUS_NAME, TRANSACTION_PATH, TransactionProxy, transaction_of_path};
use apt_ostree_proto::record::FinishedTransaction;
use apt_ostree_proto::status::{HostState, Outcome};
use apt_ostree_proto::step::Step;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use zbus::message::{Sequence, Type};
use zbus::zvariant::OwnedObjectPath;
use zbus::{Connection, MatchRule, Message, MessageStream};

use super::connect::{explain, manager_on, read as understood};

/// How many signals are kept for a client that is slow to read them; more than any transaction sends
/// in the time that a terminal takes to draw.
const QUEUE: usize = 4_096;

/// What a transaction tells.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Told {
    /// State and step or outcome.
    Phase { state: String, detail: String },
    /// Percentage, bytes a second, seconds.
    Progress { percentage: u32, speed: u64, remaining_seconds: u32 },
    /// An item, what happens to it, percentage.
    Item { item: String, status: String, percentage: u32 },
    /// Level and text.
    Message { level: String, text: String },
    /// Code, message, hint.
    Error { code: String, message: String, hint: String },
    /// Outcome.
    Finished { outcome: String },
}

/// The signals of all transactions, from before one is begun, so that none is missed.
pub(super) struct Signals {
    stream: MessageStream,
}

impl Signals {
    pub(super) async fn subscribe(bus: &Connection) -> anyhow::Result<Self> {
        let rule = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(BUS_NAME)?
            .path_namespace(TRANSACTION_PATH)?
            .build();
        let stream = MessageStream::for_match_rule(rule, bus, Some(QUEUE))
            .await
            .context("cannot listen to the daemon")?;
        Ok(Self { stream })
    }

    /// What comes next, from whichever transaction.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<(String, Told)>> {
        Ok(self.next_in_place().await?.map(|(_, path, told)| (path, told)))
    }

    /// The same, with its place among all that the bus delivers.
    async fn next_in_place(&mut self) -> anyhow::Result<Option<(Sequence, String, Told)>> {
        while let Some(message) = self.stream.next().await {
            let message = message.context("the bus was lost")?;
            if let Some((path, told)) = read(&message)? {
                return Ok(Some((message.recv_position(), path, told)));
            }
        }
        Ok(None)
    }

    /// Hands on what `transaction` tells until it ends. A daemon that dies in the middle ends this
    /// with an error: its successor puts the host in order. Not while the transaction waits for its
    /// confirmation: the successor does so, too.
    pub(super) async fn follow(
        &mut self,
        bus: &Connection,
        transaction: &OwnedObjectPath,
        mut hear: impl FnMut(&Told),
    ) -> anyhow::Result<Outcome> {
        let mut owner = owner_changes(bus).await?;
        let mut waits = false;
        let mut waited_until: Option<Sequence> = None;
        loop {
            let next = tokio::select! {
                biased;
                next = self.next_in_place() => next?,
                lost = owner.next() => match lost {
                    // Read late: a later daemon has spoken of the transaction since.
                    Some(place) if waited_until.is_some_and(|until| place < until) => continue,
                    Some(_) if waits => {
                        let found = after_its_daemon(bus, transaction).await.context(
                            "the daemon went away while the update waits for its confirmation: see \
                             apt-ostree status",
                        )?;
                        match found {
                            Some(outcome) => return Ok(outcome),
                            None => continue,
                        }
                    }
                    Some(_) => bail!(
                        "the daemon went away in the middle; it puts the host in order when it \
                         starts again: see apt-ostree status"
                    ),
                    None => None,
                },
            };
            let Some((place, path, told)) = next else { bail!("the bus was lost") };
            if path != transaction.as_str() {
                continue;
            }
            hear(&told);
            if waits {
                waited_until = Some(place);
            }
            if let Told::Phase { state, detail } = &told {
                waits = state == "running" && detail == Step::Confirm.name();
            }
            if let Told::Finished { outcome } = &told {
                return Outcome::parse(outcome)
                    .with_context(|| format!("the daemon speaks of an outcome \"{outcome}\""));
            }
        }
    }
}

/// How long the next daemon is given to come by itself. A call starts it, and would call off the stop of
/// the one before that somebody is waiting for.
const BEFORE_THE_NEXT_DAEMON: Duration = Duration::from_secs(2);

/// How a transaction ended whose daemon went away while it waited; `None` when it waits on.
async fn after_its_daemon(
    bus: &Connection,
    transaction: &OwnedObjectPath,
) -> anyhow::Result<Option<Outcome>> {
    tokio::time::sleep(BEFORE_THE_NEXT_DAEMON).await;
    // The call has the next daemon started, if nobody else does.
    let text = manager_on(bus).await?.get_status().await.map_err(explain)?;
    let state: HostState = understood(&text)?;
    let running = state.transaction.map(|running| running.id);
    if running.is_some() && running == transaction_of_path(transaction) {
        return Ok(None);
    }
    Ok(Some(recorded(bus, transaction).await?.entry.record.outcome))
}

/// A transaction that has ended, as the history has it.
pub(super) async fn recorded(
    bus: &Connection,
    transaction: &OwnedObjectPath,
) -> anyhow::Result<FinishedTransaction> {
    let id = transaction_of_path(transaction).context("the daemon speaks of no transaction")?;
    let text = manager_on(bus).await?.get_record(id.0).await.map_err(explain)?;
    understood(&text)
}

/// One item each time the daemon loses its name: the message's place among all that the bus delivers.
async fn owner_changes(bus: &Connection) -> anyhow::Result<impl Stream<Item = Sequence> + Unpin> {
    let dbus = zbus::fdo::DBusProxy::new(bus).await?;
    let changes = dbus.receive_name_owner_changed_with_args(&[(0, BUS_NAME)]).await?;
    Ok(Box::pin(changes.filter_map(|signal| async move {
        let arguments = signal.args().ok()?;
        let (was_owned, is_owned) =
            (arguments.old_owner().is_some(), arguments.new_owner().is_some());
        (was_owned && !is_owned).then(|| signal.message().recv_position())
    })))
}

/// Reads one signal; another interface's is none of ours.
fn read(message: &Message) -> anyhow::Result<Option<(String, Told)>> {
    let header = message.header();
    let (Some(path), Some(member)) = (header.path(), header.member()) else { return Ok(None) };
    let body = message.body();
    let told = match member.as_str() {
        "PhaseChanged" => {
            let (state, detail) = body.deserialize()?;
            Told::Phase { state, detail }
        }
        "Progress" => {
            let (percentage, speed, remaining_seconds) = body.deserialize()?;
            Told::Progress { percentage, speed, remaining_seconds }
        }
        "ItemProgress" => {
            let (item, status, percentage) = body.deserialize()?;
            Told::Item { item, status, percentage }
        }
        "Message" => {
            let (level, text) = body.deserialize()?;
            Told::Message { level, text }
        }
        "Error" => {
            let (code, message, hint) = body.deserialize()?;
            Told::Error { code, message, hint }
        }
        "Finished" => {
            let (outcome, _): (String, u32) = body.deserialize()?;
            Told::Finished { outcome }
        }
        _ => return Ok(None),
    };
    Ok(Some((path.to_string(), told)))
}

/// The proxy of one transaction.
pub(super) async fn transaction(
    bus: &Connection,
    path: &OwnedObjectPath,
) -> anyhow::Result<TransactionProxy<'static>> {
    TransactionProxy::builder(bus)
        .path(path.clone())?
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .context("cannot speak with the transaction")
}
