//! Whatever happens to the host in the middle of an update, it ends in the state before or in the state
//! after, knows which, and needs nobody for it.

mod admins;
mod between;
mod hung;

use between::Between;

/// All steps of an update.
const STEPS: [&str; 12] = [
    "plan",
    "download",
    "verify",
    "stage",
    "install",
    "commit",
    "stop-units",
    "switch",
    "start-units",
    "check-health",
    "deploy",
    "finalize",
];

/// Steps that write, each somewhere else.
const WRITING: [&str; 5] = ["install", "commit", "switch", "check-health", "deploy"];

#[test]
fn a_daemon_that_is_killed_in_any_step_ends_in_the_state_before_or_after() {
    let between = Between::boot();
    for step in STEPS {
        let kill = "systemctl kill --kill-whom=main --signal=KILL apt-ostreed";
        let outcome = between.run(step, kill, "");
        if step == "finalize" {
            assert_eq!(outcome.as_deref(), Some("committed"), "behind the pivot");
        }
    }
    between.note("killed-daemon");
}

#[test]
fn a_helper_that_is_killed_in_any_step_ends_in_the_state_before_or_after() {
    let between = Between::boot();
    // The worker and all that it began: dpkg, its scripts, libapt's methods.
    let kill_workers =
        "pkill --signal KILL --parent $(systemctl show --property=MainPID --value apt-ostreed)";
    for step in ["plan", "stage", "install", "commit", "switch", "deploy", "finalize"] {
        between.run(step, kill_workers, "");
    }
    for unit in ["apt-ostree-install*", "apt-ostree*guard*"] {
        let kill = format!("systemctl kill --signal=KILL --all '{unit}'");
        for step in ["install", "switch"] {
            between.run(step, &kill, "");
        }
    }
    between.note("killed-helper");
}

#[test]
fn a_full_disk_in_any_writing_step_ends_in_the_state_before_or_after() {
    let between = Between::boot();
    let fill =
        "fallocate --length $(($(stat --file-system --format='%a * %S' /var))) /var/filler.most
        dd if=/dev/zero of=/var/filler.rest bs=4k";
    for step in WRITING {
        between.run(step, fill, "rm -f /var/filler.*");
    }
    let use_up = "mkdir /var/filler.d && cd /var/filler.d && \
        python3 -c 'import itertools, os; [os.mknod(str(number)) for number in itertools.count()]'";
    for step in ["install", "commit", "switch"] {
        between.run(step, use_up, "rm -rf /var/filler.d");
    }
    between.note("full-disk");
}

#[test]
fn a_full_run_directory_in_any_writing_step_ends_in_the_state_before_or_after() {
    let between = Between::boot();
    for option in [
        "size=$(df --output=used --block-size=1 /run | tail -1 | tr -d ' ')",
        "nr_inodes=$(df --output=iused /run | tail -1 | tr -d ' ')",
    ] {
        let shrink = format!("mount -o remount,{option} /run");
        for step in WRITING {
            between.run(step, &shrink, "mount -o remount,size=1g,nr_inodes=100k /run");
        }
    }
    between.note("full-run");
}

#[test]
fn a_file_system_that_becomes_read_only_ends_in_the_state_before_or_after() {
    let between = Between::boot();
    for step in WRITING {
        for place in ["/var", "/etc"] {
            let freeze = format!("mount -o remount,bind,ro {place}");
            between.run(step, &freeze, &format!("mount -o remount,bind,rw {place}"));
        }
    }
    between.note("read-only");
}
