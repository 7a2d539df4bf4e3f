use std::fs;
use std::os::unix::fs::symlink;

use super::*;

#[test]
fn what_the_packages_changed_is_applied_and_what_they_only_touched_is_not() {
    let host = Fixture::new();
    host.write("etc/changed", "old");
    host.write("etc/touched", "same");
    host.write("etc/gone", "old");
    host.snapshot(FIRST);
    host.stage(FIRST, "etc/changed", "new");
    host.stage(FIRST, "etc/touched", "same");
    host.stage(FIRST, "etc/sub/added", "new");
    host.stage_removal(FIRST, "etc/gone");
    for left in ["passwd-", ".pwd.lock", "machine-id", "x.dpkg-new"] {
        host.stage(FIRST, &format!("etc/{left}"), "left out");
    }
    let delta = host.prepare_stage(FIRST);
    assert_eq!(paths(&delta), ["changed", "sub", "sub/added", "gone"]);
    assert_eq!(host.trees.apply(&delta).unwrap(), Vec::<String>::new());
    assert_eq!(host.read("etc/changed"), "new");
    assert_eq!(host.read("etc/sub/added"), "new");
    assert!(!host.exists("etc/gone"));
    assert!(!host.exists("etc/machine-id"));
}

#[test]
fn a_file_that_was_edited_since_the_snapshot_stays_and_is_named() {
    let host = Fixture::new();
    host.write("etc/edited", "old");
    host.write("etc/removed", "old");
    host.write("etc/same", "old");
    host.snapshot(FIRST);
    for path in ["etc/edited", "etc/removed", "etc/same"] {
        host.stage(FIRST, path, "new");
    }
    host.stage(FIRST, "etc/added", "the package's");
    host.write("etc/edited", "the admin's");
    fs::remove_file(host.path("etc/removed")).unwrap();
    host.write("etc/same", "new");
    host.write("etc/added", "the admin's");
    let delta = host.prepare_stage(FIRST);
    assert!(delta.entries.is_empty());
    assert_eq!(delta.kept.len(), 3, "{:?}", delta.kept);
    assert!(delta.kept[0].starts_with("/etc/added: "));
}

#[test]
fn an_edit_between_preparing_and_applying_stays_both_ways() {
    let host = Fixture::new();
    for name in ["a", "b", "c"] {
        host.write(&format!("etc/{name}"), "old");
    }
    host.snapshot(FIRST);
    host.stage(FIRST, "etc/a", "new");
    host.stage(FIRST, "etc/b", "new");
    host.stage_removal(FIRST, "etc/c");
    host.stage(FIRST, "etc/d", "new");
    let delta = host.prepare_stage(FIRST);
    host.write("etc/a", "edited");
    host.write("etc/c", "edited");
    host.write("etc/d", "edited");
    assert_eq!(host.trees.apply(&delta).unwrap().len(), 3);
    assert_eq!(host.read("etc/b"), "new");
    host.write("etc/b", "edited later");
    assert_eq!(
        host.trees.revert(&delta).unwrap(),
        ["/etc/b: it was changed on the host and stays as it is"]
    );
    for (name, text) in [("a", "edited"), ("b", "edited later"), ("c", "edited"), ("d", "edited")] {
        assert_eq!(host.read(&format!("etc/{name}")), text, "{name}");
    }
}

#[test]
fn users_are_merged_line_by_line_and_back_again() {
    let host = Fixture::new();
    host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n");
    host.snapshot(FIRST);
    host.stage(
        FIRST,
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\nsvc:x:101:101::/:/bin/false\n",
    );
    host.write("etc/passwd", "root:x:0:0::/root:/bin/zsh\nbob:x:1000:1000::/home/bob:/bin/sh\nal:x:1001:1001::/:/bin/sh\n");
    let delta = host.prepare_stage(FIRST);
    assert_eq!(delta.kept, Vec::<String>::new());
    // Another one comes between preparing and applying.
    let text = host.read("etc/passwd") + "eve:x:1002:1002::/:/bin/sh\n";
    host.write("etc/passwd", &text);
    host.trees.apply(&delta).unwrap();
    let applied = host.read("etc/passwd");
    assert!(applied.contains("root:x:0:0::/root:/bin/zsh\n"), "{applied}");
    for name in ["al", "eve", "svc", "bob"] {
        assert_eq!(applied.matches(&format!("\n{name}:x:")).count(), 1, "{name} in {applied}");
    }
    host.trees.apply(&delta).unwrap();
    assert_eq!(host.read("etc/passwd"), applied);
    host.trees.revert(&delta).unwrap();
    assert_eq!(host.read("etc/passwd"), text);
}

#[test]
fn an_id_that_somebody_took_meanwhile_is_found_before_anything_changes() {
    let host = Fixture::new();
    host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    host.snapshot(FIRST);
    host.stage(FIRST, "etc/passwd", "root:x:0:0::/root:/bin/sh\nsvc:x:101:101::/:/bin/false\n");
    host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nother:x:101:101::/:/bin/false\n");
    let failure = host.prepare(FIRST, &DeltaSource::Stage).unwrap_err();
    assert!(
        failure.message.contains("\"svc\" needs id \"101\", which \"other\" has by now"),
        "{failure}"
    );
}

