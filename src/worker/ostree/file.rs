//! One file of a commit, without a checkout.

use std::io::Read as _;

use apt_ostree::host::tree::task::{ReadFileAnswer, ReadFileRequest};
use apt_ostree_proto::{ErrorCode, Failure};
use base64::Engine;
use ostree::gio::prelude::*;
use ostree::gio::{File, FileQueryInfoFlags, IOErrorEnum};
use ostree::{Repo, RepoFile};

use super::repository::{self, NEVER, failed};

/// The largest file that is read; a full Debian's dpkg status has about 10 MB.
const LARGEST_BYTES: i64 = 256 << 20;

/// Reads the file. A path that the commit does not have, or that is no regular file, is no error.
pub(crate) fn read_file(request: &ReadFileRequest) -> Result<ReadFileAnswer, Failure> {
    let unread = |error: &ostree::glib::Error| {
        let path = request.path.display().to_string();
        let what = format!(
            "\"{}\" of commit {} cannot be read",
            path.escape_debug(),
            request.commit.short()
        );
        failed(ErrorCode::Internal, &what, error)
    };
    let repo = repository::open()?;
    let (root, _) = repo.read_commit(request.commit.as_str(), NEVER).map_err(|error| {
        failed(ErrorCode::NotFound, "the repository has no such commit", &error)
    })?;
    let file = root.resolve_relative_path(&request.path);
    let info = match file.query_info("standard::*", FileQueryInfoFlags::NOFOLLOW_SYMLINKS, NEVER) {
        Ok(info) => info,
        Err(error) if error.matches(IOErrorEnum::NotFound) => {
            return Ok(ReadFileAnswer { base64: None });
        }
        Err(error) => return Err(unread(&error)),
    };
    if info.file_type() != ostree::gio::FileType::Regular {
        return Ok(ReadFileAnswer { base64: None });
    }
    if info.size() > LARGEST_BYTES {
        let message = format!("\"{}\" is too large to be read", request.path.display());
        return Err(Failure::new(ErrorCode::Internal, message));
    }
    let bytes = contents(&repo, &file).map_err(|error| unread(&error))?;
    Ok(ReadFileAnswer { base64: Some(base64::engine::general_purpose::STANDARD.encode(&bytes)) })
}

/// All bytes of a regular file. Not by `g_file_load_contents()`, which warns on every file of libostree.
fn contents(repo: &Repo, file: &File) -> Result<Vec<u8>, ostree::glib::Error> {
    let odd = || ostree::glib::Error::new(IOErrorEnum::Failed, "it is no file of the repository");
    let checksum = file.downcast_ref::<RepoFile>().ok_or_else(odd)?.checksum();
    let (stream, ..) = repo.load_file(&checksum, NEVER)?;
    let mut bytes = Vec::new();
    stream
        .ok_or_else(odd)?
        .into_read()
        .read_to_end(&mut bytes)
        .map_err(|error| ostree::glib::Error::new(IOErrorEnum::Failed, &error.to_string()))?;
    Ok(bytes)
}
