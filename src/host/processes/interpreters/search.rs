//! Finding files as a process would: below its own root and through the links there, and along the
//! search path that its interpreter was built with.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use super::super::effort::{Effort, Spent};
use super::Language;
use super::arguments::Started;

/// The largest file that is read for what it names; generated ones are larger and name nothing.
const LARGEST_SOURCE_BYTES: u64 = 2 << 20;
/// How many directories a pattern of a search path may stand for.
const MOST_EXPANDED: usize = 256;
/// What a name in a listing takes besides its bytes.
const NAME_BYTES: usize = 64;

/// File systems whose regular files are the kernel's own words, by the numbers of `linux/magic.h`. Reading
/// one may take what is meant for somebody else, as `/proc/kmsg` does, or wait for ever.
const KERNELS_OWN: &[u32] = &[
    0x0000_9fa0, // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0x6265_6570, // configfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0xcafe_4a11, // bpf
    0xde5e_81e4, // efivarfs
    0x6165_676c, // pstore
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x5a3c_69f0, // apparmor's
    0x6573_5543, // fusectl
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
    0x6e66_7364, // nfsd
    0x6759_6969, // rpc_pipefs
    0x0765_5821, // resctrl
    0x1980_0202, // mqueue
    0x9584_58f6, // hugetlbfs
];

/// A process's root directory.
#[derive(Debug)]
pub(in super::super) struct Root {
    directory: OwnedFd,
    /// How the kernel calls it to this process.
    name: PathBuf,
    /// Its device and inode.
    pub(super) key: (u64, u64),
}

/// A file as the process finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Resolved {
    /// Its path below the root, without links.
    pub(in super::super) path: PathBuf,
    pub(in super::super) device: u64,
    pub(in super::super) inode: u64,
    pub(in super::super) is_empty: bool,
    /// When its content changed last, in seconds since 1970; 0 in a tree of OSTree's.
    pub(in super::super) modified: i64,
    /// When anything about it changed last, in milliseconds since 1970.
    pub(in super::super) changed_milliseconds: i64,
}

