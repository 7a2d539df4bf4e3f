//! `apt-ostree services`: who runs old code now, why, and what a restart would do about it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Host, MANAGER, Repository};

/// What the manager calls `apt-ostree services`, for `busctl call`.
const FIND: [&str; 3] = ["FindOutdated", "a{sv}", "0"];
/// What differs between module-toy's versions, two imports away from its program; and what other units read.
const MODULE: &str = "/usr/lib/python3/dist-packages/moduletoy/deep.py";
const SHARED: &str = "/etc/toy-settings/shared.env";
/// A program that runs in a root of its own, among processes of its own.
const MAKE_BOX: &str = "mkdir -p /var/lib/box/usr/bin
    for file in /usr/bin/sleep $(ldd /usr/bin/sleep | grep -o '/[^ ]*'); do
        mkdir -p /var/lib/box$(dirname $file); cp -L $file /var/lib/box$file
    done
    systemd-run --quiet --unit=box --property=Type=exec \
        unshare --pid --mount --fork chroot /var/lib/box /usr/bin/sleep infinity";
/// An admin's unit that reads a package's file; a user's own unit.
const MAKE_UNITS: &str = "printf '%s\\n' [Service] Type=exec \
        EnvironmentFile=/etc/toy-settings/shared.env 'ExecStart=/usr/bin/sleep infinity' \
        > /etc/systemd/system/reader.service
    systemctl daemon-reload
    systemctl start module-toy reader
    useradd --create-home alice
    units=/home/alice/.config/systemd/user
    runuser -u alice -- mkdir -p $units
    printf '%s\\n' [Service] Type=exec ExecStart=/usr/lib/module-toy/program > $units/mine.service
    systemctl start user@$(id -u alice)
    runuser -u alice -- env XDG_RUNTIME_DIR=/run/user/$(id -u alice) systemctl --user start mine";

/// Programs of any user's that say about themselves what costs most: a module a thousand packages deep,
/// a million names, a file on which their owner has a lease, which each who opens it waits for, and files
/// that are the kernel's own. None of them gets beyond what Python runs before its program.
const ATTACK: &str = r#"
import fcntl, os, signal, time
os.chdir("/home/mallory")
with open("sitecustomize.py", "w") as customize:
    customize.write("import time\ntime.sleep(100000)\n")
with open("names.py", "w") as names:
    names.write("from . import " + "a," * 400000 + "\n")
    names.write("from " + "a." * 500 + "a import " + "x," * 400000 + "\n")
    names.write("import " + "a." * 5000 + "a\n")
signal.signal(signal.SIGIO, signal.SIG_IGN)
leased = open("leased.py", "w")
leased.write("import os\n")
leased.flush()
fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
programs = [["-m", "a." * 65000 + "a"], ["names.py"], ["leased.py"], ["/proc/kmsg"], ["/proc/version"]]
for program in programs:
    arguments = ["python3"] + program
    os.posix_spawn("/usr/bin/python3", arguments, dict(os.environ, PYTHONPATH="/home/mallory"))
open("ready", "w").close()
time.sleep(100000)
"#;
/// Runs it as a user of that name.
const RUN_ATTACK: &str = "useradd --create-home mallory
    printf %s \"$1\" > /home/mallory/attack.py
    systemd-run --quiet --unit=attack --uid=mallory --slice=user-$(id -u mallory).slice \
        python3 /home/mallory/attack.py
    for try in $(seq 100); do [ ! -e /home/mallory/ready ] || exit 0; sleep 0.1; done
    journalctl --unit=attack; exit 1";
/// A service runs what is a user's own, as cron does, and another what is the admin's; both files go.
const RUN_JOBS: &str = "mkdir -p /srv/own
    for directory in /home/mallory /srv/own; do
        cp /usr/bin/sleep $directory/job
        systemd-run --quiet --unit=job-of-$(basename $directory) --property=Type=exec \
            $directory/job infinity
        rm $directory/job
    done";
/// A wait for one lease takes longer: `/proc/sys/fs/lease-break-time`.
const LONGEST_LOOK: Duration = Duration::from_secs(30);
/// What the daemon may take of memory, all in all.
const MOST_MEMORY_KIB: u64 = 128 * 1024;

fn services(host: &Host) -> Value {
    host.json(0, ["services"])
}

/// The units that are named, each with the kinds and paths of its reasons.
fn named(found: &Value) -> Vec<(String, Vec<(String, String)>)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reasons = |of: &Value| {
        let reasons = of["reasons"].as_array().expect("a list").iter();
        reasons.map(|reason| (text(&reason["kind"]), text(&reason["path"]))).collect()
    };
    let units = found["units"].as_array().expect("a list").iter();
    units.map(|unit| (text(&unit["unit"]), reasons(unit))).collect()
}

fn names(found: &Value) -> BTreeSet<String> {
    named(found).into_iter().map(|(name, _)| name).collect()
}

