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
        "refused": [{ "subject": text, "reason": text }], "warnings": [text], "restart": "never"
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
        "foreign_pending": false, "transaction": transaction, "stuck": true,
        "last": record_with(text, "committed")
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
        failure_text(&failure, false),
    ];
    all.extend(["committed", "failed"].map(|outcome| shown(record_with(text, outcome), record)));
    all
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
