//! What of this host its journal is held against: machine-id(5), the booted deployment's OS name, and the
//! trees that transactions left.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use apt_ostree_actors::journal::Surroundings;
use apt_ostree_actors::port::PortResult;
use apt_ostree_proto::{CommitId, ErrorCode, Failure, TransactionId};
use sha2::Digest as _;

use super::paths;
use super::tree::state::{self, StateReader};

/// Where the machine's identity is.
const MACHINE_ID: &str = "/etc/machine-id";
/// Put before the identity, which is confidential: machine-id(5) wants applications to hash it so.
const APPLICATION: &[u8] = b"apt-ostree journal\n";

/// Those of the host that this process runs on.
pub fn of_host() -> PortResult<Surroundings> {
    let state = StateReader::default();
    let mounts = state.mounts()?;
    let is_lasting = !mounts.iter().any(|mount| mount.point == Path::new(MACHINE_ID));
    let machine = if is_lasting { machine_of(Path::new(MACHINE_ID)) } else { None };
    let mut trees = trees_in(&Places::of_host())?;
    for transaction in mounts.iter().filter_map(|mount| state::live_transaction(&mount.root)) {
        trees.entry(transaction).or_default();
    }
    // What is made while edits of /etc are carried over.
    trees.remove(&TransactionId(0));
    Ok(Surroundings { machine, os_name: Some(state.booted(&mounts)?.os_name), trees })
}

/// A digest of the machine's identity; none where it has none yet, or none that lasts.
fn machine_of(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let id = text.trim();
    // "uninitialized" is what systemd finds in an image.
    if id.len() != 32 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let digest = sha2::Sha256::new().chain_update(APPLICATION).chain_update(id).finalize();
    let mut text = String::with_capacity(64);
    for byte in digest {
        write!(text, "{byte:02x}").ok()?;
    }
    Some(text)
}

/// The directories whose entries go by transactions' numbers.
struct Places {
    refs: PathBuf,
    others: [PathBuf; 2],
}

impl Places {
    fn of_host() -> Self {
        let none = TransactionId(0);
        let parent = |path: PathBuf| path.parent().map(Path::to_owned).unwrap_or_default();
        let heads = Path::new(paths::REPOSITORY).join("refs/heads");
        Self {
            refs: parent(heads.join(paths::live_ref(none))),
            others: [PathBuf::from(paths::LIVE_DIRECTORY), parent(paths::var_delta(none))],
        }
    }
}

fn trees_in(places: &Places) -> PortResult<BTreeMap<TransactionId, Option<CommitId>>> {
    let mut trees = BTreeMap::new();
    for directory in places.others.iter().chain([&places.refs]) {
        for (transaction, path) in numbered(directory)? {
            let named = if *directory == places.refs { commit_in(&path) } else { None };
            let tree: &mut Option<CommitId> = trees.entry(transaction).or_default();
            *tree = tree.take().or(named);
        }
    }
    Ok(trees)
}

fn commit_in(reference: &Path) -> Option<CommitId> {
    CommitId::parse(fs::read_to_string(reference).ok()?.trim()).ok()
}

fn numbered(directory: &Path) -> PortResult<Vec<(TransactionId, PathBuf)>> {
    let unread = |error: io::Error| {
        let what = format!("{} cannot be listed", directory.display());
        Failure::caused(ErrorCode::StateUnreadable, &what, &error)
    };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unread(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(unread)?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(number.map(|number| (TransactionId(number), entry.path())));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_are_known_by_their_refs_and_by_their_directories() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let places = Places { refs: place("refs"), others: [place("live"), place("not there")] };
        for name in ["live/7", "live/etc-of", "live/trash", "refs"] {
            fs::create_dir_all(place(name)).unwrap();
        }
        let commit = "0123456789abcdef".repeat(4);
        fs::write(place("refs/7"), format!("{commit}\n")).unwrap();
        fs::write(place("refs/9"), "nonsense").unwrap();
        let trees = trees_in(&places).unwrap();
        let expected = [(TransactionId(7), CommitId::parse(commit).ok()), (TransactionId(9), None)];
        assert_eq!(trees, expected.into());
    }

    #[test]
    fn a_machine_without_a_lasting_identity_has_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["", "uninitialized\n", "0123"] {
            fs::write(file.path(), text).unwrap();
            assert_eq!(machine_of(file.path()), None, "{text}");
        }
        fs::write(file.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
        let machine = machine_of(file.path()).unwrap();
        assert!(machine.len() == 64 && !machine.contains("0123456789abcdef"), "{machine}");
    }
}
