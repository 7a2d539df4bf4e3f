//! Probes, hooks and tests of an update, and the configuration that they are from.

use crate::support::{Host, Output, Repository, Snapshot};

const UPDATE: [&str; 2] = ["apply-live", "--packages=hello-svc"];

/// A service of the admin's, on port 8090, whose answer depends on `/run/gate`.
const GATE: &str = r#"
cat > /etc/gate <<'END'
#!/bin/sh
while read -r line && [ ${#line} -gt 1 ]; do :; done
version=$(cat /usr/share/hello-svc/version)
case $(cat /run/gate) in
    by-version) [ "$version" = 1 ] && status=200 || status=500 ;;
    flapping) echo x >> /run/gate.calls
        [ "$version" = 1 ] || [ $(($(wc -l < /run/gate.calls) % 2)) = 0 ] && status=200 || status=500 ;;
    bad) status=500 ;;
esac
printf 'HTTP/1.1 %s Gate\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$status"
END
chmod 755 /etc/gate
systemd-run --quiet --unit=gate socat TCP-LISTEN:8090,fork,reuseaddr,bind=127.0.0.1 EXEC:/etc/gate
"#;

/// The process that it begins with each start of version 2 lives for three seconds of the dwell time.
const DIES: &str = r#"
mkdir -p /etc/systemd/system/hello-svc.service.d
cat > /etc/systemd/system/hello-svc.service.d/dies.conf <<'END'
[Service]
ExecStartPost=/etc/hello-svc-dies
END
cat > /etc/hello-svc-dies <<'END'
#!/bin/sh
[ "$(cat /usr/share/hello-svc/version)" = 1 ] || (sleep 3; kill -KILL $MAINPID) > /dev/null 2>&1 &
END
chmod 755 /etc/hello-svc-dies
systemctl daemon-reload
"#;

/// Version 2 keeps every processor busy, whatever else the machine has to do: time is shared by sessions.
const RUNS_WILD: &str = r#"
mkdir -p /etc/systemd/system/hello-svc.service.d
cat > /etc/systemd/system/hello-svc.service.d/wild.conf <<'END'
[Service]
ExecStartPost=/etc/hello-svc-wild
END
cat > /etc/hello-svc-wild <<'END'
#!/bin/sh
[ "$(cat /usr/share/hello-svc/version)" != 1 ] || exit 0
for i in $(seq $(($(nproc) * 8))); do setsid sh -c 'while :; do :; done' > /dev/null 2>&1 & done
END
chmod 755 /etc/hello-svc-wild
systemctl daemon-reload
"#;

fn probing(probe: &str) -> String {
    format!("[health]\ndwell-seconds = 1\n[service.\"hello-svc.service\"]\nprobes = [{probe}]\n")
}

/// Runs the update, which must end so; answers what it said.
#[track_caller]
fn ends(host: &Host, status: i32, words: &[&str]) -> String {
    let Output { code, stderr, stdout } = host.apt_ostree(UPDATE);
    assert_eq!(code, Some(status), "{stdout}{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in\n{stderr}");
    }
    stderr
}

#[track_caller]
fn is_put_back(host: &Host, before: &Snapshot, words: &[&str]) {
    ends(host, 3, words);
    host.snapshot().assert_same_as(before);
    assert!(host.hello().starts_with("version=1 disk=1"), "{}", host.hello());
}

/// How long the newest update's health was watched, in milliseconds.
fn time_of_health(host: &Host) -> u64 {
    let record = host.newest_record();
    let mut steps = record["steps"].as_array().expect("a list").iter();
    let step = steps.find(|step| step[0] == "check-health").expect("it came so far");
    step[1].as_u64().expect("milliseconds")
}

fn warnings(host: &Host) -> String {
    host.newest_record()["warnings"].to_string()
}

