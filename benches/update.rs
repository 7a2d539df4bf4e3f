//! A whole update against `apt-get` with the same restarts, on the same packages in an ordinary root.
//!
//! Both sides start from a fresh boot of the same packages, with lists that are there and empty archive
//! caches, and fetch from the same mirror. Ours restarts what runs replaced code; what of that the
//! packages' own scripts do not restart, `systemctl restart` does on the peer's side.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use apt_ostree_proto::service::{Reason, UnitAction, UnitEffect};

use super::guest::{Applied, Guest};
use super::row::{Goal, Row, median_seconds};
use super::support::real_upgrades;

/// Needs no other package's newer version, and nginx and ssh map it.
const ONE: &str = "libpcre2-8-0";
/// Nothing depends on the new versions of these, so that twenty can be chosen of all.
const DISPENSABLE: [&str; 5] =
    ["tzdata", "ca-certificates", "libexpat1", "libssh2-1", "libgpgme11"];
/// apt-get as an admin's script calls it: no question, configuration files stay.
const APT_GET: &str = "DEBIAN_FRONTEND=noninteractive apt-get --yes --quiet \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold";

/// One package.
pub(super) fn one() -> Result<Vec<Row>> {
    measure("update-1", 5, 1.2, Some(&[ONE.to_owned()]), 1)
}

/// Twenty.
pub(super) fn twenty() -> Result<Vec<Row>> {
    let mut chosen = real_upgrades();
    for name in DISPENSABLE {
        if chosen.len() > 20 {
            chosen.retain(|other| other != name);
        }
    }
    measure("update-20", 3, 0.8, Some(&chosen), 20)
}

/// A hundred: all that the archive has newer, and repacked ones.
pub(super) fn hundred() -> Result<Vec<Row>> {
    measure("update-100", 3, 0.6, None, 100)
}

fn measure(
    id: &str,
    rounds: usize,
    goal: f64,
    chosen: Option<&[String]>,
    count: usize,
) -> Result<Vec<Row>> {
    let (mut ours, mut whole, mut peers) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let applied = apply(chosen, count)?;
        eprintln!("  {id} ours: {}", applied.profile());
        let peer = upgrade(chosen, count, &applied)?;
        eprintln!("  {id} apt-get: {} ms", peer.as_millis());
        ours.push(applied.until_answer());
        whole.push(applied.whole);
        peers.push(peer);
    }
    let (ours, whole) = (median_seconds(&ours)?, median_seconds(&whole)?);
    let peer = Some(median_seconds(&peers)?);
    Ok(vec![
        Row::new(
            id,
            format!(
                "{count} packages, command until the units answer, against apt-get and the same restarts"
            ),
            (ours, peer),
            "s",
            Goal::Share(goal),
        ),
        Row::new(
            format!("{id}-whole"),
            "the same with 5 s of watching and the next boot's deployment",
            (whole, peer),
            "s",
            Goal::Shown,
        ),
    ])
}

fn offer(guest: &Guest, chosen: Option<&[String]>, count: usize) -> Result<()> {
    if chosen.is_none() {
        let offered = guest.host.mirror().offer_upgrades(count);
        ensure!(offered.is_some(), "the archive has more than {count} newer packages");
    }
    guest.make_ready();
    Ok(())
}

fn apply(chosen: Option<&[String]>, count: usize) -> Result<Applied> {
    let guest = Guest::boot()?;
    offer(&guest, chosen, count)?;
    let selection = chosen.map(|names| format!("--packages={}", names.join(",")));
    let mut arguments = vec!["apply-live", "--no-refresh", "--restart-services"];
    arguments.extend(selection.as_deref());
    let applied = guest.apply(&arguments, 0)?;
    let changed = applied.record.changes.len();
    ensure!(changed == count, "{changed} packages were changed instead of {count}");
    Ok(applied)
}

fn upgrade(chosen: Option<&[String]>, count: usize, ours: &Applied) -> Result<Duration> {
    let guest = Guest::boot_plain()?;
    offer(&guest, chosen, count)?;
    let what = match chosen {
        Some(names) => format!("install --only-upgrade {}", names.join(" ")),
        None => "upgrade --with-new-pkgs".to_owned(),
    };
    let restarted: BTreeSet<&str> = ours
        .record
        .units
        .iter()
        .filter(|effect| effect.action == UnitAction::Restart && !is_asked_for(effect))
        .map(|effect| effect.unit.as_str())
        .collect();
    let restart = if restarted.is_empty() {
        String::new()
    } else {
        let units: Vec<&str> = restarted.into_iter().collect();
        format!(" && systemctl restart {}", units.join(" "))
    };
    let database = "dpkg-query --show --showformat='${Package} ${Version}\\n'";
    let before = guest.host.shell(database);
    let took = guest.timed(&["sh", "-ec", &format!("{APT_GET} {what}{restart}")], 0)?;
    let after = guest.host.shell(database);
    let before: BTreeSet<&str> = before.lines().collect();
    let changed = after.lines().filter(|line| !before.contains(line)).count();
    ensure!(changed == count, "apt-get changed {changed} packages instead of {count}");
    Ok(took)
}

/// Whether a package's own script restarts the unit.
fn is_asked_for(effect: &UnitEffect) -> bool {
    effect.reasons.iter().any(|reason| matches!(reason, Reason::Script { .. }))
}
