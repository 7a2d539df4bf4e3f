//! A file in the middle of its transfer, in apt's `archives/partial`.
//!
//! Nothing here blocks the arbiter: bytes are gathered into batches, and a batch is written and
//! hashed on a blocking thread while the next one is gathered. A transfer that waits for its server
//! holds no thread.
//!
//! Whether what is there may be resumed is the server's decision, by the validator of the answer that
//! it came from. apt keeps that as the file's time (its `Last-Modified`), and so do we; because every
//! write changes the time, it stands in an extended attribute too, which survives a crash.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use apt_ostree_proto::Sha256;
use bytes::Bytes;
use rustix::fs::{Mode, OFlags, XattrFlags};
use sha2::Digest;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cache::run_blocking;

/// How much is gathered before it is written: with one batch in memory and one on its way to the disk,
/// sixteen transfers hold 16 MiB at most. Each batch wakes a thread and this one again, which on a
/// fast network takes longer than to write a smaller one.
const BATCH_BYTES: usize = 512 * 1024;
/// How much is read at once while a prefix is hashed again.
const READ_BYTES: usize = 128 * 1024;
/// Where the validator stands.
const VALIDATOR_ATTRIBUTE: &str = "user.apt-ostree.validator";
/// The longest validator that is kept; real ones have less than 64 bytes.
const LONGEST_VALIDATOR: usize = 256;

/// A file that is being fetched. Dropping it loses what was not yet written, no more.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    writer: Writing,
    batch: Vec<Bytes>,
    batch_bytes: usize,
    length_bytes: u64,
    resumed_bytes: u64,
    validator: Option<String>,
    /// Whether the validator is still to be written, before the next bytes.
    validator_is_new: bool,
}

#[derive(Debug)]
enum Writing {
    Idle(Box<Writer>),
    Busy(JoinHandle<io::Result<Box<Writer>>>),
    /// An error lost it.
    Gone,
}

/// What one visit of the disk writes.
#[derive(Debug)]
struct Batch {
    /// The validator of the bytes.
    validator: Option<String>,
    /// Whether it is another one than is kept.
    validator_is_new: bool,
    chunks: Vec<Bytes>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    digest: sha2::Sha256,
    length_bytes: u64,
}

/// A partial file that has been written out.
#[derive(Debug)]
pub(super) struct Closed {
    path: PathBuf,
    /// The digest of all of it.
    pub(super) sha256: Sha256,
}

impl Partial {
    /// Opens what is there of the file at `path`, hashing it; makes it where nothing (usable) is.
    pub(super) async fn open(
        path: PathBuf,
        longest_bytes: u64,
        cancel: CancellationToken,
    ) -> io::Result<Self> {
        run_blocking(move || {
            let file = open_own_file(&path)?;
            if file.metadata()?.len() > longest_bytes {
                file.set_len(0)?;
            }
            let validator = validator_of(&file)?;
            let (digest, length_bytes) = hash_rest(&file, &cancel)?;
            let writer = Box::new(Writer { file, digest, length_bytes });
            Ok(Self {
                path,
                writer: Writing::Idle(writer),
                batch: Vec::new(),
                batch_bytes: 0,
                length_bytes,
                resumed_bytes: length_bytes,
                validator,
                validator_is_new: false,
            })
        })
        .await
    }

    /// How many bytes are there, those on their way to the disk included.
    pub(super) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// How many were there when it was opened, and are still.
    pub(super) fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes
    }

    /// The validator to ask the server with.
    pub(super) fn validator(&self) -> Option<&str> {
        self.validator.as_deref()
    }

    /// Drops all bytes: the server sends the file from its beginning.
    pub(super) async fn restart(&mut self) -> io::Result<()> {
        self.batch.clear();
        self.batch_bytes = 0;
        let mut writer = self.take_writer().await?;
        let writer = run_blocking(move || {
            writer.file.set_len(0)?;
            writer.digest = sha2::Sha256::new();
            writer.length_bytes = 0;
            Ok(writer)
        });
        self.writer = Writing::Idle(writer.await?);
        self.length_bytes = 0;
        self.resumed_bytes = 0;
        Ok(())
    }

    /// Keeps the validator of the answer that the next bytes come from: it is written before them.
    pub(super) fn set_validator(&mut self, validator: Option<String>) {
        self.validator = validator.filter(|text| is_validator(text.as_bytes()));
        self.validator_is_new = true;
    }

    /// Adds bytes. Waits only when the disk is slower than the network by more than a batch.
    pub(super) async fn push(&mut self, chunk: Bytes) -> io::Result<()> {
        self.length_bytes += chunk.len() as u64;
        self.batch_bytes += chunk.len();
        self.batch.push(chunk);
        if self.batch_bytes >= BATCH_BYTES { self.write_batch().await } else { Ok(()) }
    }

    async fn write_batch(&mut self) -> io::Result<()> {
        let mut writer = self.take_writer().await?;
        let batch = self.take_batch();
        self.writer = Writing::Busy(tokio::task::spawn_blocking(move || {
            writer.write(&batch)?;
            Ok(writer)
        }));
        Ok(())
    }

    fn take_batch(&mut self) -> Batch {
        self.batch_bytes = 0;
        Batch {
            validator: self.validator.clone(),
            validator_is_new: std::mem::take(&mut self.validator_is_new),
            chunks: std::mem::take(&mut self.batch),
        }
    }

    async fn take_writer(&mut self) -> io::Result<Box<Writer>> {
        match std::mem::replace(&mut self.writer, Writing::Gone) {
            Writing::Idle(writer) => Ok(writer),
            Writing::Busy(job) => job.await.map_err(io::Error::other)?,
            Writing::Gone => Err(io::Error::other("an earlier write failed")),
        }
    }

    /// Writes out what is left, and sets the file's time as apt does. A file with the digest that
    /// `wanted` names is moved to the place that it names: all in one go, for most files are small.
    pub(super) async fn close(mut self, wanted: Option<(Sha256, PathBuf)>) -> io::Result<Closed> {
        let batch = self.take_batch();
        let mut writer = self.take_writer().await?;
        let time = self.validator.as_deref().and_then(|text| httpdate::parse_http_date(text).ok());
        let path = self.path;
        run_blocking(move || {
            writer.write(&batch)?;
            if let Some(time) = time {
                writer.file.set_modified(time)?;
            }
            let Writer { file, digest, .. } = *writer;
            let sha256 = to_sha256(digest)?;
            if let Some((_, place)) = wanted.filter(|(expected, _)| *expected == sha256) {
                publish(&file, &path, &place)?;
            }
            Ok(Closed { path, sha256 })
        })
        .await
    }
}

