//! Who keeps in memory what it once read, and does not see that another tree was mounted.

use crate::support::{Host, Repository};

/// udev does not run where `/sys` is read-only; here it serves this host's own network devices.
const START_UDEV: &str =
    "for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket; do
        mkdir -p /run/systemd/system/$unit.d
        printf '[Unit]\\nConditionPathIsReadWrite=\\n' > /run/systemd/system/$unit.d/here.conf
    done
    systemctl daemon-reload
    systemctl start systemd-udevd.service";

fn main_pid(host: &Host, unit: &str) -> String {
    host.shell(&format!("systemctl show --property=MainPID --value {unit}"))
}

/// Adds a network device, and tells whether udev followed the rule of reader-toys for it.
fn udev_follows(host: &Host, device: &str) -> bool {
    host.shell(&format!("ip link add {device} type bridge; udevadm settle --timeout=20"));
    host.run(["test", "-e", &format!("/run/seen-{device}")]).code == Some(0)
}

/// How often it was told to read everything again: it looks by itself too, every three seconds.
fn udev_was_told(host: &Host) -> usize {
    let log = host.shell("journalctl --boot --output=cat --unit=systemd-udevd.service");
    log.lines().filter(|line| line.starts_with("Reloaded systemd-udevd.service")).count()
}

fn knows_action(host: &Host) -> bool {
    host.run(["pkaction", "--action-id", "org.example.toy.play"]).code == Some(0)
}

fn cache_has_library(host: &Host) -> bool {
    host.shell("ldconfig --print-cache").contains("libreadertoys.so.1")
}

#[test]
fn polkit_udev_and_the_library_cache_know_what_an_update_brings_and_takes() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::default().with(Repository::reader_package()));
    host.shell("systemctl start polkit");
    host.shell(START_UDEV);
    let (polkit, udev) = (main_pid(&host, "polkit"), main_pid(&host, "systemd-udevd"));
    assert!(!knows_action(&host) && !udev_follows(&host, "toy1") && !cache_has_library(&host));

    host.apt_ostree(["--quiet", "apply-live", "--install=reader-toys"]).success();
    assert_eq!(udev_was_told(&host), 1);
    assert!(knows_action(&host), "at once");
    assert!(udev_follows(&host, "toy2"));
    assert!(cache_has_library(&host));
    assert_eq!(host.newest_record()["warnings"].to_string(), "[]");
    // The one always can read again, the other only in newer versions.
    let polkit_can = host.shell("systemctl show --property=CanReload --value polkit") == "yes\n";
    assert_eq!(main_pid(&host, "systemd-udevd"), udev);
    assert_eq!(main_pid(&host, "polkit") == polkit, polkit_can);

    host.apt_ostree(["--quiet", "rollback"]).success();
    assert_eq!(udev_was_told(&host), 2);
    assert!(!knows_action(&host) && !udev_follows(&host, "toy3") && !cache_has_library(&host));
    assert_eq!(main_pid(&host, "systemd-udevd"), udev);

    // Nobody is started who does not run, and nobody restarted where none is to be.
    let polkit = main_pid(&host, "polkit");
    host.shell("systemctl stop systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket");
    host.apt_ostree(["--quiet", "apply-live", "--install=reader-toys", "--no-restart-services"])
        .success();
    assert_eq!(main_pid(&host, "systemd-udevd"), "0\n");
    assert_eq!(main_pid(&host, "polkit"), polkit);
    assert_eq!(knows_action(&host), polkit_can, "it has not seen the switch by itself");
    let warnings = host.newest_record()["warnings"].to_string();
    let is_told = warnings.contains("polkit.service has not read its changed files again");
    assert_eq!(is_told, !polkit_can, "{warnings}");
    host.assert_in_order();
}
