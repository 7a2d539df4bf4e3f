//! Updates that take effect with the next boot.

use serde_json::{Value, json};

use crate::support::{Host, Repository};

/// What there is of firmware-toy besides its file, in a line.
const LOOK: &str = "cat /usr/lib/firmware/toy /etc/firmware-toy.conf /etc/firmware-toy.generated \
     /var/lib/firmware-toy/data 2> /dev/null | tr '\\n' ' '; id --user --name firmware-toy 2> /dev/null || true";

fn repository(hello: u32, firmware: u32) -> Repository {
    let firmware = Repository::boot_package(&format!("firmware-toy_{firmware}"));
    Repository::hello(hello).with(firmware)
}

/// The packages that wait for the next boot, as the status and `/run/reboot-required` tell.
fn waiting(host: &Host) -> (Value, String) {
    let packages = "test ! -e /run/reboot-required || cat /run/reboot-required.pkgs";
    (host.json(0, ["status"])["awaits_boot"]["packages"].take(), host.shell(packages))
}

#[track_caller]
fn has_toy(host: &Host, version: u32, generated: &str) {
    let expected = format!("{version} conf {version} {generated} first was 1 firmware-toy\n");
    assert_eq!(host.shell(LOOK), expected);
    assert_eq!(host.version_of("firmware-toy"), version.to_string());
    host.assert_in_order();
    assert_eq!(waiting(host), (json!(null), String::new()));
    host.apt_ostree(["status", "--verify"]).success();
}

#[test]
fn what_cannot_change_live_waits_with_all_that_goes_with_it_and_comes_with_the_boot() {
    let host = Host::boot_to_update();
    host.mirror().publish(&repository(2, 1));
    let install =
        ["apply-live", "--restart-services", "--packages=hello-svc", "--install=firmware-toy"];
    let shown = host.apt_ostree(install).success();
    assert!(host.hello().starts_with("version=2 disk=2"), "{shown}");
    assert_eq!(host.shell(LOOK), "");
    assert_eq!(waiting(&host), (json!(1), "firmware-toy\n".to_owned()));
    let status = host.apt_ostree(["status"]).success();
    for told in ["takes effect then", "firmware-toy: firmware is loaded"] {
        assert!(status.contains(told), "{status}");
    }
    assert!(shown.contains("it takes effect with the next boot"), "{shown}");
    assert!(host.apt_ostree(["history"]).success().contains("awaits the boot"));
    host.apt_ostree(["status", "--verify"]).success();
    assert_eq!(host.json(0, ["services"])["units"], json!([]), "what only waits replaces nothing");

    // It survives what comes live after it, and goes when it is rolled back, without a restart.
    host.mirror().publish(&repository(1, 1));
    host.apt_ostree(["rollback", "1"]).success();
    assert_eq!(waiting(&host), (json!(null), String::new()));
    host.mirror().publish(&repository(2, 1));
    host.apt_ostree(["apply-live", "--install=firmware-toy"]).success();
    host.apt_ostree(["apply-live", "--restart-services", "--packages=hello-svc"]).success();
    assert_eq!(waiting(&host), (json!(1), "firmware-toy\n".to_owned()));
    let hello = host.hello();
    host.apt_ostree(["rollback"]).success();
    assert_eq!(waiting(&host), (json!(null), String::new()));
    assert_eq!(host.hello(), hello);
    host.apt_ostree(["status", "--verify"]).success();

    host.apt_ostree(["apply-live", "--install=firmware-toy"]).success();
    host.shell("echo late > /etc/late");
    host.reboot();
    has_toy(&host, 1, "generated for 1");
    assert_eq!(host.version_of("hello-svc"), "2");
    assert_eq!(host.shell("cat /etc/late"), "late\n");
    let logged = host.shell("journalctl --boot --unit apt-ostree-recover --output cat");
    assert!(logged.contains("takes effect with this boot"), "{logged}");

    // It comes once: what is edited from then on stays.
    host.shell("echo mine > /etc/firmware-toy.generated");
    host.reboot();
    has_toy(&host, 1, "mine");
    host.shell("echo 'generated for 1' > /etc/firmware-toy.generated");

    // A whole upgrade, after which the power goes: what was edited meanwhile is there, and all of it.
    host.mirror().publish(&repository(2, 2));
    host.apt_ostree(["apply-live"]).success();
    host.shell("echo later > /etc/late; sync");
    host.power_cut();
    has_toy(&host, 2, "generated for 2");
    assert_eq!(host.shell("cat /etc/late"), "later\n");

    // The way back waits for a boot, too.
    host.apt_ostree(["rollback"]).success();
    assert_eq!(host.version_of("firmware-toy"), "2");
    assert_eq!(waiting(&host), (json!(1), "firmware-toy\n".to_owned()));
    host.reboot();
    has_toy(&host, 1, "generated for 1");
    host.shell("ostree fsck --quiet");
}