impl Writer {
    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.validator_is_new {
            keep_validator(&self.file, batch.validator.as_deref())?;
        }
        for chunk in &batch.chunks {
            self.file.write_all_at(chunk, self.length_bytes)?;
            self.digest.update(chunk);
            self.length_bytes += chunk.len() as u64;
        }
        Ok(())
    }
}

/// Moves a file to its place, readable for all, as apt does.
fn publish(file: &File, from: &Path, to: &Path) -> io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(0o644))?;
    match rustix::fs::fremovexattr(file, VALIDATOR_ATTRIBUTE) {
        Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => {}
        Err(error) => return Err(error.into()),
    }
    // The directory belongs to apt's unprivileged user, who may have put something else here.
    let written = file.metadata()?;
    let found = std::fs::symlink_metadata(from)?;
    if (found.dev(), found.ino()) != (written.dev(), written.ino()) {
        return Err(io::Error::other("another program replaced the file"));
    }
    std::fs::rename(from, to)
}

impl Closed {
    /// Removes the file.
    pub(super) async fn discard(self) -> io::Result<()> {
        run_blocking(move || std::fs::remove_file(&self.path)).await
    }
}

/// The digest as text.
pub(super) fn to_sha256(digest: sha2::Sha256) -> io::Result<Sha256> {
    Sha256::parse(format!("{:x}", digest.finalize())).map_err(io::Error::other)
}

/// Opens a file that nobody else can write to from now on.
fn open_own_file(path: &Path) -> io::Result<File> {
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)
    };
    let is_ours = |file: &File| file.metadata().map(|found| found.is_file() && found.nlink() == 1);
    let file = match open() {
        Ok(file) if is_ours(&file)? => file,
        // A link, a pipe, a file with another name: none of them was made by apt or by us.
        Ok(_) | Err(_) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => open()?,
        },
    };
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if file.metadata()?.uid() != user.as_raw() {
        // apt's own, from an interrupted run; apt takes it back when it resumes it.
        rustix::fs::fchown(&file, Some(user), Some(group))?;
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o600))?;
    Ok(file)
}

/// The validator of what is in the file, as far as it is known.
fn validator_of(file: &File) -> io::Result<Option<String>> {
    let mut buffer = [0; LONGEST_VALIDATOR];
    if let Ok(length) = rustix::fs::fgetxattr(file, VALIDATOR_ATTRIBUTE, &mut buffer)
        && let Some(text) = buffer.get(..length)
        && is_validator(text)
    {
        return Ok(Some(String::from_utf8_lossy(text).into_owned()));
    }
    Ok(Some(httpdate::fmt_http_date(file.metadata()?.modified()?)))
}

fn keep_validator(file: &File, validator: Option<&str>) -> io::Result<()> {
    use rustix::io::Errno;
    let kept = match validator {
        Some(text) => {
            rustix::fs::fsetxattr(file, VALIDATOR_ATTRIBUTE, text.as_bytes(), XattrFlags::empty())
        }
        None => rustix::fs::fremovexattr(file, VALIDATOR_ATTRIBUTE),
    };
    match kept {
        // Without attributes the file's time has to do.
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the text may stand in a request's header, and proves equality: weak tags do not.
fn is_validator(text: &[u8]) -> bool {
    let strong = !text.starts_with(b"W/");
    strong
        && (1..=LONGEST_VALIDATOR).contains(&text.len())
        && text.iter().all(|b| (b' '..0x7f).contains(b))
}

/// Hashes what is left of a file.
pub(super) fn hash_rest(
    mut file: &File,
    cancel: &CancellationToken,
) -> io::Result<(sha2::Sha256, u64)> {
    let mut digest = sha2::Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut length = 0;
    loop {
        if cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                digest.write_all(&buffer[..read])?;
                length += read as u64;
            }
        }
    }
    Ok((digest, length))
}
