//! Names that cross a boundary, each a type of its own, each checked where it enters.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest name that is read at all; Debian's longest package name has about 80 characters and
/// systemd limits unit names to 255.
const LONGEST_NAME: usize = 255;

/// Why a text is not the name that it was taken for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown} is not a valid {kind}: {reason}")]
pub struct InvalidName {
    kind: &'static str,
    shown: String,
    reason: &'static str,
}

impl InvalidName {
    fn new(kind: &'static str, text: &str, reason: &'static str) -> Self {
        // A hostile name may be long and may carry terminal control sequences: quote and cut it.
        let mut shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
        if text.chars().count() > 40 {
            shown.push('…');
        }
        Self { kind, shown: format!("\"{shown}\""), reason }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Checks `text` and takes it as a name.
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                let check: fn(&str) -> Result<(), &'static str> = $check;
                if text.len() > LONGEST_NAME {
                    return Err(InvalidName::new($kind, &text, "it is too long"));
                }
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => Err(InvalidName::new($kind, &text, reason)),
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }
    };
}

fn all(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(allowed)
}

fn hex(text: &str, length: usize) -> Result<(), &'static str> {
    if text.len() == length && all(text, |b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        Ok(())
    } else {
        Err("it is not a lower-case hexadecimal digest of the right length")
    }
}

name!(
    /// A binary package's name: Debian Policy 5.6.7.
    PackageName, "package name", |text| {
        let first = text.bytes().next().ok_or("it is empty")?;
        if !(first.is_ascii_lowercase() || first.is_ascii_digit()) {
            return Err("it must begin with a lower-case letter or a digit");
        }
        if text.len() < 2 {
            return Err("it has fewer than two characters");
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b);
        if all(text, allowed) { Ok(()) } else { Err("it may hold only a-z, 0-9, '+', '-' and '.'") }
    }
);

name!(
    /// A Debian architecture, `all` included.
    Architecture, "architecture", |text| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !text.is_empty() && !text.starts_with('-') && all(text, allowed) {
            Ok(())
        } else {
            Err("it may hold only a-z, 0-9 and '-'")
        }
    }
);

name!(
    /// A package's version: Debian Policy 5.6.12. Compare versions through libapt, not as text.
    Version, "version", |text| {
        let first = text.bytes().next().ok_or("it is empty")?;
        if !first.is_ascii_alphanumeric() {
            return Err("it must begin with a letter or a digit");
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".+-~:".contains(&b);
        if all(text, allowed) { Ok(()) } else { Err("it holds a character that versions cannot have") }
    }
);

name!(
    /// A SHA-256 digest, 64 lower-case hexadecimal digits.
    Sha256, "SHA-256 digest", |text| hex(text, 64)
);

name!(
    /// An OSTree commit checksum.
    CommitId, "commit", |text| hex(text, 64)
);

name!(
    /// The identity of a plan: the SHA-256 of everything that the plan was made from.
    PlanId, "plan id", |text| hex(text, 64)
);

name!(
    /// A systemd unit's full name, type suffix included: systemd.unit(5).
    UnitName, "unit name", |text| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
        let (stem, suffix) = text.rsplit_once('.').ok_or("it has no type suffix")?;
        if stem.is_empty() || suffix.is_empty() || text.starts_with('-') {
            return Err("it has no name before its type suffix");
        }
        if all(text, allowed) { Ok(()) } else { Err("it holds a character that unit names cannot have") }
    }
);

name!(
    /// Units by name: one of them, all instances of a template (`db@.service`), or a shell pattern with `*`
    /// and `?` (`libvirt*.service`).
    UnitPattern, "pattern of unit names", |text| {
        let plain: String = text.chars().map(|c| if matches!(c, '*' | '?') { 'x' } else { c }).collect();
        let stem = text.rsplit_once('.').map_or("", |(stem, _)| stem);
        if !stem.is_empty() && stem.bytes().all(|b| b == b'*' || b == b'?') {
            return Err("it would mean every unit");
        }
        match UnitName::parse(plain) {
            Ok(_) => Ok(()),
            Err(invalid) => Err(invalid.reason),
        }
    }
);

name!(
    /// The kernel's random id of one boot: `/proc/sys/kernel/random/boot_id`.
    BootId, "boot id", |text| {
        let allowed = |b: u8| b.is_ascii_hexdigit() || b == b'-';
        if text.len() == 36 && all(text, allowed) { Ok(()) } else { Err("it is not a UUID") }
    }
);

/// Longer names make tables unreadable; `OSTree` keeps a point as a file of this name.
const LONGEST_POINT_NAME: usize = 64;
/// From so many digits on a text is taken for the beginning of a commit: what [`CommitId::short`] shows.
pub(crate) const SHORTEST_COMMIT_PREFIX: usize = 12;

