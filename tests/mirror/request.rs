//! Requests, as far as a static file server needs to understand them.

use std::path::PathBuf;

/// One request, headers reduced to those that matter for files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// `GET` or `HEAD`; anything else is refused later.
    pub(crate) method: String,
    /// The path as it came, for the log and for faults.
    pub(crate) target: String,
    pub(crate) range: Option<String>,
    pub(crate) if_range: Option<String>,
    pub(crate) if_modified_since: Option<String>,
    /// The client wants the connection closed after the answer.
    pub(crate) close: bool,
}

impl Request {
    /// Reads the header block `head`, which ends before its empty line.
    pub(crate) fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let mut request = Self {
            method: words.next()?.to_owned(),
            target: words.next()?.to_owned(),
            close: words.next()? == "HTTP/1.0",
            ..Self::default()
        };
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let value = value.trim().to_owned();
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value),
                "if-range" => request.if_range = Some(value),
                "if-modified-since" => request.if_modified_since = Some(value),
                "connection" => request.close = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Some(request)
    }

    /// The file below a root that is asked for; `None` if the path would leave the root.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let path = percent_decoded(self.target.split('?').next()?)?;
        let inside = path.split('/').all(|part| part != "..") && !path.contains('\0');
        inside.then(|| PathBuf::from(path.trim_start_matches('/')))
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// The part of a file of `size` bytes that a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// First byte and number of bytes.
    Range(u64, u64),
    Unsatisfiable,
}

impl Part {
    /// Several ranges, and what cannot be read, mean the whole file, as RFC 9110 allows.
    pub(crate) fn of(header: Option<&str>, size: u64) -> Self {
        let Some((first, last)) = header
            .and_then(|value| value.strip_prefix("bytes="))
            .and_then(|range| range.split_once('-'))
        else {
            return Self::Whole;
        };
        let end = size.saturating_sub(1);
        match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), _) if first >= size => Self::Unsatisfiable,
            (Ok(first), Ok(last)) if last >= first => Self::Range(first, last.min(end) - first + 1),
            (Ok(first), Err(_)) if last.is_empty() => Self::Range(first, size - first),
            (Err(_), Ok(length)) if first.is_empty() && length > 0 && size > 0 => {
                let length = length.min(size);
                Self::Range(size - length, length)
            }
            _ => Self::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_with_its_headers() {
        let request = Request::parse(
            "GET /a%2bb HTTP/1.1\r\nHost: x\r\nRange: bytes=5-\r\nConnection: close",
        )
        .expect("well formed");
        assert_eq!(request.path(), Some(PathBuf::from("a+b")));
        assert_eq!(request.range.as_deref(), Some("bytes=5-"));
        assert!(request.close);
    }

    #[test]
    fn a_path_cannot_leave_the_root() {
        let request = Request::parse("GET /a/%2e%2e/b HTTP/1.1").expect("well formed");
        assert_eq!(request.path(), None);
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let part = |header| Part::of(Some(header), 10);
        assert_eq!(Part::of(None, 10), Part::Whole);
        assert_eq!(part("bytes=4-"), Part::Range(4, 6));
        assert_eq!(part("bytes=4-5"), Part::Range(4, 2));
        assert_eq!(part("bytes=4-99"), Part::Range(4, 6));
        assert_eq!(part("bytes=-3"), Part::Range(7, 3));
        assert_eq!(part("bytes=10-"), Part::Unsatisfiable);
        assert_eq!(part("bytes=1-2,4-5"), Part::Whole);
    }
}
