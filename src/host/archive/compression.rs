//! A member's compression, by its name's ending: those that dpkg 1.21 (Debian 12) reads.

use std::io::{BufReader, Read};

use super::DebError;
use super::source::read_error;

/// What an xz decoder may use; the strongest preset takes 65 MiB, and dpkg makes nothing stronger.
const XZ_MEMORY_BYTES: u64 = 160 << 20;
/// The longest distance that a zstd stream may refer back: 128 MiB, the format's own recommendation.
const ZSTD_WINDOW_LOG: u32 = 27;
/// What a decoder reads at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Makes a reader of the unpacked bytes of a member. `ending` is what follows `.tar` in its name.
pub(super) fn unpack<'a>(
    input: impl Read + 'a,
    ending: &str,
) -> Result<Box<dyn Read + 'a>, DebError> {
    let input = BufReader::with_capacity(BUFFER_BYTES, input);
    Ok(match ending {
        "" => Box::new(input),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        ".xz" | ".lzma" => {
            let stream = liblzma::stream::Stream::new_auto_decoder(XZ_MEMORY_BYTES, 0);
            let stream = stream.map_err(|error| read_error(error.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
        }
        ".zst" => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(input).map_err(read_error)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(read_error)?;
            Box::new(decoder)
        }
        ".bz2" => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        _ => return Err(DebError::malformed("a member is compressed in an unknown way")),
    })
}
