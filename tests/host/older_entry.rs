//! Boots of the older entry of the boot menu, which an admin chooses by hand.

use serde_json::json;

use crate::support::{Host, Repository};

const UPDATE: [&str; 3] = ["apply-live", "--restart-services", "--packages=hello-svc"];
/// The place of the older entry.
const OLDER: u32 = 2;

#[track_caller]
fn runs(host: &Host, version: u32) {
    let hello = host.hello();
    let expected = format!("version={version} disk={version} conf=hi-{version}");
    assert!(hello.starts_with(&expected), "{hello}");
    assert_eq!(host.version_of("hello-svc"), version.to_string());
    host.assert_in_order();
}

#[test]
fn an_older_entry_has_its_own_etc_and_says_what_it_lacks_and_the_newer_one_is_as_it_was() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    // The old deployment's /etc is in use until the reboot.
    host.shell("echo early > /etc/early");
    host.reboot();
    runs(&host, 2);
    assert_eq!(host.json(0, ["status"])["left_out"], json!([]));
    host.shell("echo late > /etc/late");

    host.reboot_into(OLDER);
    runs(&host, 1);
    let state = host.json(0, ["status"]);
    assert_eq!((&state["running"], &state["left_out"]), (&state["booted"], &json!([1])), "{state}");
    assert_ne!(state["next"], state["booted"], "{state}");
    let shown = host.apt_ostree(["status"]).success();
    assert!(shown.contains("from before transaction 1"), "{shown}");
    let logged = host.shell("journalctl --boot --unit apt-ostree-recover --output cat");
    assert!(logged.contains("booted into the tree before transaction 1"), "{logged}");
    assert_eq!(host.shell("cat /etc/early; ls /etc/late || true"), "early\n");

    // A boot that nobody chooses is one of the newer entry, with all that was edited there.
    host.reboot();
    runs(&host, 2);
    assert_eq!(host.shell("cat /etc/early /etc/late"), "early\nlate\n");
    assert_eq!(host.json(0, ["status"])["left_out"], json!([]));
    host.apt_ostree(["status", "--verify"]).success();

    // From the older one, too, an update goes on, and back.
    host.reboot_into(OLDER);
    runs(&host, 1);
    host.shell("echo mine > /etc/early");
    host.apt_ostree(UPDATE).success();
    runs(&host, 2);
    assert_eq!(host.json(0, ["status"])["left_out"], json!([]));
    host.reboot();
    runs(&host, 2);
    assert_eq!(host.shell("cat /etc/early"), "mine\n");
    host.apt_ostree(["rollback"]).success();
    runs(&host, 1);
    host.apt_ostree(["status", "--verify"]).success();

    // Who booted the older entry for good says so: it is what boots from then on.
    host.reboot();
    host.apt_ostree(UPDATE).success();
    host.reboot();
    runs(&host, 2);
    host.reboot_into(OLDER);
    runs(&host, 1);
    host.apt_ostree(["rollback"]).success();
    let state = host.json(0, ["status"]);
    assert_eq!((&state["next"], &state["left_out"]), (&state["booted"], &json!([])), "{state}");
    host.reboot();
    runs(&host, 1);
    host.apt_ostree(["status", "--verify"]).success();
    host.shell("ostree fsck --quiet");
}
