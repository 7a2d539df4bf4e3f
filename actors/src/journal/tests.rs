//! The journal on a disk.

use apt_ostree_proto::request::Selection;

use super::*;

fn request() -> UpdateRequest {
    UpdateRequest::new(Target::Packages(Selection::default()))
}

fn begin(journal: &Journal) -> TransactionId {
    journal.begin("upgrade", &request(), &Caller::default(), Step::FROM_PACKAGES, None).unwrap()
}

/// A record of nothing but its end.
pub(crate) fn finished(id: TransactionId, outcome: Outcome) -> HistoryRecord {
    HistoryRecord {
        id,
        title: "upgrade".to_owned(),
        request: request(),
        caller: Caller::default(),
        started_seconds: 0,
        duration_milliseconds: 0,
        outcome,
        failure: None,
        base: None,
        commit: None,
        changes: Vec::new(),
        units: Vec::new(),
        steps: Vec::new(),
        warnings: Vec::new(),
        followed_by: None,
    }
}

#[test]
fn what_was_written_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let id = {
        let journal = Journal::open(directory.path()).unwrap();
        let id = begin(&journal);
        journal.append(id, &Entry::new(Mark::Started(Step::Plan))).unwrap();
        id
    };
    let journal = Journal::open(directory.path()).unwrap();
    let unfinished = journal.unfinished().unwrap();
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].id, id);
    assert_eq!(unfinished[0].request, request());
    assert_eq!(unfinished[0].steps, Step::FROM_PACKAGES);
    assert_eq!(unfinished[0].marks(), [Mark::Started(Step::Plan)]);
}

#[test]
fn every_entry_is_read_back_in_order_and_flushing_stays_on() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let id = begin(&journal);
    let marks = [
        Mark::Started(Step::Plan),
        Mark::Succeeded(Step::Plan),
        Mark::Started(Step::Download),
        Mark::Failed(Step::Download),
        Mark::UndoStarted(Step::Download),
    ];
    for mark in marks {
        journal.append(id, &Entry::new(mark)).unwrap();
        let level: i64 =
            journal.connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!(level, 2, "{mark:?}");
    }
    assert_eq!(journal.recorded(id).unwrap().unwrap().marks(), marks);
}

#[test]
fn numbers_are_never_given_twice() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let first = begin(&journal);
    let second = begin(&journal);
    assert!(first < second);
}

#[test]
fn a_damaged_database_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(DATABASE);
    std::fs::write(&path, b"this is no database, and long enough to be looked at".repeat(100))
        .unwrap();
    let before = std::fs::read(&path).unwrap();
    let failure = Journal::open(directory.path()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::StateUnreadable);
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_a_newer_major_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(Journal::open(directory.path()).unwrap());
    let connection = Connection::open(directory.path().join(DATABASE)).unwrap();
    connection.pragma_update(None, "user_version", 9_000).unwrap();
    drop(connection);
    let failure = Journal::open(directory.path()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::StateUnreadable);
    assert!(failure.message.contains("newer"), "{failure}");
}

#[test]
fn the_history_ends_before_it_is_more_than_a_message_can_carry() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let warning = "x".repeat(1 << 20);
    for _ in 0..12 {
        let id = begin(&journal);
        let record =
            HistoryRecord { warnings: vec![warning.clone()], ..finished(id, Outcome::Failed) };
        journal.finish(&record, &Entry::new(Mark::Finished(Outcome::Failed))).unwrap();
    }
    assert_eq!(journal.history(3).unwrap().len(), 3);
    assert_eq!(journal.history(0).unwrap(), []);
    let all = journal.history(u32::MAX).unwrap();
    assert_eq!(all.len() as u64, LARGEST_HISTORY_BYTES / (1 << 20) - 1);
    assert_eq!(all[0].id, TransactionId(12));

    let id = begin(&journal);
    let huge = vec!["x".repeat(2 * usize::try_from(LARGEST_HISTORY_BYTES).unwrap())];
    let record = HistoryRecord { warnings: huge, ..finished(id, Outcome::Failed) };
    journal.finish(&record, &Entry::new(Mark::Finished(Outcome::Failed))).unwrap();
    assert_eq!(journal.history(u32::MAX).unwrap().len(), 1, "the newest is always told");
}
