//! The outer layer: an ar archive, as deb(5) and dpkg have it.

use std::io::Read;

use super::DebError;
use super::source::read_error;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// One member's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberHeader {
    /// The name, without padding and the slash that some tools end it with.
    pub(super) name: String,
    /// The length of what follows.
    pub(super) size_bytes: u64,
}

/// Reads what every ar archive begins with.
pub(super) fn read_magic(input: &mut impl Read) -> Result<(), DebError> {
    let mut magic = [0; MAGIC.len()];
    input.read_exact(&mut magic).map_err(read_error)?;
    if &magic == MAGIC { Ok(()) } else { Err(DebError::malformed("it is no ar archive")) }
}

/// Reads the next member's header; none at the end.
pub(super) fn read_header(input: &mut impl Read) -> Result<Option<MemberHeader>, DebError> {
    let mut header = [0; HEADER_BYTES];
    let mut filled = 0;
    while filled < HEADER_BYTES {
        match input.read(&mut header[filled..]).map_err(read_error)? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(DebError::malformed("it is cut short")),
            read => filled += read,
        }
    }
    parse_header(&header).map(Some)
}

fn parse_header(header: &[u8; HEADER_BYTES]) -> Result<MemberHeader, DebError> {
    if &header[58..] != b"`\n" {
        return Err(DebError::malformed("an ar member's header is damaged"));
    }
    let field = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii());
        text.map(|text| text.trim_end_matches(' ').to_owned())
    };
    let name = field(&header[..16])
        .ok_or_else(|| DebError::malformed("an ar member's name is damaged"))?;
    let digits =
        field(&header[48..58]).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let size_bytes = digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| DebError::malformed("an ar member's size is damaged"))?;
    let name = name.strip_suffix('/').unwrap_or(&name).to_owned();
    Ok(MemberHeader { name, size_bytes })
}

/// Reads the byte that fills a member of odd length up; the last one may lack it.
pub(super) fn read_padding(input: &mut impl Read, size_bytes: u64) -> Result<(), DebError> {
    if size_bytes % 2 == 1 {
        input.read(&mut [0]).map_err(read_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, size: &str, end: &str) -> [u8; HEADER_BYTES] {
        format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}{end}", 0, 0, 0, 100_644)
            .into_bytes()
            .try_into()
            .unwrap()
    }

    #[test]
    fn headers_are_read_strictly() {
        for (name, size, end, expected) in [
            ("debian-binary", "4", "`\n", Some(("debian-binary", 4))),
            ("control.tar.xz/", "1000000000", "`\n", Some(("control.tar.xz", 1_000_000_000))),
            ("x", "-4", "`\n", None),
            ("x", "+4", "`\n", None),
            ("x", "", "`\n", None),
            ("x", "0x4", "`\n", None),
            ("x", "4", "\n\n", None),
        ] {
            let found = parse_header(&header(name, size, end)).ok();
            let found = found.as_ref().map(|found| (found.name.as_str(), found.size_bytes));
            assert_eq!(found, expected, "{name} {size}");
        }
    }
}