/// The units with a process that executes, or maps to be executed, another file of the tree than the one
/// at its path, as a shell sees it.
fn truly_old(host: &Host) -> BTreeSet<String> {
    let text = host.shell(
        r#"for process in /proc/[0-9]*; do
            [ ${process#/proc/} != 1 ] || { unit=init.scope; }
            unit=$(sed -n 's,^0::.*/\([^/]*\.\(service\|scope\)\).*,\1,p' $process/cgroup 2> /dev/null) || continue
            [ -n "$unit" ] && [ "$unit" != apt-ostreed.service ] || continue
            awk '$2 ~ /x/ && $5 != 0 && $6 ~ "^/(usr|lib|bin|sbin|libexec)/" { print $5, $6 }' \
                    $process/maps 2> /dev/null | sort -u | while read inode path; do
                at=$path; [ -e "$at" ] || at=/usr$path
                [ "$(stat -L -c %i "$at" 2> /dev/null)" = $inode ] || { echo $unit; break; }
            done
        done"#,
    );
    text.lines().map(str::to_owned).collect()
}

#[test]
fn services_name_whoever_runs_old_code_with_reasons_and_nobody_else() {
    let host = Host::boot_to_update();
    let fresh = services(&host);
    assert_eq!((&fresh["units"], &fresh["others"]), (&Value::from(vec![(); 0]), &fresh["units"]));
    assert!(fresh["processes"].as_u64().is_some_and(|count| count > 5), "{fresh}");
    let told = host.apt_ostree(["services"]).success();
    assert!(told.starts_with("Nothing runs old code ("), "{told}");
    assert_eq!(needrestart(&host, "SVC"), BTreeSet::new());

    host.apt_ostree(["apply-live", "--no-restart-services"]).success();
    let found = services(&host);
    let units = named(&found);
    assert_eq!(names(&found), truly_old(&host), "{found:#}");
    for name in ["nginx.service", "ssh.service"] {
        let (_, reasons) = units.iter().find(|(unit, _)| unit == name).expect(name);
        let is_ssl = |(kind, path): &(String, String)| {
            kind == "old-code" && (path.contains("/libcrypto.so") || path.contains("/libssl.so"))
        };
        assert!(reasons.iter().any(is_ssl), "{name}: {reasons:?}");
        assert_eq!(action_of(&found, name), "restart");
    }
    assert_eq!(needrestart(&host, "SVC"), services_among(&names(&found)));
    let told = host.apt_ostree(["services"]).success();
    assert!(told.contains("  restart   nginx.service: "), "{told}");

    // The same on the bus, for who may look.
    let answer = host.busctl(["call"].into_iter().chain(MANAGER).chain(FIND)).expect("root may");
    let text = answer["data"][0].as_str().expect("a text");
    let on_bus: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(names(&on_bus), names(&found));
    let refused = host.run(["runuser", "-u", "nobody", "--", "apt-ostree", "services"]);
    assert_eq!(refused.code, Some(5), "{}", refused.stderr);

    let restarted = host.json(0, ["services", "--restart"]);
    let list = restarted["units"].as_array().expect("a list");
    assert!(list.contains(&"nginx.service".into()) && list.contains(&"ssh.service".into()));
    let after = services(&host);
    assert_eq!(names(&after), truly_old(&host));
    let left = after["units"].as_array().expect("a list");
    assert!(left.iter().all(|unit| unit["action"] == "leave"), "{after:#}");
    host.assert_in_order();
    assert_eq!(host.json(0, ["history"]).as_array().expect("a list").len(), 1);
}

fn action_of(found: &Value, name: &str) -> String {
    let units = found["units"].as_array().expect("a list");
    let unit = units.iter().find(|unit| unit["unit"] == name).expect(name);
    unit["action"].as_str().expect("a text").to_owned()
}

/// The values of one kind of line in needrestart's batch mode. Every line must be one of its.
#[track_caller]
fn needrestart(host: &Host, kind: &str) -> BTreeSet<String> {
    let text = host.apt_ostree(["services", "--needrestart"]).success();
    let lines: Vec<(&str, &str)> = text
        .lines()
        .map(|line| {
            let line = line.strip_prefix("NEEDRESTART-").expect(line);
            line.split_once(": ").expect(line)
        })
        .collect();
    assert_eq!(lines[0].0, "VER");
    let known = ["VER", "KCUR", "KEXP", "KSTA", "SVC", "CONT", "SESS"];
    assert!(lines.iter().all(|(kind, value)| known.contains(kind) && !value.is_empty()), "{text}");
    lines.into_iter().filter(|(one, _)| *one == kind).map(|(_, value)| value.to_owned()).collect()
}

/// The same units by needrestart's names; it has none for other kinds.
fn services_among(names: &BTreeSet<String>) -> BTreeSet<String> {
    let name = |name: &String| match name.as_str() {
        "init.scope" => Some("systemd-manager".to_owned()),
        name => name.ends_with(".service").then(|| name.to_owned()),
    };
    names.iter().filter_map(name).collect()
}

#[test]
fn a_python_program_whose_module_changed_is_named_and_users_and_containers_are_told_apart() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::module_toy(1));
    host.apt_ostree(["apply-live", "--install=module-toy"]).success();
    host.shell(MAKE_UNITS);
    host.shell(MAKE_BOX);
    let fresh = services(&host);
    assert_eq!(
        (names(&fresh), fresh["others"].as_array().map(Vec::len)),
        (BTreeSet::new(), Some(0))
    );

    host.mirror().publish(&Repository::module_toy(2));
    host.apt_ostree(["apply-live", "--no-restart-services", "--packages=module-toy"]).success();
    the_update_has_told_why(&host);
    // As a package manager of the container's own does.
    host.shell("cd /var/lib/box/usr/bin; cp sleep new; mv new sleep");

    let interpreted = || vec![("interpreted".to_owned(), MODULE.to_owned())];
    let found = services(&host);
    assert_eq!(named(&found), [("module-toy.service".to_owned(), interpreted())], "{found:#}");
    let others = found["others"].as_array().expect("a list");
    let place = |kind: &str| others.iter().find(|one| one["place"]["kind"] == kind);
    let user = place("user").unwrap_or_else(|| panic!("{found:#}"));
    assert_eq!(user["place"]["unit"], "mine.service");
    assert_eq!(user["reasons"][0]["path"], MODULE);
    let container = place("container").unwrap_or_else(|| panic!("{found:#}"));
    assert_eq!(container["place"]["name"], "box.service");
    assert_eq!(container["reasons"][0]["path"], "/usr/bin/sleep");
    assert_eq!(others.len(), 2, "{found:#}");
    assert_eq!(needrestart(&host, "CONT"), BTreeSet::from(["box.service".to_owned()]));
    let session = "alice @ user manager service".to_owned();
    assert_eq!(needrestart(&host, "SESS"), BTreeSet::from([session]));

    host.shell("systemctl restart module-toy");
    assert_eq!(names(&services(&host)), BTreeSet::new());
    // Going back makes what is new now the old.
    host.apt_ostree(["rollback"]).success();
    let found = services(&host);
    assert_eq!(names(&found), BTreeSet::new());
    // The user's program began with what is there again.
    assert!(!found["others"].to_string().contains("mine.service"), "{found:#}");
    assert!(host.shell("journalctl --output=cat --unit=module-toy").ends_with("version 1\n"));
}

