//! Answers: which bytes of which file, under which headers.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    fault::Faults,
    request::{Part, Request},
};

/// An answer that is ready to be sent.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Where in the file the body starts, which faults count from.
    pub(crate) offset: u64,
}

struct Found {
    file: File,
    size: u64,
    modified: String,
    tag: String,
}

impl Response {
    pub(crate) fn to(request: &Request, roots: &[PathBuf], faults: &Faults) -> Self {
        if let Some(status) = faults.status {
            return Self::error(status);
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Self::error(405);
        }
        let Some(found) = request.path().and_then(|path| find(roots, &path)) else {
            return Self::error(404);
        };
        Self::of_file(request, found, faults).unwrap_or_else(|_| Self::error(500))
    }

    fn error(status: u16) -> Self {
        Self::new(status, "", Vec::new(), 0, 0)
    }

    fn of_file(request: &Request, mut found: Found, faults: &Faults) -> std::io::Result<Self> {
        let size = faults.truncate_at.map_or(found.size, |end| end.min(found.size));
        let mut headers = format!(
            "Last-Modified: {}\r\nETag: {}\r\nAccept-Ranges: bytes\r\n",
            found.modified, found.tag
        );
        if request.range.is_none() && request.if_modified_since.as_ref() == Some(&found.modified) {
            return Ok(Self::new(304, &headers, Vec::new(), 0, 0));
        }
        let unchanged = request
            .if_range
            .as_ref()
            .is_none_or(|known| *known == found.modified || *known == found.tag);
        let range = request.range.as_deref().filter(|_| unchanged);
        let (status, offset, length) = match Part::of(range, size) {
            Part::Whole => (200, 0, size),
            Part::Range(first, length) => {
                let last = first + length - 1;
                headers.push_str(&content_range(&format!("{first}-{last}"), size));
                (206, first, length)
            }
            Part::Unsatisfiable => {
                headers.push_str(&content_range("*", size));
                return Ok(Self::new(416, &headers, Vec::new(), 0, 0));
            }
        };
        let mut body = Vec::new();
        if request.method == "GET" {
            found.file.seek(SeekFrom::Start(offset))?;
            found.file.take(length).read_to_end(&mut body)?;
        }
        if let Some(byte) = faults
            .flip_at
            .and_then(|at| at.checked_sub(offset))
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| body.get_mut(at))
        {
            *byte ^= 1;
        }
        Ok(Self::new(status, &headers, body, length, offset))
    }

    fn new(status: u16, headers: &str, body: Vec<u8>, length: u64, offset: u64) -> Self {
        let head = format!("HTTP/1.1 {status} -\r\n{headers}Content-Length: {length}\r\n\r\n");
        Self { status, head, body, offset }
    }
}

fn content_range(range: &str, size: u64) -> String {
    format!("Content-Range: bytes {range}/{size}\r\n")
}

fn find(roots: &[PathBuf], path: &std::path::Path) -> Option<Found> {
    roots.iter().find_map(|root| {
        let file = File::open(root.join(path)).ok()?;
        let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        let size = metadata.len();
        let seconds = seconds_since_epoch(modified);
        Some(Found {
            file,
            size,
            modified: http_date(seconds),
            tag: format!("\"{seconds:x}-{size:x}\""),
        })
    })
}

fn seconds_since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

/// The date format of RFC 9110, 5.6.7.
fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, time) = (seconds / 86_400, seconds % 86_400);
    let weekday = DAYS[usize::try_from(days % 7).unwrap_or(0)];
    // Days to a civil date, counting years from March so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = year_of_era + era * 400 + u64::from(month < 2);
    format!(
        "{weekday}, {day:02} {} {year} {:02}:{:02}:{:02} GMT",
        MONTHS[usize::try_from(month).unwrap_or(0)],
        time / 3_600,
        time / 60 % 60,
        time % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_http_wants_them() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(1_709_210_096), "Thu, 29 Feb 2024 12:34:56 GMT");
    }
}
