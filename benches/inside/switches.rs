//! Switches by the daemon's own code, under readers of the tree.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use apt_ostree::host::mounts::KernelMounts;
use apt_ostree::host::paths;
use apt_ostree::host::programs::Program;
use apt_ostree_actors::port::{Mounts as _, TreeIdentity};
use apt_ostree_proto::TransactionId;
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

/// Two trees to switch to and fro between.
const TREES: [TransactionId; 2] = [TransactionId(900_001), TransactionId(900_002)];
/// Switches of one number each, beside the trees'.
const FIRST: u64 = 910_000;
/// Both files say which tree they belong to.
const DIRECTORY: &str = "/usr/share/bench";
const TWINS: [&str; 2] = ["one", "two"];
/// What a reader opens by its path; every tree has them.
const PATHS: [&str; 4] =
    ["/usr/share/bench/one", "/usr/bin/true", "/usr/lib/os-release", "/usr/sbin/nginx"];

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(in super::super) struct Switches {
    /// The step that other processes can see, in microseconds, for each switch.
    pub(in super::super) steps_microseconds: Vec<f64>,
    pub(in super::super) opens: u64,
    pub(in super::super) missing: u64,
    pub(in super::super) executions: u64,
    pub(in super::super) failed_executions: u64,
    pub(in super::super) comparisons: u64,
    pub(in super::super) mixed: u64,
}

/// Switches `count` times, each with all that the daemon does around it: the pinned namespace, the
/// guard, and the collapse.
pub(super) fn run(count: u64) -> Result<Switches> {
    make_trees()?;
    let trees = [identity(TREES[0])?, identity(TREES[1])?];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let rescue = Program::open(std::path::Path::new(paths::RESCUE), "apt-ostree-rescue")?;
    let mounts = KernelMounts::new(rescue);
    let readers = runtime.block_on(async {
        // The deployment's own tree has no twins.
        mounts.switch(&trees[1]).await?;
        anyhow::Ok(Readers::start())
    })?;
    let steps: Result<Vec<f64>> = runtime.block_on(async {
        let mut steps = Vec::new();
        for number in 0..count {
            let transaction = TransactionId(FIRST + number);
            let tree = &trees[usize::from(number % 2 == 1)];
            mounts.prepare(transaction, tree).await?;
            let reply = mounts.switch_measured(tree).await?;
            ensure!(reply.changed, "switch {number} did nothing");
            #[expect(clippy::cast_precision_loss, reason = "far below a second")]
            steps.push(reply.step_nanos as f64 / 1000.0);
            mounts.stand_down(transaction).await?;
            mounts.collapse(transaction).await?;
        }
        Ok(steps)
    });
    let mut seen = readers.stop()?;
    seen.steps_microseconds = steps?;
    Ok(seen)
}

fn make_trees() -> Result<()> {
    let mut script = "mount -o remount,bind,rw /sysroot\n".to_owned();
    for id in TREES {
        let tree = paths::checkout(id);
        let (live, tree) = (paths::live(id), tree.display());
        let make_tree = format!(
            "mkdir -p {live}
            ostree checkout -H --repo={repo} $(ostree rev-parse --repo={repo} debian/test/host) {tree}
            mkdir {tree}/usr/share/bench
            echo {id} > {tree}/usr/share/bench/one
            echo {id} > {tree}/usr/share/bench/two\n",
            live = live.display(),
            repo = paths::REPOSITORY,
        );
        script.push_str(&make_tree);
    }
    let made = Command::new("unshare").args(["--mount", "sh", "-ec", &script]).status()?;
    ensure!(made.success(), "the trees cannot be made");
    Ok(())
}

fn identity(id: TransactionId) -> Result<TreeIdentity> {
    let path = paths::checkout(id).join("usr");
    let status = std::fs::metadata(&path)?;
    Ok(TreeIdentity { path, device: status.dev(), inode: status.ino() })
}

/// Threads that read until they are told to stop.
struct Readers {
    stopped: Arc<AtomicBool>,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    opens: AtomicU64,
    missing: AtomicU64,
    executions: AtomicU64,
    failed_executions: AtomicU64,
    comparisons: AtomicU64,
    mixed: AtomicU64,
}

impl Readers {
    fn start() -> Self {
        let (stopped, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let works: [fn(&Counts); 3] = [open_paths, compare_twins, execute];
        let threads = works.map(|work| {
            let (stopped, counts) = (Arc::clone(&stopped), Arc::clone(&counts));
            thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    work(&counts);
                }
            })
        });
        Self { stopped, counts, threads: threads.into() }
    }

    fn stop(self) -> Result<Switches> {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok().context("a reader panicked")?;
        }
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(Switches {
            steps_microseconds: Vec::new(),
            opens: read(&self.counts.opens),
            missing: read(&self.counts.missing),
            executions: read(&self.counts.executions),
            failed_executions: read(&self.counts.failed_executions),
            comparisons: read(&self.counts.comparisons),
            mixed: read(&self.counts.mixed),
        })
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

fn open_paths(counts: &Counts) {
    for path in PATHS {
        add(&counts.opens);
        if File::open(path).is_err() {
            add(&counts.missing);
        }
    }
}

/// One directory handle shows one tree, whatever is mounted meanwhile.
fn compare_twins(counts: &Counts) {
    add(&counts.comparisons);
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::openat(CWD, DIRECTORY, flags, Mode::empty()) else {
        return add(&counts.missing);
    };
    let read = |name| -> std::io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&directory, name, flags, Mode::empty())?);
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    };
    match TWINS.map(read) {
        [Ok(one), Ok(two)] if one == two => {}
        [Ok(_), Ok(_)] => add(&counts.mixed),
        _ => add(&counts.missing),
    }
}

fn execute(counts: &Counts) {
    add(&counts.executions);
    let ended = Command::new("/usr/bin/true").stdin(Stdio::null()).status();
    if !ended.is_ok_and(|status| status.success()) {
        add(&counts.failed_executions);
    }
}
