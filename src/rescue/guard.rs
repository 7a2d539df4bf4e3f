//! The guard: runs from before a switch until health is good, or until the update was confirmed. If
//! nobody stands it down in time, it takes the new tree off `/usr` by itself; nothing that it needs for
//! that is in `/usr`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::MemfdFlags;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::Tree;
use crate::namespace::{self, HostNamespace};
use crate::reply::{Reply, Tried, Trouble};
use crate::switch;

/// What `stand_down` says, and what it hears.
const STAND_DOWN: &str = "stand down\n";
const UNDERSTOOD: &[u8] = b"understood\n";
/// What `extend` says, with two numbers behind it.
const UNTIL: &str = "until";
/// The longest line that means something: two numbers of 64 bits.
const LONGEST_LINE: u64 = 64;
/// Who puts a host back in better order than the guard can.
const DAEMON: &str = "apt-ostreed.service";
/// How long either side waits for the other's few bytes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Marks the environment of the copy that runs from memory, so that it does not copy itself again.
const IN_MEMORY: &str = "APT_OSTREE_RESCUE_IN_MEMORY";

/// How long a guard watches, in seconds of `CLOCK_BOOTTIME`, which goes on during suspend, and no one
/// can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watch {
    /// When it has the daemon started, which knows what to do; none: nobody has to be called.
    pub(crate) call: Option<u64>,
    /// When it takes the tree off by itself.
    pub(crate) deadline: u64,
}

impl Watch {
    /// When there is something to do next.
    fn next(self) -> u64 {
        self.call.unwrap_or(self.deadline)
    }
}

/// Waits at `socket` until it is stood down or its watch is over; then takes `tree` off.
pub(crate) fn guard(tree: &Tree, watch: Watch, socket: &Path) -> Result<Reply, Trouble> {
    move_to_memory()?;
    HostNamespace::enter()?;
    let timer = timer(watch.next())?;
    let listener = listen(socket)?;
    notify_ready()?;
    let stood_down = watch_over(watch, timer, &listener);
    // Whatever went wrong with waiting: only an explicit word keeps the tree.
    let reply = match stood_down {
        Ok(true) => Reply::unchanged(namespace::stack()?.layers.len()),
        Ok(false) => fire(tree, "nobody said in time that the host is well")?,
        Err(trouble) => fire(tree, trouble.message())?,
    };
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).tried(|| format!("remove {}", socket.display()))
        }
        _ => Ok(reply),
    }
}

/// Tells a guard to stand down, and waits until it has understood. Does nothing without a guard.
pub(crate) fn stand_down(socket: &Path) -> Result<Reply, Trouble> {
    tell(socket, STAND_DOWN)
}

/// Tells a guard how long to watch from now on, and waits until it has understood. Changes nothing
/// without a guard.
pub(crate) fn extend(watch: Watch, socket: &Path) -> Result<Reply, Trouble> {
    let Watch { call, deadline } = watch;
    tell(socket, &format!("{UNTIL} {} {deadline}\n", call.unwrap_or(deadline)))
}

fn tell(socket: &Path, word: &str) -> Result<Reply, Trouble> {
    let what = || format!("tell the guard {:?}", word.trim_end());
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Ok(Reply::default());
        }
        Err(error) => return Err(error).tried(what),
    };
    let mut answer = [0; UNDERSTOOD.len()];
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(word.as_bytes()))
        .and_then(|()| stream.read_exact(&mut answer))
        .tried(what)?;
    if answer == UNDERSTOOD {
        Ok(Reply { changed: true, ..Reply::default() })
    } else {
        Err(Trouble::switch("the guard answered something else"))
    }
}

/// Runs this program again from a copy in memory: whatever becomes of `/usr` and of the file that it
/// was started from, its pages stay. `/run` would not do, for it may be mounted `noexec`.
fn move_to_memory() -> Result<(), Trouble> {
    if std::env::var_os(IN_MEMORY).is_some() {
        return Ok(());
    }
    let program = std::fs::read("/proc/self/exe").tried(|| "read the program".to_owned())?;
    let copy = rustix::fs::memfd_create("apt-ostree-rescue", MemfdFlags::empty())
        .tried(|| "make a file in memory".to_owned())?;
    std::fs::File::from(copy.try_clone().tried(|| "copy a descriptor".to_owned())?)
        .write_all(&program)
        .tried(|| "copy the program to memory".to_owned())?;
    let error = Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd()))
        .args(std::env::args_os().skip(1))
        .env(IN_MEMORY, "1")
        .exec();
    Err(error).tried(|| "run the copy in memory".to_owned())
}

fn timer(deadline: u64) -> Result<OwnedFd, Trouble> {
    let what = || "set the guard's timer".to_owned();
    let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)
        .tried(what)?;
    let value = Timespec { tv_sec: i64::try_from(deadline).tried(what)?, tv_nsec: 1 };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME, &once).tried(what)?;
    Ok(timer)
}

