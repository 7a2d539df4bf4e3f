//! `apt-ostree services`

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use apt_ostree_proto::UnitName;
use apt_ostree_proto::dbus::Options;
use apt_ostree_proto::outdated::{Kernel, Others, Outdated, Place, Restarted};

use super::arguments::{Global, Services};
use super::connect::{explain, manager, read};
use super::exit;
use super::render::{self, Users};
use super::terminal::{self, one_line};

/// The version of needrestart whose batch mode is printed.
const NEEDRESTART: &str = "3.6";
/// What needrestart calls process 1.
const MANAGER: &str = "systemd-manager";

/// Shows what runs old code now.
pub(super) async fn services(global: &Global, asked: &Services) -> anyhow::Result<u8> {
    let (_, manager) = manager().await?;
    if asked.restart {
        let text = manager.restart_outdated(&Options::new()).await.map_err(explain)?;
        let restarted: Restarted = read(&text)?;
        return render::data(global, &restarted, draw_restarted);
    }
    let text = manager.find_outdated(&Options::new()).await.map_err(explain)?;
    let found: Outdated = read(&text)?;
    if asked.needrestart && !global.json {
        terminal::print(&batch(&found, &mut Users::default()))?;
        return Ok(exit::DONE);
    }
    render::data(global, &found, draw)
}

fn draw(out: &mut dyn Write, found: &Outdated) -> io::Result<()> {
    if found.is_empty() {
        return writeln!(out, "Nothing runs old code ({} processes).", found.processes);
    }
    render::units(out, &found.units)?;
    if !found.followers.is_empty() {
        let names: Vec<&str> = found.followers.iter().map(UnitName::as_str).collect();
        writeln!(out, "\nDown and up with them: {}", names.join(", "))?;
    }
    let mut users = Users::default();
    render::section(out, "Not the system's to restart", &found.others, |others| {
        let reasons = render::reasons(&others.reasons).join("; ");
        format!("{} ({}): {reasons}", whose(&others.place, &mut users), counted(others))
    })?;
    if found.left_out > 0 {
        writeln!(out, "  … and {} more", found.left_out)?;
    }
    writeln!(out, "\n{} processes looked at.", found.processes)
}

fn draw_restarted(out: &mut dyn Write, restarted: &Restarted) -> io::Result<()> {
    match restarted.units.as_slice() {
        [] => writeln!(out, "Nothing to restart.")?,
        units => {
            let names: Vec<&str> = units.iter().map(UnitName::as_str).collect();
            writeln!(out, "Restarted: {}", names.join(", "))?;
        }
    }
    render::section(out, "Warnings", &restarted.warnings, Clone::clone)?;
    if !restarted.left.is_empty() {
        writeln!(out, "\nWhat still runs old code:")?;
        draw(out, &restarted.left)?;
    }
    Ok(())
}

fn counted(others: &Others) -> String {
    match others.processes {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    }
}

/// Whose processes they are, for people.
fn whose(place: &Place, users: &mut Users) -> String {
    match place {
        Place::Host => "of no unit".to_owned(),
        Place::User { uid, unit: Some(unit) } => format!("user {}, {unit}", users.name(*uid)),
        Place::User { uid, unit: None } => format!("user {}", users.name(*uid)),
        Place::Container { name } => format!("container {name}"),
        Place::Chroot { root, unit: Some(unit) } => format!("{unit}, below {}", root.display()),
        Place::Chroot { root, unit: None } => format!("below {}", root.display()),
    }
}

/// The lines of needrestart's batch mode (its README.batch.md), in its order. What it leaves out of
/// a restart by its own lists it lists here all the same; processes of no unit are in none of its lines.
fn batch(found: &Outdated, users: &mut Users) -> String {
    let mut lines = vec![format!("VER: {NEEDRESTART}")];
    if let Some(Kernel { running, expected }) = &found.kernel {
        lines.push(format!("KCUR: {running}"));
        lines.extend(expected.as_ref().map(|expected| format!("KEXP: {expected}")));
        let status = match expected {
            None => 0,
            Some(expected) if expected == running => 1,
            Some(_) => 3,
        };
        lines.push(format!("KSTA: {status}"));
    }
    let services = found.units.iter().filter_map(|effect| match effect.unit.kind() {
        "service" => Some(effect.unit.as_str()),
        _ if effect.unit.as_str() == "init.scope" => Some(MANAGER),
        _ => None,
    });
    let mut services: Vec<&str> = services.collect();
    services.sort_by_cached_key(|name| name.to_lowercase());
    lines.extend(services.iter().map(|name| format!("SVC: {name}")));
    let of_others = |line: fn(&Place, &mut Users) -> Option<String>, users: &mut Users| {
        let lines = found.others.iter().filter_map(|others| line(&others.place, users));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines.dedup();
        lines
    };
    lines.extend(of_others(container_line, users));
    lines.extend(of_others(session_line, users));
    lines.iter().fold(String::new(), |mut text, line| {
        // Writing into a String does not fail.
        writeln!(text, "NEEDRESTART-{}", one_line(line)).unwrap_or_default();
        text
    })
}

