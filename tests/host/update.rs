//! The main job: real upgrades and a service's new version, live, put back, again, and over a reboot.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::support::{Host, Poller, Polls, Repository, real_upgrades};

/// A restart takes a tenth of this on an idle machine.
const LONGEST_RESTART: Duration = Duration::from_secs(10);
/// What `apt-ostree apply-live` is told in these tests.
const UPDATE: [&str; 2] = ["apply-live", "--restart-services"];

#[test]
fn real_upgrades_run_without_a_reboot_and_can_be_put_back_and_survive_one() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.shell("echo 'and mine' >> /etc/hello-svc/admin.conf");
    let before = host.snapshot();
    let old = versions(&host);

    let (nginx, hello) = (host.poll(80), host.poll(9000));
    host.apt_ostree(UPDATE).success();
    clients_saw_a_short_restart(nginx, hello);
    the_new_versions_are_installed_and_run(&host, &old);
    hello_svc_2_is_as_dpkg_would_have_left_it(&host);
    what_is_told_is_true(&host);

    let update = host.newest_record();
    host.apt_ostree(["rollback"]).success();
    // The old tree is checked out anew, and OSTree's units for a staged deployment have run.
    host.snapshot().assert_same_but_for(&before, &["mounts: /usr /", "units: ostree-finalize-"]);
    assert_eq!(versions(&host), old);
    assert!(host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", host.hello());
    no_restarted_process_runs_old_code(&host, &update);
    let rollback = host.newest_record();
    assert_eq!((&rollback["outcome"], &rollback["failure"]), (&"committed".into(), &Value::Null));

    host.apt_ostree(UPDATE).success();
    host.shell("echo late > /etc/late; echo 'and late' >> /etc/hello-svc/admin.conf");
    host.reboot();
    the_new_versions_are_installed_and_run(&host, &old);
    hello_svc_2_is_as_dpkg_would_have_left_it(&host);
    assert_eq!(host.shell("cat /etc/late"), "late\n");
    assert!(host.shell("cat /etc/hello-svc/admin.conf").ends_with("and mine\nand late\n"));
    host.shell("ostree fsck --quiet");
    assert_eq!(host.json(0, ["history"]).as_array().expect("a list").len(), 3);

    what_comes_after_an_update_works(&host);
}

/// Package names and versions.
fn versions(host: &Host) -> BTreeMap<String, String> {
    host.shell("dpkg-query --show --showformat='${Package} ${Version}\n'")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect()
}

fn clients_saw_a_short_restart(nginx: Poller, hello: Poller) {
    let (nginx, hello): (Polls, Polls) = (nginx.stop(), hello.stop());
    for polls in [&nginx, &hello] {
        assert!(polls.answered > 10 && polls.longest_gap < LONGEST_RESTART, "{polls:?}");
    }
    let versions: Vec<&str> = hello.bodies.iter().map(|body| &body[.."version=1".len()]).collect();
    assert!(versions.is_sorted(), "{versions:?}");
    // A process of the new version never saw files of the old one.
    assert!(!hello.bodies.iter().any(|body| body.contains("version=2 disk=1")), "{hello:?}");
    assert!(hello.bodies.last().is_some_and(|body| body.starts_with("version=2 disk=2 conf=hi-2")));
}

fn the_new_versions_are_installed_and_run(host: &Host, old: &BTreeMap<String, String>) {
    let new = versions(host);
    for name in real_upgrades().iter().map(String::as_str).chain(["hello-svc"]) {
        assert_ne!(new.get(name), old.get(name), "{name}");
    }
    assert_eq!(
        host.shell("apt-get --simulate --with-new-pkgs upgrade | grep -c ^Inst || true"),
        "0\n"
    );
    assert_eq!(host.shell("dpkg --audit"), "");
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
    host.shell("curl -sf -o /dev/null http://127.0.0.1/");
    host.assert_in_order();
    assert!(host.run(["touch", "/usr/intruder"]).stderr.contains("Read-only file system"));
    let record = host.json(0, ["history", "--limit=1"])[0].take();
    no_restarted_process_runs_old_code(host, &record);
}

/// Looks up every file that a process of the restarted units maps: it must be the one that the
/// path leads to now.
#[track_caller]
fn no_restarted_process_runs_old_code(host: &Host, record: &Value) {
    let units = format!("{} {}", units_with(record, "restart"), units_with(record, "stop-start"));
    assert!(units.contains("nginx.service") && units.contains("hello-svc.service"), "{units}");
    let stale = host.shell(&format!(
        r#"for unit in {units}; do
            group=$(systemctl show --property=ControlGroup --value $unit)
            for process in $(cat "/sys/fs/cgroup$group/cgroup.procs"); do
                awk '$6 ~ "^/(usr|lib|bin|sbin)" {{ print $5, $6 }}' /proc/$process/maps | sort -u | while read inode path; do
                    [ "$(stat -L -c %i "$path")" = $inode ] || echo "$unit $process $path"
                done
            done
        done"#
    ));
    assert_eq!(stale, "");
}

