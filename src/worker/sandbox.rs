//! The `sandbox` task: mounts the staged root and becomes bubblewrap in it.

mod bubblewrap;
mod durability;
mod overlays;
mod shims;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::process::CommandExt;

use apt_ostree::host::sandbox::task::{Inner, SandboxRequest};
use apt_ostree::host::tree::layout::Stage;
use apt_ostree_proto::{ErrorCode, Failure};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::ostree::make_private;
use crate::output::Output;

/// Never returns but with a failure: what is done inside is answered by the worker there.
pub(crate) fn enter(request: &SandboxRequest, output: &Output) -> Result<Infallible, Failure> {
    let stage = Stage::of(request.transaction);
    make_private()?;
    let failed = |what: &'static str| {
        move |error: io::Error| Failure::caused(ErrorCode::InstallFailed, what, &error)
    };
    shims::write(&stage, request).map_err(failed("the sandbox's shims cannot be written"))?;
    let mount = match &request.inner {
        Inner::Install(_) => overlays::mount_all,
        Inner::Test(_) => overlays::mount_all_to_try,
    };
    mount(&stage, &request.lower_usr).map_err(failed("the staged root cannot be mounted"))?;
    let input = inner_request(request).map_err(failed("the request cannot be handed on"))?;
    let filter = durability::filter().map_err(failed("the sandbox's filter cannot be written"))?;
    let mut command = bubblewrap::command(&stage, request, &filter)
        .map_err(failed("the worker does not find itself"))?;
    command.stdin(input);
    output.give_back_stdout().map_err(failed("the worker's output cannot be handed on"))?;
    let error = command.exec();
    Err(Failure::caused(ErrorCode::InstallFailed, "bubblewrap (bwrap) cannot be run", &error)
        .with_hint("Install the package bubblewrap in the image."))
}

/// The inner task's request as a file, since nobody is left to write into a pipe.
fn inner_request(request: &SandboxRequest) -> io::Result<File> {
    let mut file = File::from(memfd_create("inner-request", MemfdFlags::CLOEXEC)?);
    file.write_all(&request.inner.request()?)?;
    file.rewind()?;
    Ok(file)
}
