//! Whatever happens to the host in the middle of an update, it ends in the state before or in the state
//! after, knows which, and needs nobody for it.

mod admins;
mod between;
mod hung;

use between::Between;

use crate::support::STEPS;

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

/// A repository and a boot partition that fail their owners, in the steps that need them.
#[test]
fn a_commit_and_a_deployment_that_fail_are_told_apart_and_put_back() {
    let between = Between::boot();
    // The running commit cannot be read.
    let object = r#"cd /sysroot/ostree/repo/objects
        commit=$(ostree admin status | sed --quiet "s/^\* debian \([0-9a-f]*\)\..*/\1/p")
        name=$(echo $commit | cut -c -2)/$(echo $commit | cut -c 3-).commit"#;
    let in_sysroot = |act: &str| {
        format!("unshare --mount sh -euc 'mount -o remount,bind,rw /sysroot; {object}; {act}'")
    };
    let (take, give) = (in_sysroot("mv $name $name.away"), in_sysroot("mv $name.away $name"));
    // The next boot configuration cannot be written.
    let cover = "set -e; current=$(readlink /boot/loader | tr --delete --complement 0-9)
        mkdir -p /boot/loader.$((1 - current)); mount -t tmpfs -o ro tmpfs /boot/loader.$((1 - current))"
        .to_owned();
    let uncover =
        "umount $(awk '$5 ~ \"^/boot/loader\" { print $5 }' /proc/self/mountinfo)".to_owned();
    for (code, step, fault, mend) in [
        ("CommitFailed", "install", &take, &give),
        ("DeployFailed", "check-health", &cover, &uncover),
    ] {
        assert_eq!(between.run(step, fault, mend).as_deref(), Some("rolled-back"), "{code}");
        assert_eq!(between.host.newest_record()["failure"]["code"], code);
    }
}
