//! Callers' options: every key known, every value of its type, or the call is refused whole.

use apt_ostree_proto::dbus::ReceivedOptions;
use apt_ostree_proto::package::PackageSpec;
use apt_ostree_proto::request::{
    LONGEST_CONFIRM_TIMEOUT_SECONDS, RestartPolicy, SHORTEST_CONFIRM_TIMEOUT_SECONDS, Selection,
    Target, UpdateRequest, When, is_confirm_timeout,
};
use apt_ostree_proto::{CommitId, ErrorCode, Failure};
use zbus::zvariant::{OwnedValue, Value};

/// How many packages one list may name; more than any Debian release has would be an error or an
/// attack.
const MOST_PACKAGES: usize = 20_000;

/// The options of `ApplyLive`.
#[derive(Debug)]
pub(super) struct ApplyOptions {
    pub(super) request: UpdateRequest,
    pub(super) dry_run: bool,
    /// A plan's id or the beginning of one.
    pub(super) plan: Option<String>,
    /// What the request is about, for titles.
    pub(super) names_target: bool,
}

/// Takes options one by one; what is left at the end is unknown.
pub(super) struct Reader {
    options: ReceivedOptions,
}

impl Reader {
    pub(super) fn new(options: ReceivedOptions) -> Self {
        Self { options }
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<Option<bool>, Failure> {
        self.take(key, "a boolean", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, Failure> {
        self.take(key, "a string", |value| match value {
            Value::Str(text) => Some(text.to_string()),
            _ => None,
        })
    }

    fn when(&mut self) -> Result<When, Failure> {
        let Some(name) = self.text("when")? else { return Ok(When::default()) };
        When::parse(&name).ok_or_else(|| invalid("when", &"soonest, live or next-boot"))
    }

    fn confirm_timeout(&mut self) -> Result<Option<u32>, Failure> {
        let key = "confirm-timeout";
        let seconds = self.take(key, "an unsigned number of seconds", |value| match value {
            Value::U32(seconds) => Some(*seconds),
            _ => None,
        })?;
        if seconds.is_none_or(is_confirm_timeout) {
            return Ok(seconds);
        }
        let (least, most) = (SHORTEST_CONFIRM_TIMEOUT_SECONDS, LONGEST_CONFIRM_TIMEOUT_SECONDS);
        let why = format!("it must be {least} to {most} seconds, or 0 for no confirmation");
        Err(invalid(key, &why))
    }

    fn packages(&mut self, key: &str) -> Result<Vec<PackageSpec>, Failure> {
        let names = self.take(key, "an array of strings", |value| match value {
            Value::Array(array) => array
                .iter()
                .map(|item| if let Value::Str(text) = item { Some(text.to_string()) } else { None })
                .collect::<Option<Vec<String>>>(),
            _ => None,
        })?;
        let names = names.unwrap_or_default();
        if names.len() > MOST_PACKAGES {
            let text = format!("{key} names more than {MOST_PACKAGES} packages");
            return Err(Failure::new(ErrorCode::InvalidArgument, text));
        }
        names.iter().map(|name| PackageSpec::parse(name).map_err(|e| invalid(key, &e))).collect()
    }

    fn take<T>(
        &mut self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&Value<'_>) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        let Some(value) = self.options.remove(key) else { return Ok(None) };
        let value: &OwnedValue = &value;
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(invalid(key, &format!("it must be {wanted}"))),
        }
    }

    /// Refuses what was not asked for.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Some(key) = self.options.keys().min() else { return Ok(()) };
        let shown: String = key.chars().take(40).flat_map(char::escape_debug).collect();
        Err(Failure::new(ErrorCode::InvalidArgument, format!("there is no option \"{shown}\"")))
    }
}

fn invalid(key: &str, why: &dyn std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::InvalidArgument, format!("the option {key} is not usable: {why}"))
}