#[test]
fn a_unit_that_dies_or_is_not_ready_puts_the_update_back_with_the_reason() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));

    host.configure("[health]\ndwell-seconds = 5\n");
    host.shell(DIES);
    let before = host.snapshot();
    is_put_back(&host, &before, &["hello-svc.service", "[Unhealthy]", "signal"]);
    let took = time_of_health(&host);
    assert!((1_500..5_000).contains(&took), "{took}");
    host.shell("rm -r /etc/systemd/system/hello-svc.service.d /etc/hello-svc-dies; systemctl daemon-reload");

    host.shell(GATE);
    let http = "{ kind = \"http\", url = \"http://127.0.0.1:8090/\", settle-seconds = 3 }";
    for (gate, words) in [
        ("by-version", ["http http://127.0.0.1:8090/", "hello-svc.service", "the answer is 500"]),
        ("flapping", ["http http://127.0.0.1:8090/", "attempts failed", "[Unhealthy]"]),
    ] {
        host.configure(&probing(http));
        host.shell(&format!("echo {gate} > /run/gate"));
        let before = host.snapshot();
        is_put_back(&host, &before, &words);
    }

    // Nobody is there either, in the kinds that are left; what was so before is not the update's fault.
    host.shell("echo bad > /run/gate");
    let probes = [
        "{ kind = \"tcp\", port = 9, level = \"wanted\" }",
        "{ kind = \"dbus\", name = \"org.example.Nobody\" }",
        "{ kind = \"command\", command = [\"/bin/sh\", \"-c\", \"echo no; exit 4\"] }",
        "{ kind = \"command\", command = [\"/bin/sleep\", \"100\"], timeout-seconds = 1 }",
        http,
    ];
    host.configure(&probing(&probes.join(", ")));
    ends(&host, 0, &[]);
    let told = warnings(&host);
    for word in [
        "tcp 127.0.0.1 port 9\\\" of hello-svc.service had failed before the update: ",
        "refused",
        "nobody owns the name",
        "exit status 4: no",
        "did not end within 1 s",
        "the answer is 500",
    ] {
        assert!(told.contains(word), "no {word:?} in {told}");
    }
    assert!(host.hello().starts_with("version=2"), "{}", host.hello());
    assert_eq!(host.shell("pgrep -cx sleep || true"), "0\n");

    // And all kinds of those who are.
    host.shell("echo by-version > /run/gate");
    host.configure(&probing(
        "{ kind = \"tcp\", port = 9000 }, { kind = \"http\", url = \"http://127.0.0.1:9000/\", status = 200 },
        { kind = \"dbus\", name = \"org.freedesktop.systemd1\" },
        { kind = \"command\", command = [\"/bin/sh\", \"-c\", \"one=1; test $one$$ -gt 10\"] }",
    ));
    host.apt_ostree(["rollback"]).success();
    assert!(!warnings(&host).contains("probe"), "{}", warnings(&host));
    assert!(host.hello().starts_with("version=1"), "{}", host.hello());
    host.assert_in_order();
}

#[test]
fn a_service_that_runs_wild_in_the_dwell_time_is_told_and_stays() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.configure("[health]\ndwell-seconds = 3\n");
    host.shell(RUNS_WILD);
    ends(&host, 0, &[]);
    let told = warnings(&host);
    let says = told.contains("hello-svc.service takes ") && told.contains(" % of a processor");
    assert!(says, "{told}");
    assert!(host.hello().starts_with("version=2 disk=2"), "{}", host.hello());
    host.apt_ostree(["rollback"]).success();
    assert!(!warnings(&host).contains("processor"), "{}", warnings(&host));
    host.assert_in_order();
}

/// Puts a hook below `/etc/apt-ostree`.
fn put_hook(host: &Host, name: &str, mode: u32, body: &str) {
    let path = format!("/etc/apt-ostree/{name}");
    host.shell(&format!(
        "mkdir -p \"$(dirname {path})\"\ncat > {path} <<'END'\n#!/bin/sh\n{body}\nEND\nchmod {mode:o} {path}"
    ));
}

