//! Updates and rollbacks in a row: nothing piles up but what retention keeps.
//!
//! `make torture` runs hundreds, `make test` enough for every limit to have been reached.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::support::{Host, Repository, note_torture};

const UPDATE: [&str; 5] =
    ["--quiet", "apply-live", "--restart-services", "--packages=hello-svc", "--no-refresh"];
/// Rounds after which as much is on the host as will ever be: more than can be undone.
const WARM_UP: usize = 4;
/// The same of what the daemon has in memory: logs of fifty transactions, objects of the bus of thirty-two,
/// pages of its journal.
const LONG_WARM_UP: usize = 50;
/// Rounds of `make test`.
const FEW: usize = WARM_UP + 4;

/// What the host has of everything that a transaction makes, one `name number` a line.
const FOOTPRINT: &str = "daemon=$(systemctl show --property=MainPID --value apt-ostreed)
    state=/var/lib/apt-ostree
    echo daemon $daemon
    echo mounts $(wc -l < /proc/1/mountinfo)
    echo mounts-of-logind $(wc -l < /proc/$(systemctl show --property=MainPID --value systemd-logind)/mountinfo)
    echo mounts-of-daemon $(wc -l < /proc/$daemon/mountinfo)
    echo namespaces $(readlink /proc/[0-9]*/ns/mnt 2> /dev/null | sort -u | wc -l)
    echo processes $(ls -d /proc/[0-9]* | wc -l)
    echo descriptors $(ls /proc/$daemon/fd | wc -l)
    echo descriptors-of-init $(ls /proc/1/fd | wc -l)
    echo threads $(ls /proc/$daemon/task | wc -l)
    echo memory $(awk '/^RssAnon/ { print $2 }' /proc/$daemon/status)
    echo deployments $(ls -d /ostree/deploy/debian/deploy/*.0 /ostree/deploy/debian/deploy/*.[1-9]* 2> /dev/null | wc -l)
    echo references $(find /ostree/repo/refs -type f | wc -l)
    echo objects $(find /ostree/repo/objects -type f | wc -l)
    echo trees $(ls /sysroot/ostree/live | wc -l)
    echo files $(find $state -type f ! -path '*/log/*' ! -name 'state.db-*' | wc -l)
    echo logs $(find $state -path '*/log/*' -type f | wc -l)
    echo journal $(cat $state/state.db $state/state.db-wal | wc -c)
    echo run $(find /run/apt-ostree /run/systemd/transient -type f 2> /dev/null | wc -l)
    echo units $(systemctl list-units --all --no-legend --plain 'apt-ostree*' | wc -l)
    echo control-groups $(find /sys/fs/cgroup -type d | wc -l)";

/// What may differ between two footprints. All else has to be equal.
fn allowance(name: &str, transactions: u64) -> u64 {
    match name {
        // Kibibytes: the allocator keeps what it once had.
        "memory" => 4 << 10,
        // Every transaction has a record, up to a thousand, and the newest fifty a log; the pages that
        // were written last are there twice.
        "journal" => (5 << 20) + transactions * (16 << 10),
        "logs" => transactions,
        // Those of the pool come and go.
        "threads" => 4,
        // The listing itself, and what the host starts in its own time.
        "processes" | "namespaces" | "control-groups" => 3,
        // A commit and its directories differ by their times.
        "objects" => 64,
        _ => 0,
    }
}

fn footprint(host: &Host) -> BTreeMap<String, u64> {
    host.live_trees();
    let text = host.shell(FOOTPRINT);
    text.lines()
        .map(|line| {
            let (name, number) = line.split_once(' ').expect("a name and a number");
            (name.to_owned(), number.trim().parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

#[test]
fn nothing_piles_up_over_many_updates_and_rollbacks() {
    let transactions =
        std::env::var("SOAK").map_or(2 * FEW, |text| text.parse().expect("a number"));
    let rounds = transactions / 2;
    let begun = Instant::now();
    let host = Host::boot_to_update();
    host.configure(
        "[health]\ndwell-seconds = 0\n[rollback]\nkeep-updates = 2\n[daemon]\nidle-exit-seconds = 3600\n",
    );
    host.mirror().publish(&Repository::hello(2));
    host.shell("apt-get --quiet=2 update");
    let warm_up = if rounds > 2 * LONG_WARM_UP { LONG_WARM_UP } else { WARM_UP };
    let mut first = BTreeMap::new();
    for round in 1..=rounds {
        host.apt_ostree(UPDATE).success();
        assert!(host.hello().starts_with("version=2 disk=2"), "round {round}: {}", host.hello());
        host.apt_ostree(["--quiet", "rollback"]).success();
        assert!(host.hello().starts_with("version=1 disk=1"), "round {round}: {}", host.hello());
        if round == warm_up {
            first = footprint(&host);
        }
    }
    let last = footprint(&host);
    eprintln!("after {warm_up} rounds {first:?}\nafter {rounds} rounds {last:?}");
    let since = 2 * u64::try_from(rounds - warm_up).expect("a small number");
    let grown: Vec<String> = first
        .iter()
        .filter(|(name, number)| last[*name].abs_diff(**number) > allowance(name, since))
        .map(|(name, number)| format!("{name} from {number} to {}", last[name]))
        .collect();
    note_torture("soak", transactions, grown.len(), begun);
    assert!(grown.is_empty(), "over {since} transactions: {}", grown.join(", "));
    // No update restarts it, and it has a mount of its own below /usr.
    host.shell(
        "logind=$(systemctl show --property=MainPID --value systemd-logind)
         test /proc/$logind/root/usr -ef /usr && grep --quiet ' /usr/lib/modules ' /proc/$logind/mountinfo",
    );
    host.assert_in_order();
    host.shell("ostree fsck --quiet");
}