/// Reads the options of `ApplyLive`.
pub(super) fn apply_options(options: ReceivedOptions) -> Result<ApplyOptions, Failure> {
    let mut reader = Reader::new(options);
    let selection = Selection {
        upgrade: reader.packages("packages")?,
        install: reader.packages("install")?,
        remove: reader.packages("remove")?,
    };
    let target = reader.text("target")?;
    let plan = reader.text("plan")?;
    let restart = reader.text("restart")?;
    let when = reader.when()?;
    let force = reader.flag("force")?.unwrap_or(false);
    let refresh = reader.flag("refresh")?.unwrap_or(true);
    let dry_run = reader.flag("dry-run")?.unwrap_or(false);
    let confirm_timeout_seconds = reader.confirm_timeout()?;
    reader.finish()?;
    if dry_run && confirm_timeout_seconds.is_some() {
        return Err(invalid("confirm-timeout", &"a dry run leaves nothing to confirm"));
    }
    if when == When::NextBoot && confirm_timeout_seconds.is_some_and(|seconds| seconds != 0) {
        return Err(invalid("confirm-timeout", &"the next boot leaves nothing to confirm"));
    }
    let names_packages = !selection.is_whole_upgrade();
    if names_packages && target.is_some() {
        return Err(invalid("target", &"it cannot be combined with packages"));
    }
    if let Some(plan) = &plan {
        check_plan_prefix(plan)?;
    }
    let names_target = names_packages || target.is_some();
    let target = match target.as_deref() {
        None => Target::Packages(selection),
        Some("pending") => Target::Pending,
        Some(commit) => {
            Target::Commit(CommitId::parse(commit).map_err(|error| invalid("target", &error))?)
        }
    };
    let restart = match restart.as_deref() {
        None | Some("as-packages-ask") => RestartPolicy::AsPackagesAsk,
        Some("affected") => RestartPolicy::Affected,
        Some("never") => RestartPolicy::Never,
        Some(_) => return Err(invalid("restart", &"as-packages-ask, affected or never")),
    };
    let request = UpdateRequest {
        when,
        restart,
        refresh,
        force,
        confirm_timeout_seconds,
        ..UpdateRequest::new(target)
    };
    Ok(ApplyOptions { request, dry_run, plan, names_target })
}

fn check_plan_prefix(plan: &str) -> Result<(), Failure> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if (12..=64).contains(&plan.len()) && plan.bytes().all(is_digit) {
        Ok(())
    } else {
        Err(invalid("plan", &"a plan id is 12 to 64 lower-case hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, Value<'_>)]) -> ReceivedOptions {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.try_to_owned().unwrap())).collect()
    }

    #[test]
    fn no_options_mean_the_whole_upgrade_as_packages_ask() {
        let read = apply_options(options(&[])).unwrap();
        assert!(matches!(&read.request.target, Target::Packages(s) if s.is_whole_upgrade()));
        assert_eq!(read.request.restart, RestartPolicy::AsPackagesAsk);
        assert!(read.request.refresh && !read.request.force && !read.dry_run);
    }

    #[test]
    fn unusable_options_are_refused_by_name() {
        let long = "x".repeat(10_000);
        let table: Vec<(&str, Value<'_>)> = vec![
            ("unheard-of", Value::from(true)),
            ("force", Value::from("yes")),
            ("when", Value::from("tomorrow")),
            ("packages", Value::from("nginx")),
            ("packages", Value::from(vec!["-rf"])),
            ("install", Value::from(vec!["a\nb"])),
            ("remove", Value::from(vec![long.as_str()])),
            ("target", Value::from("../../etc")),
            ("plan", Value::from("$(reboot)")),
            ("restart", Value::from("all")),
            ("refresh", Value::from(1u32)),
            ("confirm-timeout", Value::from("60")),
            ("confirm-timeout", Value::from(4u32)),
            ("confirm-timeout", Value::from(86_401u32)),
        ];
        for (key, value) in table {
            let failure = apply_options(options(&[(key, value)])).unwrap_err();
            assert_eq!(failure.code, ErrorCode::InvalidArgument, "{key}");
            assert!(failure.message.contains(key) && failure.message.len() < 300, "{failure}");
        }
    }

    #[test]
    fn a_confirmation_can_be_waited_for_from_seconds_to_a_day_but_not_for_a_dry_run() {
        for seconds in [0, 5, 60, 86_400] {
            let read = apply_options(options(&[("confirm-timeout", Value::from(seconds))]));
            assert_eq!(read.unwrap().request.confirm_timeout_seconds, Some(seconds));
        }
        let dry = [("confirm-timeout", Value::from(60u32)), ("dry-run", Value::from(true))];
        assert!(apply_options(options(&dry)).is_err());
    }

    #[test]
    fn a_target_excludes_packages() {
        let both = [("target", Value::from("pending")), ("install", Value::from(vec!["nginx"]))];
        assert!(apply_options(options(&both)).is_err());
    }
}
