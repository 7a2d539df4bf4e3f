//! A walk over a tar archive's headers, with dpkg's understanding of the format: ustar and GNU's long
//! names; anything else dpkg refuses, and so do we (two readers that disagree about where a member
//! ends are how hostile archives get past checks).

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::DebError;
use super::source::read_error;

const BLOCK_BYTES: usize = 512;
/// The longest name or link: the kernel takes no longer paths.
const LONGEST_NAME: u64 = 4096;
/// How much a member may unpack to in all. Debian's largest package unpacks to about 3 GiB; a small
/// file that claims more is meant to fill the disk.
const LARGEST_TARBALL_BYTES: u64 = 16 << 30;

/// One member of a tar archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name, as it stands there.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) kind: Kind,
    /// The length of its contents.
    pub(super) size_bytes: u64,
}

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, and where it leads.
    Symlink(Vec<u8>),
    /// Another name of a file that came before, and that file's name.
    HardLink(Vec<u8>),
    /// A device node, pipe or socket: which, for people.
    Special(&'static str),
}

/// Walks a tar archive.
pub(super) struct Walk<R> {
    input: io::Take<R>,
    /// Bytes of the last member that have not been read, its padding included.
    pending: u64,
}

impl<R: Read> Walk<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input: input.take(LARGEST_TARBALL_BYTES), pending: 0 }
    }

    /// The next member; none behind the last.
    pub(super) fn next_member(&mut self) -> Result<Option<Member>, DebError> {
        let mut long_name = None;
        let mut long_link = None;
        loop {
            self.skip(self.pending)?;
            self.pending = 0;
            let mut block = [0; BLOCK_BYTES];
            if !self.read_block(&mut block)? || block.iter().all(|byte| *byte == 0) {
                let complete = long_name.is_none() && long_link.is_none();
                return if complete {
                    Ok(None)
                } else {
                    Err(DebError::malformed("a long name has no member"))
                };
            }
            let header = Header::from_byte_slice(&block);
            check_sum(header, &block)?;
            let size =
                header.size().map_err(|_| DebError::malformed("a member's size is damaged"))?;
            if size > LARGEST_TARBALL_BYTES {
                return Err(DebError::malformed("a member is too large"));
            }
            match header.entry_type() {
                EntryType::GNULongName => {
                    long_name = Some(self.read_long(size, long_name.as_ref())?);
                }
                EntryType::GNULongLink => {
                    long_link = Some(self.read_long(size, long_link.as_ref())?);
                }
                kind => {
                    let name = long_name.unwrap_or_else(|| header.path_bytes().into_owned());
                    let link = long_link
                        .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                        .unwrap_or_default();
                    let kind = kind_of(kind, link, &name)?;
                    // dpkg takes no contents here, other readers do: where such a member ends depends
                    // on who reads it.
                    if size > 0 && kind != Kind::File {
                        return Err(DebError::malformed("a member that is no file has contents"));
                    }
                    self.pending = padded(size);
                    return Ok(Some(Member { name, kind, size_bytes: size }));
                }
            }
        }
    }

    /// The contents of the member that came last, if they are no longer than `longest`.
    pub(super) fn contents(&mut self, member: &Member, longest: u64) -> Result<Vec<u8>, DebError> {
        if member.size_bytes > longest || self.pending < member.size_bytes {
            return Err(DebError::malformed("a file that should be short is too long"));
        }
        let contents = self.read_bytes(member.size_bytes)?;
        self.pending -= member.size_bytes;
        Ok(contents)
    }

    fn read_long(&mut self, size: u64, earlier: Option<&Vec<u8>>) -> Result<Vec<u8>, DebError> {
        if earlier.is_some() || size > LONGEST_NAME {
            return Err(DebError::malformed("a member's name is too long"));
        }
        let mut name = self.read_bytes(size)?;
        self.skip(padded(size) - size)?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    fn read_bytes(&mut self, count: u64) -> Result<Vec<u8>, DebError> {
        let mut bytes = Vec::new();
        (&mut self.input).take(count).read_to_end(&mut bytes).map_err(read_error)?;
        if bytes.len() as u64 == count { Ok(bytes) } else { Err(cut_short()) }
    }

    fn skip(&mut self, count: u64) -> Result<(), DebError> {
        let skipped = io::copy(&mut (&mut self.input).take(count), &mut io::sink());
        if skipped.map_err(read_error)? == count { Ok(()) } else { Err(cut_short()) }
    }

    /// Reads a header; false at the end, which an archive without closing blocks may have.
    fn read_block(&mut self, block: &mut [u8]) -> Result<bool, DebError> {
        let mut filled = 0;
        while filled < block.len() {
            match self.input.read(&mut block[filled..]).map_err(read_error)? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(cut_short()),
                read => filled += read,
            }
        }
        Ok(true)
    }

    /// Reads what follows the last member, so that damage there is found too.
    pub(super) fn finish(mut self) -> Result<(), DebError> {
        io::copy(&mut self.input, &mut io::sink()).map_err(read_error)?;
        if self.input.limit() == 0 {
            return Err(DebError::malformed("it unpacks to too much"));
        }
        Ok(())
    }
}

fn cut_short() -> DebError {
    DebError::malformed("a tar archive in it is cut short")
}

fn padded(size: u64) -> u64 {
    size.next_multiple_of(BLOCK_BYTES as u64)
}

fn kind_of(kind: EntryType, link: Vec<u8>, name: &[u8]) -> Result<Kind, DebError> {
    Ok(match kind {
        // Old archives mark a directory by its name alone.
        EntryType::Regular if name.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink(link),
        EntryType::Link => Kind::HardLink(link),
        EntryType::Char => Kind::Special("a character device"),
        EntryType::Block => Kind::Special("a block device"),
        EntryType::Fifo => Kind::Special("a named pipe"),
        other => {
            let kind = char::from(other.as_byte()).escape_default().to_string();
            return Err(DebError::malformed(format!(
                "a tar archive in it has a member of type '{kind}'"
            )));
        }
    })
}

/// The sum of the header's bytes, with blanks in the sum's own place.
fn check_sum(header: &Header, block: &[u8]) -> Result<(), DebError> {
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum();
    match header.cksum() {
        Ok(expected) if expected == sum + 8 * u32::from(b' ') => Ok(()),
        _ => Err(DebError::malformed("a tar archive in it has a damaged header")),
    }
}
