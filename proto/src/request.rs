//! What a caller asks for.

use serde::{Deserialize, Serialize};

use crate::id::{CommitId, PackageName, PlanId, TransactionId};
use crate::package::{Action, PackageChange, PackageSpec};

/// Which units a transaction restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// What the packages' own maintainer scripts ask for; for a ready tree, units whose files changed.
    #[default]
    AsPackagesAsk,
    /// Also every other service that still runs replaced code.
    Affected,
    /// None.
    Never,
}

/// The tree that a transaction leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Packages on top of what runs now.
    Packages(Selection),
    /// A commit that is in the repository already.
    Commit(CommitId),
    /// The staged or pending deployment that somebody else made.
    Pending,
    /// The state before an earlier transaction.
    Before(TransactionId),
}

/// When a change takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Each part as soon as it can: now what can change live; the rest with the next boot, by a
    /// transaction of its own that follows.
    #[default]
    Soonest,
    /// Now. What cannot change live is left out of an upgrade, and refused where it was named.
    Live,
    /// With the next boot, all of it: what runs is not touched.
    NextBoot,
}

impl When {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Soonest => "soonest",
            Self::Live => "live",
            Self::NextBoot => "next-boot",
        }
    }

    /// Reads a name that [`When::name`] gave.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Soonest, Self::Live, Self::NextBoot].into_iter().find(|when| when.name() == name)
    }
}

/// Which packages to change. All empty means: upgrade what is upgradable, install what that newly
/// depends on, remove nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Upgrade only these (and what they then need).
    #[serde(default)]
    pub upgrade: Vec<PackageSpec>,
    /// Install these.
    #[serde(default)]
    pub install: Vec<PackageSpec>,
    /// Remove these.
    #[serde(default)]
    pub remove: Vec<PackageSpec>,
}

impl Selection {
    /// Whether this is the whole upgrade.
    pub fn is_whole_upgrade(&self) -> bool {
        self.upgrade.is_empty() && self.install.is_empty() && self.remove.is_empty()
    }

    /// What leads to `changes` once more: what comes only because others need it is not named.
    pub fn of_changes<'a>(changes: impl IntoIterator<Item = &'a PackageChange>) -> Self {
        let mut selection = Self::default();
        for change in changes {
            let list = match change.action {
                Action::Remove => &mut selection.remove,
                Action::Upgrade => &mut selection.upgrade,
                Action::Install | Action::Downgrade | Action::Reinstall => &mut selection.install,
            };
            if change.automatic && change.action == Action::Install {
                continue;
            }
            let spec = PackageSpec {
                name: change.name.clone(),
                architecture: change.is_of_architecture().then(|| change.architecture.clone()),
                version: (change.action == Action::Downgrade)
                    .then(|| change.new_version.clone())
                    .flatten(),
            };
            if !list.contains(&spec) {
                list.push(spec);
            }
        }
        selection
    }

    /// Adds what another selection has.
    pub fn add(&mut self, other: &Self) {
        let lists = [
            (&mut self.upgrade, &other.upgrade),
            (&mut self.install, &other.install),
            (&mut self.remove, &other.remove),
        ];
        for (list, more) in lists {
            let new: Vec<_> = more.iter().filter(|spec| !list.contains(spec)).cloned().collect();
            list.extend(new);
        }
    }

    /// The same without the packages of these names.
    #[must_use]
    pub fn without(&self, names: &[PackageName]) -> Self {
        let rest = |specs: &[PackageSpec]| {
            specs.iter().filter(|spec| !names.contains(&spec.name)).cloned().collect()
        };
        Self {
            upgrade: rest(&self.upgrade),
            install: rest(&self.install),
            remove: rest(&self.remove),
        }
    }
}

/// One request to change the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateRequest {
    /// Where to go.
    pub target: Target,
    /// When it takes effect.
    #[serde(default)]
    pub when: When,
    /// Which units to restart.
    pub restart: RestartPolicy,
    /// Whether to fetch the package lists first.
    pub refresh: bool,
    /// Go on past a named risk; never past a failed signature, hash or health check.
    pub force: bool,
    /// Apply exactly this plan, or refuse it as stale.
    pub plan: Option<PlanId>,
    /// For how long the applied update waits for somebody to confirm it before it is put back; 0:
    /// it is not to be confirmed; none: what the host's configuration says.
    #[serde(default)]
    pub confirm_timeout_seconds: Option<u32>,
}

/// The shortest time in which an update can be asked to be confirmed: anybody needs as long to type it.
pub const SHORTEST_CONFIRM_TIMEOUT_SECONDS: u32 = 5;

/// The longest: a working day and the night after it. Until it is over nothing else can be updated.
pub const LONGEST_CONFIRM_TIMEOUT_SECONDS: u32 = 24 * 60 * 60;

/// Whether an update can wait so long for its confirmation; 0 stands for no confirmation.
pub fn is_confirm_timeout(seconds: u32) -> bool {
    seconds == 0
        || (SHORTEST_CONFIRM_TIMEOUT_SECONDS..=LONGEST_CONFIRM_TIMEOUT_SECONDS).contains(&seconds)
}

impl UpdateRequest {
    /// A request with the defaults of `apt-ostree apply-live`.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            when: When::default(),
            restart: RestartPolicy::default(),
            refresh: true,
            force: false,
            plan: None,
            confirm_timeout_seconds: None,
        }
    }
}

/// Who asked, as the bus and logind tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The user id.
    pub uid: u32,
    /// The bus's unique name; empty for the daemon itself.
    pub bus_name: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Architecture, Version};
    use crate::package::{Origin, UpdateClass};

    fn change(name: &str, action: Action, automatic: bool) -> PackageChange {
        PackageChange {
            name: PackageName::parse(name).unwrap(),
            architecture: Architecture::parse("amd64").unwrap(),
            action,
            old_version: Some(Version::parse("2").unwrap()),
            new_version: Some(Version::parse("1").unwrap()),
            source: name.to_owned(),
            automatic,
            origin: Origin::default(),
            installed_growth_bytes: 0,
            class: UpdateClass::Live,
            class_reason: None,
            file: None,
        }
    }

    #[test]
    fn changes_are_asked_for_again_by_name_but_for_what_others_need() {
        let changes = [
            change("aa", Action::Upgrade, true),
            change("bb", Action::Install, false),
            change("bb-lib", Action::Install, true),
            change("cc", Action::Remove, false),
            change("dd", Action::Downgrade, false),
        ];
        let selection = Selection::of_changes(changes.iter().chain(&changes));
        let names =
            |specs: &[PackageSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&selection.upgrade), ["aa:amd64"]);
        assert_eq!(names(&selection.install), ["bb:amd64", "dd:amd64=1"]);
        assert_eq!(names(&selection.remove), ["cc:amd64"]);
        let named = ["aa", "bb", "cc", "dd"].map(|name| PackageName::parse(name).unwrap());
        assert!(selection.without(&named).is_whole_upgrade());
    }

    #[test]
    fn a_moment_keeps_its_name_and_a_request_of_old_has_the_soonest() {
        for when in [When::Soonest, When::Live, When::NextBoot] {
            assert_eq!(When::parse(when.name()), Some(when));
            assert_eq!(serde_json::to_value(when).unwrap(), when.name());
        }
        let mut text = serde_json::to_value(UpdateRequest::new(Target::Pending)).unwrap();
        text.as_object_mut().unwrap().remove("when");
        let read: UpdateRequest = serde_json::from_value(text).unwrap();
        assert_eq!(read.when, When::Soonest);
    }
}
