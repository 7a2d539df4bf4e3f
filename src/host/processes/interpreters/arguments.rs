//! What an interpreter was told to run, by its arguments and its environment.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Language;

/// How many arguments are looked at: those of the interpreter come before the program's own.
const FIRST_ARGUMENTS: usize = 64;
/// How many directories of an environment variable or archives of a class path count.
const MOST_DIRECTORIES: usize = 256;

/// The program that an interpreter runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(in super::super) struct Program {
    /// The files: one script, or the archives of a class path.
    pub(super) files: Vec<PathBuf>,
    /// The name of a module that is run in place of a script: `python3 -m NAME`.
    pub(super) module: Option<String>,
    /// Directories that the arguments put before the search path.
    pub(super) directories: Vec<PathBuf>,
}

/// How an interpreter was started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Started {
    pub(super) language: Language,
    /// What the process executes.
    pub(super) interpreter: PathBuf,
    /// How it was called: the path in a Python environment of its own leads there.
    pub(super) called: PathBuf,
    /// Its working directory, below its root.
    pub(super) directory: PathBuf,
    pub(super) program: Program,
    /// Directories that its environment puts before the search path.
    pub(super) directories: Vec<PathBuf>,
}

impl Started {
    /// Reads the two files of a process; none where the arguments name no program.
    pub(in super::super) fn read(
        language: Language,
        interpreter: &Path,
        directory: PathBuf,
        command_line: &[u8],
        environment: &[u8],
    ) -> Option<Self> {
        let program = Program::of(language, command_line)?;
        let called = command_line.split(|byte| *byte == 0).next().map(path)?;
        let directories = directories_of(language, environment);
        let interpreter = interpreter.to_owned();
        Some(Self { language, interpreter, called, directory, program, directories })
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let Program { files, module, directories } = &self.program;
        let lists = files.iter().chain(directories).chain(&self.directories);
        let own = [&self.interpreter, &self.called, &self.directory];
        let paths = lists.chain(own).map(|path| size_of::<PathBuf>() + path.as_os_str().len());
        size_of::<Self>() + module.as_ref().map_or(0, String::len) + paths.sum::<usize>()
    }
}

/// How an option of an interpreter takes its value.
enum Takes {
    /// It has none, or it stands in the same argument.
    Nothing,
    /// The next argument.
    Next,
    /// A directory for the search path, here or in the next argument.
    Directory(Vec<u8>),
    /// The next argument is a module to be run.
    Module,
    /// The next argument is a list of archives.
    ClassPath,
    /// The next argument is the program itself.
    Program,
    /// There is no file: the text of the program is an argument, or comes from elsewhere.
    NoProgram,
}

impl Program {
    /// Reads `/proc/PID/cmdline`.
    pub(in super::super) fn of(language: Language, command_line: &[u8]) -> Option<Self> {
        let mut arguments = command_line.split(|byte| *byte == 0).skip(1).take(FIRST_ARGUMENTS);
        let mut program = Self::default();
        while let Some(argument) = arguments.next() {
            if !argument.starts_with(b"-") || argument == b"-" {
                // Java's is the name of a class; `-` is the standard input.
                if language != Language::Java && !argument.is_empty() && argument != b"-" {
                    program.files.push(path(argument));
                }
                break;
            }
            match takes(language, argument) {
                Takes::Nothing => {}
                Takes::Next => drop(arguments.next()),
                Takes::Directory(here) if here.is_empty() => {
                    program.directories.extend(arguments.next().map(path));
                }
                Takes::Directory(here) => program.directories.push(path(&here)),
                Takes::Module => {
                    program.module = Some(std::str::from_utf8(arguments.next()?).ok()?.to_owned());
                    break;
                }
                Takes::ClassPath => program.files.extend(split_paths(arguments.next()?)),
                Takes::Program => {
                    program.files.push(path(arguments.next()?));
                    break;
                }
                Takes::NoProgram => return None,
            }
        }
        (!program.files.is_empty() || program.module.is_some()).then_some(program)
    }
}

fn takes(language: Language, argument: &[u8]) -> Takes {
    match language {
        Language::Python => of_python(argument),
        Language::Perl => of_perl(argument),
        Language::Ruby => of_ruby(argument),
        Language::Node => of_node(argument),
        Language::Java => of_java(argument),
        Language::Shell => of_shell(argument),
    }
}

/// python3(1). Any letter of a cluster may be it: `-Im NAME`.
fn of_python(argument: &[u8]) -> Takes {
    match argument {
        b"-W" | b"-X" | b"-Q" | b"--check-hash-based-pycs" => Takes::Next,
        [b'-', b'W' | b'X' | b'Q' | b'-', ..] => Takes::Nothing,
        [.., b'm'] => Takes::Module,
        letters if letters.contains(&b'c') => Takes::NoProgram,
        _ => Takes::Nothing,
    }
}

/// perlrun(1)
fn of_perl(argument: &[u8]) -> Takes {
    match argument {
        [b'-', b'I', here @ ..] => Takes::Directory(here.to_vec()),
        [b'-', b'e' | b'E', ..] => Takes::NoProgram,
        _ => Takes::Nothing,
    }
}

