//! The headers of an answer.

use std::time::SystemTime;

use apt_ostree_actors::port::FetchError;
use reqwest::StatusCode;
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, LAST_MODIFIED, RETRY_AFTER,
};

/// Which part of the file an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Where it begins.
    pub(super) offset: u64,
    /// The whole file's size, where the server tells.
    pub(super) total_bytes: Option<u64>,
}

/// What a status other than success means.
pub(super) fn error(status: StatusCode, headers: &HeaderMap) -> FetchError {
    let code = status.as_u16();
    match code {
        // Timeouts, overload, and what a proxy says about a server that it cannot reach now.
        408 | 425 | 429 | 500 | 502 | 503 | 504 => {
            let retry_after_seconds = text(headers, &RETRY_AFTER).and_then(retry_after);
            FetchError::Unavailable { status: code, retry_after_seconds }
        }
        _ => FetchError::Refused { status: code },
    }
}

/// Which part of the file comes. `partial`: the server says that it is a part.
pub(super) fn extent(headers: &HeaderMap, partial: bool, asked: u64) -> Result<Extent, FetchError> {
    let length = text(headers, &CONTENT_LENGTH).and_then(|text| text.parse().ok());
    if !partial {
        return Ok(Extent { offset: 0, total_bytes: length });
    }
    match text(headers, &CONTENT_RANGE).and_then(content_range) {
        Some(extent) if extent.offset == asked => Ok(extent),
        _ => Err(FetchError::Unacceptable { reason: "another part than was asked for".to_owned() }),
    }
}

/// What a later `If-Range` can be asked with: the time, which apt keeps too, else a strong tag.
pub(super) fn validator(headers: &HeaderMap) -> Option<String> {
    let time = text(headers, &LAST_MODIFIED).filter(|text| httpdate::parse_http_date(text).is_ok());
    let tag = || text(headers, &ETAG).filter(|tag| tag.starts_with('"'));
    time.or_else(tag).map(ToOwned::to_owned)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
fn content_range(text: &str) -> Option<Extent> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total_bytes = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let plausible = first <= last && total_bytes.is_none_or(|total| last < total);
    plausible.then_some(Extent { offset: first, total_bytes })
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let date = httpdate::parse_http_date(text).ok()?;
        Some(date.duration_since(SystemTime::now()).map_or(0, |wait| wait.as_secs()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 5-9/*", Some((5, None))),
            ("bytes 9-5/10", None),
            ("bytes 5-10/10", None),
            ("bytes */10", None),
            ("items 5-9/10", None),
            ("bytes 5-9", None),
            ("bytes -1-9/10", None),
            ("bytes 5-99999999999999999999/10", None),
        ] {
            let found = content_range(text).map(|extent| (extent.offset, extent.total_bytes));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_validator_is_a_date_or_a_strong_tag() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (modified, tag, expected) in [
            (Some(date), Some("\"x\""), Some(date)),
            (Some("yesterday"), Some("\"x\""), Some("\"x\"")),
            (None, Some("W/\"x\""), None),
            (None, None, None),
        ] {
            let mut headers = HeaderMap::new();
            modified.map(|text| headers.insert(LAST_MODIFIED, text.parse().unwrap()));
            tag.map(|text| headers.insert(ETAG, text.parse().unwrap()));
            assert_eq!(validator(&headers).as_deref(), expected);
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120"), Some(120));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(0));
        assert_eq!(retry_after("soon"), None);
    }
}