fn container_line(place: &Place, _: &mut Users) -> Option<String> {
    match place {
        Place::Container { name } => Some(format!("CONT: {name}")),
        _ => None,
    }
}

fn session_line(place: &Place, users: &mut Users) -> Option<String> {
    let Place::User { uid, unit } = place else { return None };
    let session = unit.as_ref().and_then(|unit| {
        unit.as_str().strip_prefix("session-")?.strip_suffix(".scope").map(str::to_owned)
    });
    let what = session.map_or(Cow::Borrowed("user manager service"), |number| {
        Cow::Owned(format!("session #{number}"))
    });
    Some(format!("SESS: {} @ {what}", users.name(*uid)))
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::service::{Reason, UnitAction, UnitEffect};

    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).unwrap()
    }

    fn effect(name: &str) -> UnitEffect {
        let reason = Reason::OldCode { pid: 7, path: "/usr/lib/libssl.so.3".into() };
        UnitEffect::new(unit(name), UnitAction::Restart, vec![reason])
    }

    fn others(place: Place) -> Others {
        Others {
            place,
            processes: 2,
            reasons: vec![Reason::Interpreted { pid: 9, path: "/usr/lib/\u{1b}[2Jx.py".into() }],
        }
    }

    /// No user of any machine has this number.
    const NOBODY: u32 = 3_999_999_999;

    fn found() -> Outdated {
        Outdated {
            units: vec![effect("Zeta.service"), effect("init.scope"), effect("alpha.service")],
            followers: vec![unit("top.service")],
            others: vec![
                others(Place::User { uid: NOBODY, unit: Some(unit("session-4.scope")) }),
                others(Place::User { uid: NOBODY, unit: Some(unit("app.service")) }),
                others(Place::User { uid: NOBODY, unit: Some(unit("other.service")) }),
                others(Place::Container { name: "web\n1".to_owned() }),
                others(Place::Chroot { root: "/srv/jail".into(), unit: None }),
            ],
            left_out: 0,
            processes: 412,
            kernel: None,
        }
    }

    #[test]
    fn needrestarts_lines_come_in_its_order_and_one_to_a_thing() {
        let text = batch(&found(), &mut Users::default());
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "NEEDRESTART-VER: 3.6",
            "NEEDRESTART-SVC: alpha.service",
            "NEEDRESTART-SVC: systemd-manager",
            "NEEDRESTART-SVC: Zeta.service",
            "NEEDRESTART-CONT: web\\n1",
            "NEEDRESTART-SESS: uid 3999999999 @ session #4",
            "NEEDRESTART-SESS: uid 3999999999 @ user manager service",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn the_kernels_state_is_one_of_needrestarts_numbers() {
        let kernel = |expected: Option<&str>| {
            let expected = expected.map(str::to_owned);
            let kernel = Some(Kernel { running: "6.1.0-9-amd64".to_owned(), expected });
            batch(&Outdated { kernel, ..Outdated::default() }, &mut Users::default())
        };
        for (expected, status, has_expected) in
            [(None, 0, false), (Some("6.1.0-9-amd64"), 1, true), (Some("6.1.0-10-amd64"), 3, true)]
        {
            let text = kernel(expected);
            assert!(text.contains("NEEDRESTART-KCUR: 6.1.0-9-amd64\n"), "{text}");
            assert!(text.ends_with(&format!("NEEDRESTART-KSTA: {status}\n")), "{text}");
            assert_eq!(text.contains("NEEDRESTART-KEXP: "), has_expected, "{text}");
        }
    }

    #[test]
    fn what_runs_old_code_is_drawn_with_reasons_and_without_control_characters() {
        let drawn = |found: &Outdated| {
            let mut text = Vec::new();
            draw(&mut text, found).unwrap();
            String::from_utf8(text).unwrap()
        };
        let text = drawn(&found());
        for line in [
            "  restart   alpha.service: process 7 uses libssl.so.3\n",
            "Down and up with them: top.service\n",
            "  user uid 3999999999, session-4.scope (2 processes): process 9 interprets ",
            "  below /srv/jail (2 processes): ",
            "412 processes looked at.\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        let mut text = Vec::new();
        let restarted =
            Restarted { units: vec![unit("a.service")], left: found(), ..Restarted::default() };
        draw_restarted(&mut text, &restarted).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("Restarted: a.service\n\nWhat still runs old code:\n"), "{text}");
        let none = Outdated { processes: 3, ..Outdated::default() };
        assert_eq!(drawn(&none), "Nothing runs old code (3 processes).\n");
    }
}
