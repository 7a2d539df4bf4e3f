//! `apt-ostree config`. The files are read here: the daemon may not be able to serve because of them.

use std::path::Path;

use apt_ostree_actors::port::HookKind;
use apt_ostree_proto::UnitName;
use zbus::Connection;

use super::arguments::Global;
use super::{exit, terminal};
use crate::config::{self, Config, Problem, Severity};
use crate::host::checks::{find_hooks, unknown_units};

const ROOT: &str = "/";
/// Below this are the packages' own fragments.
const SHIPPED: &str = "/usr/lib";

/// Prints what is wrong, one problem a line.
pub(super) async fn check(global: &Global) -> anyhow::Result<u8> {
    let mut problems = match Config::read(Path::new(ROOT)) {
        Ok(config) => warnings(&config).await,
        Err(problems) => problems,
    };
    problems.extend(hooks());
    let is_usable = problems.iter().all(|problem| problem.severity == Severity::Warning);
    if global.json {
        terminal::print_json(&problems)?;
    } else {
        let text: String = problems.iter().map(|problem| format!("{problem}\n")).collect();
        terminal::print(&text)?;
        if problems.is_empty() && !global.quiet {
            terminal::print("The configuration is in order.\n")?;
        }
    }
    Ok(if is_usable { exit::DONE } else { exit::FAILED })
}

/// Prints what is used.
pub(super) fn show(global: &Global) -> anyhow::Result<u8> {
    let config = Config::load(Path::new(ROOT))?;
    if global.json {
        terminal::print_json(&config)?;
    } else {
        terminal::print(&toml::to_string_pretty(&config)?)?;
    }
    Ok(exit::DONE)
}

/// Hooks that the next update would be refused for.
fn hooks() -> Vec<Problem> {
    let of_kind = |kind: &HookKind| match find_hooks(Path::new(ROOT), *kind) {
        Ok(hooks) => hooks
            .into_iter()
            .filter_map(|hook| {
                Some(Problem::error(hook.path, None, &format!("it {}", hook.refused?)))
            })
            .collect(),
        Err(error) => {
            vec![Problem::error(kind.directory(), None, &format!("cannot be read: {error}"))]
        }
    };
    HookKind::ALL.iter().flat_map(of_kind).collect::<Vec<Problem>>()
}

/// Units that do not exist, though the admin names them. They may be meant for later; what is shipped is
/// for every host.
async fn warnings(config: &Config) -> Vec<Problem> {
    let named = config.named_units();
    let names: Vec<UnitName> = named.iter().map(|(_, unit)| unit.clone()).collect();
    let asked = async {
        let bus = Connection::system().await?;
        unknown_units(&bus, &names).await
    };
    let unknown = match asked.await {
        Ok(unknown) => unknown,
        Err(error) => {
            let text = format!("units were not looked up: {error}");
            terminal::complain(&text);
            Vec::new()
        }
    };
    named
        .into_iter()
        .filter(|(_, unit)| unknown.contains(unit))
        .map(|(key, unit)| {
            let text = format!("there is no unit {unit} on this host");
            config::warning(Path::new(ROOT), key, text)
        })
        .filter(|problem| !problem.file.starts_with(SHIPPED))
        .collect()
}