#[test]
fn hooks_decide_about_an_update_and_hear_of_its_end() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.configure("[health]\ndwell-seconds = 1\nhook-timeout-seconds = 2\n");
    let tell = "env | grep ^APT_OSTREE_ | sort > /run/told.$(basename \"$0\")";
    put_hook(&host, "red.d/50-red", 0o755, tell);
    put_hook(&host, "green.d/50-green", 0o755, tell);

    for (mode, why) in [(0o644, "is not executable"), (0o757, "is writable by others")] {
        put_hook(&host, "check/wanted.d/10-bad", mode, "");
        let before = host.snapshot();
        let words = ["/etc/apt-ostree/check/wanted.d/10-bad", why, "[InvalidConfiguration]"];
        ends(&host, 1, &words);
        host.snapshot().assert_same_as(&before);
        let checked = host.apt_ostree(["config", "check"]);
        assert_eq!(checked.code, Some(1), "{}", checked.stderr);
        assert!(checked.stdout.contains("wanted.d/10-bad: error: it is"), "{}", checked.stdout);
    }
    host.shell("ln -sf /dev/null /etc/apt-ostree/check/wanted.d/10-bad");

    let after = |text: &str| format!("[ $APT_OSTREE_PHASE = before ] && exit\n{text}");
    put_hook(&host, "check/required.d/20-own", 0o755, &after("echo broken here; exit 3"));
    let before = host.snapshot();
    let words = ["check/required.d/20-own", "exit status 3", "broken here", "[Unhealthy]"];
    is_put_back(&host, &before, &words);
    let id = host.newest_record()["id"].to_string();
    let red = host.shell("cat /run/told.50-red");
    for line in [
        &format!("APT_OSTREE_TRANSACTION={id}\n"),
        "APT_OSTREE_RESULT=rolled-back\n",
        "APT_OSTREE_PACKAGES=hello-svc\n",
        "APT_OSTREE_REASON=the required check check/required.d/20-own failed",
    ] {
        assert!(red.contains(line), "no {line:?} in\n{red}");
    }
    let shown = host.apt_ostree(["show", &id]).success();
    assert!(shown.contains("check/required.d/20-own: broken here"), "{shown}");

    let hang = "setsid sleep 1000 & setsid sleep 1000";
    put_hook(&host, "check/required.d/20-own", 0o755, &after(hang));
    let before = host.snapshot();
    is_put_back(&host, &before, &["check/required.d/20-own", "did not end within 2 s"]);
    assert_eq!(host.shell("pgrep -cx sleep || true"), "0\n");
    assert_eq!(
        host.shell("systemctl list-units --all --plain --no-legend 'apt-ostree-check*'"),
        ""
    );

    // It failed before: nobody's fault. And what is only wanted is only told.
    put_hook(&host, "check/required.d/20-own", 0o755, "exit 3");
    put_hook(&host, "check/wanted.d/30-own", 0o755, &after("echo not quite; exit 5"));
    ends(&host, 0, &[]);
    let told = warnings(&host);
    for word in [
        "check/required.d/20-own failed, as before",
        "check/wanted.d/30-own failed: exit status 5: not quite",
    ] {
        assert!(told.contains(word), "no {word:?} in {told}");
    }
    let green = host.shell("cat /run/told.50-green");
    assert!(green.contains("APT_OSTREE_RESULT=committed\n"), "{green}");
    assert!(!green.contains("APT_OSTREE_REASON"), "{green}");
    host.assert_in_order();
}

/// What is shipped for nginx and sshd, but for a package of which there is a newer version at any time.
const TESTS: &str = "[health]\ndwell-seconds = 1\n\
    [install.test]\nnginx.packages = [\"hello-svc\"]\nsshd.packages = [\"hello-svc\"]\n";
const WRITES: &str = "[install.test.writes]\npackages = [\"hello-svc\"]\ncommand = [\"/bin/sh\", \"-c\", \
    \"cat /usr/share/hello-svc/version; touch /usr/share/intruder /etc/intruder /var/lib/intruder\"]\n";

