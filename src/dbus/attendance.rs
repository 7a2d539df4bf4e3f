//! Work that a caller waits for: it keeps the daemon from leaving as idle, and ends when the caller leaves
//! the bus.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;
use zbus::Connection;
use zbus::fdo::DBusProxy;
use zbus::message::Header;
use zbus::names::UniqueName;

use super::objects::Objects;

/// How often the daemon is told that it is of use; shorter than any idle time.
const PULSE: Duration = Duration::from_secs(1);

/// Waits for `work`, which hears `cancel`. It trips when the caller leaves, and when nobody waits for
/// this any more.
pub(super) async fn attend<T>(
    objects: &Objects,
    header: &Header<'_>,
    cancel: CancellationToken,
    work: impl Future<Output = T>,
) -> T {
    let _guard = cancel.clone().drop_guard();
    let caller = header.sender().map(UniqueName::to_owned);
    let left = left(&objects.connection, caller);
    tokio::pin!(work, left);
    let mut has_left = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut work => return answer,
            () = &mut left, if !has_left => {
                has_left = true;
                cancel.cancel();
            }
            () = tokio::time::sleep(PULSE) => objects.activity.note(),
        }
    }
}

/// Returns once the caller has left the bus. A connection without a bus has no callers that leave.
pub(super) async fn left(connection: &Connection, caller: Option<UniqueName<'static>>) {
    let Some(caller) = caller else { return std::future::pending().await };
    if let Err(error) = wait_for_departure(connection, &caller).await {
        tracing::warn!(%error, "whether a caller leaves cannot be told");
        std::future::pending::<()>().await;
    }
}

async fn wait_for_departure(
    connection: &Connection,
    caller: &UniqueName<'static>,
) -> zbus::Result<()> {
    let bus = DBusProxy::new(connection).await?;
    let mut changes = bus.receive_name_owner_changed_with_args(&[(0, caller.as_str())]).await?;
    // It may have left before anybody listened.
    if !bus.name_has_owner(caller.clone().into()).await? {
        return Ok(());
    }
    while let Some(change) = changes.next().await {
        if change.args()?.new_owner().is_none() {
            return Ok(());
        }
    }
    std::future::pending().await
}