impl Root {
    /// The root of the process whose directory of `/proc` this is.
    pub(in super::super) fn of(process: &Path) -> Option<Self> {
        let link = process.join("root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, &link, flags, Mode::empty()).ok()?;
        let status = rustix::fs::fstat(&directory).ok()?;
        let name = fs::read_link(link).ok()?;
        Some(Self { directory, name, key: (status.st_dev, status.st_ino) })
    }

    /// The working directory of the process, below this root.
    pub(in super::super) fn directory_of(&self, process: &Path) -> Option<PathBuf> {
        self.below(&fs::read_link(process.join("cwd")).ok()?)
    }

    fn below(&self, path: &Path) -> Option<PathBuf> {
        Some(Path::new("/").join(path.strip_prefix(&self.name).ok()?))
    }

    /// The regular file at an absolute path.
    pub(super) fn find(&self, path: &Path) -> Option<Resolved> {
        self.open(path).map(|(_, found)| found)
    }

    /// The text of that file, none where there is none; what is no text of it is replaced.
    pub(super) fn read(&self, path: &Path, effort: &mut Effort) -> Result<Option<String>, Spent> {
        let Some((file, _)) = self.open(path) else { return Ok(None) };
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        // Its owner may hold a lease on it, which would make this wait: fcntl(2), F_SETLEASE.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = openat(CWD, link, flags, Mode::empty());
        let Ok(file) = opened.map(File::from) else { return Ok(None) };
        let length = file.metadata().map_or(u64::MAX, |metadata| metadata.len());
        if length > LARGEST_SOURCE_BYTES {
            return Ok(None);
        }
        effort.read(length)?;
        let mut bytes = Vec::new();
        let read = file.take(LARGEST_SOURCE_BYTES).read_to_end(&mut bytes);
        Ok(read.is_ok().then(|| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Opens nothing but a regular file that somebody wrote, and it not for reading: others may stand
    /// where a process says that its program is.
    fn open(&self, path: &Path) -> Option<(OwnedFd, Resolved)> {
        let file = self.open_path(path, OFlags::PATH)?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let metadata = fs::metadata(&link).ok()?;
        if !metadata.is_file() || is_kernels_own(&file) {
            return None;
        }
        let found = Resolved {
            path: self.below(&fs::read_link(link).ok()?)?,
            device: metadata.dev(),
            inode: metadata.ino(),
            is_empty: metadata.len() == 0,
            modified: metadata.mtime(),
            changed_milliseconds: metadata.ctime() * 1000 + metadata.ctime_nsec() / 1_000_000,
        };
        Some((file, found))
    }

    fn open_path(&self, path: &Path, flags: OFlags) -> Option<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let relative = path.strip_prefix("/").ok()?;
        if relative.as_os_str().is_empty() {
            return None;
        }
        openat2(&self.directory, relative, flags | OFlags::CLOEXEC, Mode::empty(), resolve).ok()
    }

    /// The names in a directory.
    pub(super) fn list(&self, path: &Path, effort: &mut Effort) -> Result<Vec<String>, Spent> {
        let Some(directory) = self.open_path(path, OFlags::PATH | OFlags::DIRECTORY) else {
            return Ok(Vec::new());
        };
        let entries = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        let mut names = Vec::new();
        for entry in entries.into_iter().flatten().flatten() {
            if let Ok(name) = entry.file_name().into_string() {
                effort.keep(NAME_BYTES + name.len())?;
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// The paths that a pattern stands for: `*` is any part of one name.
    fn expand(&self, pattern: &str, effort: &mut Effort) -> Result<Vec<PathBuf>, Spent> {
        let mut paths = vec![PathBuf::from("/")];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let Some((before, after)) = part.split_once('*') else {
                for path in &mut paths {
                    path.push(part);
                }
                continue;
            };
            let matches = |name: &String| {
                name.len() >= before.len() + after.len()
                    && name.starts_with(before)
                    && name.ends_with(after)
            };
            let mut below = Vec::new();
            for path in &paths {
                if below.len() >= MOST_EXPANDED {
                    break;
                }
                let names = self.list(path, effort)?.into_iter().filter(matches);
                below.extend(names.map(|name| path.join(name)));
            }
            below.truncate(MOST_EXPANDED);
            paths = below;
        }
        Ok(paths)
    }

    fn expand_all(&self, patterns: &[String], effort: &mut Effort) -> Result<Vec<PathBuf>, Spent> {
        let mut paths = Vec::new();
        for pattern in patterns {
            paths.append(&mut self.expand(pattern, effort)?);
        }
        Ok(paths)
    }

    /// Where the interpreter looks besides where it was told to: Debian's directories, those of its
    /// own prefix, and those of a Python environment.
    pub(super) fn search_path(
        &self,
        started: &Started,
        effort: &mut Effort,
    ) -> Result<Vec<PathBuf>, Spent> {
        let patterns: Vec<String> = match started.language {
            Language::Python => self.python_path(started),
            Language::Perl => PERL.iter().map(|pattern| (*pattern).to_owned()).collect(),
            Language::Ruby => RUBY.iter().map(|pattern| (*pattern).to_owned()).collect(),
            Language::Node => NODE.iter().map(|pattern| (*pattern).to_owned()).collect(),
            Language::Java | Language::Shell => Vec::new(),
        };
        self.expand_all(&patterns, effort)
    }

    fn python_path(&self, started: &Started) -> Vec<String> {
        let name = started.interpreter.file_name().unwrap_or_default().to_string_lossy();
        let version = name.trim_start_matches("python").trim_end_matches(" (deleted)");
        let version = if version.contains('.') { version } else { "*" };
        let mut patterns = Vec::new();
        // bin/python3 of an environment is a link; the environment is where it was called.
        if let Some(environment) = started.called.parent().and_then(Path::parent)
            && self.find(&environment.join("pyvenv.cfg")).is_some()
        {
            let environment = environment.display();
            patterns.push(format!("{environment}/lib/python{version}/site-packages"));
        }
        let own_prefix = started.interpreter.parent().and_then(Path::parent);
        let prefixes = own_prefix.map(|prefix| prefix.display().to_string());
        let mut prefixes: Vec<String> =
            prefixes.into_iter().chain(["/usr/local".to_owned(), "/usr".to_owned()]).collect();
        prefixes.dedup();
        for prefix in prefixes {
            for directory in ["", "/dist-packages", "/site-packages"] {
                patterns.push(format!("{prefix}/lib/python{version}{directory}"));
            }
            patterns.push(format!("{prefix}/lib/python3/dist-packages"));
        }
        patterns
    }
}

fn is_kernels_own(file: &OwnedFd) -> bool {
    // The number is a word of 32 bits, whatever the type is that it comes in.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    rustix::fs::fstatfs(file).is_ok_and(|system| KERNELS_OWN.contains(&(system.f_type as u32)))
}

/// perlvar(1), `@INC`, as Debian's perl has it.
const PERL: &[&str] = &[
    "/etc/perl",
    "/usr/local/lib/*/perl/5*",
    "/usr/local/share/perl/5*",
    "/usr/lib/*/perl5/5*",
    "/usr/share/perl5",
    "/usr/lib/*/perl-base",
    "/usr/lib/*/perl/5*",
    "/usr/share/perl/5*",
    "/usr/local/lib/site_perl",
];

/// `$LOAD_PATH`, as Debian's ruby has it, with the directories of gems.
const RUBY: &[&str] = &[
    "/usr/local/lib/site_ruby/*",
    "/usr/local/lib/site_ruby",
    "/usr/lib/ruby/vendor_ruby/*",
    "/usr/lib/*/ruby/vendor_ruby/*",
    "/usr/lib/ruby/vendor_ruby",
    "/usr/lib/ruby/3*",
    "/usr/lib/*/ruby/3*",
    "/usr/share/rubygems-integration/*/gems/*/lib",
    "/var/lib/gems/*/gems/*/lib",
];

/// Where Debian's Node.js finds packages.
const NODE: &[&str] =
    &["/usr/local/lib/node_modules", "/usr/share/nodejs", "/usr/lib/nodejs", "/usr/lib/*/nodejs"];

#[cfg(test)]
mod tests {
    use super::*;

    impl Root {
        /// A root that is no process's.
        pub(in super::super) fn at(directory: &Path) -> Self {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = openat(CWD, directory, flags, Mode::empty()).unwrap();
            Self { directory: opened, name: fs::canonicalize(directory).unwrap(), key: (0, 0) }
        }
    }

    #[test]
    fn a_file_is_found_below_the_root_and_links_do_not_lead_out_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        fs::create_dir_all(at("usr/lib")).unwrap();
        fs::write(at("usr/lib/a.py"), "import os").unwrap();
        std::os::unix::fs::symlink("/usr/lib", at("lib")).unwrap();
        std::os::unix::fs::symlink("../../../../../../etc/passwd", at("out")).unwrap();
        let root = Root::at(directory.path());
        let found = root.find(Path::new("/lib/a.py")).unwrap();
        assert_eq!(found.path, Path::new("/usr/lib/a.py"));
        let text = root.read(Path::new("/lib/a.py"), &mut Effort::whole()).unwrap();
        assert_eq!(text.as_deref(), Some("import os"));
        for path in ["/out", "/usr/lib", "/missing", "/", "relative"] {
            assert_eq!(root.find(Path::new(path)), None, "{path}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_never_opened_for_reading() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .unwrap();
        let root = Root::at(directory.path());
        assert_eq!(root.read(Path::new("/fifo"), &mut Effort::whole()), Ok(None));
        let proc = Root::at(Path::new("/proc"));
        for path in ["/version", "/kmsg", "/sys/kernel/ostype"] {
            assert!(Path::new("/proc").join(path.trim_start_matches('/')).is_file(), "{path}");
            assert_eq!(proc.find(Path::new(path)), None, "{path}");
            assert_eq!(proc.read(Path::new(path), &mut Effort::whole()), Ok(None), "{path}");
        }
    }

    #[test]
    fn patterns_stand_for_the_directories_that_are_there() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["usr/lib/x86_64-linux-gnu/perl/5.36", "usr/lib/x86_64-linux-gnu/perl/x"] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        let root = Root::at(directory.path());
        let expected = [PathBuf::from("/usr/lib/x86_64-linux-gnu/perl/5.36")];
        let expand = |pattern| root.expand(pattern, &mut Effort::whole()).unwrap();
        assert_eq!(expand("/usr/lib/*/perl/5*"), expected);
        assert_eq!(expand("/usr/share/perl5"), [PathBuf::from("/usr/share/perl5")]);
        assert!(expand("/missing/*").is_empty());
        assert_eq!(root.expand("/usr/lib/*/perl/5*", &mut Effort::of_bytes(300)), Err(Spent));
    }
}
