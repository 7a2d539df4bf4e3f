//! What the overlay actor does for rollback points: commits are held, let go of, and compared.

use std::rc::Rc;

use actix::{Handler, Message, ResponseFuture};
use apt_ostree_proto::difference::TreeDifference;
use apt_ostree_proto::{CommitId, PointName};

use super::OverlayActor;
use crate::context::StepContext;
use crate::port::PortResult;

/// Request: hold a commit under a point's name. Idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct HoldPoint {
    /// The name.
    pub name: PointName,
    /// The commit.
    pub commit: CommitId,
}

impl Handler<HoldPoint> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: HoldPoint, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.hold(&request.name, &request.commit).await })
    }
}

/// Request: let go of what is held under a point's name. Idempotent.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct ReleasePoint(pub PointName);

impl Handler<ReleasePoint> for OverlayActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: ReleasePoint, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.release(&request.0).await })
    }
}

/// Request: the files and units that differ between two commits' trees.
#[derive(Clone, Debug, Message)]
#[rtype(result = "PortResult<TreeDifference>")]
pub struct CompareTrees {
    /// The one.
    pub old: CommitId,
    /// The other.
    pub new: CommitId,
    /// How it is cancelled.
    pub context: StepContext,
}

impl Handler<CompareTrees> for OverlayActor {
    type Result = ResponseFuture<PortResult<TreeDifference>>;

    fn handle(&mut self, request: CompareTrees, _: &mut Self::Context) -> Self::Result {
        let tree = Rc::clone(&self.tree);
        Box::pin(async move { tree.difference(&request.old, &request.new, &request.context).await })
    }
}
