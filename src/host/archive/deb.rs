//! A Debian package as a whole: deb(5).

use std::io::{self, Read};
use std::path::Path;

use apt_ostree_actors::port::ArchiveContents;
use tokio_util::sync::CancellationToken;

use super::DebError;
use super::ar::{self, MemberHeader};
use super::compression::unpack;
use super::control::{self, Control};
use super::members::Judge;
use super::source::{self, Source, read_error};
use super::tarball::{Kind, Walk};

/// The longest `debian-binary`; it holds a version and perhaps comments.
const LONGEST_FORMAT_BYTES: u64 = 1024;
/// The longest control file; Debian's longest has some 60 KiB.
const LONGEST_CONTROL_BYTES: u64 = 1 << 20;
/// How many members besides its own an archive may have; dpkg passes over names with an underscore.
const MOST_FOREIGN_MEMBERS: usize = 16;

/// Reads the package at `path`.
pub(super) fn inspect(
    path: &Path,
    cancel: &CancellationToken,
) -> Result<ArchiveContents, DebError> {
    read(source::open(path)?, cancel)
}

/// Reads a package.
pub(super) fn read(
    input: impl Read,
    cancel: &CancellationToken,
) -> Result<ArchiveContents, DebError> {
    let mut source = Source::new(input, cancel.clone());
    let (control, forbidden) = read_members(&mut source)?;
    let (sha256, size_bytes) = source.finish()?;
    Ok(ArchiveContents {
        sha256,
        size_bytes,
        package: control.package,
        version: control.version,
        architecture: control.architecture,
        forbidden,
    })
}

fn read_members(source: &mut impl Read) -> Result<(Control, Vec<String>), DebError> {
    ar::read_magic(source)?;
    read_format(source)?;
    let header = next_own(source, "control.tar")?;
    let control = in_member(source, &header, "control.tar", read_control)?;
    let header = next_own(source, "data.tar")?;
    let forbidden = in_member(source, &header, "data.tar", read_data)?;
    Ok((control, forbidden))
}

/// The first member says that this is a package, and of which format.
fn read_format(source: &mut impl Read) -> Result<(), DebError> {
    let header = ar::read_header(source)?;
    let header = header.filter(|header| header.name == "debian-binary");
    let Some(header) = header.filter(|header| header.size_bytes <= LONGEST_FORMAT_BYTES) else {
        return Err(DebError::malformed("it does not begin as a Debian package"));
    };
    let mut format = Vec::new();
    source.take(header.size_bytes).read_to_end(&mut format).map_err(read_error)?;
    if !format.starts_with(b"2.") || !format.contains(&b'\n') {
        return Err(DebError::malformed("it is of a format other than 2.x"));
    }
    ar::read_padding(source, header.size_bytes)
}

/// Finds the next member that is not to be passed over; it has to be `expected`.
fn next_own(source: &mut impl Read, expected: &str) -> Result<MemberHeader, DebError> {
    for _ in 0..MOST_FOREIGN_MEMBERS {
        let Some(header) = ar::read_header(source)? else {
            return Err(DebError::malformed(format!("it ends before its {expected}")));
        };
        if header.name.starts_with(expected) {
            return Ok(header);
        }
        if !header.name.starts_with('_') {
            let name = &header.name;
            return Err(DebError::malformed(format!("it has {name:?} where {expected} belongs")));
        }
        let mut member = source.take(header.size_bytes);
        io::copy(&mut member, &mut io::sink()).map_err(read_error)?;
        ar::read_padding(source, header.size_bytes)?;
    }
    Err(DebError::malformed("it has too many members"))
}

/// Unpacks a member, has it read, and reads on to its end.
fn in_member<T>(
    source: &mut impl Read,
    header: &MemberHeader,
    stem: &str,
    read: fn(&mut dyn Read) -> Result<T, DebError>,
) -> Result<T, DebError> {
    let mut member = source.take(header.size_bytes);
    let ending = header.name.strip_prefix(stem).unwrap_or("");
    let outcome = read(&mut *unpack(&mut member, ending)?);
    // A stream that ends early looks damaged; say that the file is cut short where it is.
    io::copy(&mut member, &mut io::sink()).map_err(read_error)?;
    if member.limit() > 0 {
        return Err(DebError::malformed("it is cut short"));
    }
    let outcome = outcome?;
    ar::read_padding(source, header.size_bytes)?;
    Ok(outcome)
}

fn read_control(input: &mut dyn Read) -> Result<Control, DebError> {
    let mut walk = Walk::new(input);
    let mut control = None;
    while let Some(member) = walk.next_member()? {
        let name = member.name.strip_prefix(b"./").unwrap_or(&member.name);
        if name != b"control" {
            continue;
        }
        if control.is_some() || member.kind != Kind::File {
            return Err(DebError::malformed("its control file is not one regular file"));
        }
        control = Some(control::parse(&walk.contents(&member, LONGEST_CONTROL_BYTES)?)?);
    }
    walk.finish()?;
    control.ok_or_else(|| DebError::malformed("it has no control file"))
}

fn read_data(input: &mut dyn Read) -> Result<Vec<String>, DebError> {
    let mut walk = Walk::new(input);
    let mut judge = Judge::default();
    while let Some(member) = walk.next_member()? {
        judge.add(&member)?;
    }
    walk.finish()?;
    Ok(judge.finish())
}
