//! Packages that are not what the signed index says, or that would reach where no package may.

use super::{Bench, Refusal};
use crate::support::Repository;

const UPGRADE: &[&str] = &["apply-live", "--packages=hello-svc"];

#[test]
fn files_that_are_not_what_the_index_says_are_refused() {
    let bench = Bench::boot();
    bench.host.mirror().publish(&Repository::hello(2));
    for (fault, telling) in [("truncate 100", "100 bytes"), ("flip 500", "SHA-256")] {
        bench.forget_packages();
        bench.host.mirror().set_faults(&format!("*/hello-svc_2_*.deb {fault}\n"));
        let names = ["hello-svc", "http://127.0.0.1:8080/toys/", telling];
        bench.refuses(fault, UPGRADE, Refusal::failed("VerificationFailed", &names, "mirror"));
    }
    bench.host.mirror().set_faults("");
    for (alter, telling) in [
        ("s/^Size: .*/Size: 5/", ["not 5", "size"]),
        (
            "s/^SHA256: .*/SHA256: 0000000000000000000000000000000000000000000000000000000000000000/",
            ["SHA-256", "0000"],
        ),
        ("s/^Version: 2/Version: 3/", ["version \"2\"", "\"3\""]),
        ("s/^Architecture: .*/Architecture: all/", ["architecture", "\"all\""]),
    ] {
        bench.forget_packages();
        let altered = Repository::hello(2).option(&format!("--alter-index={alter}"));
        bench.host.mirror().publish(&altered);
        let names = ["hello-svc", telling[0], telling[1]];
        bench.refuses(alter, UPGRADE, Refusal::failed("VerificationFailed", &names, "mirror"));
    }
    bench.forget_packages();
    let renamed = "--alter-index=s/^Package: hello-svc$/Package: hello-other/";
    bench.host.mirror().publish(&Repository::hello(2).option(renamed));
    let refusal =
        Refusal::failed("VerificationFailed", &["\"hello-svc\"", "\"hello-other\""], "mirror");
    bench.refuses("name", &["apply-live", "--install=hello-other"], refusal);

    let (code, message) = bench.error_of_transaction(&["1", "install", "as", "1", "hello-other"]);
    assert_eq!(code, "VerificationFailed");
    assert!(message.contains("hello-other"), "{message}");
}

#[test]
fn packages_that_reach_outside_are_refused_before_they_are_unpacked() {
    let bench = Bench::boot();
    for (reason, path, telling) in [
        ("parent-path", "../intruder", "leaves the root"),
        ("absolute-path", "\"/etc/intruder\"", "absolute"),
        ("through-symlink", "link/intruder", "symbolic link"),
        ("device-node", "usr/share/hello-svc/device", "character device"),
        ("outside-usr", "boot/intruder", "/usr, /etc and /var"),
    ] {
        bench.forget_packages();
        bench.host.mirror().publish(&Repository::broken(reason));
        let names = ["hello-svc", path, telling];
        let refusal = Refusal::failed("UnsupportedPackage", &names, "Leave the package out");
        bench.refuses(reason, UPGRADE, refusal);
        bench
            .host
            .shell("test ! -e /intruder && test ! -e /boot/intruder && test ! -e /etc/intruder");
    }
    let (code, message) = bench.error_of_transaction(&["1", "packages", "as", "1", "hello-svc"]);
    assert_eq!(code, "UnsupportedPackage");
    assert!(message.contains("boot/intruder"), "{message}");
}
