//! The log of every write to a disk, and what the disk holds after a power cut at any of them.
//!
//! The format is that of the kernel's log-writes target (Documentation/admin-guide/device-mapper/
//! log-writes.rst in Linux), as QEMU's `blklogwrites` writes it: a sector of its own for the super
//! block and for each entry's head, then the entry's data.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

/// What the recorder was told to use; heads stand at multiples of it.
const SECTOR: u64 = 512;
/// What a disk or a page cache keeps or loses as one.
const PIECE: usize = 4096;
const FLUSH: u64 = 1;
const FORCED: u64 = 2;
const DISCARD: u64 = 4;

/// One write, discard or flush.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where on the disk, in bytes.
    to: u64,
    /// How much, in bytes; nothing for a flush.
    length: u64,
    flags: u64,
    /// Where in the log its data are.
    from: u64,
}

impl Entry {
    fn is(self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// The log of a disk, which may still be written.
#[derive(Debug)]
pub(crate) struct WriteLog {
    file: File,
    entries: Vec<Entry>,
    /// Where the next head will be.
    end: u64,
}

/// When the power goes, and what luck the writes have that were not flushed by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PowerCut {
    /// How many entries of the log came before.
    pub(crate) writes: usize,
    /// Which of those behind the last flush reached the disk.
    pub(crate) seed: u64,
}

impl WriteLog {
    /// Opens a log and reads what it has by now.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut log = Self { file: File::open(path)?, entries: Vec::new(), end: SECTOR };
        log.catch_up()?;
        Ok(log)
    }

    /// How many entries there are by now.
    pub(crate) fn catch_up(&mut self) -> io::Result<usize> {
        let mut head = [0; 32];
        loop {
            match self.file.read_exact_at(&mut head, self.end) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
            let field = |index: usize| {
                let bytes = head[8 * index..8 * (index + 1)].try_into().expect("eight bytes");
                u64::from_le_bytes(bytes)
            };
            // The log is a hole behind its last entry.
            if head.iter().all(|byte| *byte == 0) {
                break;
            }
            let (length, flags) = (field(1) * SECTOR, field(2));
            let from = self.end + SECTOR;
            self.entries.push(Entry { to: field(0) * SECTOR, length, flags, from });
            self.end = from + if flags & DISCARD == 0 { length } else { 0 };
        }
        Ok(self.entries.len())
    }

    /// The numbers of the flushes among the entries.
    pub(crate) fn flushes(&self) -> impl Iterator<Item = usize> {
        let flushes = self.entries.iter().enumerate().filter(|(_, entry)| entry.is(FLUSH));
        flushes.map(|(number, _)| number)
    }

    /// Turns `disk`, a copy of the disk that the recording began with, into what is left of it after
    /// the power cut: all that was flushed, and what luck has it of the rest, piece by piece.
    pub(crate) fn replay(&self, cut: PowerCut, disk: &Path) -> io::Result<()> {
        let disk = OpenOptions::new().write(true).open(disk)?;
        let safe = self.flushes().take_while(|flush| *flush < cut.writes).last().unwrap_or(0);
        let mut luck = Luck(cut.seed);
        let mut data = Vec::new();
        for (number, entry) in self.entries.iter().enumerate().take(cut.writes) {
            let is_certain = number <= safe || entry.is(FORCED);
            data.resize(usize::try_from(entry.length).expect("an entry fits into memory"), 0);
            if entry.is(DISCARD) {
                data.fill(0);
            } else {
                self.file.read_exact_at(&mut data, entry.from)?;
            }
            let mut to = entry.to;
            for piece in data.chunks(PIECE) {
                if is_certain || luck.smiles() {
                    disk.write_all_at(piece, to)?;
                }
                to += piece.len() as u64;
            }
        }
        Ok(())
    }
}

/// A coin that falls the same way every time: splitmix64 (Steele, Lea and Flood, 2014).
struct Luck(u64);

impl Luck {
    fn smiles(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}