fn listen(socket: &Path) -> Result<UnixListener, Trouble> {
    if let Some(directory) = socket.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .tried(|| format!("make {}", directory.display()))?;
    }
    // A guard that was killed leaves its socket behind.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).tried(|| format!("remove {}", socket.display()));
        }
        _ => {}
    }
    UnixListener::bind(socket).tried(|| format!("listen at {}", socket.display()))
}

/// Tells the service manager that the switch may go on: `sd_notify(3)`, by hand.
fn notify_ready() -> Result<(), Trouble> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;

    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let what = || "tell the service manager that the guard is ready".to_owned();
    let socket = UnixDatagram::unbound().tried(what)?;
    address.and_then(|address| socket.send_to_addr(b"READY=1", &address)).tried(what)?;
    Ok(())
}

/// Whether it was stood down; false when the time was up first.
fn watch_over(
    mut watch: Watch,
    mut armed: OwnedFd,
    listener: &UnixListener,
) -> Result<bool, Trouble> {
    loop {
        match wait(&armed, listener)? {
            Some(Word::StandDown) => return Ok(true),
            Some(Word::Until(longer)) => watch = longer,
            None if watch.call.take().is_some() => call_the_daemon(),
            None => return Ok(false),
        }
        armed = timer(watch.next())?;
    }
}

/// What the guard is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    StandDown,
    Until(Watch),
}

impl Word {
    fn parse(line: &str) -> Option<Self> {
        if line == STAND_DOWN {
            return Some(Self::StandDown);
        }
        let numbers = line.strip_suffix('\n')?.strip_prefix(UNTIL)?.strip_prefix(' ')?;
        let (call, deadline) = numbers.split_once(' ')?;
        let (call, deadline) = (call.parse().ok()?, deadline.parse().ok()?);
        (call <= deadline).then_some(Self::Until(Watch { call: Some(call), deadline }))
    }
}

/// What it was told; none when the time was up first.
fn wait(timer: &OwnedFd, listener: &UnixListener) -> Result<Option<Word>, Trouble> {
    loop {
        let mut sources = [
            PollFd::from_borrowed_fd(timer.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut sources, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).tried(|| "wait".to_owned()),
        }
        if sources[1].revents().contains(PollFlags::IN) {
            match hear(listener) {
                Ok(Some(word)) => return Ok(Some(word)),
                Ok(None) => {}
                // A caller that went away or said nothing changes nothing.
                Err(error) => eprintln!("a caller was not understood: {error}"),
            }
        }
        if sources[0].revents().contains(PollFlags::IN) {
            return Ok(None);
        }
    }
}

fn hear(listener: &UnixListener) -> std::io::Result<Option<Word>> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new((&stream).take(LONGEST_LINE)).read_line(&mut line)?;
    let Some(word) = Word::parse(&line) else { return Ok(None) };
    // The word counts, whether or not the caller still hears the answer.
    if let Err(error) = stream.write_all(UNDERSTOOD) {
        eprintln!("the caller went away: {error}");
    }
    Ok(Some(word))
}

/// Has the daemon started, if it does not run: it puts everything back, `/etc` and the services
/// included. Whether it does is not waited for: the deadline comes in any case.
fn call_the_daemon() {
    let mut command = Command::new("/usr/bin/systemctl");
    command.args(["start", "--no-block", DAEMON]).stdin(Stdio::null());
    // What it leaves is taken by process 1 when the guard ends, which is soon.
    if let Err(error) = command.spawn() {
        eprintln!("{DAEMON} cannot be started: {error}");
    }
}

fn fire(tree: &Tree, why: &str) -> Result<Reply, Trouble> {
    let reply = switch::take_off(tree)?;
    let text = if reply.changed { "took it off /usr" } else { "it is not on /usr any more" };
    let line = format!("apt-ostree: {why}: {} was a live update; {text}\n", tree.path.display());
    eprint!("{line}");
    // The journal may not work any more when /usr is broken; the kernel's log does.
    if let Err(error) = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .and_then(|mut log| log.write_all(line.as_bytes()))
    {
        eprintln!("the kernel's log cannot be written: {error}");
    }
    // With the old tree it may work again; the rest of what was changed is its to put back.
    call_the_daemon();
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_words_are_understood() {
        let watch = Watch { call: Some(7), deadline: 90 };
        assert_eq!(Word::parse("stand down\n"), Some(Word::StandDown));
        assert_eq!(Word::parse("until 7 90\n"), Some(Word::Until(watch)));
        let huge = format!("until {} {}\n", u64::MAX, u64::MAX);
        assert!(Word::parse(&huge).is_some() && huge.len() as u64 <= LONGEST_LINE);
        for word in ["", "stand down", "until 7 90", "until 90 7\n", "until 7\n", "until -1 9\n"] {
            assert_eq!(Word::parse(word), None, "{word:?}");
        }
    }
}
