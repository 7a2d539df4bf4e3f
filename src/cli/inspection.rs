//! `status --verify` and `repair`.

use std::io::{self, Write};

use apt_ostree_proto::dbus::Options;
use apt_ostree_proto::inspection::{Finding, FindingKind, Inspection, Mending};
use apt_ostree_proto::status::Outcome;
use apt_ostree_proto::{ErrorCode, Failure};
use indicatif::HumanBytes;
use zbus::zvariant::Value;

use super::arguments::Global;
use super::connect::{explain, manager, read};
use super::terminal::one_line;
use super::{commands, exit, render};

/// Compares the host with its record; answers whether it is what the record says.
pub(super) async fn verify(global: &Global) -> anyhow::Result<u8> {
    let (_, manager) = manager().await?;
    let text = manager.verify(&Options::new()).await.map_err(explain)?;
    let inspection: Inspection = read(&text)?;
    render::data(global, &inspection, draw)?;
    Ok(if inspection.is_clean() { exit::DONE } else { exit::FAILED })
}

/// Tries a failed undo again, then mends what else can be mended.
pub(super) async fn repair(global: &Global, dry_run: bool) -> anyhow::Result<u8> {
    if !dry_run && let Some(Outcome::Stuck) = undo_again(global).await? {
        return Ok(Outcome::Stuck.exit_status());
    }
    let (_, manager) = manager().await?;
    let options = Options::from([("dry-run", Value::from(dry_run))]);
    let text = manager.mend(&options).await.map_err(explain)?;
    let mending: Mending = read(&text)?;
    render::data(global, &mending, draw_mending)?;
    let is_stuck = mending.left.iter().any(|left| left.kind == FindingKind::Stuck);
    Ok(match (mending.left.is_empty() && mending.more_files == 0, is_stuck) {
        (true, _) => exit::DONE,
        (false, true) => Outcome::Stuck.exit_status(),
        (false, false) => exit::FAILED,
    })
}

/// None when no transaction is stuck.
async fn undo_again(global: &Global) -> anyhow::Result<Option<Outcome>> {
    match commands::undo_again(global).await {
        Ok(outcome) => Ok(Some(outcome)),
        Err(error) => match error.downcast_ref::<Failure>().map(|failure| failure.code) {
            Some(ErrorCode::NotFound) => Ok(None),
            _ => Err(error),
        },
    }
}

fn draw(out: &mut dyn Write, inspection: &Inspection) -> io::Result<()> {
    findings(out, "Drift", &inspection.drifts, true)?;
    more(out, inspection.more_files)?;
    findings(out, "To know", &inspection.notes, false)?;
    let looked = format!(
        "{} files of the running tree ({}), mounts, deployments, packages, journal",
        inspection.files,
        HumanBytes(inspection.bytes)
    );
    if inspection.is_clean() {
        writeln!(out, "No drift: {looked} are as recorded.")
    } else {
        writeln!(out, "Looked at {looked}.")
    }
}

fn draw_mending(out: &mut dyn Write, mending: &Mending) -> io::Result<()> {
    let title = if mending.dry_run { "Would be mended" } else { "Mended" };
    findings(out, title, &mending.mended, true)?;
    findings(out, "Left", &mending.left, true)?;
    more(out, mending.more_files)?;
    for remark in &mending.remarks {
        writeln!(out, "{}", one_line(remark))?;
    }
    if mending.mended.is_empty() && mending.left.is_empty() {
        writeln!(out, "Nothing to repair.")?;
    }
    Ok(())
}

fn more(out: &mut dyn Write, files: u64) -> io::Result<()> {
    if files == 0 { Ok(()) } else { writeln!(out, "{files} more files differ.") }
}

fn findings(
    out: &mut dyn Write,
    title: &str,
    findings: &[Finding],
    advise: bool,
) -> io::Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    writeln!(out, "{title}:")?;
    for finding in findings {
        let Finding { kind, subject, expected, found, remedy } = finding;
        let line = format!("{}  {subject}: expected {expected}; found {found}", kind.name());
        writeln!(out, "  {}", one_line(&line))?;
        if advise {
            let what = remedy.map_or_else(
                || kind.advice().to_owned(),
                |remedy| format!("apt-ostree repair: {}.", remedy.title()),
            );
            writeln!(out, "      {}", one_line(&what))?;
        }
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use apt_ostree_proto::inspection::Remedy;

    use super::*;

    fn finding(kind: FindingKind, remedy: Option<Remedy>) -> Finding {
        Finding {
            kind,
            subject: "/usr/\u{1b}[2Jx".to_owned(),
            expected: "one".to_owned(),
            found: "other".to_owned(),
            remedy,
        }
    }

    fn drawn<T>(value: &T, draw: fn(&mut dyn Write, &T) -> io::Result<()>) -> String {
        let mut text = Vec::new();
        draw(&mut text, value).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_drift_says_what_repair_does_or_what_to_do_by_hand() {
        let mut inspection = Inspection { files: 3, bytes: 2048, ..Inspection::default() };
        let text = drawn(&inspection, draw);
        assert_eq!(
            text,
            "No drift: 3 files of the running tree (2.00 KiB), mounts, deployments, packages, journal are as recorded.\n"
        );
        inspection.add(finding(FindingKind::UsrWritable, Some(Remedy::ProtectUsr)));
        inspection.add(finding(FindingKind::FileChanged, None));
        inspection.add(finding(FindingKind::EtcEdited, None));
        inspection.more_files = 2;
        let text = drawn(&inspection, draw);
        for line in [
            "Drift:\n  usr-writable  /usr/\\u{1b}[2Jx: expected one; found other\n      apt-ostree repair: make /usr read-only again.\n",
            "  file-changed  ",
            "2 more files differ.\n",
            "To know:\n  etc-edited  ",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.contains(FindingKind::FileChanged.advice()) && !text.contains("No drift"));
    }

    #[test]
    fn a_repair_with_nothing_to_do_says_so() {
        assert_eq!(drawn(&Mending::default(), draw_mending), "Nothing to repair.\n");
        let mended = vec![finding(FindingKind::RefMissing, Some(Remedy::RestoreRef))];
        let mending = Mending { dry_run: true, mended, ..Mending::default() };
        assert!(drawn(&mending, draw_mending).starts_with("Would be mended:\n  ref-missing  "));
    }
}
