//! What the manager answers about rollback points and differences.

use actix::Addr;
use apt_ostree_actors::coordinator::{
    Annotate, CompareStates, Coordinator, NamePoint, RemovePoint, TargetOfPoint,
};
use apt_ostree_proto::point::{Point, Reference};
use apt_ostree_proto::record::{HistoryEntry, HistoryRecord};
use apt_ostree_proto::request::{Caller, Target};
use apt_ostree_proto::{ErrorCode, Failure, PointName, TransactionId};

use super::error::Error;

/// Gives a state a name: what runs for 0, else what the transaction `id` led to.
pub(super) async fn name(
    coordinator: &Addr<Coordinator>,
    name: &str,
    id: u64,
    caller: Caller,
) -> Result<Point, Error> {
    let after = (id != 0).then_some(TransactionId(id));
    Ok(coordinator.send(NamePoint { name: parsed(name)?, after, caller }).await??)
}

/// Takes the name away.
pub(super) async fn remove(coordinator: &Addr<Coordinator>, name: &str) -> Result<(), Error> {
    Ok(coordinator.send(RemovePoint(parsed(name)?)).await??)
}

/// What a rollback to the point asks for.
pub(super) async fn target(coordinator: &Addr<Coordinator>, name: &str) -> Result<Target, Error> {
    Ok(coordinator.send(TargetOfPoint(parsed(name)?)).await??)
}

/// The record with what has become of its transaction since.
pub(super) async fn annotated(
    coordinator: &Addr<Coordinator>,
    record: HistoryRecord,
) -> Result<HistoryEntry, Error> {
    Ok(coordinator.send(Annotate(Box::new(record))).await??)
}

/// The two states that a caller wants to be compared.
pub(super) fn states(old: &str, new: &str) -> Result<CompareStates, Failure> {
    let state = |text: &str| text.parse::<Reference>().map_err(|error| invalid(&error));
    Ok(CompareStates { old: state(old)?, new: state(new)? })
}

pub(super) fn parsed(name: &str) -> Result<PointName, Failure> {
    PointName::parse(name).map_err(|error| invalid(&error))
}

fn invalid(error: &apt_ostree_proto::id::InvalidName) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, error.to_string())
}
