use std::cell::Cell;
use std::rc::Rc;

use tokio_util::sync::CancellationToken;

use crate::saga::Abort;

/// Has a running transaction unwind, and says why: the first who asks has the word.
#[derive(Clone, Debug, Default)]
pub(super) struct Interruption {
    token: CancellationToken,
    why: Rc<Cell<Option<Abort>>>,
}

impl Interruption {
    /// What a step listens to.
    pub(super) fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Asks for it. Idempotent.
    pub(super) fn trip(&self, why: Abort) {
        self.why.set(self.why.get().or(Some(why)));
        self.token.cancel();
    }

    /// Has the running step stop, for its time is up. What failed is the step, nobody's request.
    pub(super) fn expire(&self) {
        self.token.cancel();
    }

    /// Why it was asked for, if it was.
    pub(super) fn tripped(&self) -> Option<Abort> {
        self.why.get()
    }
}
