//! Names, options and callers.

use super::{Bench, Refusal, assert_clean_and_bounded};

/// What no shell, terminal or parser may take for more than a name.
fn bad_names() -> Vec<(String, &'static str)> {
    vec![
        ("a\nb".into(), r#""a\nb""#),
        ("a\u{1b}[31mb".into(), r#""a\u{1b}[31mb""#),
        ("a\u{7f}b".into(), r#""a\u{7f}b""#),
        ("$(reboot)".into(), r#""$(reboot)""#),
        ("`reboot`".into(), r#""`reboot`""#),
        ("nginx;reboot".into(), r#""nginx;reboot""#),
        ("-rf".into(), r#""-rf""#),
        ("--force".into(), r#""--force""#),
        ("../../etc/passwd".into(), r#""../../etc/passwd""#),
        ("x".repeat(10_000), "too long"),
    ]
}

#[test]
fn names_that_are_none_are_refused_by_the_command_line() {
    let bench = Bench::boot();
    for (name, shown) in bad_names() {
        // All options read names alike: each name with one, one name with each.
        let options: &[&str] = if name.len() == 3 { &["packages", "remove"] } else { &["install"] };
        for option in options {
            let argument = format!("--{option}={name}");
            bench.answers(shown, &["apply-live", &argument], Refusal::usage(&[option, shown]));
        }
        let target = format!("--target={name}");
        bench.answers(shown, &["apply-live", &target], Refusal::usage(&["target"]));
        let plan = format!("--plan={name}");
        bench.answers(shown, &["apply-live", &plan], Refusal::usage(&["plan", "12 to 64"]));
        // What the command line's own grammar refuses.
        for arguments in [vec!["show", &name], vec![name.as_str()], vec!["apply-live", "--", &name]]
        {
            let output = bench.host.run(["apt-ostree"].iter().chain(&arguments));
            assert_eq!(output.code, Some(2), "{arguments:?}: {}", output.stderr);
            assert_clean_and_bounded(shown, &output);
            assert!(output.stderr.contains("--help"), "{}", output.stderr);
        }
    }
    bench.assert_as_before();

    let unknown = Refusal::failed("StalePlan", &["0123456789abcdef"], "--dry-run");
    bench.refuses("unknown plan", &["apply-live", "--plan=0123456789abcdef"], unknown);
    let absent = |names| Refusal::failed("NotFound", names, "apt-ostree history");
    bench.refuses("unknown transaction", &["show", "99"], absent(&["99"]));
    bench.refuses("nothing to undo", &["rollback"], absent(&["no update"]));
    bench.refuses("nothing of that number", &["rollback", "99"], absent(&["99"]));
    bench.refuses("nothing to cancel", &["cancel"], absent(&["no transaction"]));
    bench.refuses(
        "unknown commit",
        &["apply-live", &format!("--target={}", "a".repeat(64))],
        Refusal::failed("NotFound", &["aaaaaaaaaaaa"], "."),
    );
}

#[test]
fn who_may_not_is_told_so() {
    let bench = Bench::boot();
    for (arguments, action) in [
        (vec!["apply-live"], "org.aptostree1.apply-update"),
        (vec!["apply-live", "--dry-run"], "org.aptostree1.check-updates"),
        (vec!["check"], "org.aptostree1.check-updates"),
        (vec!["rollback"], "org.aptostree1.roll-back"),
        (vec!["cancel"], "org.aptostree1.cancel-transaction"),
    ] {
        let command = ["runuser", "--user", "nobody", "--", "apt-ostree"];
        let output = bench.host.run(command.iter().chain(&arguments));
        let refusal =
            Refusal { status: 5, code: "NotAuthorized", names: &["65534", action], advice: "root" };
        refusal.assert_told(action, &output);
    }
    // Looking is free.
    bench.host.shell("runuser --user nobody -- apt-ostree status");
    bench.assert_as_before();
    assert_eq!(bench.host.shell("apt-ostree --json history").trim(), "[]");
}