#[test]
fn an_update_that_fails_its_test_does_not_reach_the_host() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.configure(TESTS);
    host.shell("echo 'nonsense on;' > /etc/nginx/conf.d/broken.conf");
    let nginx = host.shell("systemctl show --property=MainPID,NRestarts nginx hello-svc");
    let before = host.snapshot();
    is_put_back(&host, &before, &["\"nginx\"", "unknown directive \"nonsense\"", "[TestFailed]"]);
    assert_eq!(host.shell("systemctl show --property=MainPID,NRestarts nginx hello-svc"), nginx);
    host.shell("rm /etc/nginx/conf.d/broken.conf");

    // A service that hangs, instead.
    let hang = "[install.test.hangs]\npackages = [\"hello-svc\"]\ncommand = [\"/bin/sleep\", \"1000\"]\n\
                timeout-seconds = 1\n";
    host.configure(&format!("{TESTS}{hang}"));
    let before = host.snapshot();
    is_put_back(&host, &before, &["\"hangs\"", "did not end within 1 s"]);

    host.configure(&format!("{TESTS}{WRITES}"));
    ends(&host, 0, &[]);
    let id = host.newest_record()["id"].to_string();
    let log = host.apt_ostree(["show", &id]).success();
    for word in [
        "test nginx: /usr/sbin/nginx -t",
        "test is successful",
        "test sshd: ",
        "test writes: ",
        "\n2\n",
    ] {
        assert!(
            log.lines().map(str::trim).collect::<Vec<_>>().join("\n").contains(word),
            "{word} in {log}"
        );
    }
    assert_eq!(
        host.shell(
            "ls -d /usr/share/intruder /etc/intruder /var/lib/intruder 2> /dev/null || true"
        ),
        ""
    );
    host.assert_in_order();
}

#[test]
fn a_configuration_is_checked_shown_and_kept_while_a_newer_one_is_not_usable() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    // A daemon that has used it keeps it.
    host.apt_ostree(["status"]).success();
    let in_order = host.apt_ostree(["config", "check"]).success();
    assert_eq!(in_order, "The configuration is in order.\n");
    let write = |text: &str| {
        host.shell(&format!("cat > /etc/apt-ostree/config.toml <<'END'\n{text}\nEND"));
    };
    for (text, told) in [
        ("[health]\ndwell-second = 1", ":2: error: unknown field `dwell-second`"),
        (
            "[service.\"x.service\"]\nprobes = [\n{ kind = \"tcp\" }]",
            ":3: error: a tcp probe needs a port",
        ),
        ("[health]\n\ndwell-seconds = 9999", ":3: error: health.dwell-seconds must be at most 180"),
        ("[", ":1: error: "),
    ] {
        write(text);
        let checked = host.apt_ostree(["config", "check"]);
        assert_eq!((checked.code, checked.stderr.as_str()), (Some(1), ""), "{text}");
        let told = format!("/etc/apt-ostree/config.toml{told}");
        assert!(checked.stdout.starts_with(&told), "{text}: {}", checked.stdout);
        assert_eq!(host.apt_ostree(["config", "show"]).code, Some(1));
        // The running daemon, and one that starts with it, go on with the last good one, and say so.
        for stop in ["true", "systemctl stop apt-ostreed; systemctl reset-failed apt-ostreed"] {
            host.shell(stop);
            let status = host.json(0, ["status"]);
            let why = status["configuration"].as_str().expect("a reason");
            assert!(why.contains("/etc/apt-ostree/config.toml, line "), "{why}");
        }
    }
    let shown = host.apt_ostree(["status"]).success();
    assert!(shown.contains("the last good one is used"), "{shown}");
    ends(&host, 0, &[]);
    assert!(warnings(&host).contains("the last good one was used"), "{}", warnings(&host));
    assert!(time_of_health(&host) < 3_000, "not the dwell of a second");

    write(
        "[services]\nnever-restart = [\"none.service\"]\n[service.\"nobody.service\"]\nprobes = []\n[health]\ndwell-seconds = 2",
    );
    let checked = host.apt_ostree(["config", "check"]).success();
    for line in [
        ":2: warning: there is no unit none.service on this host\n",
        ":3: warning: there is no unit nobody.service on this host\n",
    ] {
        assert!(checked.contains(&format!("/etc/apt-ostree/config.toml{line}")), "{checked}");
    }
    assert!(host.json(0, ["status"])["configuration"].is_null());
    let shown = host.apt_ostree(["config", "show"]).success();
    assert!(
        shown.contains("dwell-seconds = 2\n") && shown.contains("[install.test.sshd]"),
        "{shown}"
    );
    assert_eq!(host.json(0, ["config", "show"])["health"]["dwell-seconds"], 2);
}
