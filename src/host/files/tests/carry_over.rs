use std::fs;

use super::super::disk::faults;
use super::*;

/// `old` and `new` are two states of the `/etc` of the deployment that ran before.
fn edited_since() -> Fixture {
    let host = Fixture::in_memory();
    for tree in ["old", "new", "etc"] {
        for name in ["same", "edited", "gone", "clash", "hostname", "passwd-", "dir/inner"] {
            host.write(&format!("{tree}/{name}"), "as it was");
        }
    }
    for name in ["edited", "clash", "hostname", "passwd-", "added", "dir/inner", "new.d/file"] {
        host.write(&format!("new/{name}"), "edited");
    }
    fs::remove_file(host.path("new/gone")).unwrap();
    host.write("etc/clash", "this deployment's");
    host
}

fn is_carried_over(host: &Fixture) {
    for name in ["edited", "hostname", "added", "dir/inner", "new.d/file"] {
        assert_eq!(host.read(&format!("etc/{name}")), "edited", "{name}");
    }
    assert!(!host.exists("etc/gone"));
    for (name, text) in
        [("same", "as it was"), ("passwd-", "as it was"), ("clash", "this deployment's")]
    {
        assert_eq!(host.read(&format!("etc/{name}")), text, "{name}");
    }
    assert!(!host.exists("live/0"));
}

fn carry_over(host: &Fixture) -> Result<Vec<String>, Failure> {
    host.trees.carry_over(&host.path("old"), &host.path("new"))
}

#[test]
fn what_was_edited_elsewhere_is_carried_over_and_what_was_changed_here_too_is_named() {
    let host = edited_since();
    let kept = carry_over(&host).unwrap();
    assert_eq!(kept, ["/etc/clash: it was changed on the host and stays as it is"]);
    is_carried_over(&host);
    assert_eq!(carry_over(&host).unwrap(), kept);
    is_carried_over(&host);
}

#[test]
fn carrying_over_is_taken_up_after_a_crash_at_any_point() {
    faults::calm();
    carry_over(&edited_since()).unwrap();
    let points = faults::calm();
    assert!(points > 5, "{points}");
    for point in 0..points {
        let host = edited_since();
        faults::crash_at(point);
        assert!(carry_over(&host).is_err(), "{point}");
        faults::calm();
        carry_over(&host).unwrap();
        is_carried_over(&host);
    }
}
