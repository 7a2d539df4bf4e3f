//! The mirror: the test host's own, as a process.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long it may take until the mirror listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running mirror; it ends with this value.
pub(super) struct Mirror {
    process: Child,
    uri: String,
}

impl Mirror {
    /// Serves `root`, shaped by what `control` says at the time of each request.
    pub(super) fn start(root: &Path, control: &Path) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").context("run this through cargo bench")?;
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--release", "--example", "mirror"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()?;
        ensure!(built.success(), "the mirror cannot be built");
        let own = std::env::current_exe()?;
        let target = own.ancestors().nth(2).context("no target directory")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut process = Command::new(target.join("examples/mirror"))
            .args(["--listen", &format!("127.0.0.1:{port}"), "--root"])
            .arg(root)
            .arg("--control")
            .arg(control)
            .stdout(Stdio::piped())
            .spawn()
            .context("the mirror cannot be started")?;
        // Its log has to be read, or it would wait for us.
        let log = process.stdout.take().context("the mirror has no log")?;
        std::thread::spawn(move || BufReader::new(log).lines().for_each(drop));
        let mirror = Self { process, uri: format!("http://127.0.0.1:{port}/") };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > START_TIMEOUT {
                bail!("the mirror does not listen");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(mirror)
    }

    pub(super) fn uri(&self) -> &str {
        &self.uri
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            eprintln!("the mirror does not end: {error}");
        }
    }
}
