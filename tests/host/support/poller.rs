//! A client that asks a service of the host all the time and counts what went wrong.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A service that takes longer has failed, for a person who waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// Close enough that a restart cannot slip through, far enough to leave the host its core.
const PAUSE: Duration = Duration::from_millis(2);

/// A running client; [`Poller::stop`] says what it saw.
#[derive(Debug)]
pub(crate) struct Poller {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<Polls>>,
}

/// What a client saw.
#[derive(Debug, Default, Clone)]
pub(crate) struct Polls {
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    /// The longest time from one answer to the next.
    pub(crate) longest_gap: Duration,
    /// Different bodies, in the order in which they came.
    pub(crate) bodies: Vec<String>,
}

impl Poller {
    pub(crate) fn start(network: &Path, port: u16) -> Self {
        let namespace = File::open(network).expect("the host runs");
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let thread = std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&namespace),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .expect("root may enter the host's network");
            poll_until(&stop, SocketAddr::from(([127, 0, 0, 1], port)))
        });
        Self { stopped, thread: Some(thread) }
    }

    /// Ends the client and returns what it saw.
    pub(crate) fn stop(mut self) -> Polls {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().expect("stopped once").join().expect("the client does not panic")
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn poll_until(stopped: &AtomicBool, address: SocketAddr) -> Polls {
    let mut polls = Polls::default();
    let mut last_answer = Instant::now();
    while !stopped.load(Ordering::Relaxed) {
        match ask(address) {
            Ok(body) => {
                polls.answered += 1;
                polls.longest_gap = polls.longest_gap.max(last_answer.elapsed());
                last_answer = Instant::now();
                if polls.bodies.last() != Some(&body) {
                    polls.bodies.push(body);
                }
            }
            Err(_) => polls.failed += 1,
        }
        std::thread::sleep(PAUSE);
    }
    polls
}

fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no header block"))?;
    if !head.contains(" 200 ") {
        return Err(std::io::Error::other(head.to_owned()));
    }
    Ok(body.trim().to_owned())
}
