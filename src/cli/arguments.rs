use clap::{Args, Parser, Subcommand};

/// Live updates for Debian hosts booted from OSTree.
#[derive(Clone, Debug, Parser)]
#[command(name = "apt-ostree", version, about, max_term_width = 100)]
#[command(after_help = "\
Exit status: 0 done; 1 failed, nothing changed; 2 usage; 3 failed or not confirmed, and rolled back; 4 applied
past a named risk; 5 not authorized; 6 stuck, see apt-ostree repair; 7 busy; 130 cancelled and rolled back.")]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// Print nothing but data and errors.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Print no progress.
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// A command.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show what is booted, what runs, what boots next, and what happens now
    Status(Status),
    /// Fetch the package lists and show what an update would do
    Check(Check),
    /// Change the running system
    ApplyLive(ApplyLive),
    /// Undo an update: the last one, or ID and everything later; or go back to a named point
    Rollback(Rollback),
    /// Name the state that runs now, or what update ID led to, so that it is kept; or list the names
    Point(Point),
    /// Show what differs between two states: packages, files, units
    Diff(Diff),
    /// Show what runs old code now, why, and what a restart would do
    Services(Services),
    /// Cancel the running transaction
    Cancel,
    /// Keep the update that waits for its confirmation
    Confirm,
    /// Put back what could not be undone, and mend what differs from the record
    Repair(Repair),
    /// List what was done
    History(History),
    /// Show one transaction: packages, units, times, and what the tools printed
    Show {
        /// The transaction's number, from `apt-ostree history`
        id: u64,
    },
    /// Follow the running transaction, and those to come, until interrupted
    Monitor,
    /// Look at the configuration
    #[command(subcommand)]
    Config(Config),
    /// Print a shell's completions
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(hide = true)]
    ManualPage,
}

/// `apt-ostree config`
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Config {
    /// Say what is wrong with the configuration and the hooks, with file and line; the exit status is 1
    /// when it cannot be used
    Check,
    /// Show the whole configuration as it is used, defaults included
    Show,
}

/// `apt-ostree status`
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// Compare files, mounts, deployments, packages and journal with the record, and list every drift;
    /// the exit status is 1 when there is any
    #[arg(long)]
    pub verify: bool,
}

/// `apt-ostree repair`
#[derive(Clone, Debug, Args)]
pub struct Repair {
    /// Show what would be mended and what is left, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `apt-ostree check`
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// Use the package lists that are there
    #[arg(long)]
    pub no_refresh: bool,
}

/// `apt-ostree apply-live`
#[derive(Clone, Debug, Args)]
pub struct ApplyLive {
    /// Upgrade only these packages, and what they then need
    #[arg(long, value_delimiter = ',', value_name = "A,B", conflicts_with = "target")]
    pub packages: Vec<String>,
    /// Install these packages
    #[arg(long, value_delimiter = ',', value_name = "A,B", conflicts_with = "target")]
    pub install: Vec<String>,
    /// Remove these packages
    #[arg(long, value_delimiter = ',', value_name = "A,B", conflicts_with = "target")]
    pub remove: Vec<String>,
    /// Also restart every other service that still runs replaced code
    #[arg(long)]
    pub restart_services: bool,
    /// Restart nothing
    #[arg(long, conflicts_with = "restart_services")]
    pub no_restart_services: bool,
    /// Leave out what cannot change live, instead of having it wait for the next boot
    #[arg(long)]
    pub live_only: bool,
    /// Have all of it take effect with the next boot: what runs is not touched
    #[arg(long, conflicts_with_all = ["live_only", "restart_services", "confirm_timeout"])]
    pub next_boot: bool,
    /// Switch to a commit that is in the repository, or to the deployment that waits for the next boot
    #[arg(long, value_name = "COMMIT|pending")]
    pub target: Option<String>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Go on past a named risk; never past a failed signature, hash or health check
    #[arg(long)]
    pub force: bool,
    /// Apply exactly this plan, from --dry-run, or refuse it as stale
    #[arg(long, value_name = "ID")]
    pub plan: Option<String>,
    /// Put everything back unless `apt-ostree confirm` comes within so many seconds: 5 to 86400, or 0
    /// for no confirmation
    #[arg(long, value_name = "SECONDS", conflicts_with = "dry_run")]
    pub confirm_timeout: Option<u32>,
    /// Use the package lists that are there
    #[arg(long)]
    pub no_refresh: bool,
    /// Exit with status 77 when there is nothing to do
    #[arg(long)]
    pub unchanged_exit_77: bool,
}

/// `apt-ostree rollback`
#[derive(Clone, Debug, Args)]
pub struct Rollback {
    /// The transaction to undo, with everything later, or the point to go back to; the last update
    /// when absent
    #[arg(value_name = "ID|NAME")]
    pub to: Option<String>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `apt-ostree point`
#[derive(Clone, Debug, Args)]
pub struct Point {
    /// The name
    pub name: Option<String>,
    /// The update whose result gets it; what runs now when absent
    pub id: Option<u64>,
    /// Remove this name: nothing is kept for it any more
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "id"])]
    pub remove: Option<String>,
}

/// `apt-ostree diff`
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A state is 'running', 'booted', 'next', an update's number (what it led to), a point's name, or a
commit: its 64 digits, or the first twelve of one that this host knows.")]
pub struct Diff {
    /// The one state
    pub old: String,
    /// The other
    #[arg(default_value = "running")]
    pub new: String,
}

/// `apt-ostree services`
#[derive(Clone, Copy, Debug, Args)]
pub struct Services {
    /// Restart what can be restarted, and watch it; what is left alone stays as it is
    #[arg(long, conflicts_with = "needrestart")]
    pub restart: bool,
    /// Print the lines of needrestart's batch mode, for monitoring plugins
    #[arg(long)]
    pub needrestart: bool,
}

/// `apt-ostree history`
#[derive(Clone, Debug, Args)]
pub struct History {
    /// How many to list; 1000 are kept
    #[arg(long, short, default_value_t = 20)]
    pub limit: u32,
}
