use std::fs;
use std::time::Duration;

use super::*;

/// Change times have the clock's tick; a file must be older than the stage to count as unchanged.
const TICK: Duration = Duration::from_millis(20);

#[test]
fn registers_and_packaged_files_are_replaced_and_data_is_named() {
    let host = Fixture::new();
    host.write("var/lib/ucf/hashfile", "old");
    host.write("var/lib/app/packaged", "old");
    host.write("var/lib/app/data", "old");
    host.write("var/lib/app/lost", "old");
    host.write("info/app.list", "/.\n/var/lib/app/packaged\n/usr/bin/app\n");
    std::thread::sleep(TICK);
    host.snapshot(FIRST);
    host.stage(FIRST, "var/lib/ucf/hashfile", "new");
    host.stage(FIRST, "var/lib/app/packaged", "new");
    host.stage(FIRST, "var/lib/app/data", "new");
    host.stage_removal(FIRST, "var/lib/app/lost");
    host.stage(FIRST, "var/lib/app/fresh", "new");
    host.stage(FIRST, "var/cache/apt/pkgcache.bin", "left out");
    host.stage(FIRST, "var/log/dpkg.log", "left out");
    let delta = host.prepare_stage(FIRST);
    assert_eq!(delta.live_data, ["/var/lib/app/data", "/var/lib/app/lost"]);
    let before = host.state();
    host.trees.apply(&delta).unwrap();
    for (path, text) in [
        ("ucf/hashfile", "new"),
        ("app/packaged", "new"),
        ("app/data", "old"),
        ("app/fresh", "new"),
    ] {
        assert_eq!(host.read(&format!("var/lib/{path}")), text, "{path}");
    }
    assert!(!host.exists("var/log/dpkg.log"));
    host.trees.revert(&delta).unwrap();
    host.trees.discard(FIRST).unwrap();
    let mut after = host.state();
    // The directory of left-out files is new all the same.
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(after, before);
}

#[test]
fn a_register_that_changed_since_the_stage_is_data() {
    let host = Fixture::new();
    host.write("var/lib/ucf/hashfile", "old");
    host.snapshot(FIRST);
    std::thread::sleep(TICK);
    host.stage(FIRST, "var/lib/ucf/hashfile", "new");
    host.write("var/lib/ucf/hashfile", "changed");
    let delta = host.prepare_stage(FIRST);
    assert_eq!(delta.live_data, ["/var/lib/ucf/hashfile"]);
    assert!(delta.entries.is_empty());
}

#[test]
fn a_special_file_is_not_carried_over() {
    let host = Fixture::new();
    host.snapshot(FIRST);
    let path = host.upper(FIRST, "var/lib/pipe");
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let delta = host.prepare_stage(FIRST);
    assert_eq!(delta.kept, ["/var/lib/pipe: a device, socket or pipe is not carried over"]);
}

#[test]
fn what_dpkg_logged_is_appended_once() {
    let host = Fixture::new();
    host.write("var/log/dpkg.log", "before\n");
    host.snapshot(FIRST);
    host.stage(FIRST, "var/log/dpkg.log", "before\nupdate\n");
    host.stage(FIRST, "var/log/apt/history.log", "no directory for it\n");
    for _ in 0..2 {
        host.trees.append_logs(FIRST).unwrap();
        assert_eq!(host.read("var/log/dpkg.log"), "before\nupdate\n");
    }
    fs::remove_file(host.path("var/log/dpkg.log")).unwrap();
    host.trees.append_logs(SECOND).unwrap();
    assert!(!host.exists("var/log/dpkg.log"));
}
