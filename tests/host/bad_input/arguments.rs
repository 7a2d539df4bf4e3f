//! Names, options and callers.

use std::collections::HashMap;

use super::{Bench, Refusal, assert_clean_and_bounded};

const INVALID: &str = "org.aptostree1.Error.InvalidArgument";
const NOT_FOUND: &str = "org.aptostree1.Error.NotFound";

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
    bench.refuses("nothing to confirm", &["confirm"], absent(&["no update waits"]));
    bench.refuses(
        "unknown commit",
        &["apply-live", &format!("--target={}", "a".repeat(64))],
        Refusal::failed("NotFound", &["aaaaaaaaaaaa"], "."),
    );
}

#[test]
fn malformed_calls_are_refused_on_the_bus_by_the_name_of_the_error() {
    use zbus::zvariant::Value;
    let bench = Bench::boot();
    let options = |pairs: &[(&'static str, Value<'static>)]| {
        (pairs.iter().cloned().collect::<HashMap<&str, Value<'_>>>(),)
    };
    let name = |name: &str| Value::from(vec![name.to_owned()]);
    for (wrong, told) in [
        (vec![("unheard-of", Value::from(true))], "\"unheard-of\""),
        (vec![("un\u{1b}[1mheard\n", Value::from(true))], r#""un\u{1b}[1mheard\n""#),
        (vec![("", Value::from(true))], "\"\""),
        (vec![("force", Value::from("yes"))], "a boolean"),
        (vec![("refresh", Value::from(1_u32))], "a boolean"),
        (vec![("dry-run", Value::Value(Box::new(Value::from(true))))], "a boolean"),
        (vec![("packages", Value::from("hello-svc"))], "an array of strings"),
        (vec![("install", Value::from(vec![1_u32]))], "an array of strings"),
        (vec![("remove", Value::from(vec!["x"; 20_001]))], "more than 20000"),
        (vec![("install", name(""))], "install"),
        (vec![("restart", Value::from("sometimes"))], "affected or never"),
        (vec![("target", Value::from(vec!["pending"]))], "a string"),
        (vec![("target", Value::from("../../etc"))], "target"),
        (vec![("target", Value::from("pending")), ("remove", name("hello-svc"))], "combined"),
        (vec![("plan", Value::from(7_u64))], "a string"),
        (vec![("confirm-timeout", Value::from(60_i32))], "an unsigned number"),
        (vec![("confirm-timeout", Value::from(4_u32))], "5 to 86400"),
        (vec![("confirm-timeout", Value::from(u32::MAX))], "5 to 86400"),
    ] {
        bench.refuses_call("ApplyLive", &options(&wrong), INVALID, told);
    }
    for (bad, shown) in bad_names() {
        for list in ["packages", "install", "remove"] {
            bench.refuses_call("ApplyLive", &options(&[(list, name(&bad))]), INVALID, shown);
        }
        for text in ["target", "plan", "restart"] {
            let wrong = options(&[(text, Value::from(bad.clone()))]);
            bench.refuses_call("ApplyLive", &wrong, INVALID, text);
        }
    }
    let unheard_of = options(&[("unheard-of", Value::from(true))]);
    bench.refuses_call("Check", &unheard_of, INVALID, "unheard-of");
    bench.refuses_call("Rollback", &(0_u64, unheard_of.0), INVALID, "unheard-of");
    let wrong = options(&[("dry-run", Value::from("no"))]);
    bench.refuses_call("Rollback", &(0_u64, wrong.0), INVALID, "a boolean");
    bench.refuses_call("Rollback", &(0_u64, options(&[]).0), NOT_FOUND, "no update");
    for missing in [0_u64, 99, u64::MAX] {
        bench.refuses_call("GetRecord", &(missing,), NOT_FOUND, &missing.to_string());
    }
    bench.refuses_call("Cancel", &(), NOT_FOUND, "no transaction");
    bench.refuses_call("Confirm", &(), NOT_FOUND, "no update waits");
    bench.refuses_call("Repair", &(), NOT_FOUND, "stuck");
    // Not even a call of a method that there is.
    bench.refuses_call("ApplyLive", &("packages",), "org.freedesktop.zbus.Error", "a{sv}");
    bench.refuses_call("GetRecord", &("1",), "org.freedesktop.zbus.Error", "`t`");
    let unknown = "org.freedesktop.DBus.Error.UnknownMethod";
    bench.refuses_call("FormatDisk", &(), unknown, "FormatDisk");
    bench.assert_as_before();
    assert_eq!(bench.host.json(0, ["history"]), serde_json::json!([]), "nothing was begun");
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
