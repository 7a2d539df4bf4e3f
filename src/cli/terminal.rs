//! What reaches a terminal: text that others chose, without what would drive the terminal.
//!
//! Names, versions and labels come from repositories, messages from scripts and mirrors. Control
//! characters among them are shown as escapes. So are characters that only change the direction of a
//! line, which make it read as another one (<https://trojansource.codes>).

use std::borrow::Cow;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter};

/// One line: line breaks are escaped too, so that no text can pass for a line of our own.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\t')
}

/// Text of several lines.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c == '\n' || c == '\t')
}

/// Prints data of several lines to standard output.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines(text).as_bytes())?;
    out.flush()
}

/// Prints a diagnostic of one line to standard error.
pub(super) fn complain(line: &str) {
    diagnose(&format!("{}\n", one_line(line)));
}

/// Prints a diagnostic that is escaped already. Where nobody listens, nobody is told.
pub(super) fn diagnose(text: &str) {
    if let Err(error) = io::stderr().lock().write_all(text.as_bytes()) {
        tracing::debug!(%error, "standard error is gone");
    }
}

/// Prints `value` to standard output as one line of JSON.
pub(super) fn print_json<T: Serialize>(value: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write_json(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

fn write_json<T: Serialize>(out: &mut impl Write, value: &T) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(out, EscapingFormatter);
    value.serialize(&mut serializer).map_err(io::Error::from)
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_shown = |c: char| is_kept(c) || !drives_a_terminal(c);
    if text.chars().all(is_shown) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if is_shown(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    Cow::Owned(shown)
}

/// Control characters of ISO 6429 (C0, C1, delete), and Unicode's for lines and direction:
/// <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>.
fn drives_a_terminal(c: char) -> bool {
    let is_of_lines = matches!(c, '\u{2028}' | '\u{2029}');
    let is_of_direction = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || is_of_lines || is_of_direction
}

/// JSON escapes only the first 32 control characters by itself. The others are all of 16 bits.
struct EscapingFormatter;

impl Formatter for EscapingFormatter {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| drives_a_terminal(*c)) {
            CompactFormatter.write_string_fragment(writer, &rest[..at])?;
            write!(writer, "\\u{:04x}", u32::from(c))?;
            rest = &rest[at + c.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clears the screen in three ways, sets a title, rings, goes back, and turns a line around.
    const HOSTILE: &str =
        "a\u{1b}[2J\u{9b}2J\u{1b}]0;x\u{7}\r\u{8}\u{7f}b\u{202e}\u{2066}c\u{2028}d\0e\tf\ng";

    #[test]
    fn nothing_that_drives_a_terminal_gets_through() {
        let line = one_line(HOSTILE);
        let text = lines(HOSTILE);
        for (shown, kept) in [(&line, "\t"), (&text, "\t\n")] {
            let driving: Vec<char> = shown.chars().filter(|c| drives_a_terminal(*c)).collect();
            assert_eq!(driving.iter().collect::<String>(), kept, "{shown}");
            assert!(shown.starts_with(r"a\u{1b}[2J\u{9b}2J\u{1b}]0;x\u{7}\r\u{8}\u{7f}b\u{202e}"));
        }
        let plain = "Grüße, 日本語: 5 → 6";
        assert!(matches!(lines(plain), Cow::Borrowed(text) if text == plain));
    }

    #[test]
    fn json_is_escaped_whole_and_reads_back_as_it_was() {
        let value = serde_json::json!({ "a": HOSTILE, HOSTILE: ["\"\\", 1, null, "Grüße"] });
        let mut out = Vec::new();
        write_json(&mut out, &value).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains(drives_a_terminal), "{text}");
        assert!(text.contains("Grüße") && text.contains(r"\u009b2J"), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
