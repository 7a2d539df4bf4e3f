//! Journals that something happened to.

use std::path::{Path, PathBuf};

use apt_ostree_proto::request::{Caller, Target, UpdateRequest};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::step::Step;

use super::*;
use crate::journal::Entry;
use crate::journal::tests::finished;
use crate::saga::Mark;

fn commit(number: u64) -> CommitId {
    CommitId::parse(format!("{number:064x}")).unwrap()
}

fn here() -> Surroundings {
    Surroundings {
        machine: Some("this machine".to_owned()),
        os_name: Some("debian".to_owned()),
        trees: BTreeMap::new(),
    }
}

fn with_trees(trees: impl IntoIterator<Item = (u64, Option<u64>)>) -> Surroundings {
    let trees = trees.into_iter().map(|(id, made)| (TransactionId(id), made.map(commit)));
    Surroundings { trees: trees.collect(), ..here() }
}

fn begin(journal: &Journal) -> TransactionId {
    let request = UpdateRequest::new(Target::Pending);
    journal.begin("x", &request, &Caller::default(), Step::FROM_COMMIT, None).unwrap()
}

/// A journal with one update that was kept and made this commit.
fn with_update(directory: &Path, made: u64) {
    let journal = Journal::open_on(directory, &here()).unwrap();
    let id = begin(&journal);
    let record = apt_ostree_proto::record::HistoryRecord {
        commit: Some(commit(made)),
        ..finished(id, Outcome::Committed)
    };
    journal.finish(&record, &Entry::new(Mark::Finished(Outcome::Committed))).unwrap();
}

fn kept_aside(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("state.db.")).collect()
}

#[test]
fn a_new_host_gets_a_journal_and_has_lost_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let journal = Journal::open_on(&directory.path().join("new"), &here()).unwrap();
        assert_eq!(journal.loss().unwrap(), None);
    }
}

type Spoil<'a> = &'a dyn Fn(&Path);

#[test]
fn what_is_damaged_is_kept_aside_whole_and_numbers_go_on() {
    let garbage = b"this is no database, and long enough to be looked at".repeat(100);
    let spoilt: [(&str, Spoil<'_>); 4] = [
        ("garbage", &|path| std::fs::write(path, &garbage).unwrap()),
        ("truncated", &|path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("of something else", &|path| {
            std::fs::remove_file(path).unwrap();
            let other = Connection::open(path).unwrap();
            other.execute_batch("CREATE TABLE transactions (name TEXT)").unwrap();
        }),
        ("overwritten in the middle", &|path| {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::options().write(true).open(path).unwrap();
            for page in 1..file.metadata().unwrap().len() / 4096 {
                file.write_all_at(&[0xa5; 2048], page * 4096).unwrap();
            }
        }),
    ];
    for (how, spoil) in spoilt {
        let directory = tempfile::tempdir().unwrap();
        with_update(directory.path(), 7);
        let path = directory.path().join(DATABASE);
        spoil(&path);
        std::fs::write(directory.path().join("state.db-wal"), "what was in the log").unwrap();
        let before = std::fs::read(&path).unwrap();
        let journal = Journal::open_on(directory.path(), &with_trees([(1, Some(7))])).unwrap();
        let loss = journal.loss().unwrap().unwrap_or_else(|| panic!("{how}"));
        assert!(loss.reason.contains("could not be read") && loss.is_suspect(), "{how}: {loss:?}");
        let name = loss.kept_as.unwrap();
        assert!(name.starts_with("state.db.unreadable-"), "{name}");
        assert_eq!(std::fs::read(directory.path().join(&name)).unwrap(), before, "{how}");
        assert_eq!(begin(&journal), TransactionId(2), "{how}");
        drop(journal);
        let journal = Journal::open_on(directory.path(), &with_trees([(1, Some(7))])).unwrap();
        assert_eq!(journal.loss().unwrap().unwrap().kept_as, Some(name), "it stays written down");
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE);
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE other (x); PRAGMA user_version = 9000").unwrap();
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    let failure = Journal::open_on(directory.path(), &here()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::StateUnreadable);
    assert!(failure.message.contains("newer version (schema 9000"), "{failure}");
    assert!(failure.hint.contains("Install the newer version"), "{}", failure.hint);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(kept_aside(directory.path()).is_empty());
}

#[test]
fn a_journal_that_is_gone_or_older_than_the_host_is_noticed_by_the_trees() {
    let directory = tempfile::tempdir().unwrap();
    with_update(directory.path(), 7);
    let journal = Journal::open_on(directory.path(), &with_trees([(4, Some(9))])).unwrap();
    let loss = journal.loss().unwrap().unwrap();
    assert!(loss.reason.contains("an older journal") && loss.kept_as.is_none(), "{loss:?}");
    assert_eq!(begin(&journal), TransactionId(5));
    assert_eq!(journal.fates().unwrap().updates.len(), 1, "what it knows is kept");
    drop(journal);

    std::fs::remove_file(directory.path().join(DATABASE)).unwrap();
    let journal = Journal::open_on(directory.path(), &with_trees([(4, Some(9))])).unwrap();
    assert!(journal.loss().unwrap().unwrap().reason.contains("was gone"));
    assert_eq!(begin(&journal), TransactionId(5));
}

#[test]
fn a_journal_of_another_host_is_kept_aside() {
    for other in [
        Surroundings { machine: Some("another machine".to_owned()), ..here() },
        Surroundings { os_name: Some("fedora".to_owned()), ..here() },
    ] {
        let directory = tempfile::tempdir().unwrap();
        with_update(directory.path(), 7);
        let journal = Journal::open_on(directory.path(), &other).unwrap();
        let loss = journal.loss().unwrap().unwrap();
        assert!(loss.reason.contains("another host"), "{loss:?}");
        assert!(loss.kept_as.unwrap().starts_with("state.db.foreign-"));
        assert!(journal.fates().unwrap().all.is_empty());
        drop(journal);
        let journal = Journal::open_on(directory.path(), &other).unwrap();
        assert_eq!(kept_aside(directory.path()).len(), 1);
        assert_eq!(begin(&journal), TransactionId(1));
    }
}

#[test]
fn a_host_whose_identity_was_made_anew_keeps_its_journal() {
    let directory = tempfile::tempdir().unwrap();
    with_update(directory.path(), 7);
    let renamed = Surroundings {
        machine: Some("the same with another id".to_owned()),
        ..with_trees([(1, Some(7))])
    };
    let without = Surroundings { machine: None, os_name: None, ..with_trees([(1, Some(7))]) };
    for surroundings in [without, renamed, with_trees([(1, Some(7))])] {
        let journal = Journal::open_on(directory.path(), &surroundings).unwrap();
        assert_eq!(journal.loss().unwrap(), None, "{surroundings:?}");
        assert_eq!(journal.fates().unwrap().updates.len(), 1);
    }
}
