//! From a program to everything that it names, file by file.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::super::effort::{Effort, Spent};
use super::search::{Resolved, Root};
use super::{From, Language, Program, Reference, Started, references};

/// How many files of one program count: larger ones are told by those that come first.
const MOST_FILES: usize = 4_000;
/// What is known of a path takes, besides the path's bytes twice.
const FOUND_BYTES: usize = 256;

type RootKey = (u64, u64);
type Files = Rc<[Rc<Resolved>]>;

/// The files of programs. What several of them have in common is looked for once, and only what was
/// looked for to its end is known: nobody's share makes another's answer poorer.
#[derive(Debug, Default)]
pub(in super::super) struct Sources {
    programs: HashMap<(RootKey, Started, bool), Files>,
    found: HashMap<(RootKey, PathBuf), Option<Rc<Resolved>>>,
    named: HashMap<(RootKey, PathBuf), Rc<[Reference]>>,
    /// The names in the directories of search paths.
    listed: HashMap<(RootKey, PathBuf), HashSet<String>>,
    search_paths: HashMap<(RootKey, Language, PathBuf, PathBuf), Rc<[PathBuf]>>,
}

impl Sources {
    /// The files that the program consists of, as far as the effort goes; without `with_modules` those
    /// that the arguments name.
    pub(in super::super) fn of(
        &mut self,
        root: &Root,
        started: &Started,
        with_modules: bool,
        effort: &mut Effort,
    ) -> Files {
        let key = (root.key, started.clone(), with_modules);
        if let Some(known) = self.programs.get(&key) {
            return Rc::clone(known);
        }
        let mut found = Vec::new();
        let gathered = self.gather(root, started, with_modules, effort, &mut found);
        let files: Files = found.into();
        if gathered.and_then(|()| effort.keep(started.bytes())).is_ok() {
            self.programs.insert(key, Rc::clone(&files));
        }
        files
    }

    fn gather(
        &mut self,
        root: &Root,
        started: &Started,
        with_modules: bool,
        effort: &mut Effort,
        found: &mut Vec<Rc<Resolved>>,
    ) -> Result<(), Spent> {
        let Program { files, module, .. } = &started.program;
        for file in files {
            found.extend(self.find(root, &started.directory.join(file), effort)?);
        }
        let search_path = self.search_path(root, started, found.first().map(Rc::as_ref), effort)?;
        let mut seen: BTreeSet<PathBuf> = found.iter().map(|file| file.path.clone()).collect();
        let mut open: VecDeque<Rc<Resolved>> = found.iter().cloned().collect();
        if let Some(module) = module {
            let candidates = super::python::program_files(module);
            let reference = Reference { from: From::SearchPath, candidates };
            let files = self.targets(root, &reference, Path::new("/"), &search_path, effort)?;
            for file in files.into_iter().filter(|file| seen.insert(file.path.clone())) {
                open.push_back(Rc::clone(&file));
                found.push(file);
            }
        }
        while let Some(file) = open.pop_front().filter(|_| with_modules) {
            for reference in self.references(root, started.language, &file.path, effort)?.iter() {
                let directory = file.path.parent().unwrap_or(Path::new("/"));
                for target in self.targets(root, reference, directory, &search_path, effort)? {
                    if found.len() < MOST_FILES && seen.insert(target.path.clone()) {
                        open.push_back(Rc::clone(&target));
                        found.push(target);
                    }
                }
            }
        }
        Ok(())
    }

    /// The files that are there of a reference's candidates: of each the first along the path.
    fn targets(
        &mut self,
        root: &Root,
        reference: &Reference,
        directory: &Path,
        search_path: &[PathBuf],
        effort: &mut Effort,
    ) -> Result<Vec<Rc<Resolved>>, Spent> {
        let mut targets = Vec::new();
        for candidate in &reference.candidates {
            let target = match reference.from {
                From::SearchPath => self.first_along(root, search_path, candidate, effort)?,
                From::Above(levels) => {
                    let above = directory.ancestors().nth(levels).unwrap_or(directory);
                    self.find(root, &plain(&above.join(candidate)), effort)?
                }
            };
            targets.extend(target);
        }
        Ok(targets)
    }

