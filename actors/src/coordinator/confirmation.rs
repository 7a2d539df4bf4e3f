//! An applied update that waits for somebody to confirm it: who asks, who waits, and how they meet.

use std::cell::RefCell;
use std::rc::Rc;

use actix::{Handler, Message, ResponseFuture};
use apt_ostree_proto::request::{Caller, Target, When};
use apt_ostree_proto::status::Phase;
use apt_ostree_proto::{ErrorCode, Failure, TransactionId};
use tokio::sync::{Notify, oneshot};

use super::{BeginTransaction, Coordinator, Running, Settings, told};
use crate::saga::Abort;

/// What a transaction that waits and whoever confirms it share.
#[derive(Clone, Debug, Default)]
pub(super) struct Confirmation(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    window: RefCell<Window>,
    asked: Notify,
}

#[derive(Debug, Default)]
enum Window {
    /// Nothing waits.
    #[default]
    Closed,
    /// It waits; who has confirmed meanwhile is to be told when that cannot be lost any more.
    Open(Vec<oneshot::Sender<()>>),
    /// It is left as it stands to the next daemon.
    HandedOver,
}

impl Confirmation {
    /// The wait begins.
    pub(super) fn open(&self) {
        self.0.window.replace(Window::Open(Vec::new()));
    }

    /// Whether it waits, and nobody has confirmed it yet.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(&*self.0.window.borrow(), Window::Open(asked) if asked.is_empty())
    }

    /// Whether somebody has confirmed it, and it is about to be kept.
    pub(super) fn is_asked(&self) -> bool {
        matches!(&*self.0.window.borrow(), Window::Open(asked) if !asked.is_empty())
    }

    /// Confirms; what is answered comes when it cannot be lost any more, or never when it was too
    /// late. `None` when nothing waits.
    fn ask(&self) -> Option<oneshot::Receiver<()>> {
        let mut window = self.0.window.borrow_mut();
        let Window::Open(asked) = &mut *window else { return None };
        let (answer, answered) = oneshot::channel();
        asked.push(answer);
        self.0.asked.notify_one();
        Some(answered)
    }

    /// Returns once somebody has confirmed.
    pub(super) async fn asked(&self) {
        while !self.is_asked() {
            self.0.asked.notified().await;
        }
    }

    /// The wait is over, and who has confirmed is told so if `heard`.
    pub(super) fn close(&self, heard: bool) {
        if let Window::Open(asked) = self.0.window.take()
            && heard
        {
            for answer in asked {
                if answer.send(()).is_err() {
                    tracing::debug!(
                        "who confirmed went away meanwhile, and has confirmed all the same"
                    );
                }
            }
        }
    }

    /// Leaves a wait that nobody has ended to the next daemon; answers whether there is one.
    pub(super) fn hand_over(&self) -> bool {
        if self.is_awaited() {
            self.0.window.replace(Window::HandedOver);
        }
        self.is_handed_over()
    }

    /// Whether the next daemon has to go on with it.
    pub(super) fn is_handed_over(&self) -> bool {
        matches!(&*self.0.window.borrow(), Window::HandedOver)
    }
}

/// For how many seconds the update that is asked for waits for its confirmation, if for any. A
/// rollback waits only where that is asked for: it is what a host is rescued with.
pub(super) fn timeout_of(begin: &BeginTransaction, settings: &Settings) -> Option<u32> {
    if begin.request.when == When::NextBoot {
        return None;
    }
    let of_host = || {
        let is_rollback = matches!(begin.request.target, Target::Before(_));
        let timeout = settings.confirm_timeout.filter(|_| !is_rollback)?;
        u32::try_from(timeout.as_secs()).ok()
    };
    let asked =
        if begin.dry_run { None } else { begin.request.confirm_timeout_seconds.or_else(of_host) };
    asked.filter(|seconds| *seconds != 0)
}

/// Request: keep the update that waits for its confirmation. Answers which it is once that cannot be
/// lost any more. `NotFound` when none waits, or not that one; `TooLate` when it is put back already.
#[derive(Clone, Debug, Message)]
#[rtype(result = "Result<TransactionId, Failure>")]
pub struct ConfirmTransaction {
    /// The transaction; none for whichever waits.
    pub id: Option<TransactionId>,
    /// Who confirms.
    pub caller: Caller,
}

impl Handler<ConfirmTransaction> for Coordinator {
    type Result = ResponseFuture<Result<TransactionId, Failure>>;

