//! Sixty packages of the sizes that an update has, and their index.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

/// How many packages there are.
const PACKAGES: u32 = 60;
/// The size of the smallest; the largest is 130 times as large, and all together have 59 MB.
const SMALLEST_BYTES: f64 = 36_000.0;

/// One package file.
pub(super) struct File {
    pub(super) name: String,
    pub(super) file_name: String,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
}

/// Makes the packages and an index of them below `root`.
pub(super) fn make(root: &Path) -> Result<Vec<File>> {
    std::fs::create_dir_all(root)?;
    let tree = root.join("tree");
    std::fs::create_dir_all(tree.join("DEBIAN"))?;
    std::fs::create_dir_all(tree.join("usr/share"))?;
    let mut files = Vec::new();
    let mut index = String::new();
    for number in 0..PACKAGES {
        let name = format!("bench{number}");
        let control = format!(
            "Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: bench <bench@localhost>\nDescription: bench\n"
        );
        std::fs::write(tree.join("DEBIAN/control"), &control)?;
        let size = SMALLEST_BYTES * (f64::from(number) / f64::from(PACKAGES) * 4.9).exp();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few MB")]
        std::fs::write(tree.join("usr/share/data"), noise(u64::from(number), size as usize))?;
        let file_name = format!("{name}_1_all.deb");
        let made = Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "-b"])
            .args([&tree, &root.join(&file_name)])
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "dpkg-deb failed");
        let bytes = std::fs::read(root.join(&file_name))?;
        let (size_bytes, sha256) = (bytes.len() as u64, format!("{:x}", Sha256::digest(&bytes)));
        writeln!(
            index,
            "{control}Filename: ./{file_name}\nSize: {size_bytes}\nSHA256: {sha256}\n"
        )?;
        files.push(File { name, file_name, size_bytes, sha256 });
    }
    std::fs::write(root.join("Packages"), index)?;
    Ok(files)
}

/// Bytes without a pattern.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
