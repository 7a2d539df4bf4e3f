//! Whole packages: made by hand where they are hostile, by dpkg-deb where they are real.

use std::io::Write;
use std::process::Command;

use apt_ostree_actors::Reporter;
use apt_ostree_proto::TransactionId;
use tokio_util::sync::CancellationToken;

use super::*;

const CONTROL: &str =
    "Package: hello\nVersion: 1.0-1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n";

fn read(bytes: &[u8]) -> Result<ArchiveContents, DebError> {
    deb::read(bytes, &CancellationToken::new())
}

fn tarball(members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, contents) in members {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_entry_type(*kind);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, contents) in members {
        let size = contents.len();
        writeln!(bytes, "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`", 0, 0, 0, 100_644).unwrap();
        bytes.extend_from_slice(contents);
        if size % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn package(control: &[u8], data: &[u8]) -> Vec<u8> {
    let control = tarball(&[("./control", tar::EntryType::Regular, control)]);
    ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", data)])
}

/// A package that dpkg-deb makes, a few kilobytes small.
fn real_package(compression: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
    std::fs::create_dir_all(tree.join("usr/share/doc/hello")).unwrap();
    std::fs::write(tree.join("DEBIAN/control"), CONTROL).unwrap();
    let text = "a line that is like the others\n".repeat(400);
    std::fs::write(tree.join("usr/share/doc/hello/text"), text).unwrap();
    let long = "a".repeat(150);
    std::fs::write(tree.join("usr/share/doc/hello").join(&long), "x").unwrap();
    std::os::unix::fs::symlink("text", tree.join("usr/share/doc/hello/link")).unwrap();
    let made = directory.path().join("made.deb");
    let status = Command::new("dpkg-deb")
        .args(["--root-owner-group", &format!("-Z{compression}"), "-b"])
        .args([&tree, &made])
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(made).unwrap()
}

#[test]
fn packages_that_dpkg_makes_are_read_in_every_compression() {
    for compression in ["none", "gzip", "xz", "zstd"] {
        let bytes = real_package(compression);
        let contents = read(&bytes).unwrap();
        assert_eq!(contents.size_bytes, bytes.len() as u64);
        assert_eq!(
            contents.sha256.as_str(),
            format!("{:x}", <sha2::Sha256 as sha2::Digest>::digest(&bytes))
        );
        let names =
            (contents.package.as_str(), contents.version.as_str(), contents.architecture.as_str());
        assert_eq!(names, ("hello", "1.0-1", "all"));
        assert_eq!(contents.forbidden, Vec::<String>::new(), "{compression}");
    }
}

#[test]
fn no_bit_flip_and_no_truncation_makes_the_reader_panic_or_hide_the_change() {
    let mut random = generator(7);
    for compression in ["none", "gzip", "xz", "zstd"] {
        let original = real_package(compression);
        let sound = read(&original).unwrap();
        for round in 0..1500 {
            let mut bytes = original.clone();
            if round % 3 == 0 {
                bytes.truncate(random(bytes.len()));
            } else {
                for _ in 0..=random(4) {
                    let at = random(bytes.len());
                    bytes[at] ^= 1 << random(8);
                }
            }
            // What is still readable has another digest: nothing altered is taken for the original.
            if let Ok(contents) = read(&bytes) {
                assert_eq!(contents.sha256 == sound.sha256, bytes == original);
            }
        }
    }
}

/// A small generator with a fixed seed: a failure can be repeated.
fn generator(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |below| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below.max(1)
    }
}

#[test]
fn every_truncation_of_a_real_package_is_refused() {
    let bytes = real_package("xz");
    for length in 0..bytes.len() - 1 {
        assert!(read(&bytes[..length]).is_err(), "{length} of {}", bytes.len());
    }
}

