//! Everything that reads what others wrote, given any bytes at all. It may refuse them; what it must not
//! do is panic, hang, or break what it promises.
//!
//! `tests/fuzz` looks for bytes that do it, and what it found interesting is read again by every
//! `make test`.

use apt_ostree_actors::journal::Journal;
use apt_ostree_proto::{ErrorCode, Failure};

use crate::host::{archive, files, http, packages, processes, sandbox, tree, worker};
use crate::{config, dbus, mount};

/// A package that nobody has verified yet.
pub fn archive(data: &[u8]) {
    archive::fuzz(data);
}

/// A worker's answer, line by line.
pub fn worker(data: &[u8]) {
    worker::fuzz(data);
}

/// What the shims of the sandbox noted of scripts.
pub fn requests(data: &[u8]) {
    sandbox::fuzz(data);
}

/// The files of processes, which choose their own names and arguments.
pub fn processes(data: &[u8]) {
    processes::fuzz(data);
    drop(mount::mountinfo::parse(data));
    drop(tree::mountinfo::parse(&String::from_utf8_lossy(data)));
}

/// dpkg's database.
pub fn status(data: &[u8]) {
    let status = packages::status::Status::parse(&String::from_utf8_lossy(data));
    for package in status.packages() {
        assert_eq!(
            status.installed(&package.name, &package.architecture).is_some(),
            package.is_installed()
        );
        assert!(!package.state_line().contains('\n'));
    }
}

/// Users and groups, as three sides have them.
pub fn users(data: &[u8]) {
    files::fuzz(data);
}

/// The headers of a mirror's answer.
pub fn headers(data: &[u8]) {
    http::fuzz(data);
}

/// A fragment of the configuration.
pub fn configuration(data: &[u8]) {
    config::fuzz(data);
}

/// A caller's options, as they arrive on the bus.
pub fn options(data: &[u8]) {
    dbus::fuzz(data);
}

/// The journal's file.
pub fn journal(data: &[u8]) {
    let directory = tempfile::tempdir().expect("there is room for a file");
    std::fs::write(directory.path().join("state.db"), data).expect("there is room for a file");
    let read = || -> Result<(), Failure> {
        let journal = Journal::open(directory.path())?;
        let history = journal.history(u32::MAX)?;
        for record in &history {
            journal.recorded(record.id)?;
        }
        for recorded in journal.unfinished()? {
            drop(apt_ostree_actors::saga::next(&recorded.steps, &recorded.marks()));
        }
        journal.stuck()?;
        journal.newest_kept(u32::MAX).map(drop)
    };
    if let Err(failure) = read() {
        assert_ne!(failure.code, ErrorCode::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Target = fn(&[u8]);

    #[test]
    fn what_was_found_interesting_once_is_still_read_without_harm() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        let targets: [(&str, Target); 10] = [
            ("archive", super::archive),
            ("worker", super::worker),
            ("requests", super::requests),
            ("processes", super::processes),
            ("status", super::status),
            ("users", super::users),
            ("headers", super::headers),
            ("configuration", super::configuration),
            ("options", super::options),
            ("journal", super::journal),
        ];
        for (name, target) in targets {
            let entries = std::fs::read_dir(corpus.join(name)).unwrap();
            let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            assert!(!paths.is_empty(), "{name} has no corpus");
            for path in paths {
                eprintln!("{}", path.display());
                target(&std::fs::read(path).unwrap());
            }
        }
    }
}
