//! Mirrors that are gone, slow to a halt, or say no.

use super::{Bench, Refusal};
use crate::support::Repository;

const UPGRADE: &[&str] = &["apply-live", "--packages=hello-svc", "--no-refresh"];

#[test]
fn mirrors_that_fail_are_named_and_one_that_recovers_is_used() {
    let mut bench = Bench::boot();
    // Lists come through apt, which has settings of its own for mirrors that stall.
    bench.host.shell(
        "printf 'Acquire::http::Timeout 1; Acquire::Retries 1;\n' > /etc/apt/apt.conf.d/99impatient",
    );
    bench.before = bench.host.snapshot();
    let mirror = bench.host.mirror();
    mirror.publish(&Repository::hello(2));
    for (fault, telling) in [
        ("* status 503", "503"),
        ("*/toys/* status 404", "404"),
        ("*/toys/* close 100", "toys"),
        ("*/toys/*InRelease stall 100", "timed out"),
        ("*/toys/*Packages* stall 100", "timed out"),
    ] {
        mirror.set_faults(&format!("{fault}\n"));
        let names = ["http://127.0.0.1:8080/toys", telling];
        let refusal = Refusal::failed("RefreshFailed", &names, "network");
        bench.refuses(fault, &["apply-live", "--packages=hello-svc"], refusal);
    }
    mirror.set_faults("");
    bench.host.shell("apt-ostree check >&2");

    let file = "http://127.0.0.1:8080/toys/pool/hello-svc_2_";
    for (fault, telling) in [
        ("status 404", "404"),
        ("status 503", "503"),
        ("close 100", "connection"),
        ("stall 100", "1 s"),
    ] {
        bench.forget_packages();
        mirror.set_faults(&format!("*/hello-svc_2_*.deb {fault}\n"));
        let names = ["hello-svc", file, telling];
        bench.refuses(fault, UPGRADE, Refusal::failed("DownloadFailed", &names, "mirrors"));
    }
    // Nothing listens there.
    mirror.set_faults("");
    bench.forget_packages();
    let move_toys = |from: u16, to: u16| {
        let (from, to) = (format!("127.0.0.1:{from}/toys"), format!("127.0.0.1:{to}/toys"));
        bench.host.shell(&format!("grep -rl {from} /etc/apt | xargs sed -i 's,{from},{to},'"));
    };
    move_toys(8080, 8089);
    let before = bench.host.snapshot();
    let refusal = Refusal::failed("RefreshFailed", &["http://127.0.0.1:8089/toys"], "network");
    bench.refuses_from("gone", &["apply-live", "--packages=hello-svc"], refusal, &before);
    move_toys(8089, 8080);
    bench.assert_as_before();

    let (code, message) = {
        mirror.set_faults("*/hello-svc_2_*.deb status 404\n");
        bench.host.shell("apt-ostree check >&2");
        bench.error_of_transaction(&["1", "packages", "as", "1", "hello-svc"])
    };
    assert_eq!(code, "DownloadFailed");
    assert!(message.contains(file), "{message}");

    mirror.set_faults("*/hello-svc_2_*.deb status 503 1\n");
    let asked = mirror.log().len();
    bench.host.run(["apt-ostree", "apply-live", "--packages=hello-svc"]).success();
    let log = mirror.log().split_off(asked);
    assert!(
        log.iter().any(|line| line.starts_with("503 ") && line.contains("hello-svc_2_")),
        "{log:?}"
    );
    assert!(bench.host.shell("curl -s http://127.0.0.1:9000/").starts_with("version=2"));
}
