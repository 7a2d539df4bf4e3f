//! Proxies for Rust clients.

#![expect(
    missing_docs,
    reason = "zbus's macro writes constructors and listeners without documentation"
)]

use zbus::zvariant::OwnedObjectPath;

use super::Options;

/// The manager.
#[zbus::proxy(
    interface = "org.aptostree1.Manager",
    default_service = "org.aptostree1",
    default_path = "/org/aptostree1",
    gen_blocking = false
)]
pub trait Manager {
    /// Begins an update and answers its transaction at once. Options: `packages`, `install`,
    /// `remove` (`as`), `target` (`s`: a commit or `pending`), `plan` (`s`), `restart` (`s`:
    /// `as-packages-ask`, `affected`, `never`), `when` (`s`: `soonest`, `live`, `next-boot`),
    /// `force`, `refresh`, `dry-run` (`b`),
    /// `confirm-timeout` (`u`: seconds, 5 to 86400; 0 asks for no confirmation).
    fn apply_live(&self, options: &Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Fetches the package lists and makes the plan of a whole upgrade. Options: `refresh` (`b`).
    fn check(&self, options: &Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Begins the rollback of the transaction `id` and all later ones; 0 means the last. Options:
    /// `dry-run` (`b`); `point` (`s`), to go back to a named point instead, with `id` 0.
    fn rollback(&self, id: u64, options: &Options<'_>) -> zbus::Result<OwnedObjectPath>;

    /// Cancels the running transaction.
    fn cancel(&self) -> zbus::Result<()>;

    /// Confirms the update that waits for it: it is kept. Answers its transaction.
    fn confirm(&self) -> zbus::Result<OwnedObjectPath>;

    /// Takes up a transaction that ended stuck, and tries again to put it back.
    fn repair(&self) -> zbus::Result<OwnedObjectPath>;

    /// Gives the name to a state, which is kept from then on: to what runs for 0, else to what the
    /// transaction `id` led to. Answers the point as JSON. Idempotent.
    fn name_point(&self, name: &str, id: u64) -> zbus::Result<String>;

    /// Removes a point's name; the next update's clean-up frees what it kept.
    fn remove_point(&self, name: &str) -> zbus::Result<()>;

    /// What differs from one state to another, as JSON: packages, files, units; 10,000 files at the
    /// most, and how many there are. A state is `running`, `booted`, `next`, a transaction's number, a
    /// point's name, or a commit.
    fn diff(&self, old: &str, new: &str) -> zbus::Result<String>;
    /// Compares the host with its record and answers an [`Inspection`](crate::inspection::Inspection)
    /// as JSON. Changes nothing; ends early when its caller leaves the bus. Options: `files` (`b`,
    /// default true): whether the running tree is compared with its commit file by file, which reads
    /// all of it.
    fn verify(&self, options: &Options<'_>) -> zbus::Result<String>;

    /// Mends what `Verify` finds and can be mended, and answers a
    /// [`Mending`](crate::inspection::Mending) as JSON. What is stuck is `Repair`'s. Options: `dry-run`
    /// (`b`).
    fn mend(&self, options: &Options<'_>) -> zbus::Result<String>;

    /// What runs old code now, with reasons and what a restart would do, as JSON: an
    /// [`Outdated`](crate::outdated::Outdated). Changes nothing. No options yet.
    fn find_outdated(&self, options: &Options<'_>) -> zbus::Result<String>;

    /// Restarts the units that `FindOutdated` names, but for those that are left alone, and watches
    /// them for the dwell time; answers a [`Restarted`](crate::outdated::Restarted) as JSON. Ends early
    /// when its caller leaves the bus. No options yet.
    fn restart_outdated(&self, options: &Options<'_>) -> zbus::Result<String>;

    /// From here on sends its caller what the tools of every transaction print, as `Message` signals of
    /// the level `log`, until the caller leaves the bus; who begins a transaction gets its own without.
    /// Idempotent. A daemon that starts anew has to be asked anew.
    fn follow_log(&self) -> zbus::Result<()>;

    /// The host's state as JSON: what is booted, what runs, what boots next, what happens now.
    fn get_status(&self) -> zbus::Result<String>;

    /// The newest `limit` records of the history as a JSON list, newest first; 1,000 and 8 MiB at the most.
    fn get_history(&self, limit: u32) -> zbus::Result<String>;

    /// One finished transaction as JSON: its record and its log.
    fn get_record(&self, id: u64) -> zbus::Result<String>;

    /// A transaction began.
    #[zbus(signal)]
    fn transaction_added(&self, transaction: OwnedObjectPath) -> zbus::Result<()>;

    /// A transaction ended.
    #[zbus(signal)]
    fn transaction_removed(&self, transaction: OwnedObjectPath, outcome: &str) -> zbus::Result<()>;

    /// What an update leads to has changed: a plan was made, or an update was applied or undone.
    #[zbus(signal)]
    fn updates_changed(&self) -> zbus::Result<()>;

    /// The daemon's version.
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;

    /// The running transaction's object, or `/`.
    #[zbus(property)]
    fn active_transaction(&self) -> zbus::Result<OwnedObjectPath>;

    /// The commit of the booted deployment.
    #[zbus(property(emits_changed_signal = "false"))]
    fn booted_commit(&self) -> zbus::Result<String>;

    /// The commit that runs.
    #[zbus(property(emits_changed_signal = "false"))]
    fn running_commit(&self) -> zbus::Result<String>;
}

/// One transaction. The object stays for as long as the daemon runs.
#[zbus::proxy(
    interface = "org.aptostree1.Transaction",
    default_service = "org.aptostree1",
    gen_blocking = false
)]
pub trait Transaction {
    /// Cancels it.
    fn cancel(&self) -> zbus::Result<()>;

    /// Confirms it, while it waits for that: it is kept.
    fn confirm(&self) -> zbus::Result<()>;

    /// Its plan as JSON, once there is one; the empty text before.
    fn get_plan(&self) -> zbus::Result<String>;

    /// Its record as JSON, once it has ended; the empty text before.
    fn get_record(&self) -> zbus::Result<String>;

    /// What was asked for, in one line.
    #[zbus(property)]
    fn title(&self) -> zbus::Result<String>;

    /// `running`, `undoing` or `finished`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;

    /// The step that runs or is undone; the outcome once it has ended.
    #[zbus(property)]
    fn status(&self) -> zbus::Result<String>;

    /// 0 to 100 over the whole transaction, never falling; 101 when unknown.
    #[zbus(property)]
    fn percentage(&self) -> zbus::Result<u32>;

    /// Bytes a second while downloading.
    #[zbus(property)]
    fn speed(&self) -> zbus::Result<u64>;

    /// Seconds until the download is complete, or, in the step `confirm`, until the update is put
    /// back; 0 when unknown.
    #[zbus(property)]
    fn remaining_time(&self) -> zbus::Result<u32>;

    /// Whether a cancel will still be heard.
    #[zbus(property)]
    fn allow_cancel(&self) -> zbus::Result<bool>;

    /// The state or the step changed: `running`, `undoing` or `finished`, and the step or outcome.
    #[zbus(signal)]
    fn phase_changed(&self, state: &str, detail: &str) -> zbus::Result<()>;

    /// The whole transaction's progress.
    #[zbus(signal)]
    fn progress(&self, percentage: u32, speed: u64, remaining_time: u32) -> zbus::Result<()>;

    /// One package's or unit's progress.
    #[zbus(signal)]
    fn item_progress(&self, item: &str, status: &str, percentage: u32) -> zbus::Result<()>;

    /// A line of a tool's output (`log`: see `FollowLog`), or something to know (`info`) or to act on
    /// (`warning`).
    #[zbus(signal)]
    fn message(&self, level: &str, text: &str) -> zbus::Result<()>;

    /// It failed: the code, what happened, what to do.
    #[zbus(signal)]
    fn error(&self, code: &str, message: &str, hint: &str) -> zbus::Result<()>;

    /// It ended: the outcome, and the exit status that the CLI gives.
    #[zbus(signal)]
    fn finished(&self, outcome: &str, exit_status: u32) -> zbus::Result<()>;
}
