//! The shell scripts beside the tests, which do what must be done before a host runs.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// How often a condition outside this process is looked at again.
const POLL: Duration = Duration::from_millis(20);

/// `tests/host/NAME`.
pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host").join(name)
}

/// Where the scripts put what they build: `target/host`, or `TEST_HOST_DIR`.
pub(crate) fn host_root() -> PathBuf {
    std::env::var_os("TEST_HOST_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/host"), PathBuf::from)
}

/// The first file whose path below [`host_root`] starts with `prefix`.
pub(crate) fn built(prefix: &str) -> PathBuf {
    let path = host_root().join(prefix);
    let name = path.file_name().and_then(OsStr::to_str).expect("a prefix names files");
    let mut found: Vec<PathBuf> = std::fs::read_dir(path.parent().expect("below the host root"))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .map(|entry| entry.expect("readable directory").path())
        .filter(|path| {
            path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name))
        })
        .collect();
    found.sort();
    found.into_iter().next().unwrap_or_else(|| panic!("nothing is called {prefix}*"))
}

/// Runs a script to its end and returns the last line of its output.
pub(crate) fn run_script<S: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
) -> String {
    run_to_end(name, arguments, environment).lines().last().unwrap_or_default().to_owned()
}

/// Runs a script to its end and returns all of its output.
pub(crate) fn run_script_for_output<S: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = S>,
) -> String {
    run_to_end(name, arguments, &[])
}

fn run_to_end<S: AsRef<OsStr>>(
    name: &str,
    arguments: impl IntoIterator<Item = S>,
    environment: &[(&str, &str)],
) -> String {
    let output = Command::new(script(name))
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(
        output.status.success(),
        "{name} failed with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `condition` gives a value, and fails the test after `limit`.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        std::thread::sleep(POLL);
    }
}
