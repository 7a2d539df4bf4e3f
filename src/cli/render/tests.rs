//! What others wrote into a record is shown in its place, and nowhere else.

use serde_json::{Value, json};

use super::*;

/// Clears the screen, goes back to the start of the line, and passes for a message of our own.
const HOSTILE: &str = "x\u{1b}[2J\u{9b}2J\r\u{202e}\napt-ostree: done [Ok]\n\n  y";
const COMMIT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn failure_with(text: &str) -> Value {
    let undo =
        json!({ "code": "Internal", "message": text, "kept": null, "hint": text, "undo": null });
    json!({ "code": "Internal", "message": text, "kept": text, "hint": text, "undo": undo })
}

fn change_with(text: &str) -> Value {
    json!({
        "name": "nginx", "architecture": "amd64", "action": "upgrade", "old_version": "1",
        "new_version": "2", "source": text, "automatic": false, "installed_growth_bytes": 0,
        "origin": {
            "origin": text, "label": text, "codename": text, "component": text, "site": text,
            "trusted": true
        },
        "class": "live", "class_reason": text, "file": null
    })
}

fn unit_with(text: &str) -> Value {
    let effect = UnitEffect {
        unit: "nginx.service".parse().unwrap(),
        action: UnitAction::Leave,
        reasons: vec![
            Reason::OwnMount { path: text.into() },
            Reason::UnitFile { path: text.into() },
            Reason::OldCode { pid: 7, path: text.into() },
        ],
        left_because: Some(text.to_owned()),
        strategy: Strategy::Defer,
        group: Some(text.to_owned()),
    };
    serde_json::to_value(effect).unwrap()
}

fn record_with(text: &str, outcome: &str) -> Value {
    let request =
        apt_ostree_proto::request::UpdateRequest::new(apt_ostree_proto::request::Target::Pending);
    json!({
        "id": 7, "title": text, "request": request,
        "caller": apt_ostree_proto::request::Caller::default(), "started_seconds": 0,
        "duration_milliseconds": 0, "outcome": outcome, "failure": failure_with(text),
        "base": null, "commit": null, "changes": [change_with(text)], "units": [unit_with(text)],
        "steps": [[text, 1]], "warnings": [text], "log": [text]
    })
}

fn plan_with(text: &str) -> Value {
    json!({
        "id": COMMIT, "source": { "kind": "packages" }, "base": COMMIT,
        "changes": [change_with(text)], "units": [unit_with(text)],
        "etc_conflicts": [{ "path": text, "package": text, "resolution": text }],
        "space": [{ "path": text, "needed_bytes": 1, "available_bytes": 1 }],
        "refused": [{ "subject": text, "reason": text }], "warnings": [text], "restart": "never",
        "next_boot": [change_with(text)], "when": "next-boot"
    })
}

fn state_with(text: &str) -> Value {
    let transaction = json!({
        "id": 7, "title": text, "phase": { "state": "running", "detail": "plan" },
        "percentage": 1, "speed": 0, "remaining_seconds": 0, "cancellable": true,
        "failure": failure_with(text)
    });
    json!({
        "os_name": text, "booted": COMMIT, "running": COMMIT, "next": COMMIT,
        "foreign_pending": false, "transaction": transaction, "stuck": true, "configuration": text,
        "last": record_with(text, "committed"), "points": points(), "kept": kept(),
        "awaits_boot": {
            "id": 7, "title": text, "packages": 1, "reasons": vec![json!({ "subject": text, "reason": text }); 12]
        }
    })
}

fn points() -> Value {
    json!([{ "name": "p", "after": 7, "commit": COMMIT, "named_seconds": 0, "uid": 4_000_000_000_u32 }])
}

#[expect(clippy::ptr_arg, reason = "drawn as it is read: a list has no size of its own")]
fn listed(out: &mut dyn Write, points: &Vec<apt_ostree_proto::point::Point>) -> io::Result<()> {
    super::points(out, points)
}

fn kept() -> Value {
    json!([{ "id": 7, "commit": COMMIT, "bytes": 2048 }, { "id": 6, "commit": COMMIT, "bytes": 0 }])
}

fn difference_with(text: &str) -> Value {
    let side = json!({ "name": text, "commit": COMMIT });
    let other = json!({ "name": text, "commit": COMMIT.replace('0', "1") });
    json!({
        "old": side, "new": other, "packages": [change_with(text)],
        "files": [
            { "path": format!("/usr/bin/{text}"), "change": "added" },
            { "path": format!("/usr/etc/{text}"), "change": "removed" }
        ],
        "counts": { "added": 1, "removed": 1, "changed": 0 }, "files_left_out": 3,
        "units": [{ "unit": text, "change": "changed" }], "units_left_out": 0
    })
}

