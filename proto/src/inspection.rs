//! Whether the host is what its record says, and what can be done where it is not.

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $name:literal $level:ident => $advice:literal,)*) => {
        /// The stable names of everything that an inspection can find.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum FindingKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl FindingKind {
            /// Every kind, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name on the wire.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// Whether it is a difference from the record, or only worth knowing.
            pub fn level(self) -> Level {
                match self { $(Self::$kind => Level::$level,)* }
            }

            /// What to do by hand where `apt-ostree repair` cannot mend it.
            pub fn advice(self) -> &'static str {
                match self { $(Self::$kind => $advice,)* }
            }
        }
    };
}

kinds! {
    /// An undo failed; the host is between two states.
    Stuck "stuck" Drift => "Run apt-ostree repair; its message says what is in the way.",
    /// The journal could not be used and was begun anew.
    JournalLost "journal-lost" Drift => "Run apt-ostree repair, then compare /etc with /usr/etc.",
    /// The database contradicts itself.
    JournalDamaged "journal-damaged" Drift => "Restart the daemon (systemctl restart apt-ostreed): it keeps aside what cannot be read, and begins anew.",
    /// A transaction of the journal cannot be read.
    JournalRow "journal-row" Drift => "Run apt-ostree repair.",
    /// A transaction has not ended although none runs.
    JournalUnfinished "journal-unfinished" Drift => "Restart the daemon (systemctl restart apt-ostreed): it takes the transaction up.",
    /// `/usr` can be written to.
    UsrWritable "usr-writable" Drift => "Remount it: mount -o remount,bind,ro /usr.",
    /// The mount on `/usr` follows mounts elsewhere.
    UsrShared "usr-shared" Drift => "Reboot: mounts are made anew.",
    /// Something that is not the deployment's nor ours is mounted on `/usr`.
    UsrForeign "usr-foreign" Drift => "Take it off: systemd-sysext unmerge, or reboot out of ostree admin unlock.",
    /// An earlier tree is still mounted below the running one.
    UsrCovered "usr-covered" Note => "Nothing needs to be done: it goes with the next boot.",
    /// The running tree is not the one of the newest update.
    RunningTree "running-tree" Drift => "Reboot: the newest update's tree boots next, unless that is listed too.",
    /// The running tree is a live one that the journal does not know.
    UnrecordedTree "unrecorded-tree" Note => "Nothing needs to be done: it goes with the next boot.",
    /// A rescue guard, or a pinned mount namespace, of no transaction that runs.
    HelperLeft "helper-left" Drift => "Stop it: systemctl stop 'apt-ostree-guard-*'.",
    /// A file of the running tree is not what its commit says.
    FileChanged "file-changed" Drift => "Reinstall the package that owns it into a new tree, or switch to an intact commit: apt-ostree apply-live --target=COMMIT.",
    /// A file of the running tree is gone.
    FileMissing "file-missing" Drift => "Switch to an intact commit, or reboot into one: ostree admin status.",
    /// A file of the running tree that its commit does not have.
    FileUnknown "file-unknown" Drift => "Switch to an intact commit, or reboot into one: ostree admin status.",
    /// An object of the running commit is missing or damaged in the repository.
    ObjectDamaged "object-damaged" Drift => "Run ostree fsck --delete, then pull or build the commit again.",
    /// What boots next is not the running update.
    NextBoot "next-boot" Drift => "Deploy it: ostree admin deploy COMMIT.",
    /// The running update is not deployed both plainly and staged.
    DeploymentMissing "deployment-missing" Drift => "Deploy it: ostree admin deploy COMMIT.",
    /// Somebody else's deployment boots next.
    PendingDeployment "pending-deployment" Note => "Nothing needs to be done.",
    /// The host was booted into another tree than that of the newest update.
    BootedElsewhere "booted-elsewhere" Note => "Nothing needs to be done.",
    /// A commit that is needed is not whole in the repository.
    CommitMissing "commit-missing" Drift => "Pull the commit again, or apply the update again; a rollback to it is not possible.",
    /// The ref that keeps an update's commit is gone.
    RefMissing "ref-missing" Drift => "Make it: ostree refs --create=REF COMMIT.",
    /// The ref of an update names another commit.
    RefWrong "ref-wrong" Drift => "Set it: ostree refs --force --create=REF COMMIT.",
    /// An installed package has another version than the record says.
    PackageVersion "package-version" Drift => "Apply the package again: apt-ostree apply-live --install=NAME.",
    /// A tree, staging area or kept file of no transaction that needs it.
    LeftoverTree "leftover-tree" Drift => "Run apt-ostree repair.",
    /// A ref of no transaction that needs it.
    LeftoverRef "leftover-ref" Drift => "Run apt-ostree repair.",
    /// Trees that wait to be removed.
    Trash "trash" Note => "Nothing needs to be done: it is removed in the background.",
    /// A tree that is kept only because a process still uses it.
    HeldTree "held-tree" Note => "Nothing needs to be done: it is removed after the process has ended.",
    /// A file in `/etc` that an update wrote was edited since.
    EtcEdited "etc-edited" Note => "Nothing needs to be done: edits are kept.",
    /// The running tree cannot be compared file by file.
    FilesNotCompared "files-not-compared" Note => "Nothing needs to be done.",
}

