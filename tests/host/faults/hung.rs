//! What never ends is ended, and the update with it.

use crate::support::{Host, Repository, look};

const UPDATE: [&str; 3] = ["apply-live", "--restart-services", "--packages=hello-svc"];

#[test]
fn scripts_units_and_networks_that_hang_are_given_up_and_all_is_put_back() {
    let host = Host::boot_to_update();
    host.configure(
        "[health]\ndwell-seconds = 1\n[install]\nlongest-seconds = 5\n[download]\nattempts = 1\n",
    );
    host.shell(
        "directory=/etc/systemd/system/hello-svc.service.d; mkdir $directory
        printf '[Service]\\nTimeoutStartSec=3\\n' > $directory/impatient.conf
        echo 'ExecStartPre=/bin/sh -c \"grep -q 1 /usr/share/hello-svc/version || sleep 1000\"' \
            >> $directory/impatient.conf
        systemctl daemon-reload; apt-get --quiet=2 update",
    );
    let before = look(&host);
    let ends = |what: &str, code: &str, exit: i32| {
        let output = host.apt_ostree(UPDATE);
        assert_eq!(output.code, Some(exit), "{what}: {}", output.stderr);
        assert!(output.stderr.contains(&format!("[{code}]")), "{what}: {}", output.stderr);
        let differences = look(&host).differences(&before);
        assert!(differences.is_empty(), "{what}:\n{differences}");
        host.assert_in_order();
        assert_eq!(
            host.shell("systemctl list-units --no-legend --plain 'apt-ostree-*'"),
            "",
            "{what}"
        );
    };
    host.mirror().publish(&Repository::hello(5));
    ends("a script", "InstallFailed", 3);
    host.mirror().publish(&Repository::hello(2));
    ends("a unit", "UnitFailed", 3);

    // Half a package has come when the network goes.
    host.shell("rm -f /var/cache/apt/archives/*.deb");
    host.mirror().set_faults("*/hello-svc_2_*.deb stall 5000\n");
    let mut listener = host.listen();
    let client = std::thread::scope(|scope| {
        let client = scope.spawn(|| host.apt_ostree(UPDATE));
        listener.wait_until(|told| told.begins("download"));
        host.shell("ip link set lo down");
        client.join().expect("it ran")
    });
    host.shell("ip link set lo up");
    assert_eq!(client.code, Some(1), "{}", client.stderr);
    assert!(client.stderr.contains("[DownloadFailed]"), "{}", client.stderr);
    assert!(look(&host).differences(&before).is_empty());

    host.mirror().set_faults("");
    host.shell("rm -r /etc/systemd/system/hello-svc.service.d; systemctl daemon-reload");
    host.apt_ostree(UPDATE).success();
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
}