fn units_with(record: &Value, action: &str) -> String {
    let units = record["units"].as_array().into_iter().flatten();
    let names = units.filter(|unit| unit["action"] == action).map(|unit| unit["unit"].as_str());
    names.map(|name| name.expect("a name")).collect::<Vec<_>>().join(" ")
}

/// Users, conffiles, state, modes, capabilities, attributes, links: see `hello-svc/build.sh`.
fn hello_svc_2_is_as_dpkg_would_have_left_it(host: &Host) {
    let lines = host.shell(
        "cd /usr/lib/hello-svc; stat -c '%n %a' setuid setgid with-capability; getcap with-capability
        cd /usr/share/hello-svc; getfattr --only-values -n user.version version; echo
        [ hard-link-1 -ef hard-link-2 ] && cat hard-link-2
        ls files; readlink directory-then-link; cat link-then-directory/file; ls -d removed-directory 2>&1 || true
        stat -c '%n %U %G %a' /var/spool/hello-svc/origin /etc/hello-svc/generated
        cat /var/spool/hello-svc/origin /var/lib/hello-svc/data/origin
        getent passwd hello-spool | cut -d: -f1,6; getent group hello-spool | cut -d: -f1
        cat /etc/hello-svc/hello.conf; head -n 2 /etc/hello-svc/admin.conf; ls /etc/hello-svc",
    );
    let expected = "setuid 4755\nsetgid 2755\nwith-capability 755\nwith-capability cap_net_bind_service=ep\n\
        2\nversion 2\nadded\nsame\nfiles\nnew\n\
        ls: cannot access 'removed-directory': No such file or directory\n\
        /var/spool/hello-svc/origin hello-spool hello-spool 644\n\
        /etc/hello-svc/generated root hello-spool 640\n\
        made by version 2\nmade by version 1\nhello-spool:/nonexistent\nhello-spool\n\
        # hello-svc 2\ngreeting=hi-2\nfor the admin, as of version 1\nand mine\n\
        admin.conf\nadmin.conf.dpkg-dist\ngenerated\nhello.conf\nstatic.conf\n";
    assert_eq!(lines, expected);
}

/// `history`, `show` and `status` agree with the host.
fn what_is_told_is_true(host: &Host) {
    let record = host.newest_record();
    assert_eq!((&record["outcome"], &record["failure"]), (&"committed".into(), &Value::Null));
    let installed = versions(host);
    let changes = record["changes"].as_array().expect("a list");
    assert_eq!(changes.len(), real_upgrades().len() + 1);
    for change in changes {
        let name = change["name"].as_str().expect("a name");
        assert_eq!(change["new_version"], installed[name].as_str(), "{name}");
    }
    let id = record["id"].to_string();
    let shown = host.json(0, ["show", &id]);
    assert_eq!(shown["commit"], record["commit"]);
    let log = shown["log"].as_array().expect("lines");
    assert!(log.iter().any(|line| line.as_str().is_some_and(|text| text.contains("Unpacking"))));

    let status = host.json(0, ["status"]);
    assert_eq!(status["running"], record["commit"]);
    assert_eq!(status["next"], record["commit"]);
    assert_eq!(status["booted"], record["base"]);
    assert_eq!((&status["transaction"], &status["stuck"]), (&Value::Null, &false.into()));
    for (arguments, word) in [
        (vec!["status"], "upgrade"),
        (vec!["history"], "committed"),
        (vec!["show", &id], "hello-svc"),
    ] {
        let text = host.apt_ostree(arguments.clone()).success();
        assert!(text.contains(word), "{arguments:?}: {text}");
    }
}

/// OSTree's own deployment of something newer, a boot of it, and the next live update on top.
fn what_comes_after_an_update_works(host: &Host) {
    host.shell(
        "booted=$(ostree admin status | sed -n 's/^\\* debian \\([0-9a-f]*\\)\\.[0-9]*.*/\\1/p')
        mkdir -p /var/tmp/tree/usr/share; echo foreign > /var/tmp/tree/usr/share/foreign
        new=$(ostree commit --parent=$booted --branch=foreign --tree=ref=$booted --tree=dir=/var/tmp/tree)
        ostree admin deploy --os=debian $new",
    );
    host.reboot();
    assert_eq!(host.shell("cat /usr/share/foreign"), "foreign\n");
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"));
    host.apt_ostree(["apply-live", "--remove=hello-svc"]).success();
    host.assert_in_order();
    assert!(host.run(["systemctl", "is-active", "hello-svc"]).code != Some(0));
    assert_eq!(host.shell("cat /usr/share/foreign"), "foreign\n");
}
