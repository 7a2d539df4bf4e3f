//! Creates what tmpfiles fragments describe.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{ErrorCode, Failure};
use tokio::process::Command;

/// Far above what creating a few directories takes.
const TMPFILES_TIMEOUT: Duration = Duration::from_secs(60);

/// systemd-tmpfiles(8): some of the lines could not be applied (`EX_DATAERR`: not understood;
/// `EX_CANTCREAT`: not created). The rest was.
const SOME_LINES_FAILED: [i32; 2] = [65, 73];

/// Runs `systemd-tmpfiles --create` for the given fragments and nothing else. A fragment that is gone
/// again describes nothing. Only `/run` is touched: what fragments want in `/etc` and `/var` comes
/// through those directories' journalled deltas, which can be undone.
pub(super) async fn create(fragments: &[PathBuf]) -> PortResult<()> {
    let fragments: Vec<PathBuf> = fragments
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .map(|path| Path::new("/").join(path))
        .filter(|path| path.exists())
        .collect();
    if fragments.is_empty() {
        return Ok(());
    }
    let output = Command::new("systemd-tmpfiles")
        .args(["--create", "--prefix=/run", "--prefix=/var/run", "--"])
        .args(&fragments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output();
    let failed = |why: &str| {
        Failure::new(ErrorCode::SwitchFailed, format!("systemd-tmpfiles --create failed: {why}"))
    };
    let output = tokio::time::timeout(TMPFILES_TIMEOUT, output)
        .await
        .map_err(|_| failed("it did not end in time"))?
        .map_err(|error| failed(&error.to_string()))?;
    let complaint: String = String::from_utf8_lossy(&output.stderr)
        .chars()
        .filter(|c| *c != '\u{1b}')
        .take(500)
        .collect();
    match output.status.code() {
        Some(0) => Ok(()),
        // As at boot, a line that cannot be applied does not stop the others.
        Some(code) if SOME_LINES_FAILED.contains(&code) => {
            tracing::warn!(complaint = complaint.trim(), "some tmpfiles lines were not applied");
            Ok(())
        }
        _ => Err(failed(&format!("{}: {}", output.status, complaint.trim()))),
    }
}