name!(
    /// The name that an admin gives to a rollback point. It begins with a letter, so that it is no
    /// transaction's number, and it is neither a word nor a commit that [`Reference`] understands.
    ///
    /// [`Reference`]: crate::point::Reference
    PointName, "point name", |text| {
        let first = text.bytes().next().ok_or("it is empty")?;
        if !first.is_ascii_alphabetic() {
            return Err("it must begin with a letter");
        }
        if text.len() > LONGEST_POINT_NAME {
            return Err("it is too long");
        }
        if ["running", "booted", "next", "pending", "last"].contains(&text) {
            return Err("the word has a meaning of its own");
        }
        if text.len() >= SHORTEST_COMMIT_PREFIX && all(text, |b| b.is_ascii_hexdigit()) {
            return Err("it could be taken for a commit");
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if all(text, allowed) { Ok(()) } else { Err("it may hold only letters, digits, '-', '_' and '.'") }
    }
);

impl CommitId {
    /// The first twelve digits, enough for people to tell commits apart.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl PlanId {
    /// The first twelve digits. `--plan=` takes any unambiguous prefix of at least this length.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl UnitName {
    /// The part after the last dot: `service`, `socket`, `timer`, …
    pub fn kind(&self) -> &str {
        self.0.rsplit_once('.').map_or("", |(_, kind)| kind)
    }
}

impl UnitPattern {
    /// Whether `unit` is one of these.
    pub fn matches(&self, unit: &UnitName) -> bool {
        let instance_of = |(template, kind): (&str, &str)| {
            let instance = unit.0.strip_prefix(template).and_then(|rest| rest.strip_prefix('@'));
            instance.and_then(|rest| rest.rsplit_once('.')).is_some_and(|(_, of)| of == kind)
        };
        is_like(self.0.as_bytes(), unit.0.as_bytes())
            || self.0.split_once("@.").is_some_and(instance_of)
    }

    /// How much it says about what it means: one unit is told by more than a template, a template by more
    /// than a pattern, a long pattern by more than a short one. `a@*.service` is a template: it means the
    /// same units as `a@.service`.
    pub fn precision(&self) -> (bool, bool, usize) {
        let plain = self.0.replacen("@*.", "@.", 1);
        let literal = plain.bytes().filter(|byte| !matches!(byte, b'*' | b'?')).count();
        let is_literal = literal == plain.len();
        let is_template = plain.contains("@.");
        (is_literal && !is_template, is_literal, literal)
    }
}

/// fnmatch(3) with `*` and `?` alone.
fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from, mut star) = (0, 0, None);
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            // The last star takes one byte more.
            _ => match star {
                Some((position, taken)) => {
                    star = Some((position, taken + 1));
                    at = position + 1;
                    from = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// A transaction's number: counts up over the life of the state database, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionId(pub u64);

impl fmt::Display for TransactionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_names_follow_debian_policy() {
        for good in ["libssl3", "g++", "0ad", "libstdc++6", "a.b"] {
            assert!(PackageName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-rf", "--root=/", "A1", "a b", "a\nb", "a;b", "$(x)", "a/../b", "ä1"]
        {
            assert!(PackageName::parse(bad).is_err(), "{bad}");
        }
        assert!(PackageName::parse("a".repeat(10_000)).is_err());
    }

    #[test]
    fn a_hostile_name_is_quoted_and_cut_in_its_error() {
        let error = PackageName::parse(format!("\u{1b}[2J\n{}", "x".repeat(10_000))).unwrap_err();
        let text = error.to_string();
        assert!(!text.contains('\u{1b}') && !text.contains('\n') && text.len() < 200, "{text}");
    }

    #[test]
    fn unit_names_have_a_stem_and_a_type() {
        for good in ["nginx.service", "getty@tty1.service", "a\\x2db.mount", "ssh.socket"] {
            assert!(UnitName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "nginx", ".service", "a.", "-x.service", "a b.service", "a/b.service"] {
            assert!(UnitName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_means_one_unit_a_template_or_all_that_are_like_it() {
        for (pattern, unit, expected) in [
            ("a.service", "a.service", true),
            ("a.service", "ab.service", false),
            ("db@.service", "db@main.service", true),
            ("db@.service", "db.service", false),
            ("db@.service", "db@main.socket", false),
            ("lib*.service", "libvirtd.service", true),
            ("lib*.service", "lib.service", true),
            ("lib*.service", "libvirtd.socket", false),
            ("lib*d*.service", "libvirtd-tls.service", true),
            ("?b.service", "ab.service", true),
            ("?b.service", "b.service", false),
            ("x*.*", "xen.socket", true),
        ] {
            let unit = UnitName::parse(unit).unwrap();
            let pattern = UnitPattern::parse(pattern).unwrap();
            assert_eq!(pattern.matches(&unit), expected, "{pattern} {unit}");
        }
        for bad in ["", "*", "*.service", "?*.service", "a", "a b*.service", "../x.service"] {
            assert!(UnitPattern::parse(bad).is_err(), "{bad}");
        }
        let precision = |text: &str| UnitPattern::parse(text).unwrap().precision();
        assert!(precision("a.service") > precision("abcdef@.service"));
        assert!(precision("a@.service") > precision("abcdef*.service"));
        assert!(precision("abc*.service") > precision("a*.service"));
        assert_eq!(precision("a@*.service"), precision("a@.service"));
        assert!(precision("a@*.service") > precision("abcdef@x*.service"));
    }

    #[test]
    fn point_names_are_told_from_everything_else_that_names_a_state() {
        for good in ["a", "before-migration", "v1.2_3", "deadbeef", "Running"] {
            assert!(PointName::parse(good).is_ok(), "{good}");
        }
        let long = "a-".repeat(33);
        let commit = "ab".repeat(32);
        for bad in
            ["", "7", "-x", ".x", "running", "next", "a/b", "a b", "a\nb", "ä", "deadbeefcafe"]
                .into_iter()
                .chain([long.as_str(), commit.as_str()])
        {
            assert!(PointName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_keep_their_check_when_they_are_deserialized() {
        assert!(serde_json::from_str::<Sha256>("\"xyz\"").is_err());
        assert!(serde_json::from_str::<Version>("\"1:2.3-4+deb12u1\"").is_ok());
    }
}