#[test]
fn a_tree_change_is_merged_as_ostree_does() {
    let host = Fixture::new();
    for (tree, files) in [
        ("usr/etc", [("plain", "1"), ("edited", "1"), ("gone", "1"), ("gone-edited", "1")]),
        ("etc", [("plain", "1"), ("edited", "mine"), ("gone", "1"), ("gone-edited", "mine")]),
    ] {
        for (name, text) in files {
            host.write(&format!("{tree}/{name}"), text);
        }
    }
    host.write("etc/own", "mine");
    for (name, text) in [("plain", "2"), ("edited", "2"), ("added", "2")] {
        host.write(&format!("live/1/tree/usr/etc/{name}"), text);
    }
    let commit = apt_ostree_proto::CommitId::parse("0".repeat(64)).unwrap();
    let new_usr = host.path("live/1/tree/usr");
    let source = DeltaSource::Trees { old: commit.clone(), new: commit, new_usr };
    let delta = host.prepare(FIRST, &source).unwrap();
    assert_eq!(paths(&delta), ["added", "plain", "gone"]);
    assert_eq!(delta.kept.len(), 2, "{:?}", delta.kept);
    host.trees.apply(&delta).unwrap();
    assert_eq!(host.read("etc/edited"), "mine");
    assert_eq!(host.read("etc/own"), "mine");
}

#[test]
fn modes_links_and_attributes_are_carried_and_come_back() {
    let host = Fixture::new();
    host.write("etc/file", "same");
    set_mode(&host.path("etc/file"), 0o644);
    symlink("one", host.path("etc/link")).unwrap();
    host.snapshot(FIRST);
    set_mode(&host.stage(FIRST, "etc/file", "same"), 0o600);
    symlink("two", host.upper(FIRST, "etc/link")).unwrap();
    let tagged = host.stage(FIRST, "etc/tagged", "x");
    let flags = rustix::fs::XattrFlags::empty();
    let has_attributes = rustix::fs::setxattr(&tagged, "user.test", b"value", flags).is_ok();
    let before = host.state();
    let delta = host.prepare_stage(FIRST);
    host.trees.apply(&delta).unwrap();
    assert_eq!(fs::metadata(host.path("etc/file")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_link(host.path("etc/link")).unwrap(), Path::new("two"));
    if has_attributes {
        let mut value = [0; 16];
        let length =
            rustix::fs::getxattr(host.path("etc/tagged"), "user.test", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"value");
    }
    host.trees.revert(&delta).unwrap();
    assert_eq!(host.state(), before);
}

#[test]
fn nothing_is_written_through_a_symbolic_link() {
    let host = Fixture::new();
    host.write("etc/conf/file", "old");
    host.write("outside/file", "old");
    host.snapshot(FIRST);
    host.stage(FIRST, "etc/conf/file", "new");
    host.stage(FIRST, "etc/conf/added", "new");
    fs::remove_dir_all(host.path("etc/conf")).unwrap();
    symlink(host.path("outside"), host.path("etc/conf")).unwrap();
    let delta = host.prepare_stage(FIRST);
    assert_eq!(host.trees.apply(&delta).unwrap(), Vec::<String>::new());
    assert_eq!(delta.kept.len(), 2, "{:?}", delta.kept);
    assert_eq!(host.read("outside/file"), "old");
    assert!(!host.exists("outside/added"));
}

#[test]
fn an_opaque_directory_removes_what_was_below_but_not_the_admins_files() {
    let host = Fixture::new();
    host.write("etc/d/packaged", "old");
    host.write("etc/e/packaged", "old");
    host.snapshot(FIRST);
    host.write("etc/e/own", "mine");
    for directory in ["etc/d", "etc/e"] {
        host.stage(FIRST, &format!("{directory}/fresh"), "new");
        let upper = host.upper(FIRST, directory);
        rustix::fs::setxattr(&upper, "user.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
            .unwrap();
    }
    let delta = host.prepare_stage(FIRST);
    host.trees.apply(&delta).unwrap();
    assert!(!host.exists("etc/d/packaged") && !host.exists("etc/e/packaged"));
    assert_eq!(host.read("etc/e/own"), "mine");
    assert_eq!(host.read("etc/d/fresh"), "new");
}

#[test]
fn a_directory_with_the_admins_files_is_neither_removed_nor_replaced() {
    let host = Fixture::new();
    host.write("etc/gone/packaged", "old");
    host.write("etc/to-link/packaged", "old");
    host.snapshot(FIRST);
    host.write("etc/gone/own", "mine");
    host.write("etc/to-link/own", "mine");
    host.stage_removal(FIRST, "etc/gone");
    symlink("x", host.upper(FIRST, "etc/to-link")).unwrap();
    let delta = host.prepare_stage(FIRST);
    assert_eq!(paths(&delta), ["gone/packaged"]);
    assert_eq!(delta.kept, ["/etc/to-link: the directory holds files of the host's and stays"]);
    host.trees.apply(&delta).unwrap();
    assert_eq!(host.read("etc/gone/own"), "mine");
}

#[test]
fn a_file_made_in_a_new_directory_keeps_it_on_the_way_back() {
    let host = Fixture::new();
    host.snapshot(FIRST);
    host.stage(FIRST, "etc/new/file", "new");
    let delta = host.prepare_stage(FIRST);
    host.trees.apply(&delta).unwrap();
    host.write("etc/new/own", "mine");
    let kept = host.trees.revert(&delta).unwrap();
    assert_eq!(kept, ["/etc/new: the directory holds files of the host's and stays"]);
    assert!(!host.exists("etc/new/file"));
    assert_eq!(host.read("etc/new/own"), "mine");
}