#[test]
fn a_new_kernel_boots_next_and_its_failures_leave_the_host_as_it_was() {
    let host = Host::boot_to_update();
    let kernel = Repository::boot_package("linux-image-9.9.9-toy_1");
    host.mirror().publish(&Repository::hello(2).with(kernel));
    let before = host.snapshot();
    let boots_next = "cat \"/boot$(sed -n 's/^linux //p' /boot/loader/entries/ostree-2-*.conf)\"";

    let refused = host.apt_ostree(["apply-live", "--live-only", "--install=linux-image-9.9.9-toy"]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("the running kernel cannot be exchanged"),
        "{}",
        refused.stderr
    );
    host.snapshot().assert_same_as(&before);

    host.apt_ostree(["apply-live", "--install=linux-image-9.9.9-toy"]).success();
    assert_eq!(host.shell(boots_next), "kernel 9.9.9-toy\n");
    assert_eq!(host.shell("ls /usr/lib/modules"), "0.0.0-namespace\n");
    host.reboot();
    assert_eq!(
        host.shell("cd /usr/lib/modules; ls -d */*"),
        "9.9.9-toy/System.map\n9.9.9-toy/modules.order\n9.9.9-toy/vmlinuz\n"
    );
    assert_eq!(host.version_of("linux-image-9.9.9-toy"), "1");
    host.assert_in_order();
    // The way back is a kernel too.
    host.apt_ostree(["rollback"]).success();
    host.reboot();
    assert_eq!(host.shell("ls /usr/lib/modules"), "0.0.0-namespace\n");
}

#[test]
fn a_fix_of_the_c_library_changes_live_and_back() {
    let host = Host::boot_to_update();
    let fix = Repository::newer("+fix", "libc6", "libc6", "*lib/*/libc.so.6");
    host.mirror().publish(&Repository::default().with(fix));
    let before = host.version_of("libc6");
    let pids = "systemctl show --property=MainPID --value hello-svc nginx ssh dbus systemd-logind | grep .";
    let was: Vec<String> = host.shell(pids).lines().map(str::to_owned).collect();

    host.apt_ostree(["apply-live", "--restart-services", "--packages=libc6"]).success();
    assert_eq!(host.version_of("libc6"), format!("{before}+fix"));
    let is: Vec<String> = host.shell(pids).lines().map(str::to_owned).collect();
    assert!((0..3).all(|service| is[service] != was[service]), "{was:?} {is:?}");
    assert_eq!(is[3..], was[3..], "nobody restarts the bus and logind");
    let left = host.apt_ostree(["services"]).success();
    for unit in ["dbus.service", "systemd-logind.service"] {
        assert!(left.contains(unit), "{left}");
    }
    host.assert_in_order();
    host.apt_ostree(["rollback"]).success();
    assert_eq!(host.version_of("libc6"), before);
    host.assert_in_order();
}
