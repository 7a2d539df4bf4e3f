//! `AppArmor`'s profiles: `apparmor_parser(8)`, apparmor.d(5).

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use apt_ostree_actors::port::PortResult;
use tokio::process::Command;
use tokio::time::timeout;

/// What says whether the kernel has it, what it has loaded, and where a profile's name takes it out.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";
const REMOVE: &str = "/sys/kernel/security/apparmor/.remove";

/// Where profiles are; what is further below is a part of them.
const PROFILES: &str = "/etc/apparmor.d";

const PARSER: &str = "apparmor_parser";

/// All profiles of a host with many take some seconds.
const PARSER_TIMEOUT: Duration = Duration::from_secs(60);

/// How much of what the parser says is told.
const MOST_QUOTED_CHARACTERS: usize = 500;

/// Loads the profiles among `changed` anew, all of them where a part changed that others include, and
/// takes those out whose files are gone.
pub(super) async fn load(changed: &[PathBuf]) -> PortResult<Vec<String>> {
    let of_profiles: Vec<&Path> = changed
        .iter()
        .filter_map(|path| path.strip_prefix(PROFILES).ok())
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if of_profiles.is_empty() || !is_enabled() {
        return Ok(Vec::new());
    }
    let root = Path::new(PROFILES);
    let (own, parts): (Vec<&Path>, Vec<&Path>) =
        of_profiles.into_iter().partition(|path| path.components().count() == 1);
    let (there, gone): (Vec<&Path>, Vec<&Path>) =
        own.into_iter().partition(|path| root.join(path).exists());
    let mut told = take_out(&gone);
    let files: Vec<PathBuf> = if parts.is_empty() {
        there.into_iter().map(|path| root.join(path)).collect()
    } else {
        vec![root.to_owned()]
    };
    if !files.is_empty() {
        told.extend(parse(&files).await.err());
    }
    Ok(told)
}

fn is_enabled() -> bool {
    std::fs::read_to_string(ENABLED).is_ok_and(|text| text.starts_with('Y'))
}

/// Has the parser read these files. Its cache goes by their times, which are older again after a rollback.
async fn parse(files: &[PathBuf]) -> Result<(), String> {
    let output = Command::new(PARSER)
        .args(["--replace", "--skip-read-cache", "--write-cache", "--"])
        .args(files)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .output();
    let failed = |why: &str| format!("changed AppArmor profiles were not loaded: {why}");
    match timeout(PARSER_TIMEOUT, output).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let complaint: String = String::from_utf8_lossy(&output.stderr)
                .trim()
                .chars()
                .map(|character| if character.is_control() { ' ' } else { character })
                .take(MOST_QUOTED_CHARACTERS)
                .collect();
            Err(failed(&format!("{PARSER} ended with {}: {complaint}", output.status)))
        }
        // Nothing was ever loaded by it.
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) => Err(failed(&error.to_string())),
        Err(_) => Err(failed("it took too long")),
    }
}

/// Takes the profiles of these files out of the kernel, as far as their names tell which they are.
fn take_out(gone: &[&Path]) -> Vec<String> {
    if gone.is_empty() {
        return Vec::new();
    }
    let loaded = match std::fs::read_to_string(LOADED) {
        Ok(loaded) => loaded,
        Err(error) => return vec![format!("the loaded AppArmor profiles cannot be read: {error}")],
    };
    let names = gone.iter().flat_map(|path| names_of(path)).collect();
    let take_out = |name: &str| {
        let result = std::fs::write(REMOVE, name);
        result.err().map(|error| format!("the AppArmor profile {name:?} is still loaded: {error}"))
    };
    found_in(&loaded, &names).into_iter().filter_map(take_out).collect()
}

/// What the profile in a file of that name is called, by Debian's habit: `usr.bin.man` is that of
/// `/usr/bin/man`, others go by their own names.
fn names_of(file: &Path) -> Vec<String> {
    let name = file.to_string_lossy();
    vec![name.to_string(), format!("/{}", name.replace('.', "/"))]
}

/// Those of `names` that are loaded: a line is `NAME (MODE)`.
fn found_in<'a>(loaded: &'a str, names: &BTreeSet<String>) -> Vec<&'a str> {
    let of_line = |line: &'a str| line.rsplit_once(" (").map(|(name, _)| name);
    loaded.lines().filter_map(of_line).filter(|name| names.contains(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_is_gone_is_found_by_its_files_name() {
        let loaded = "/usr/bin/man (enforce)\nman_filter (complain)\nlsb_release (enforce)\n\
                      /usr/bin/man//child (enforce)\n";
        for (file, expected) in [
            ("usr.bin.man", &["/usr/bin/man"][..]),
            ("lsb_release", &["lsb_release"]),
            ("usr.bin", &[]),
            ("man", &[]),
        ] {
            let names = names_of(Path::new(file)).into_iter().collect();
            assert_eq!(found_in(loaded, &names), expected, "{file}");
        }
    }

    #[tokio::test]
    async fn other_files_are_nothing_to_load() {
        let changed = ["/etc/nginx/nginx.conf", "/usr/etc/apparmor.d/x", "/etc/apparmor.d"];
        let changed: Vec<PathBuf> = changed.iter().map(PathBuf::from).collect();
        assert_eq!(load(&changed).await.unwrap(), [""; 0]);
    }
}