    /// The first file of that name along the search path.
    fn first_along(
        &mut self,
        root: &Root,
        search_path: &[PathBuf],
        candidate: &str,
        effort: &mut Effort,
    ) -> Result<Option<Rc<Resolved>>, Spent> {
        let first = candidate.split('/').next().unwrap_or_default();
        for directory in search_path {
            // Most names are in none of the directories: one listing of each tells.
            let is_there = first == ".." || self.lists(root, directory, first, effort)?;
            if is_there && let Some(found) = self.find(root, &directory.join(candidate), effort)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Whether the directory has something of that name.
    fn lists(
        &mut self,
        root: &Root,
        directory: &Path,
        name: &str,
        effort: &mut Effort,
    ) -> Result<bool, Spent> {
        effort.look_up()?;
        let key = (root.key, directory.to_owned());
        if let Some(known) = self.listed.get(&key) {
            return Ok(known.contains(name));
        }
        effort.keep(FOUND_BYTES + directory.as_os_str().len())?;
        let names: HashSet<String> = root.list(directory, effort)?.into_iter().collect();
        Ok(self.listed.entry(key).or_insert(names).contains(name))
    }

    fn find(
        &mut self,
        root: &Root,
        path: &Path,
        effort: &mut Effort,
    ) -> Result<Option<Rc<Resolved>>, Spent> {
        effort.look_up()?;
        let key = (root.key, path.to_owned());
        if let Some(known) = self.found.get(&key) {
            return Ok(known.clone());
        }
        effort.keep(FOUND_BYTES + 2 * path.as_os_str().len())?;
        let found = root.find(path).map(Rc::new);
        self.found.insert(key, found.clone());
        Ok(found)
    }

    fn references(
        &mut self,
        root: &Root,
        language: Language,
        path: &Path,
        effort: &mut Effort,
    ) -> Result<Rc<[Reference]>, Spent> {
        effort.look_up()?;
        let key = (root.key, path.to_owned());
        if let Some(known) = self.named.get(&key) {
            return Ok(Rc::clone(known));
        }
        let is_source = !matches!(language, Language::Java | Language::Shell);
        let text = if is_source { root.read(path, effort)? } else { None };
        let named: Rc<[Reference]> =
            text.map(|text| references(language, &text)).unwrap_or_default().into();
        let bytes: usize = named.iter().map(Reference::bytes).sum();
        effort.keep(FOUND_BYTES + path.as_os_str().len() + bytes)?;
        self.named.insert(key, Rc::clone(&named));
        Ok(named)
    }

    /// Where the program's names are looked for, in the interpreter's order.
    fn search_path(
        &mut self,
        root: &Root,
        started: &Started,
        script: Option<&Resolved>,
        effort: &mut Effort,
    ) -> Result<Vec<PathBuf>, Spent> {
        let mut path: Vec<PathBuf> = Vec::new();
        let directory = script.and_then(|script| script.path.parent());
        match (started.language, directory) {
            (Language::Python, Some(directory)) => path.push(directory.to_owned()),
            (Language::Python, None) => path.push(started.directory.clone()),
            (Language::Node, Some(directory)) => {
                path.extend(directory.ancestors().map(|above| above.join("node_modules")));
            }
            _ => {}
        }
        let told = started.program.directories.iter().chain(&started.directories);
        path.extend(told.map(|directory| plain(&started.directory.join(directory))));
        path.extend(self.built_in_path(root, started, effort)?.iter().cloned());
        Ok(path)
    }

    fn built_in_path(
        &mut self,
        root: &Root,
        started: &Started,
        effort: &mut Effort,
    ) -> Result<Rc<[PathBuf]>, Spent> {
        let Started { language, interpreter, called, .. } = started;
        let key = (root.key, *language, interpreter.clone(), called.clone());
        if let Some(known) = self.search_paths.get(&key) {
            return Ok(Rc::clone(known));
        }
        let path: Rc<[PathBuf]> = root.search_path(started, effort)?.into();
        let bytes: usize = path.iter().map(|path| FOUND_BYTES + path.as_os_str().len()).sum();
        effort.keep(bytes + started.bytes())?;
        self.search_paths.insert(key, Rc::clone(&path));
        Ok(path)
    }
}

/// The path without `.` and `..`, by its text: what is not there under it is found nowhere else.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                // Above the root is the root.
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The files that a program below a root of its own consists of.
    fn files(directory: &Path, language: Language, command_line: &str) -> Vec<String> {
        let root = Root::at(directory);
        let interpreter = match language {
            Language::Python => "/usr/bin/python3.11",
            Language::Perl => "/usr/bin/perl",
            Language::Ruby => "/usr/bin/ruby3.1",
            _ => "/usr/bin/node",
        };
        let command_line = command_line.replace(' ', "\0");
        let (path, working) = (Path::new(interpreter), PathBuf::from("/srv/app"));
        let started = Started::read(language, path, working, command_line.as_bytes(), b"");
        let mut sources = Sources::default();
        let found = sources.of(&root, &started.unwrap(), true, &mut Effort::whole());
        let mut paths: Vec<String> =
            found.iter().map(|file| file.path.display().to_string()).collect();
        paths.sort();
        paths
    }

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn a_python_program_is_followed_through_packages_and_relative_imports() {
        let tree = tree(&[
            ("srv/app/main.py", "import helper\nfrom shop.cart import add\n"),
            ("srv/app/helper.py", "import os\n"),
            ("usr/lib/python3/dist-packages/shop/__init__.py", "from . import prices\n"),
            ("usr/lib/python3/dist-packages/shop/cart.py", "from .prices import total\n"),
            ("usr/lib/python3/dist-packages/shop/prices.py", "import main\n"),
            ("usr/lib/python3/dist-packages/shop/unused.py", ""),
            ("usr/lib/python3.11/os.py", ""),
            ("usr/lib/python3.9/os.py", ""),
        ]);
        assert_eq!(
            files(tree.path(), Language::Python, "python3 -u main.py"),
            [
                "/srv/app/helper.py",
                "/srv/app/main.py",
                "/usr/lib/python3.11/os.py",
                "/usr/lib/python3/dist-packages/shop/__init__.py",
                "/usr/lib/python3/dist-packages/shop/cart.py",
                "/usr/lib/python3/dist-packages/shop/prices.py",
            ]
        );
        assert_eq!(
            files(tree.path(), Language::Python, "python3 -m shop.cart"),
            [
                "/srv/app/helper.py",
                "/srv/app/main.py",
                "/usr/lib/python3.11/os.py",
                "/usr/lib/python3/dist-packages/shop/__init__.py",
                "/usr/lib/python3/dist-packages/shop/cart.py",
                "/usr/lib/python3/dist-packages/shop/prices.py",
            ]
        );
    }

    #[test]
    fn what_one_share_does_not_reach_another_still_does() {
        let module = format!("{}import last\n", "import other\n".repeat(100));
        let tree = tree(&[
            ("srv/app/main.py", "import first\n"),
            ("srv/app/first.py", &module),
            ("srv/app/other.py", ""),
            ("srv/app/last.py", ""),
        ]);
        let root = Root::at(tree.path());
        let started = Started::read(
            Language::Python,
            Path::new("/usr/bin/python3.11"),
            "/srv/app".into(),
            b"python3\0main.py",
            b"",
        )
        .unwrap();
        let mut sources = Sources::default();
        let mut count =
            |bytes| sources.of(&root, &started, true, &mut Effort::of_bytes(bytes)).len();
        let shares = [100, 10_000, 20_000, 40_000, 80_000, 160_000];
        let found: Vec<usize> = shares.into_iter().map(&mut count).collect();
        assert!(found.is_sorted() && found[0] == 0, "{found:?}");
        assert_eq!(count(1 << 20), 4);
    }

    #[test]
    fn programs_in_perl_ruby_and_node_are_followed_too() {
        let tree = tree(&[
            ("srv/app/x.pl", "use lib 'lib';\nuse Own::Part;\nuse Shared;\n"),
            ("srv/app/lib/Own/Part.pm", ""),
            ("usr/share/perl5/Shared.pm", "use Own::Part;"),
            ("srv/app/x.rb", "require_relative 'lib/y'\nrequire 'shared'\n"),
            ("srv/app/lib/y.rb", ""),
            ("usr/lib/ruby/vendor_ruby/shared.rb", ""),
            ("srv/app/x.js", "const y = require('./lib/y');\nconst s = require('shared/sub');\n"),
            ("srv/app/lib/y.js", "require('../x')"),
            ("usr/share/nodejs/shared/package.json", "{}"),
        ]);
        assert_eq!(
            files(tree.path(), Language::Perl, "perl -I lib x.pl"),
            ["/srv/app/lib/Own/Part.pm", "/srv/app/x.pl", "/usr/share/perl5/Shared.pm"]
        );
        assert_eq!(
            files(tree.path(), Language::Ruby, "ruby x.rb"),
            ["/srv/app/lib/y.rb", "/srv/app/x.rb", "/usr/lib/ruby/vendor_ruby/shared.rb"]
        );
        assert_eq!(
            files(tree.path(), Language::Node, "node x.js"),
            ["/srv/app/lib/y.js", "/srv/app/x.js", "/usr/share/nodejs/shared/package.json"]
        );
    }
}
