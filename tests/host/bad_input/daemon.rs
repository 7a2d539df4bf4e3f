//! A daemon that is not there or cannot start: the command says why, instead of waiting for the bus.

use std::time::{Duration, Instant};

use super::{Bench, Refusal};
use crate::support::{MANAGER, Repository, wait_for};

/// Far less than the bus waits for a daemon, also on a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// A daemon that was killed in mid-update has more to do than any update.
const RECOVERY: Duration = Duration::from_secs(60);

const ACTIVATION: &str = "/usr/share/dbus-1/system-services";
/// Also forgets how often it was started: systemd allows five starts in ten seconds.
const STOP: &str = "systemctl stop apt-ostreed; systemctl reset-failed apt-ostreed";
const RELOAD: &str = "busctl --quiet call org.freedesktop.DBus / org.freedesktop.DBus ReloadConfig; systemctl stop apt-ostreed";

/// Without it a host that had a good configuration goes on with that.
const FORGET: &str = "rm /var/lib/apt-ostree/config.last-good.toml";

#[test]
fn a_daemon_that_cannot_start_is_explained() {
    let bench = Bench::boot();
    bench.host.shell(FORGET);
    let configuration = bench.host.shell("cat /etc/apt-ostree/config.toml");
    for (text, telling) in [
        ("[download]\\nconections = 3", ["line 2", "conections"]),
        ("[download]\\nconnections = many", ["line 2", "config.toml"]),
        ("[health]\\ndwell-seconds = \"5\"", ["line 2", "string"]),
        ("\\033[31m", ["line 1", "config.toml"]),
        ("[download]\\nconnections = 1000", ["download.connections", "1 to 64"]),
    ] {
        bench.host.shell(&format!("printf '{text}\\n' > /etc/apt-ostree/config.toml; {STOP}"));
        let refusal = Refusal::failed("InvalidConfiguration", &telling, "Mend the file");
        let asked = Instant::now();
        for arguments in [["status"], ["apply-live"]] {
            bench.answers(text, &arguments, refusal);
        }
        let error = "org.aptostree1.Error.InvalidConfiguration";
        bench.refuses_call("GetStatus", &(), error, telling[1]);
        // The bus itself would let each of them wait for 25 s.
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    }
    wait_for("the end of a daemon that cannot serve", SOON, || {
        let show = "systemctl show --property=Result,NRestarts,ExecMainStatus apt-ostreed | sort";
        let status = bench.host.shell(show);
        (status == "ExecMainStatus=78\nNRestarts=0\nResult=exit-code\n").then_some(())
    });
    bench.host.shell(&format!("printf '{configuration}' > /etc/apt-ostree/config.toml"));
    bench.assert_as_before();

    let unavailable = |names, advice| Refusal::failed("DaemonUnavailable", names, advice);
    bench.host.shell("systemctl --quiet mask --runtime --now apt-ostreed");
    bench.answers("masked", &["status"], unavailable(&["masked"], "systemctl unmask"));
    bench.host.shell("systemctl --quiet unmask --runtime apt-ostreed");

    bench
        .host
        .shell(&format!("mkdir /run/nothing; mount --bind /run/nothing {ACTIVATION}; {RELOAD}"));
    bench.answers(
        "absent",
        &["apply-live"],
        unavailable(&["org.aptostree1"], "Install the package"),
    );
    bench.host.shell(&format!("umount {ACTIVATION}; {RELOAD}"));
    bench.host.shell("apt-ostree status");
    bench.assert_as_before();
}

#[test]
fn an_update_that_was_interrupted_is_put_back_under_an_unusable_configuration_too() {
    let bench = Bench::boot();
    bench.host.mirror().publish(&Repository::hello(2));
    let configuration = bench.host.shell("cat /etc/apt-ostree/config.toml");
    let mut listener = bench.host.listen();
    let apply = ["call"].into_iter().chain(MANAGER);
    let apply = apply.chain(["ApplyLive", "a{sv}", "1", "packages", "as", "1", "hello-svc"]);
    bench.host.busctl(apply).expect("root may");
    listener.wait_until(|told| told.begins("check-health"));
    assert!(bench.host.hello().starts_with("version=2"), "{}", bench.host.hello());
    bench.host.shell(FORGET);
    bench.host.shell(
        "echo nonsense > /etc/apt-ostree/config.toml; systemctl kill --kill-whom=main --signal=KILL apt-ostreed",
    );
    // The service manager starts another one, which tells nobody anything but why it cannot serve.
    wait_for("the end of the daemon's recovery", RECOVERY, || {
        let told = bench.host.apt_ostree(["status"]).stderr;
        told.contains("[InvalidConfiguration]").then_some(())
    });
    bench.host.shell(&format!("printf '{configuration}' > /etc/apt-ostree/config.toml; {STOP}"));
    bench.assert_as_before();
    let record = bench.host.newest_record();
    assert_eq!(
        (&record["outcome"], &record["failure"]["code"]),
        (&"rolled-back".into(), &"Interrupted".into())
    );
    assert!(bench.host.hello().starts_with("version=1"), "{}", bench.host.hello());
}
