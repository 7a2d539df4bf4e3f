use std::fs;
use std::os::unix::fs::symlink;

use super::super::disk::faults;
use super::*;

/// A change of every kind, several times.
fn changed_host() -> (Fixture, Delta) {
    let host = Fixture::in_memory();
    for number in 0..20 {
        host.write(&format!("etc/app{number}/app.conf"), &format!("old {number}"));
        host.write(&format!("etc/gone{number}.conf"), "goes");
    }
    host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    host.write("etc/group", "root:x:0:\nadm:x:4:root\n");
    host.write("etc/to-link/inside", "x");
    symlink("elsewhere", host.path("etc/to-directory")).unwrap();
    fs::create_dir(host.path("etc/moded")).unwrap();
    set_mode(&host.path("etc/moded"), 0o755);
    fs::create_dir(host.path("etc/empties")).unwrap();
    host.write("var/lib/ucf/hashfile", "a\n");
    std::thread::sleep(std::time::Duration::from_millis(20));
    host.snapshot(FIRST);
    for number in 0..20 {
        host.stage(FIRST, &format!("etc/app{number}/app.conf"), &format!("new {number}"));
        host.stage(FIRST, &format!("etc/new{number}/deep/new.conf"), "new");
        host.stage_removal(FIRST, &format!("etc/gone{number}.conf"));
        host.stage(FIRST, &format!("var/lib/new{number}/file"), "data");
    }
    host.stage(FIRST, "etc/passwd", "root:x:0:0::/root:/bin/sh\nnew:x:101:101::/:/bin/false\n");
    host.stage(FIRST, "etc/group", "root:x:0:\nadm:x:4:root,new\nnew:x:101:\n");
    symlink("somewhere", host.upper(FIRST, "etc/to-link")).unwrap();
    host.stage(FIRST, "etc/to-directory/file", "y");
    fs::create_dir(host.upper(FIRST, "etc/moded")).unwrap();
    set_mode(&host.upper(FIRST, "etc/moded"), 0o700);
    host.stage_removal(FIRST, "etc/empties");
    host.stage(FIRST, "var/lib/ucf/hashfile", "a\nb\n");
    let delta = host.prepare_stage(FIRST);
    assert_eq!((&delta.kept, &delta.live_data), (&vec![], &vec![]));
    (host, delta)
}

#[test]
fn after_a_crash_at_any_point_the_way_back_and_the_way_forward_both_arrive() {
    let (host, delta) = changed_host();
    let before = host.state();
    faults::calm();
    assert_eq!(host.trees.apply(&delta).unwrap(), Vec::<String>::new());
    let points = faults::calm();
    let after = host.state();
    assert_ne!(before, after);
    assert_eq!(host.trees.revert(&delta).unwrap(), Vec::<String>::new());
    let back_points = faults::calm();
    assert!(host.state() == before);
    assert!(points + back_points >= 300, "{points} + {back_points} points");
    for point in 0..points {
        // Crash, then back.
        crash(point, || host.trees.apply(&delta));
        assert_eq!(host.trees.revert(&delta).unwrap(), Vec::<String>::new(), "point {point}");
        assert!(host.state() == before, "back after a crash at point {point}");
        // Crash, then on; then a crash on the way back, and back again.
        crash(point, || host.trees.apply(&delta));
        assert_eq!(host.trees.apply(&delta).unwrap(), Vec::<String>::new(), "point {point}");
        assert!(host.state() == after, "forward after a crash at point {point}");
        crash(point.min(back_points - 1), || host.trees.revert(&delta));
        assert_eq!(host.trees.revert(&delta).unwrap(), Vec::<String>::new(), "point {point}");
        assert!(host.state() == before, "back after a crash on the way back at point {point}");
    }
}

fn crash(point: u32, work: impl FnOnce() -> Result<Vec<String>, Failure>) {
    faults::crash_at(point);
    assert!(work().unwrap_err().message.ends_with("simulated crash"));
    faults::calm();
}

#[test]
fn a_delta_that_was_never_applied_is_reverted_without_effect() {
    let (host, delta) = changed_host();
    let before = host.state();
    assert_eq!(host.trees.revert(&delta).unwrap(), Vec::<String>::new());
    assert!(host.state() == before);
    host.trees.discard(FIRST).unwrap();
    host.trees.discard(FIRST).unwrap();
    assert_eq!(host.trees.revert(&delta).unwrap(), Vec::<String>::new());
    assert!(host.state() == before);
    assert!(host.trees.apply(&delta).is_err());
}

#[test]
fn an_applied_delta_is_not_prepared_again_over_the_files_that_it_displaced() {
    let (host, delta) = changed_host();
    host.trees.apply(&delta).unwrap();
    assert!(host.prepare(FIRST, &DeltaSource::Stage).is_err());
    host.trees.revert(&delta).unwrap();
}

#[test]
fn a_file_that_was_displaced_by_mistake_goes_back_even_after_a_crash() {
    let host = Fixture::new();
    host.write("etc/a", "old");
    host.snapshot(FIRST);
    host.stage(FIRST, "etc/a", "new");
    let delta = host.prepare_stage(FIRST);
    // What an edit between the look and the exchange, and then a crash, leave behind.
    host.write("etc/a", "new");
    host.write("live/1/etc/0", "edited");
    for undo in [true, false] {
        host.write("etc/a", "new");
        host.write("live/1/etc/0", "edited");
        let answer = if undo { host.trees.revert(&delta) } else { host.trees.apply(&delta) };
        assert_eq!(answer.unwrap(), ["/etc/a: it was changed on the host and stays as it is"]);
        assert_eq!(host.read("etc/a"), "edited");
        assert_eq!(host.read("live/1/etc/0"), "new");
    }
}
