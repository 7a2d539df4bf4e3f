//! Verifying packages: each as soon as it is there, while others are still being fetched.

use std::path::PathBuf;
use std::rc::Rc;

use actix::{Actor, Context, Handler, Message, ResponseFuture};
use apt_ostree_proto::package::PackageChange;
use apt_ostree_proto::{ErrorCode, Failure, Sha256};
use tracing::debug;

use crate::StepContext;
use crate::port::{Archive, ArchiveContents, PortResult};

/// How much of a name from a package file is shown.
const SHOWN_CHARACTERS: usize = 80;

/// Verifies package files.
#[derive(Debug)]
pub struct VerificationActor {
    archive: Rc<dyn Archive>,
}

impl VerificationActor {
    /// An actor that reads packages through `archive`, which bounds how many are read at once.
    pub fn new(archive: Rc<dyn Archive>) -> Self {
        Self { archive }
    }
}

impl Actor for VerificationActor {
    type Context = Context<Self>;
}

/// Request: verify that a package file is the one that the plan means, and that it may be unpacked:
/// its origin is trusted, its size and digest are the signed index's, it says of itself what the
/// index says, and has no member that leaves the tree. Changes nothing. `Untrusted`,
/// `VerificationFailed` or `UnsupportedPackage` otherwise, with what was expected and found.
#[derive(Debug, Message)]
#[rtype(result = "PortResult<()>")]
pub struct VerifyPackage {
    /// What the plan says.
    pub change: PackageChange,
    /// The package file.
    pub path: PathBuf,
    /// What its transfer hashed to, where the caller knows. The file is hashed again in any case.
    pub digest: Option<Sha256>,
    /// Whose verification it is.
    pub context: StepContext,
}

impl Handler<VerifyPackage> for VerificationActor {
    type Result = ResponseFuture<PortResult<()>>;

    fn handle(&mut self, request: VerifyPackage, _: &mut Self::Context) -> Self::Result {
        Box::pin(verify_package(Rc::clone(&self.archive), request))
    }
}

/// What [`VerifyPackage`] does.
async fn verify_package(archive: Rc<dyn Archive>, request: VerifyPackage) -> PortResult<()> {
    let VerifyPackage { change, path, digest, context } = request;
    check_plan(&change, digest.as_ref())?;
    context.report.item(change.name.as_str(), "verifying", 101);
    let contents = archive.inspect(&path, &context).await.map_err(|failure| {
        // The port names the file; people know packages.
        let message = format!("the package {}: {}", change.name, failure.message);
        Failure { message, ..failure }
    })?;
    check_contents(&change, &contents)?;
    debug!(package = %change.name, bytes = contents.size_bytes, "verified");
    context.report.item(change.name.as_str(), "verified", 100);
    Ok(())
}

/// What can be told before the file is opened.
fn check_plan(change: &PackageChange, digest: Option<&Sha256>) -> PortResult<()> {
    if !change.origin.trusted {
        let from =
            show(if change.origin.site.is_empty() { "a local file" } else { &change.origin.site });
        let text = format!("no signature covers the package {} from {from}", change.name);
        return Err(Failure::new(ErrorCode::Untrusted, text));
    }
    match (&change.file, digest) {
        (Some(file), Some(found)) if file.sha256 != *found => {
            Err(differs(change, "SHA-256 digest", file.sha256.as_str(), found.as_str()))
        }
        _ => Ok(()),
    }
}

/// Whether a file is what the plan says.
fn check_contents(change: &PackageChange, contents: &ArchiveContents) -> PortResult<()> {
    let (Some(file), Some(version)) = (&change.file, &change.new_version) else {
        let text = format!("the plan has no file and version for the package {}", change.name);
        return Err(Failure::new(ErrorCode::Internal, text));
    };
    let size = (file.size_bytes.to_string(), contents.size_bytes.to_string());
    for (what, expected, found) in [
        ("size in bytes", size.0.as_str(), size.1.as_str()),
        ("SHA-256 digest", file.sha256.as_str(), contents.sha256.as_str()),
        ("name", change.name.as_str(), contents.package.as_str()),
        ("version", version.as_str(), contents.version.as_str()),
        ("architecture", change.architecture.as_str(), contents.architecture.as_str()),
    ] {
        if expected != found {
            return Err(differs(change, what, expected, found));
        }
    }
    if contents.forbidden.is_empty() {
        return Ok(());
    }
    let members = contents.forbidden.join("; ");
    let text = format!("the package {} has members that it may not have: {members}", change.name);
    Err(Failure::new(ErrorCode::UnsupportedPackage, text))
}

fn differs(change: &PackageChange, what: &str, expected: &str, found: &str) -> Failure {
    let (name, expected, found) = (&change.name, show(expected), show(found));
    let text =
        format!("the file of the package {name} has the {what} {found}, expected was {expected}");
    Failure::new(ErrorCode::VerificationFailed, text)
}

/// A text from outside, quoted, and cut where it is long.
fn show(text: &str) -> String {
    let mut shown: String =
        text.chars().take(SHOWN_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().count() > SHOWN_CHARACTERS {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

#[cfg(test)]
mod tests;
