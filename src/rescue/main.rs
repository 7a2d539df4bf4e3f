//! `apt-ostree-rescue`: the mount calls of a live update, one a process, in PID 1's mount namespace.
//!
//! Static, so that it runs when `/usr` does not. The daemon starts it and reads one line of JSON
//! from its standard output; it is of no use to people. `guard` is the exception: it stays, and
//! takes the new tree off again unless it is told in time that all is well.

mod collapse;
mod followers;
mod guard;
mod namespace;
mod pin;
mod reply;
mod switch;

#[path = "../mount/mod.rs"]
#[expect(unreachable_pub, reason = "the daemon's library has it as a public module")]
mod mount;

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use guard::Watch;
use reply::{Reply, Trouble};

/// Where everything happens; a constant so that no argument can point elsewhere.
const USR: &str = "/usr";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let outcome = Options::parse(arguments).and_then(|options| run(&command, &options));
    match outcome {
        Ok(reply) => {
            reply.print();
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            trouble.print();
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, options: &Options) -> Result<Reply, Trouble> {
    match command {
        "pin" => pin::pin_all(&options.path("pin")?),
        "switch" => switch::switch(&options.tree()?),
        "unswitch" => switch::unswitch(&options.tree()?),
        "protect" => switch::protect(),
        "collapse" => collapse::collapse(&options.path("pin")?, &options.below()?),
        "unpin" => pin::unpin(&options.path("pin")?),
        "guard" => guard::guard(&options.tree()?, options.watch()?, &options.path("socket")?),
        "guard-until" => guard::extend(options.watch()?, &options.path("socket")?),
        "stand-down" => guard::stand_down(&options.path("socket")?),
        _ => Err(Trouble::usage(format!("unknown command {command:?}"))),
    }
}

/// A tree by its root directory.
#[derive(Debug)]
struct Tree {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// `--name=value` arguments.
#[derive(Debug)]
struct Options(HashMap<String, String>);

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, Trouble> {
        let mut options = HashMap::new();
        for argument in arguments {
            let (name, value) = argument
                .strip_prefix("--")
                .and_then(|argument| argument.split_once('='))
                .ok_or_else(|| Trouble::usage(format!("{argument:?} is not --name=value")))?;
            if options.insert(name.to_owned(), value.to_owned()).is_some() {
                return Err(Trouble::usage(format!("--{name} is given twice")));
            }
        }
        Ok(Self(options))
    }

    fn text(&self, name: &str) -> Result<&str, Trouble> {
        self.0
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| Trouble::usage(format!("--{name} is missing")))
    }

    fn number(&self, name: &str) -> Result<u64, Trouble> {
        let text = self.text(name)?;
        text.parse().map_err(|_| Trouble::usage(format!("--{name}={text:?} is not a number")))
    }

    fn watch(&self) -> Result<Watch, Trouble> {
        let deadline = self.number("deadline")?;
        let call = self.0.contains_key("call").then(|| self.number("call")).transpose()?;
        Ok(Watch { call, deadline })
    }

    fn path(&self, name: &str) -> Result<PathBuf, Trouble> {
        let path = PathBuf::from(self.text(name)?);
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(Trouble::usage(format!("--{name} is not an absolute path")))
        }
    }

    fn tree(&self) -> Result<Tree, Trouble> {
        Ok(Tree {
            path: self.path("tree")?,
            device: self.number("device")?,
            inode: self.number("inode")?,
        })
    }

    /// `--below=PATH:PATH…`: magic links (`/proc/PID/fd/N`) to mounts that the covered tree carries.
    fn below(&self) -> Result<Vec<PathBuf>, Trouble> {
        let Some(list) = self.0.get("below") else { return Ok(Vec::new()) };
        list.split(':')
            .map(|path| {
                if path.starts_with("/proc/") {
                    Ok(PathBuf::from(path))
                } else {
                    Err(Trouble::usage(format!("--below={path:?} is not below /proc")))
                }
            })
            .collect()
    }
}