/// The update's own record names the program by its module, and whoever reads the changed configuration:
/// by the package that ships both, and by `EnvironmentFile=`.
fn the_update_has_told_why(host: &Host) {
    let record = host.newest_record();
    let reason = |kind: &str, path: &str| (kind.to_owned(), path.to_owned());
    let units = named(&record);
    let reasons_of = |name: &str| {
        units.iter().find(|(unit, _)| unit == name).map(|(_, reasons)| reasons.clone())
    };
    let toy = reasons_of("module-toy.service").unwrap_or_else(|| panic!("{record:#}"));
    assert!(toy.contains(&reason("interpreted", MODULE)), "{toy:?}");
    assert!(toy.contains(&reason("configuration", SHARED)), "{toy:?}");
    assert_eq!(reasons_of("reader.service"), Some(vec![reason("configuration", SHARED)]));
    for name in ["module-toy.service", "reader.service"] {
        assert_eq!(action_of(&record, name), "leave", "{record:#}");
    }
}

#[test]
fn what_a_user_runs_neither_holds_a_look_up_nor_takes_the_daemons_memory() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::module_toy(1));
    host.apt_ostree(["apply-live", "--install=module-toy"]).success();
    host.shell("systemctl start module-toy");
    host.run(["sh", "-ec", RUN_ATTACK, "-", ATTACK]).success();
    host.shell(RUN_JOBS);
    host.mirror().publish(&Repository::module_toy(2));

    // The update looks for whoever uses what it replaces.
    host.apt_ostree(["apply-live", "--no-restart-services", "--packages=module-toy"]).success();
    let begin = Instant::now();
    let found = services(&host);
    assert!(begin.elapsed() < LONGEST_LOOK, "{:?}", begin.elapsed());
    let reason = |kind: &str, path: &str| vec![(kind.to_owned(), path.to_owned())];
    let expected = [
        ("job-of-own.service".to_owned(), reason("old-code", "/var/srv/own/job")),
        ("module-toy.service".to_owned(), reason("interpreted", MODULE)),
    ];
    assert_eq!(named(&found), expected, "{found:#}");
    assert_eq!(found["others"].as_array().map(Vec::len), Some(0), "{found:#}");
    let status = "/proc/$(systemctl show -P MainPID apt-ostreed)/status";
    let memory = host.shell(&format!("awk '$1 == \"VmHWM:\" {{ print $2 }}' {status}"));
    let memory: u64 = memory.trim().parse().expect(&memory);
    assert!(memory < MOST_MEMORY_KIB, "{memory} KiB");
    assert_eq!(host.shell("pgrep --count --uid mallory python3"), "6\n");
}
