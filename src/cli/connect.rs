//! The way to the daemon, and its errors on the way back.

use std::path::Path;

use anyhow::Context as _;
use apt_ostree_proto::dbus::{BUS_NAME, ERROR_PREFIX, ManagerProxy};
use apt_ostree_proto::{ErrorCode, Failure};
use zbus::Connection;
use zbus::fdo::DBusProxy;

use crate::config::Config;

/// The longest explanation of an unusable configuration: a line of it and what is wrong there.
const LONGEST_REASON: usize = 600;
/// Where libostree says that it booted the host.
const BOOTED: &str = "/run/ostree-booted";

/// The system bus and the manager on it.
pub(super) async fn manager() -> anyhow::Result<(Connection, ManagerProxy<'static>)> {
    let bus = Connection::system().await.context("cannot reach the system bus")?;
    let dbus = DBusProxy::new(&bus).await.context("cannot speak with the system bus")?;
    let is_running = dbus.name_has_owner(BUS_NAME.try_into()?).await;
    if !is_running.context("the system bus does not answer")? {
        refuse_what_keeps_it_from_starting(Path::new(BOOTED), Path::new("/"))?;
    }
    let manager = ManagerProxy::builder(&bus)
        // Every property is read when it is wanted: a cache costs a round trip that few commands use.
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await
        .context("cannot speak with the daemon")?;
    Ok((bus, manager))
}

/// A daemon that cannot start says why in the journal alone, and the bus waits for half a minute
/// before it gives up: so what is known to stop it is looked at first.
fn refuse_what_keeps_it_from_starting(booted: &Path, root: &Path) -> Result<(), Failure> {
    if !booted.exists() {
        let text = "this host was not booted from an OSTree deployment";
        return Err(Failure::new(ErrorCode::NotBooted, text));
    }
    Config::load(root).map(drop).or_else(|error| {
        // What only the daemon may read, only the daemon can judge.
        let io_error = error.root_cause().downcast_ref::<std::io::Error>();
        if io_error.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
            return Ok(());
        }
        let text = format!("the daemon cannot start: {}", one_line(&format!("{error:#}")));
        Err(Failure::new(ErrorCode::InvalidConfiguration, text))
    })
}

/// The parser draws the line that is wrong, with an arrow below; one line has to do.
fn one_line(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { ' ' } else { c };
    let words: Vec<String> =
        text.split_whitespace().map(|word| word.chars().map(escaped).collect()).collect();
    words.join(" ").chars().take(LONGEST_REASON).collect()
}

/// What the daemon's answer means: its own failures come back as such.
pub(super) fn explain(error: zbus::Error) -> anyhow::Error {
    let zbus::Error::MethodError(name, text, _) = &error else {
        return anyhow::Error::new(error).context("cannot speak with the daemon");
    };
    let text = text.clone().unwrap_or_default();
    match name.strip_prefix(ERROR_PREFIX).and_then(ErrorCode::parse) {
        // The text ends with the hint: what to do is printed by itself.
        Some(code) => {
            let failure = Failure::new(code, text);
            let message = failure.message.strip_suffix(failure.hint.as_str());
            let message = message.map(|m| m.trim_end_matches([' ', '.']).to_owned());
            Failure { message: message.unwrap_or(failure.message), ..failure }.into()
        }
        None if name.ends_with("ServiceUnknown") => Failure::new(
            ErrorCode::DaemonUnavailable,
            format!("nothing on the system bus answers to {BUS_NAME}"),
        )
        .with_hint("Install the package apt-ostree, which brings the daemon.")
        .into(),
        None if name.ends_with("UnitMasked") => {
            Failure::new(ErrorCode::DaemonUnavailable, "the daemon is masked: apt-ostreed.service")
                .with_hint("Let it start: systemctl unmask apt-ostreed.")
                .into()
        }
        None if name.ends_with("NoReply") || name.ends_with("TimedOut") => Failure::new(
            ErrorCode::DaemonUnavailable,
            format!("the daemon does not start or does not answer: {text}"),
        )
        .into(),
        None => anyhow::anyhow!("the daemon answered {name}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_the_daemon_from_starting_is_named() {
        let root = tempfile::tempdir().unwrap();
        let booted = root.path().join("booted");
        let refused = |booted: &Path| refuse_what_keeps_it_from_starting(booted, root.path());
        assert_eq!(refused(&booted).unwrap_err().code, ErrorCode::NotBooted);
        std::fs::write(&booted, "").unwrap();
        refused(&booted).unwrap();

        let file = root.path().join("etc/apt-ostree/config.toml");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "[download]\nconections = 3\n").unwrap();
        let failure = refused(&booted).unwrap_err();
        assert_eq!(failure.code, ErrorCode::InvalidConfiguration);
        for part in ["etc/apt-ostree/config.toml", "line 2", "conections"] {
            assert!(failure.message.contains(part), "{failure}");
        }
        assert!(!failure.message.contains('\n'));
    }
}
