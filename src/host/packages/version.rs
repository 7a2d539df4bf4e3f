//! The order of Debian versions without libapt: Debian Policy 5.6.12, deb-version(7).

use std::cmp::Ordering;

/// Compares two versions.
pub fn compare(left: &str, right: &str) -> Ordering {
    let (left_epoch, left) = split_epoch(left);
    let (right_epoch, right) = split_epoch(right);
    let (left_upstream, left_revision) = split_revision(left);
    let (right_upstream, right_revision) = split_revision(right);
    left_epoch
        .cmp(&right_epoch)
        .then_with(|| compare_part(left_upstream, right_upstream))
        .then_with(|| compare_part(left_revision, right_revision))
}

/// A version without its Debian revision.
pub fn upstream(version: &str) -> (u64, &str) {
    let (epoch, rest) = split_epoch(version);
    (epoch, split_revision(rest).0)
}

fn split_epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

fn split_revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Compares by turns a stretch without digits, then a number.
fn compare_part(left: &str, right: &str) -> Ordering {
    let (mut left, mut right) = (left, right);
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = split_while(left, |b| !b.is_ascii_digit());
        let (right_text, right_rest) = split_while(right, |b| !b.is_ascii_digit());
        let (left_number, left_rest) = split_while(left_rest, |b| b.is_ascii_digit());
        let (right_number, right_rest) = split_while(right_rest, |b| b.is_ascii_digit());
        let order = compare_text(left_text, right_text)
            .then_with(|| compare_number(left_number, right_number));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn split_while(text: &str, wanted: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|byte| !wanted(byte)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

fn compare_text(left: &str, right: &str) -> Ordering {
    let weight = |byte: Option<u8>| match byte {
        Some(b'~') => -1,
        None => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(byte),
        Some(byte) => i32::from(byte) + 256,
    };
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let pairs = 0..left.len().max(right.len());
    pairs
        .map(|at| weight(left.get(at).copied()).cmp(&weight(right.get(at).copied())))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

fn compare_number(left: &str, right: &str) -> Ordering {
    let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_does() {
        for (left, right, order) in [
            ("1.9", "1.10", Ordering::Less),
            ("1.0~rc1", "1.0", Ordering::Less),
            ("1.0", "1.0-1", Ordering::Less),
            ("1:0.1", "9.9", Ordering::Greater),
            ("1.0+deb12u1", "1.0", Ordering::Greater),
            ("3.0.11-1~deb12u2", "3.0.11-1~deb12u10", Ordering::Less),
            ("1.0a", "1.0+", Ordering::Less),
            ("007", "7", Ordering::Equal),
            ("0:1", "1", Ordering::Equal),
            ("1~~", "1~", Ordering::Less),
        ] {
            assert_eq!(compare(left, right), order, "{left} {right}");
            assert_eq!(compare(right, left), order.reverse(), "{right} {left}");
        }
    }
}
