//! Boots without a clean shutdown before them: `/etc` belongs to the tree that runs, and nothing that was
//! edited is lost.

use std::process::Stdio;

use crate::support::{Host, Repository};

const UPDATE: [&str; 3] = ["apply-live", "--restart-services", "--packages=hello-svc"];

/// Notes at every boot, before the daemon puts anything in order, what services find.
const WITNESS: &str = "cat > /etc/systemd/system/witness.service << UNIT
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /etc/hello-svc/hello.conf > /var/lib/witness; sync /var/lib/witness'
[Unit]
Before=apt-ostreed.service hello-svc.service
[Install]
WantedBy=multi-user.target
UNIT
systemctl enable --quiet --now witness.service";

#[test]
fn services_find_the_old_etc_after_a_power_cut_between_switch_and_deployment() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.shell(WITNESS);
    host.reboot();
    // What is there after the cut is of the boot after it.
    host.shell("rm /var/lib/witness; sync");
    let before = host.snapshot();

    let mut listener = host.listen();
    let mut command = host.command(std::iter::once("apt-ostree").chain(UPDATE));
    let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    listener.wait_until(|told| told.begins("check-health"));
    assert!(host.shell("cat /etc/hello-svc/hello.conf").contains("greeting=hi-2"));
    // What was exchanged is on the disk at this point; the witness's own notes are not.
    host.power_cut();
    client.and_then(std::process::Child::wait_with_output).expect("it ran");

    assert!(host.shell("cat /var/lib/witness").contains("greeting=hi-1"));
    assert_eq!(host.recovered_record()["outcome"], "rolled-back");
    host.snapshot().assert_same_as(&before);
    assert!(host.hello().starts_with("version=1 disk=1 conf=hi-1"), "{}", host.hello());
}

#[test]
fn what_was_edited_after_an_update_is_there_after_a_power_cut_weeks_later() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    host.apt_ostree(UPDATE).success();
    host.shell(
        "echo late > /etc/late; mkdir -m 700 /etc/late.d; echo inside > /etc/late.d/file
        sed -i 's/hi-2/mine/' /etc/hello-svc/hello.conf; chmod 664 /etc/hello-svc/hello.conf
        rm /etc/hello-svc/static.conf; echo latehost > /etc/hostname; useradd --system late; sync",
    );
    host.power_cut();

    let hello = host.hello();
    assert!(hello.starts_with("version=2 disk=2 conf=mine"), "{hello}");
    let edited = host.shell(
        "cat /etc/late /etc/late.d/file /etc/hostname; stat -c %a /etc/late.d /etc/hello-svc/hello.conf
        ls /etc/hello-svc; id -un late",
    );
    let expected = "late\ninside\nlatehost\n700\n664\n\
                    admin.conf\ngenerated\nhello.conf\nlate\n";
    assert_eq!(edited, expected);
    assert_eq!(host.live_trees(), "1\netc-of\n");
    host.assert_in_order();

    // From now on this deployment's own /etc counts, whatever the one before has.
    host.shell("echo later > /etc/late; sync");
    host.power_cut();
    assert_eq!(host.shell("cat /etc/late"), "later\n");
}
