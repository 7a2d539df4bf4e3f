//! What a host consists of, for "as before, byte for byte".

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use super::Host;

/// More differences than this tell nobody anything new.
const SHOWN_DIFFERENCES: usize = 40;

/// Each part is one script whose sorted lines are compared. Times are left out: OSTree keeps none, and
/// a file that was put back is another inode. So are mount and process numbers.
const PARTS: [(&str, &str); 6] = [
    (
        "files",
        r"find /usr /etc -xdev \( -type d -printf '%p d %m %U %G\n' -o -printf '%p %y %m %U %G %s %l\n' \)",
    ),
    ("contents", "find /usr /etc -xdev -type f -print0 | xargs -0 sha256sum"),
    (
        "attributes",
        "getfattr --recursive --physical --dump --match=- --absolute-names /usr /etc 2>/dev/null \
         | awk '/^# file:/ { file = $0; next } NF { print file, $0 }'",
    ),
    (
        "packages",
        "dpkg-query --show --showformat='${Package}:${Architecture} ${Version} ${Status}\\n'",
    ),
    (
        "units",
        "systemctl list-units --all --plain --no-legend --full --type=service,socket,target,timer,path \
         | awk '$1 !~ /^(apt-ostree|run-|systemd-(hostnamed|timedated|localed)|polkit|user)/ { print $1, $2, $3, $4 }'",
    ),
    (
        "mounts",
        r"awk '$5 !~ /^\/run\/(credentials|user)/ { print $5, $4, $6, $9, $10 }' /proc/1/mountinfo",
    ),
];

/// The state of a host's `/usr`, `/etc`, dpkg database (which lies in `/usr`), units and mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    parts: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

impl Snapshot {
    pub(crate) fn of(host: &Host) -> Self {
        let parts = PARTS.map(|(name, script)| (name, count_lines(&host.shell(script))));
        Self { parts: parts.into_iter().collect() }
    }

    /// Fails the test, and says what differs, unless `self` equals `before`.
    #[track_caller]
    pub(crate) fn assert_same_as(&self, before: &Self) {
        let differences = self.differences(before);
        assert!(differences.is_empty(), "the host is not as before:\n{differences}");
    }

    /// The lines that only one of the two has, `-` for what is gone and `+` for what is new.
    pub(crate) fn differences(&self, before: &Self) -> String {
        let mut text = String::new();
        for (name, now) in &self.parts {
            let old = &before.parts[name];
            let lines: BTreeSet<&String> = now.keys().chain(old.keys()).collect();
            for line in lines
                .into_iter()
                .filter(|line| now.get(*line) != old.get(*line))
                .take(SHOWN_DIFFERENCES)
            {
                let sign = if now.get(line) > old.get(line) { '+' } else { '-' };
                writeln!(text, "{name}: {sign} {line}").expect("a string takes all");
            }
        }
        text
    }
}

/// How often each line occurs: two equal mounts are one too many.
fn count_lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}
