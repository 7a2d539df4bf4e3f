//! A daemon that is not there or cannot start: the command says why, instead of waiting for the bus.

use super::{Bench, Refusal};

const ACTIVATION: &str = "/usr/share/dbus-1/system-services";
const RELOAD: &str = "busctl --quiet call org.freedesktop.DBus / org.freedesktop.DBus ReloadConfig; systemctl stop apt-ostreed";

#[test]
fn a_daemon_that_cannot_start_is_explained() {
    let bench = Bench::boot();
    let configuration = bench.host.shell("cat /etc/apt-ostree/config.toml");
    for (text, telling) in [
        ("[download]\\nconections = 3", ["line 2", "conections"]),
        ("[download]\\nconnections = many", ["line 2", "config.toml"]),
        ("[health]\\ndwell-seconds = \"5\"", ["line 2", "string"]),
        ("\\033[31m", ["line 1", "config.toml"]),
        ("[download]\\nconnections = 1000", ["download.connections", "1 to 64"]),
    ] {
        bench.host.shell(&format!(
            "printf '{text}\\n' > /etc/apt-ostree/config.toml; systemctl stop apt-ostreed"
        ));
        let refusal = Refusal::failed("InvalidConfiguration", &telling, "Mend the file");
        for arguments in [["status"], ["apply-live"]] {
            bench.answers(text, &arguments, refusal);
        }
    }
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