/// How much a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The host is not what its record says.
    Drift,
    /// Worth knowing, and in order.
    Note,
}

/// What `apt-ostree repair` does about a finding, in the order in which it does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// Undo again what could not be undone.
    RetryUndo,
    /// Make `/usr` read-only again.
    ProtectUsr,
    /// Stand the guard down and unpin the namespace.
    StandDown,
    /// Write the ref.
    RestoreRef,
    /// Deploy the running tree's commit for the next boot.
    Deploy,
    /// Remove what no transaction needs.
    CleanUp,
    /// Keep a copy of the journal, and forget the rows that cannot be read.
    ForgetRows,
    /// Go on with the journal that was begun anew.
    AcceptLoss,
}

impl Remedy {
    /// What it does, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::RetryUndo => "try the undo again",
            Self::ProtectUsr => "make /usr read-only again",
            Self::StandDown => "end it",
            Self::RestoreRef => "write the ref",
            Self::Deploy => "deploy the running tree for the next boot",
            Self::CleanUp => "remove it",
            Self::ForgetRows => "keep a copy of the journal, and forget what cannot be read",
            Self::AcceptLoss => "go on with the new journal",
        }
    }
}

/// One thing that an inspection found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The path, package, commit, ref or transaction.
    pub subject: String,
    /// What the record says.
    pub expected: String,
    /// What is.
    pub found: String,
    /// What `apt-ostree repair` does about it; none where it can do nothing.
    pub remedy: Option<Remedy>,
}

/// What an inspection found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Where the host is not what its record says.
    pub drifts: Vec<Finding>,
    /// How many more files differ than are listed.
    pub more_files: u64,
    /// What is worth knowing, and in order.
    pub notes: Vec<Finding>,
    /// How many files of the running tree were compared with its commit.
    pub files: u64,
    /// How many bytes they hold.
    pub bytes: u64,
}

impl Inspection {
    /// Adds a finding where its kind belongs.
    pub fn add(&mut self, finding: Finding) {
        match finding.kind.level() {
            Level::Drift => self.drifts.push(finding),
            Level::Note => self.notes.push(finding),
        }
    }

    /// Whether the host is what its record says.
    pub fn is_clean(&self) -> bool {
        self.drifts.is_empty()
    }
}

/// What a repair did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mending {
    /// Whether nothing was changed, as asked.
    pub dry_run: bool,
    /// What was mended, or would be.
    pub mended: Vec<Finding>,
    /// What is left.
    pub left: Vec<Finding>,
    /// How many more files are left than are listed.
    pub more_files: u64,
    /// What a remedy failed with, and what to know about what was done.
    pub remarks: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own_and_says_what_to_do() {
        let mut names: Vec<&str> = FindingKind::ALL.iter().map(|kind| kind.name()).collect();
        for kind in FindingKind::ALL {
            assert!(kind.advice().ends_with('.'), "{kind:?}");
            let name = serde_json::to_string(kind).unwrap();
            assert_eq!(name.trim_matches('"'), kind.name());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FindingKind::ALL.len());
    }
}
