//! Restarting what an update affects: thirty services that hang together, against one `systemctl restart`
//! of all of them on the same host; and whether those keep their processes that are not affected.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use apt_ostree_proto::record::HistoryRecord;
use apt_ostree_proto::service::UnitAction;

use super::guest::Guest;
use super::row::{Goal, Row, median};
use super::support::Repository;

/// Each layer needs the one before; a service is there a tenth of a second after it was started.
const LAYERS: usize = 3;
const WIDTH: usize = 10;
/// Services that run nothing of the package.
const OTHERS: usize = 20;
const ROUNDS: usize = 3;

/// Updates and rollbacks of the package whose program all of them run.
pub(super) fn run() -> Result<Vec<Row>> {
    let guest = Guest::boot()?;
    offer(&guest, 1);
    guest.apply(&["apply-live", "--no-refresh", "--install=workers"], 0)?;
    let names = start_services(&guest);
    offer(&guest, 2);
    let update = ["apply-live", "--no-refresh", "--restart-services", "--packages=workers"];
    let restart: Vec<&str> = ["time", "1", "systemctl", "restart"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let (mut ours, mut theirs, mut kept, mut unaffected) = (Vec::new(), Vec::new(), 0, 0);
    for _ in 0..ROUNDS {
        for command in [&update[..], &["rollback"]] {
            let before = processes(&guest)?;
            let applied = guest.apply(command, 0)?;
            let after = processes(&guest)?;
            let affected = affected(&applied.record);
            ensure!(names.iter().all(|name| affected.contains(name)), "{affected:?}");
            let moved = names.iter().filter(|name| before.get(*name) == after.get(*name));
            ensure!(moved.count() == 0, "not all were restarted");
            for (unit, process) in before.iter().filter(|(unit, _)| !affected.contains(*unit)) {
                unaffected += 1;
                kept += usize::from(after.get(unit) == Some(process));
            }
            eprintln!("  restarts: {}", applied.profile());
            #[expect(clippy::cast_precision_loss, reason = "a few thousand milliseconds")]
            ours.push(applied.step("start-units") as f64);
            theirs.extend(guest.inside::<Vec<f64>>(&restart)?);
        }
    }
    ensure!(unaffected >= OTHERS, "only {unaffected} services are not affected");
    #[expect(clippy::cast_precision_loss, reason = "some hundred services")]
    let share = 100.0 * kept as f64 / unaffected as f64;
    Ok(vec![
        Row::new(
            "restarts",
            format!(
                "{} services in {LAYERS} layers, the step that restarts them; systemctl restart",
                names.len()
            ),
            (median(ours)?, Some(median(theirs)?)),
            "ms",
            Goal::Share(1.3),
        ),
        Row::new(
            "restarts-kept",
            "services that an update does not affect and that keep their process",
            (share, None),
            "%",
            Goal::Least(100.0),
        ),
    ])
}

fn offer(guest: &Guest, version: u32) {
    guest.host.mirror().publish(&Repository::default().with(Repository::worker_package(version)));
    guest.make_ready();
}

/// The services of all layers run the package's program; each needs one of the layer before.
fn start_services(guest: &Guest) -> Vec<String> {
    guest.host.shell(&format!(
        "cd /etc/systemd/system
        for layer in $(seq {LAYERS}); do
            for i in $(seq {WIDTH}); do
                {{
                    printf '[Unit]\nStartLimitIntervalSec=0\n'
                    below=layer-$((layer - 1))-$i.service
                    [ $layer = 1 ] || printf 'Requires=%s\\nAfter=%s\\n' $below $below
                    printf '[Service]\\nExecStartPre=/bin/sleep 0.1\\nExecStart=/usr/lib/workers/work infinity\\n'
                }} > layer-$layer-$i.service
            done
        done
        printf '[Service]\\nExecStart=/bin/sleep infinity\\n' > other@.service
        systemctl daemon-reload
        systemctl start $(seq -f layer-{LAYERS}-%g {WIDTH}) $(seq -f other@%g {OTHERS})"
    ));
    let layers = (1..=LAYERS)
        .flat_map(|layer| (1..=WIDTH).map(move |number| format!("layer-{layer}-{number}.service")));
    layers.collect()
}

/// The running services and their main processes, but for our own, which come and go.
fn processes(guest: &Guest) -> Result<BTreeMap<String, u32>> {
    let text = guest.host.shell(
        "systemctl show --property=Id,MainPID '*.service' \
            | awk -F= '$1 == \"Id\" { id = $2 } $1 == \"MainPID\" { pid = $2 } !NF { print id, pid } END { print id, pid }'",
    );
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let (unit, process) = line.split_once(' ').context("a unit and its process")?;
        let process: u32 = process.parse()?;
        if process != 0 && !unit.starts_with("apt-ostree") {
            found.insert(unit.to_owned(), process);
        }
    }
    Ok(found)
}

/// The units that the update had a reason to touch.
fn affected(record: &HistoryRecord) -> BTreeSet<String> {
    let acted = record.units.iter().filter(|effect| effect.action != UnitAction::Leave);
    acted.map(|effect| effect.unit.to_string()).collect()
}
