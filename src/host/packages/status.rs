//! dpkg's status database, as text: deb-control(5), `dpkg-query(1)`.

use std::collections::BTreeMap;

/// The packages of one database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    packages: BTreeMap<(String, String), Package>,
}

/// One package's entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// `Package:`
    pub name: String,
    /// `Architecture:`
    pub architecture: String,
    /// `Version:`; empty for a package that is known but was never there.
    pub version: String,
    /// `Source:` without its version; the name where there is none.
    pub source: String,
    /// The three words of `Status:`: what is wanted, whether it is well, what it is.
    pub state: [String; 3],
    /// `Installed-Size:`, in bytes.
    pub installed_bytes: u64,
    /// The configuration files: path and MD5 digest. Obsolete ones are left out.
    pub conffiles: Vec<(String, String)>,
}

impl Package {
    /// Whether it is unpacked and configured.
    pub fn is_installed(&self) -> bool {
        matches!(self.state[2].as_str(), "installed" | "triggers-pending" | "triggers-awaited")
    }

    /// Whether dpkg stopped in the middle of something.
    pub fn is_unfinished(&self) -> bool {
        !matches!(self.state[2].as_str(), "installed" | "config-files" | "not-installed")
            || self.state[1] != "ok"
    }

    /// Name and state, for people.
    pub fn state_line(&self) -> String {
        format!("{} is {}", self.name, self.state[2])
    }
}

impl Status {
    /// Reads a database. Entries without a name are passed over: dpkg itself would refuse the file.
    pub fn parse(text: &str) -> Self {
        let mut packages = BTreeMap::new();
        for stanza in text.split("\n\n") {
            let package = parse_stanza(stanza);
            if !package.name.is_empty() {
                packages.insert((package.name.clone(), package.architecture.clone()), package);
            }
        }
        Self { packages }
    }

    /// All entries by name and architecture, those of removed packages included.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// The entry of an installed package.
    pub fn installed(&self, name: &str, architecture: &str) -> Option<&Package> {
        let key = (name.to_owned(), architecture.to_owned());
        self.packages.get(&key).filter(|package| package.is_installed())
    }

    /// The installed entries of a name: one for each architecture, as a rule one.
    pub fn installed_as(&self, name: &str) -> impl Iterator<Item = &Package> {
        let first = (name.to_owned(), String::new());
        self.packages
            .range(first..)
            .map(|(_, package)| package)
            .take_while(move |package| package.name == name)
            .filter(|package| package.is_installed())
    }
}

fn parse_stanza(stanza: &str) -> Package {
    let mut package = Package::default();
    let mut in_conffiles = false;
    for line in stanza.lines() {
        if line.starts_with([' ', '\t']) {
            if in_conffiles {
                package.conffiles.extend(parse_conffile(line));
            }
            continue;
        }
        let Some((field, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        in_conffiles = field == "Conffiles";
        match field {
            "Package" => value.clone_into(&mut package.name),
            "Architecture" => value.clone_into(&mut package.architecture),
            "Version" => value.clone_into(&mut package.version),
            "Source" => {
                value.split(' ').next().unwrap_or_default().clone_into(&mut package.source);
            }
            "Status" => {
                let mut words = value.split_whitespace();
                for word in &mut package.state {
                    words.next().unwrap_or_default().clone_into(word);
                }
            }
            // In the unit of 1024 bytes: Debian Policy 5.6.20.
            "Installed-Size" => {
                package.installed_bytes = value.parse::<u64>().unwrap_or(0).saturating_mul(1024);
            }
            _ => {}
        }
    }
    if package.source.is_empty() {
        package.source = package.name.clone();
    }
    package
}

/// `PATH MD5 [obsolete] [remove-on-upgrade]`; the digest is `newconffile` in the middle of an upgrade.
fn parse_conffile(line: &str) -> Option<(String, String)> {
    let (head, last) = line.trim().rsplit_once(' ')?;
    match last {
        "obsolete" => None,
        "remove-on-upgrade" => parse_conffile(head),
        digest => Some((head.to_owned(), digest.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &str = "Package: base-files\nStatus: install ok installed\nInstalled-Size: 2\n\
        Architecture: amd64\nVersion: 12.4+deb12u5\nConffiles:\n /etc/debian_version 21f\n \
        /etc/a b 22f\n /etc/old 23f obsolete\nDescription: x\n y\n\n\
        Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
        Package: half\nStatus: install ok half-configured\nArchitecture: all\nVersion: 2\n\
        Source: whole (3)\n";

    #[test]
    fn a_database_is_read_with_states_sizes_and_conffiles() {
        let status = Status::parse(DATABASE);
        let base = status.installed("base-files", "amd64").unwrap();
        assert_eq!((base.version.as_str(), base.installed_bytes), ("12.4+deb12u5", 2048));
        let conffile = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            base.conffiles,
            [conffile("/etc/debian_version", "21f"), conffile("/etc/a b", "22f")]
        );
        assert!(status.installed("gone", "all").is_none());
        assert_eq!(status.installed_as("base-files").count(), 1);
        let unfinished: Vec<String> =
            status.packages().filter(|p| p.is_unfinished()).map(Package::state_line).collect();
        assert_eq!(unfinished, ["half is half-configured"]);
    }

    #[test]
    fn the_source_is_the_name_unless_it_is_given() {
        let status = Status::parse(DATABASE);
        let sources: Vec<&str> = status.packages().map(|p| p.source.as_str()).collect();
        assert_eq!(sources, ["base-files", "gone", "whole"]);
    }

    #[test]
    fn an_empty_or_strange_text_is_an_empty_database() {
        for text in ["", "\n\n\n", "nonsense\nmore", ": x\n\n"] {
            assert_eq!(Status::parse(text), Status::default(), "{text:?}");
        }
    }
}
