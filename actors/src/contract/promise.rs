use std::fmt;

macro_rules! promises {
    ($($promise:ident => $text:literal,)*) => {
        /// What a call of a port promises, beyond what its answer says.
        #[expect(missing_docs, reason = "each stands for its text")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Promise {
            $($promise,)*
        }

        impl Promise {
            /// All of them, by port.
            pub const ALL: &[Self] = &[$(Self::$promise,)*];

            /// The call, and what it promises.
            pub fn text(self) -> &'static str {
                match self { $(Self::$promise => $text,)* }
            }
        }
    };
}

promises! {
    StackIsLook => "mounts.stack: it has the mounts that a look shows",
    MountsPrepareHelpers => "mounts.prepare: the transaction has helpers afterwards",
    MountsPrepareOnly => "mounts.prepare: what is mounted stays",
    MountsPrepareTwice => "mounts.prepare: a second call changes nothing",
    SwitchOnTop => "mounts.switch: the tree is on top, read-only, a mount of its own",
    SwitchCovers => "mounts.switch: what was mounted is below it",
    SwitchTwice => "mounts.switch: a second call changes nothing",
    UnswitchUncovers => "mounts.unswitch: the tree is off if it was on top, and nothing else is",
    UnswitchTwice => "mounts.unswitch: a second call changes nothing",
    GuardHelpers => "mounts.guard_until: the transaction has helpers afterwards",
    GuardOnly => "mounts.guard_until: what is mounted stays",
    GuardTwice => "mounts.guard_until: a second call changes nothing",
    StandDownOnly => "mounts.stand_down: what is mounted stays",
    StandDownTwice => "mounts.stand_down: a second call changes nothing",
    AbandonHelpers => "mounts.abandon: the transaction has no helpers afterwards",
    AbandonOnly => "mounts.abandon: what is mounted stays",
    AbandonTwice => "mounts.abandon: a second call changes nothing",
    CollapseTop => "mounts.collapse: what was on top is, and alone if the transaction had helpers",
    CollapseHelpers => "mounts.collapse: the transaction has no helpers but for a guard",
    CollapseTwice => "mounts.collapse: a second call changes nothing",
    MountsLookTwice => "mounts.look: a second one shows the same",
    ProtectReadOnly => "mounts.protect: the top mount is read-only",
    ProtectTwice => "mounts.protect: a second call changes nothing",

    FilesPrepareOnly => "files.prepare: every file is still what it is expected to be before",
    FilesPrepareTwice => "files.prepare: a second call answers the same and changes nothing",
    ApplyReaches => "files.apply: every file is what it is to be after, but for those it names",
    ApplyTwice => "files.apply: a second call answers the same and changes nothing",
    RevertReaches => "files.revert: every file is what it was before, but for those it names",
    RevertTwice => "files.revert: a second call answers the same and changes nothing",
    LogsTwice => "files.append_logs: a second call is as good as one",
    DiscardOnly => "files.discard: live files stay",
    DiscardTwice => "files.discard: a second call changes nothing",
    AdviceTwice => "files.advise_reboot: idempotent, and changes no tree",
    IdentifyEach => "files.identify: one answer for each path, the same when asked again",

    StateTwice => "tree.state: the same when asked again",
    FindTargetNamed => "tree.find_target: the commit that was named, the same when asked again",
    TreePrepareTwice => "tree.prepare: a second call is as good as one",
    StageThere => "tree.stage: the transaction has a staging area, the host shows what it showed",
    StageTwice => "tree.stage: a second call is as good as one",
    DropStageGone => "tree.drop_stage: the transaction has no staging area",
    DropStageTwice => "tree.drop_stage: a second call changes nothing",
    CommitThere => "tree.commit: the commit is whole, named by the transaction's ref, checked out",
    CommitOnly => "tree.commit: what runs and what boots stays",
    CommitTwice => "tree.commit: a second call answers the same and changes nothing",
    CheckOutThere => "tree.check_out: the commit is whole and named by the transaction's ref",
    CheckOutOnly => "tree.check_out: what runs and what boots stays",
    CheckOutTwice => "tree.check_out: a second call answers the same and changes nothing",
    DropCommitGone => "tree.drop_commit: the transaction has neither ref nor checkout",
    DropCommitTwice => "tree.drop_commit: a second call changes nothing",
    DeployNext => "tree.deploy: the commit boots next, by a plain deployment; what runs stays",
    DeployTwice => "tree.deploy: a second call changes nothing",
    IsDeployedNext => "tree.is_deployed: true of what the state says to boot next, and of nothing else",
    UndeployGone => "tree.undeploy: we have no deployment of the commit that is not booted",
    UndeployTwice => "tree.undeploy: a second call changes nothing",
    StageDeploymentNext => "tree.stage_deployment: the commit boots next; what runs stays",
    StageDeploymentTwice => "tree.stage_deployment: a second call changes nothing",
    CleanUpKeeps => "tree.clean_up: what runs, is booted, boots next and can be undone to is whole",
    CleanUpTwice => "tree.clean_up: a second call answers the same and changes nothing",
    HoldTwice => "tree.hold: a second call changes nothing",
    ReleaseTwice => "tree.release: a second call changes nothing",
    TreeDifferenceTwice => "tree.difference: the same when asked again",
    TreeLookTwice => "tree.look: a second one shows the same",
    CompareTwice => "tree.compare: the same when asked again",
    RestoreRefThere => "tree.restore_ref: the transaction's ref names the commit",
    RestoreRefTwice => "tree.restore_ref: a second call changes nothing",

    RefreshOnly => "packages.refresh: the installed packages stay",
    ResolveTwice => "packages.resolve: the same when asked again",
    PackagesDifferenceTwice => "packages.difference: the same when asked again",
    ImpactTwice => "packages.impact: the same files and space when asked again",
    LockTwice => "packages.lock_archives: a second call is as good as one",
    UnlockTwice => "packages.unlock_archives: a second call is as good as one",
    InstalledTwice => "packages.installed: the same when asked again",
    ServicesWithAsked => "packages.services_with: of the files that were asked for, the same when asked again",
    InstalledFollows => "packages.installed: what the tree that was switched to was made of",

    InspectTwice => "archive.inspect: the same when asked again",
    OpenBegins => "http.open: the body begins where it was asked to, or anew",
    InstallOnly => "sandbox.install: what runs and what is installed on the host stays",
    TestOnly => "sandbox.test: what runs and what is installed on the host stays",
    KillTwice => "sandbox.kill: a second call is as good as one",
    UsageAsked => "systemd.usage: only of units that were asked for",
    HooksOrder => "checks.hooks: those of the kind that was asked for, by name",
    HooksTwice => "checks.hooks: the same when asked again",
    EndChecksTwice => "checks.end: a second call is as good as one",
    UsersAsked => "processes.users_of: every use is one of a file that was asked for",
    OutdatedWhole => "processes.outdated: every path is absolute; a unit is told of the host's own processes",
    OwnMountsBelow => "processes.own_mounts: every mount is below /usr",

    StatesEach => "systemd.states: one answer for each unit",
    DependenciesTwice => "systemd.dependencies: one answer for each unit, the same when asked again",
    ReadsTwice => "systemd.reads: of services that were asked for, the same when asked again",
    ForbiddenTwice => "systemd.forbidden_by_policy: the same when asked again",
    StartTwice => "systemd.start: a unit that is up keeps its process",
    StopDown => "systemd.stop: a unit whose job is done is down",
    StopTwice => "systemd.stop: a second call answers the same",
    RestartNew => "systemd.restart: a unit whose job is done has a new process",
    ResetFailedClear => "systemd.reset_failed: the unit has not failed",
    ResetFailedTwice => "systemd.reset_failed: a second call changes nothing",
    ReloadTwice => "systemd.reload_managers: a second call is as good as one",
    HoldShutdownTwice => "systemd.hold_shutdown: a second call is as good as one",
    TmpfilesTwice => "systemd.create_tmpfiles: a second call is as good as one",
    ProfilesTwice => "systemd.load_profiles: a second call answers the same",
    WaitEnds => "systemd.wait_for_change: it returns in time",
}

impl fmt::Display for Promise {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.text())
    }
}
