//! What is told of a download: totals over all files, and each file's share.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::Reporter;

/// A download's progress. Told only when [`Progress::report`] is called, but for the ends of files.
#[derive(Debug)]
pub(super) struct Progress {
    reporter: Reporter,
    total_bytes: u64,
    done_bytes: Cell<u64>,
    told_bytes: Cell<Option<u64>>,
    /// The files in transfer, by their names in the cache: a package may come for two architectures.
    running: RefCell<BTreeMap<String, Item>>,
}

#[derive(Debug)]
struct Item {
    name: String,
    done_bytes: u64,
    size_bytes: u64,
    told: Option<u32>,
}

/// One file's part of the progress. Dropped before [`FileProgress::finish`], its bytes count no more.
#[derive(Debug)]
pub(super) struct FileProgress {
    progress: Rc<Progress>,
    key: String,
    finished: bool,
}

impl Progress {
    pub(super) fn new(reporter: Reporter, total_bytes: u64) -> Self {
        Self {
            reporter,
            total_bytes,
            done_bytes: Cell::new(0),
            told_bytes: Cell::new(None),
            running: RefCell::default(),
        }
    }

    /// The file `key` of the package `name` begins.
    pub(super) fn begin(self: &Rc<Self>, key: &str, name: &str, size_bytes: u64) -> FileProgress {
        let item = Item { name: name.to_owned(), done_bytes: 0, size_bytes, told: None };
        self.running.borrow_mut().insert(key.to_owned(), item);
        FileProgress { progress: Rc::clone(self), key: key.to_owned(), finished: false }
    }

    /// Tells what is new since the last time.
    pub(super) fn report(&self) {
        let done = self.done_bytes.get();
        if self.told_bytes.replace(Some(done)) != Some(done) {
            self.reporter.transfer(done, self.total_bytes);
        }
        for item in self.running.borrow_mut().values_mut() {
            let share = item.done_bytes.saturating_mul(100) / item.size_bytes.max(1);
            let percentage = u32::try_from(share.min(100)).unwrap_or(100);
            if item.told.replace(percentage) != Some(percentage) {
                self.reporter.item(item.name.as_str(), "downloading", percentage);
            }
        }
    }
}

impl FileProgress {
    /// `done_bytes` of the file are there; fewer than before where it had to begin anew.
    pub(super) fn set(&self, done_bytes: u64) {
        if let Some(item) = self.progress.running.borrow_mut().get_mut(&self.key) {
            let others = self.progress.done_bytes.get().saturating_sub(item.done_bytes);
            item.done_bytes = done_bytes.min(item.size_bytes);
            self.progress.done_bytes.set(others + item.done_bytes);
        }
    }

    /// The file is there whole.
    pub(super) fn finish(mut self) {
        self.set(u64::MAX);
        self.finished = true;
        if let Some(item) = self.progress.running.borrow().get(&self.key) {
            self.progress.reporter.item(item.name.as_str(), "downloaded", 100);
        }
    }
}

impl Drop for FileProgress {
    fn drop(&mut self) {
        if !self.finished {
            self.set(0);
        }
        self.progress.running.borrow_mut().remove(&self.key);
    }
}
