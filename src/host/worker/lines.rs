//! Reading lines of a bounded length.

use apt_ostree_proto::{ErrorCode, Failure};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// The longest line that a worker may answer with. A plan with every package of a large host has a
/// few thousand changes of about a kilobyte; more than this is a worker gone mad.
pub(super) const LONGEST_LINE_BYTES: usize = 64 << 20;

/// Reads the next line into `line`, without its end; false at the end of the stream. The last line
/// needs no end.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> Result<bool, Failure> {
    line.clear();
    loop {
        let available = reader.fill_buf().await.map_err(|error| {
            Failure::caused(ErrorCode::Internal, "the worker's answer could not be read", &error)
        })?;
        if available.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        if line.len() + taken > LONGEST_LINE_BYTES {
            return Err(Failure::new(ErrorCode::Internal, "the worker's answer has no end"));
        }
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}