#[test]
fn hostile_structures_are_refused_with_their_reason() {
    let data = tarball(&[("./usr/", tar::EntryType::Directory, b"")]);
    let control = tarball(&[("./control", tar::EntryType::Regular, CONTROL.as_bytes())]);
    let format: (&str, &[u8]) = ("debian-binary", b"2.0\n");
    let huge = vec![b' '; (1 << 20) + 1];
    let twice = [("./control", tar::EntryType::Regular, CONTROL.as_bytes()); 2];
    let long_name = vec![b'x'; 5000];
    let many_foreign: Vec<_> = std::iter::once(format).chain([("_x", &b"1"[..]); 17]).collect();
    for (bytes, part) in [
        (b"".to_vec(), "cut short"),
        (b"not a package at all".to_vec(), "no ar archive"),
        (ar(&[]), "does not begin"),
        (ar(&[("control.tar", &control)]), "does not begin"),
        (ar(&[("debian-binary", b"3.0\n")]), "format"),
        (ar(&[format, ("data.tar", &data)]), "where control.tar belongs"),
        (ar(&[format, ("control.tar", &control)]), "before its data.tar"),
        (ar(&[format, ("control.tar.rar", &control)]), "unknown way"),
        (ar(&many_foreign), "too many members"),
        (package(&huge, &data), "too long"),
        (package(b"Package: hello\n", &data), "no Version"),
        (
            ar(&[format, ("control.tar", &tarball(&twice)), ("data.tar", &data)]),
            "not one regular file",
        ),
        (ar(&[format, ("control.tar", &data)]), "no control file"),
        (package(CONTROL.as_bytes(), &data[..700]), "cut short"),
        (
            package(CONTROL.as_bytes(), &tarball(&[("x", tar::EntryType::XHeader, b"")])),
            "of type 'x'",
        ),
        (
            package(CONTROL.as_bytes(), &tarball(&[("x", tar::EntryType::Directory, b"data")])),
            "has contents",
        ),
        (
            package(
                CONTROL.as_bytes(),
                &tarball(&[("x", tar::EntryType::GNULongName, &long_name)]),
            ),
            "too long",
        ),
    ] {
        let error = read(&bytes).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_member_outside_of_the_tree_is_named() {
    let data = tarball(&[
        ("./opt/evil", tar::EntryType::Regular, b"x"),
        ("./usr/x", tar::EntryType::Char, b""),
        ("./usr/../../etc/passwd", tar::EntryType::Regular, b"x"),
    ]);
    let contents = read(&package(CONTROL.as_bytes(), &data)).unwrap();
    assert_eq!(contents.forbidden.len(), 3, "{:?}", contents.forbidden);
}

#[test]
fn a_small_file_that_unpacks_to_too_much_memory_is_refused() {
    // An xz stream whose dictionary is larger than any preset's.
    let options = liblzma::stream::LzmaOptions::new_preset(1).map(|mut options| {
        options.dict_size(512 << 20);
        options
    });
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options.unwrap());
    let stream =
        liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc32);
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream.unwrap());
    encoder.write_all(&[0; 4096]).unwrap();
    let data = encoder.finish().unwrap();
    let control = tarball(&[("./control", tar::EntryType::Regular, CONTROL.as_bytes())]);
    let bytes =
        ar(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar.xz", &data)]);
    let error = read(&bytes).unwrap_err();
    assert!(format!("{error:?}").to_lowercase().contains("mem"), "{error:?}");
}

#[test]
fn a_cancelled_read_says_so() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let bytes = real_package("xz");
    assert!(matches!(deb::read(bytes.as_slice(), &cancel), Err(DebError::Cancelled)));
}

#[tokio::test]
async fn the_port_names_the_file_and_takes_no_links() {
    let directory = tempfile::tempdir().unwrap();
    let context = StepContext {
        transaction: TransactionId(1),
        cancel: CancellationToken::new(),
        report: Reporter::silent(),
    };
    let archive = DebArchive::new();
    let path = directory.path().join("hello.deb");
    std::fs::write(&path, real_package("xz")).unwrap();
    assert_eq!(archive.inspect(&path, &context).await.unwrap().package, "hello");
    let link = directory.path().join("link.deb");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for path in [&link, &directory.path().join("missing.deb"), directory.path()] {
        let failure = archive.inspect(path, &context).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::VerificationFailed, "{failure}");
    }
    context.cancel.cancel();
    assert_eq!(archive.inspect(&path, &context).await.unwrap_err().code, ErrorCode::Cancelled);
}