/// ruby(1)
fn of_ruby(argument: &[u8]) -> Takes {
    match argument {
        [b'-', b'I', here @ ..] => Takes::Directory(here.to_vec()),
        [b'-', b'e', ..] => Takes::NoProgram,
        b"-r" | b"-C" | b"-E" | b"-K" | b"-x" => Takes::Next,
        _ => Takes::Nothing,
    }
}

/// node(1)
fn of_node(argument: &[u8]) -> Takes {
    match argument {
        b"-e" | b"-p" | b"-pe" | b"--eval" | b"--print" => Takes::NoProgram,
        b"-r" | b"--require" | b"--import" | b"--loader" | b"-C" => Takes::Next,
        _ => Takes::Nothing,
    }
}

/// java(1)
fn of_java(argument: &[u8]) -> Takes {
    match argument {
        b"-jar" => Takes::Program,
        b"-cp" | b"-classpath" | b"--class-path" => Takes::ClassPath,
        b"-p" | b"--module-path" | b"-m" | b"--module" | b"--add-modules" => Takes::Next,
        _ => Takes::Nothing,
    }
}

/// sh(1p), bash(1). Any letter of a cluster may be it: `-ec`.
fn of_shell(argument: &[u8]) -> Takes {
    match argument {
        b"-o" | b"+o" | b"-O" | b"--rcfile" | b"--init-file" => Takes::Next,
        [b'-', b'-', ..] => Takes::Nothing,
        letters if letters.contains(&b'c') => Takes::NoProgram,
        _ => Takes::Nothing,
    }
}

/// The directories that a variable of `/proc/PID/environ` puts before the search path.
fn directories_of(language: Language, environment: &[u8]) -> Vec<PathBuf> {
    let name = match language {
        Language::Python => &b"PYTHONPATH="[..],
        Language::Perl => b"PERL5LIB=",
        Language::Ruby => b"RUBYLIB=",
        Language::Node => b"NODE_PATH=",
        Language::Java | Language::Shell => return Vec::new(),
    };
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(name));
    value.map(split_paths).unwrap_or_default()
}

fn split_paths(list: &[u8]) -> Vec<PathBuf> {
    let paths = list.split(|byte| *byte == b':').filter(|path| !path.is_empty());
    paths.take(MOST_DIRECTORIES).map(path).collect()
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(language: Language, command_line: &str) -> Option<Program> {
        Program::of(language, command_line.replace(' ', "\0").as_bytes())
    }

    #[test]
    fn the_script_is_the_first_argument_that_is_no_option() {
        use Language::{Java, Node, Perl, Python, Ruby, Shell};
        for (language, command_line, file) in [
            (
                Python,
                "python3 /usr/bin/fail2ban-server -xf start",
                Some("/usr/bin/fail2ban-server"),
            ),
            (Python, "python3.11 -u -W ignore -Xdev app.py -c x", Some("app.py")),
            (Python, "/usr/bin/python3 -c import", None),
            (Python, "python3 -Ic import", None),
            (Python, "python3 -", None),
            (Python, "python3", None),
            (Perl, "/usr/bin/perl -w -T /usr/sbin/spamd -d", Some("/usr/sbin/spamd")),
            (Perl, "perl -I lib -Ilib2 x.pl", Some("x.pl")),
            (Perl, "perl -e 1", None),
            (Ruby, "ruby -r json /srv/app.rb", Some("/srv/app.rb")),
            (Ruby, "ruby -e 1", None),
            (Node, "node --require ./x --inspect=1 /srv/app.js", Some("/srv/app.js")),
            (Node, "node -e 1", None),
            (Java, "java -Xmx1g -jar /usr/share/a.jar x.jar", Some("/usr/share/a.jar")),
            (Java, "java org.example.Main", None),
            (Shell, "/bin/sh -e /etc/init.d/x start", Some("/etc/init.d/x")),
            (Shell, "sh -ec true", None),
            (Shell, "bash --login", None),
        ] {
            let found = program(language, command_line);
            let found = found.and_then(|found| found.files.first().cloned());
            assert_eq!(found, file.map(PathBuf::from), "{command_line}");
        }
    }

    #[test]
    fn modules_directories_and_class_paths_are_taken_from_their_options() {
        let found = program(Language::Python, "python3 -m http.server 80").unwrap();
        assert_eq!((found.module.as_deref(), found.files.len()), (Some("http.server"), 0));
        let found = program(Language::Perl, "perl -I lib -Ilib2 x.pl").unwrap();
        assert_eq!(found.directories, [PathBuf::from("lib"), PathBuf::from("lib2")]);
        let found = program(Language::Java, "java -cp a.jar::/b.jar Main").unwrap();
        assert_eq!(found.files, [PathBuf::from("a.jar"), PathBuf::from("/b.jar")]);
    }

    #[test]
    fn the_environment_puts_directories_before_the_search_path() {
        let environment = b"A=1\0PYTHONPATH=/a:/b:\0PERL5LIB=/c\0";
        let started = Started::read(
            Language::Python,
            Path::new("/usr/bin/python3.11"),
            PathBuf::from("/"),
            b"python3\0x.py\0",
            environment,
        )
        .unwrap();
        assert_eq!(started.directories, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(started.called, PathBuf::from("python3"));
    }
}
