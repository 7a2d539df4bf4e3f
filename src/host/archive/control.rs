//! The control file: deb-control(5), as much of it as names the package.

use super::DebError;

/// What a control file says about which package this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    /// `Package:`
    pub(super) package: String,
    /// `Version:`
    pub(super) version: String,
    /// `Architecture:`
    pub(super) architecture: String,
}

/// Longer values are no names.
const LONGEST_VALUE: usize = 255;

/// Reads a control file.
pub(super) fn parse(text: &[u8]) -> Result<Control, DebError> {
    let mut fields: [Option<String>; 3] = Default::default();
    let names = ["Package", "Version", "Architecture"];
    let mut lines = text.split(|byte| *byte == b'\n').peekable();
    // dpkg passes over empty lines before the paragraph.
    while lines.next_if(|line| line.trim_ascii().is_empty()).is_some() {}
    let mut fresh = true;
    let mut in_named_field = false;
    for line in lines {
        if line.trim_ascii().is_empty() {
            fresh = true;
            continue;
        }
        if std::mem::replace(&mut fresh, false) && fields.iter().any(Option::is_some) {
            return Err(DebError::malformed("its control file has more than one paragraph"));
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            if in_named_field {
                return Err(DebError::malformed("a name in its control file has several lines"));
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let Some((name, value)) = colon.and_then(|at| Some((line.get(..at)?, line.get(at + 1..)?)))
        else {
            return Err(DebError::malformed("a line of its control file has no colon"));
        };
        let known =
            names.iter().position(|known| name.trim_ascii().eq_ignore_ascii_case(known.as_bytes()));
        in_named_field = known.is_some();
        if let Some(index) = known {
            if fields[index].is_some() {
                return Err(DebError::malformed(format!(
                    "its control file has two {} fields",
                    names[index]
                )));
            }
            fields[index] = Some(value_of(names[index], value)?);
        }
    }
    let [package, version, architecture] = fields;
    let missing = |name: &str| DebError::malformed(format!("its control file has no {name} field"));
    Ok(Control {
        package: package.ok_or_else(|| missing("Package"))?,
        version: version.ok_or_else(|| missing("Version"))?,
        architecture: architecture.ok_or_else(|| missing("Architecture"))?,
    })
}

fn value_of(name: &str, value: &[u8]) -> Result<String, DebError> {
    let value = value.trim_ascii();
    let plain = value.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if value.is_empty() || value.len() > LONGEST_VALUE || !plain {
        return Err(DebError::malformed(format!(
            "the {name} field of its control file is damaged"
        )));
    }
    Ok(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_files_are_read_strictly() {
        for (text, expected) in [
            (
                "Package: a1\nVersion: 1-1\nArchitecture: all\nDescription: x\n y\n .\n",
                Ok("a1 1-1 all"),
            ),
            ("\n\npackage:a1\nVERSION: 2\nArchitecture: amd64\n\n", Ok("a1 2 amd64")),
            ("Package: a1\nVersion: 1\n", Err("no Architecture")),
            ("Package: a1\nPackage: b1\n", Err("two Package")),
            ("Package: a1\n b1\nVersion: 1\nArchitecture: all\n", Err("several lines")),
            ("Package: a1\nVersion: 1\nArchitecture: all\n\nPackage: b\n", Err("paragraph")),
            ("Package: a b\n", Err("damaged")),
            ("Package: \u{1b}[2J\n", Err("damaged")),
            ("Package\n", Err("colon")),
            ("", Err("no Package")),
        ] {
            match (parse(text.as_bytes()), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(
                    format!("{} {} {}", found.package, found.version, found.architecture),
                    expected
                ),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
    }
}