fn waiting_state_with(text: &str) -> Value {
    let mut state = state_with(text);
    state["transaction"]["confirmation"] = json!({ "until_seconds": 60, "remaining_seconds": 9 });
    state
}

fn shown<T: serde::de::DeserializeOwned>(
    value: Value,
    draw: fn(&mut dyn Write, &T) -> io::Result<()>,
) -> String {
    terminal::lines(&drawn(&serde_json::from_value(value).unwrap(), draw).unwrap()).into_owned()
}

/// Everything that is printed for people about records in which others wrote `text` wherever they can.
fn everything_with(text: &str) -> Vec<String> {
    let failure = serde_json::from_value(failure_with(text)).unwrap();
    let mut all = vec![
        shown(plan_with(text), plan),
        shown(plan_with(text), refusals),
        shown(state_with(text), state),
        shown(waiting_state_with(text), state),
        shown(json!([record_with(text, "failed")]), history),
        shown(record_with(text, "failed"), finished),
        shown(difference_with(text), difference),
        failure_text(&failure, false),
    ];
    all.extend(["committed", "failed"].map(|outcome| shown(record_with(text, outcome), record)));
    all
}

#[test]
fn what_waits_for_the_boot_is_named_and_what_is_too_long_counted() {
    let text = shown(state_with("x"), state);
    for part in ["takes effect then: 7: x (1 package)", "x: x", "and 2 more"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let mut waiting = record_with("x", "committed");
    waiting["request"]["when"] = json!("next-boot");
    let text = shown(waiting.clone(), record);
    assert!(text.contains("it takes effect with the next boot"), "{text}");
    (waiting["awaits_boot"], waiting["failure"]) = (json!(true), json!(null));
    assert!(shown(json!([waiting]), history).contains("awaits the boot"));
}

#[test]
fn an_update_that_waits_says_until_when_and_what_keeps_it() {
    let text = shown(waiting_state_with("x"), state);
    assert!(text.contains("waits for confirmation"), "{text}");
    assert!(text.contains("1970-01-01 00:01:00Z (9 s left) unless: apt-ostree confirm"), "{text}");
}

#[test]
fn text_of_others_neither_drives_the_terminal_nor_makes_lines_of_its_own() {
    for (hostile, plain) in everything_with(HOSTILE).iter().zip(everything_with("x")) {
        assert!(hostile.contains(r"x\u{1b}[2J\u{9b}2J\r\u{202e}\napt-ostree: done"), "{hostile}");
        assert!(!hostile.contains(|c: char| c.is_control() && c != '\n'), "{hostile:?}");
        assert!(!hostile.contains('\u{202e}'), "{hostile:?}");
        assert_eq!(hostile.lines().count(), plain.lines().count(), "{hostile}\n{plain}");
    }
}

#[test]
fn the_state_names_the_points_and_what_is_kept_for_rollbacks() {
    let told = shown(state_with("x"), state);
    assert!(told.contains("points    p\n"), "{told}");
    assert!(told.contains("undoable  7, 6  (2.00 KiB kept for it)\n"), "{told}");
    let told = shown(points(), listed);
    assert!(told.contains("p     7      0123456789ab"), "{told}");
    assert!(told.contains("uid 4000000000"), "{told}");
    assert_eq!(shown(json!([]), listed), "No rollback point has a name.\n");
}

#[test]
fn the_history_says_who_why_how_and_whether_it_can_be_undone() {
    let mut entry = record_with("x", "committed");
    entry["failure"] = Value::Null;
    entry["rollback"] = json!("possible");
    entry["kept_bytes"] = json!(2048);
    entry["points"] = json!(["p"]);
    let told = shown(json!([entry]), history);
    for word in ["root", "committed", "possible (2.00 KiB)", "p"] {
        assert!(told.contains(word), "{word} in {told}");
    }
    let told = shown(json!([record_with("x", "rolled-back")]), history);
    assert!(told.contains("rolled-back (Internal)"), "{told}");
}

#[test]
fn a_difference_is_told_by_package_unit_default_and_file_with_what_is_not_listed() {
    let told = shown(difference_with("x"), difference);
    for line in [
        "- x (0123456789ab)",
        "+ x (1123456789ab)",
        "  ~ x",
        "  - /usr/etc/x",
        "  + /usr/bin/x",
        "  … and 3 more",
        "1 packages; 1 files added, 1 removed, 0 changed.",
    ] {
        assert!(told.lines().any(|told| told == line), "{line} in\n{told}");
    }
    let mut same = difference_with("x");
    same["new"] = same["old"].clone();
    assert!(shown(same, difference).ends_with("Nothing differs.\n"));
}
