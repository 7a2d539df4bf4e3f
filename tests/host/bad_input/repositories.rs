//! Repositories that cannot be trusted, and packages that cannot be had from good ones.

use super::{Bench, Refusal, assert_clean_and_bounded};
use crate::support::Repository;

const UPGRADE: &[&str] = &["apply-live", "--packages=hello-svc"];

#[test]
fn packages_that_do_not_exist_or_do_not_fit_are_named() {
    let bench = Bench::boot();
    for option in ["install", "packages", "remove"] {
        let argument = format!("--{option}=no-such-package");
        let refusal = Refusal::failed("NotFound", &["\"no-such-package\""], "name");
        bench.refuses(option, &["apply-live", "--no-refresh", &argument], refusal);
    }
    let refusal = Refusal::failed("NotFound", &["hello-svc", "77"], ".");
    bench.refuses("version", &["apply-live", "--no-refresh", "--install=hello-svc=77"], refusal);

    // The signed index asks for what nobody can have.
    for (relation, clash) in [
        ("Depends: nginx (>= 99)", ["needs nginx (>= 99)", "\"nginx\" can only become "]),
        ("Depends: no-such-library (>= 3)", ["needs no-such-library (>= 3)", "no repository has"]),
        ("Conflicts: nginx-common", ["conflicts with nginx-common", "\"nginx-common\" 1."]),
    ] {
        let alter = format!("--alter-index=s/^Depends: .*/{relation}/");
        bench.host.mirror().publish(&Repository::hello(2).option(&alter));
        let names = ["\"hello-svc\" 2", clash[0], clash[1]];
        let refusal = Refusal::failed("Unsatisfiable", &names, ".");
        for option in ["install=hello-svc=2", "packages=hello-svc"] {
            let argument = format!("--{option}");
            bench.refuses(relation, &["apply-live", &argument], refusal);
        }
        let plan = bench.host.json(0, ["apply-live", "--dry-run", "--no-refresh"]);
        let kept_back = plan["refused"].as_array().expect("a list").iter().any(|refused| {
            refused["subject"] == "hello-svc"
                && refused["reason"].as_str().is_some_and(|reason| reason.contains(clash[0]))
        });
        assert!(kept_back, "{relation}: {}", plan["refused"]);
    }
    let (code, message) = bench.error_of_transaction(&["1", "install", "as", "1", "hello-svc=2"]);
    assert_eq!(code, "Unsatisfiable");
    assert!(message.contains("hello-svc") && message.contains("nginx-common"), "{message}");
}

#[test]
fn repositories_without_a_good_signature_are_not_used() {
    let bench = Bench::boot();
    let url = "http://127.0.0.1:8080/toys";
    for (option, telling) in [
        ("--signed=no", "signed"),
        ("--signed=wrong", "NO_PUBKEY"),
        ("--expired", "expired"),
        ("--alter-late=s/^Size: .*/Size: 5/", "Packages"),
    ] {
        bench.host.mirror().publish(&Repository::hello(2).option(option));
        let names = [url, telling];
        let refusal = Refusal::failed("Untrusted", &names, "Signed-By");
        bench.refuses(option, UPGRADE, refusal);
        // Nor by an update that does not ask the mirror: the lists of before are still there.
        assert_eq!(
            bench.host.shell("apt-cache madison hello-svc | grep -c '| *2 |' || true"),
            "0\n"
        );
    }
    let (code, message) = bench.error_of_transaction(&["0"]);
    assert_eq!(code, "Untrusted");
    assert!(message.contains(url), "{message}");
}

#[test]
fn a_repository_that_calls_itself_by_control_sequences_drives_no_terminal() {
    let bench = Bench::boot();
    let origin = "toys\u{1b}[2J\u{9b}31m\u{202e}";
    bench.host.mirror().publish(&Repository::hello(2).option(&format!("--origin={origin}")));
    let dry_run = ["apply-live", "--packages=hello-svc", "--dry-run", "--no-progress"];
    let text = bench.host.apt_ostree(dry_run);
    let json = bench.host.apt_ostree(["--json"].into_iter().chain(dry_run));
    for output in [&text, &json] {
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        assert_clean_and_bounded("origin", output);
    }
    assert!(text.stdout.contains(r"toys\u{1b}[2J\u{9b}31m\u{202e}"), "{}", text.stdout);
    assert!(!json.stdout.contains('\u{202e}'), "{}", json.stdout);
    let plan: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(plan["changes"][0]["origin"]["label"], origin);
    bench.assert_as_before();
}

#[test]
fn held_and_pinned_packages_stay_and_the_reason_is_told() {
    let bench = Bench::boot();
    bench.host.mirror().publish(&Repository::hello(2));
    let stays = |case: &str, reason: &str| {
        let before = bench.host.snapshot();
        for arguments in [UPGRADE, &["apply-live", "--packages=hello-svc", "--dry-run"]] {
            let output = bench.host.run(["apt-ostree", "--no-progress"].iter().chain(arguments));
            assert_eq!(output.code, Some(0), "{case}: {}", output.stderr);
            assert!(output.stdout.contains("Nothing to do."), "{case}: {}", output.stdout);
            let line = output.stdout.lines().find(|line| line.starts_with("  hello-svc"));
            assert!(line.is_some_and(|line| line.contains(reason)), "{case}: {}", output.stdout);
        }
        bench.host.snapshot().assert_same_as(&before);
    };
    bench.host.shell(
        "printf 'Package: hello-svc\\nPin: version 2\\nPin-Priority: -1\\n' > /etc/apt/preferences.d/pin",
    );
    stays("pinned", "pinned");
    bench.host.shell("rm /etc/apt/preferences.d/pin");
    // As whoever builds the image does it: the tree itself is read-only.
    bench.host.shell(&super::locks::with_writable_usr("apt-mark hold hello-svc"));
    stays("held", "held");
}