    fn handle(&mut self, request: ConfirmTransaction, _: &mut Self::Context) -> Self::Result {
        let asked = self.ask_to_confirm(request.id);
        Box::pin(async move {
            let (id, answered) = asked?;
            answered.await.map_err(|_| too_late(id))?;
            told::confirmed(id, &request.caller);
            Ok(id)
        })
    }
}

impl Coordinator {
    fn ask_to_confirm(
        &self,
        id: Option<TransactionId>,
    ) -> Result<(TransactionId, oneshot::Receiver<()>), Failure> {
        let running = self.running.as_ref().filter(|running| id.is_none_or(|id| running.id == id));
        if let Some(running) = running {
            running.refuse_if_handed_over()?;
            // Who cancelled it first was told that it is put back.
            if running.interruption.tripped().is_some() {
                return Err(too_late(running.id));
            }
        }
        let asked = running.and_then(|running| Some((running.id, running.confirmation.ask()?)));
        asked.ok_or_else(|| {
            let text = match id {
                Some(id) => format!("transaction {id} does not wait for a confirmation"),
                None => "no update waits for a confirmation".to_owned(),
            };
            Failure::new(ErrorCode::NotFound, text)
        })
    }
}

fn too_late(id: TransactionId) -> Failure {
    Failure::new(ErrorCode::TooLate, format!("transaction {id} is being put back already"))
        .with_hint("Apply the update again, and confirm it in time.")
}

impl Running {
    /// What is left to the next daemon is asked of the next daemon.
    pub(super) fn refuse_if_handed_over(&self) -> Result<(), Failure> {
        if self.confirmation.is_handed_over() {
            let text = "the daemon is about to stop";
            return Err(Failure::new(ErrorCode::Busy, text).with_hint("Try again at once."));
        }
        Ok(())
    }

    /// Says that nothing else can be done for now, and until when.
    pub(super) fn busy(&self) -> Failure {
        let status = self.status.borrow();
        let (id, title) = (self.id, &status.title);
        match status.confirmation {
            None => Failure::new(ErrorCode::Busy, format!("transaction {id} runs: {title}")),
            Some(awaited) => {
                let left = awaited.remaining_seconds;
                let text =
                    format!("transaction {id} waits {left} s more for its confirmation: {title}");
                Failure::new(ErrorCode::Busy, text).with_hint(
                    "Keep it (apt-ostree confirm) or put it back (apt-ostree cancel), then try again.",
                )
            }
        }
    }
}

/// Request: put back what waits for its confirmation, for this daemon cannot take one. Answered when
/// that is done.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct EndWaiting;

impl Handler<EndWaiting> for Coordinator {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: EndWaiting, _: &mut Self::Context) -> Self::Result {
        let waiting = self.running.as_ref().map(|running| {
            running.interruption.trip(Abort::Interrupted);
            running.status.clone()
        });
        Box::pin(async move {
            if let Some(mut status) = waiting {
                // An error means that the drive is gone: there is nothing to wait for.
                drop(status.wait_for(|status| matches!(status.phase, Phase::Finished(_))).await);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn who_confirms_is_answered_when_it_cannot_be_lost_any_more() {
        let confirmation = Confirmation::default();
        assert!(confirmation.ask().is_none() && !confirmation.is_awaited());
        confirmation.open();
        assert!(confirmation.is_awaited());
        assert!(confirmation.asked().now_or_never().is_none());
        let mut first = confirmation.ask().unwrap();
        let second = confirmation.ask().unwrap();
        confirmation.asked().await;
        assert!(!confirmation.is_awaited() && first.try_recv().is_err());
        confirmation.close(true);
        first.await.unwrap();
        second.await.unwrap();
        assert!(confirmation.ask().is_none());
    }

    #[tokio::test]
    async fn who_confirms_too_late_hears_that() {
        let confirmation = Confirmation::default();
        confirmation.open();
        let late = confirmation.ask().unwrap();
        confirmation.close(false);
        assert!(late.await.is_err());
    }

    #[test]
    fn only_a_wait_that_nobody_has_ended_is_handed_over() {
        let confirmation = Confirmation::default();
        assert!(!confirmation.hand_over());
        confirmation.open();
        let asked = confirmation.ask();
        assert!(asked.is_some() && !confirmation.hand_over());
        confirmation.close(true);
        confirmation.open();
        assert!(confirmation.hand_over() && confirmation.hand_over());
        assert!(confirmation.ask().is_none() && !confirmation.is_awaited());
    }
}
