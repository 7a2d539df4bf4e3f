//! The admin's word on which services packages may start and stop: `policy-rc.d` of invoke-rc.d(8).

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::service::UnitAction;
use apt_ostree_proto::{ErrorCode, Failure, UnitName};
use tokio::process::Command;
use tokio::time::timeout;

/// Where it is, on hosts that have one.
pub(super) const PROGRAM: &str = "/usr/sbin/policy-rc.d";

/// The longest that one answer may take: it is a script of a few lines.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// Those of `units` that `program` says no to, with its answer. Nobody says no where there is none.
pub(super) async fn forbidden(
    program: &Path,
    units: &[(UnitName, UnitAction)],
) -> PortResult<BTreeMap<UnitName, String>> {
    let mut forbidden = BTreeMap::new();
    for (unit, action) in units {
        for verb in verbs(*action) {
            match ask(program, unit, verb).await? {
                Answer::NobodyThere => return Ok(forbidden),
                Answer::Yes => {}
                Answer::No(what) => {
                    forbidden.entry(unit.clone()).or_insert(what);
                }
            }
        }
    }
    Ok(forbidden)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    NobodyThere,
    Yes,
    No(String),
}

fn verbs(action: UnitAction) -> &'static [&'static str] {
    match action {
        UnitAction::StopStart => &["stop", "start"],
        UnitAction::Stop => &["stop"],
        UnitAction::Restart => &["restart"],
        UnitAction::Reload => &["reload"],
        UnitAction::Start => &["start"],
        UnitAction::Leave => &[],
    }
}

async fn ask(program: &Path, unit: &UnitName, verb: &str) -> PortResult<Answer> {
    // A service goes by the name of its init script, as deb-systemd-invoke(1p) has it.
    let name = unit.as_str().strip_suffix(".service").unwrap_or(unit.as_str());
    let mut command = Command::new(program);
    command.args([name, verb]).current_dir("/").env_clear().kill_on_drop(true);
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = match timeout(LONGEST_ANSWER, command.status()).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => return Ok(Answer::NobodyThere),
        Ok(Err(error)) => {
            let what = format!("{} cannot be asked about {unit}", program.display());
            return Err(Failure::caused(ErrorCode::UnitFailed, &what, &error));
        }
        Err(_) => {
            let seconds = LONGEST_ANSWER.as_secs();
            let what =
                format!("{} did not answer about {unit} within {seconds} s", program.display());
            return Err(Failure::new(ErrorCode::UnitFailed, what));
        }
    };
    Ok(match status.code() {
        // Allowed, also where it is not sure.
        Some(0 | 104 | 105) => Answer::Yes,
        Some(101) => Answer::No(format!("{verb} is forbidden")),
        Some(106) => Answer::No(format!("it wants something else than {verb}")),
        _ => Answer::No(format!("asked for {verb}, it ended with {status}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    #[tokio::test]
    async fn the_policy_is_asked_by_name_and_verb_and_its_no_holds() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("policy-rc.d");
        let asked = [
            (unit("a.service"), UnitAction::Restart),
            (unit("b.service"), UnitAction::StopStart),
            (unit("c.socket"), UnitAction::Start),
            (unit("d.service"), UnitAction::Reload),
            (unit("e.service"), UnitAction::Restart),
        ];
        assert_eq!(forbidden(&program, &asked).await.unwrap(), BTreeMap::new());

        let script = "#!/bin/sh\ncase \"$1 $2\" in 'a restart') exit 101;; 'b start') exit 106;;
            'c.socket start') exit 104;; 'd reload') exit 7;; *) exit 0;; esac\n";
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = forbidden(&program, &asked).await.unwrap();
        let names: Vec<&str> = found.keys().map(UnitName::as_str).collect();
        assert_eq!(names, ["a.service", "b.service", "d.service"]);
        assert_eq!(found[&unit("a.service")], "restart is forbidden");
    }
}
