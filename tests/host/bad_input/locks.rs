//! Locks of other programs.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use super::{Bench, Refusal};
use crate::support::{Host, Repository};

/// A record lock of the process, as apt and dpkg take it.
const TAKE: &str = "fcntl.lockf(file, fcntl.LOCK_EX)";
/// A lock of the open file, as libostree takes it: `F_OFD_SETLK`, an exclusive one of all bytes.
const TAKE_FOR_OPEN_FILE: &str =
    "fcntl.fcntl(file, 37, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))";

/// A shell command that sees a writable `/usr` and `/sysroot`, alone.
pub(super) fn with_writable_usr(command: &str) -> String {
    format!(
        "unshare --mount sh -ec 'mount -o remount,rw /sysroot; mount -o remount,bind,rw /usr; exec {command}'"
    )
}

/// A process inside the host that has a lock until this is dropped.
#[derive(Debug)]
struct Holder(Child);

impl Holder {
    fn of(host: &Host, path: &str, take: &str) -> Self {
        let script = format!(
            "import fcntl,struct,sys;file=open(\"{path}\",\"a+\");{};print(\"held\",flush=True);sys.stdin.read()",
            take.replace('\'', "\"")
        );
        let holder =
            with_writable_usr(&format!("python3 -B -c \"{}\"", script.replace('"', "\\\"")));
        let mut command = host.command(["sh", "-ec", &holder]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("enter can be run");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is a pipe");
        BufReader::new(output).read_line(&mut line).expect("it can be read");
        assert_eq!(line, "held\n", "{path}");
        Self(child)
    }

    fn release(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("it is our child");
    }
}

#[test]
fn locks_that_others_hold_are_named_with_their_holder() {
    let bench = Bench::boot();
    bench.host.mirror().publish(&Repository::hello(2));
    // dpkg makes its lock files when it locks for the first time: part of the tree since then.
    bench.host.shell(&with_writable_usr("touch /var/lib/dpkg/lock /var/lib/dpkg/lock-frontend"));
    let before = bench.host.snapshot();
    for (path, take) in [
        ("/var/lib/apt/lists/lock", TAKE),
        ("/var/cache/apt/archives/lock", TAKE),
        ("/var/lib/dpkg/lock-frontend", TAKE),
        ("/var/lib/dpkg/lock", TAKE),
        ("/sysroot/ostree/lock", TAKE_FOR_OPEN_FILE),
    ] {
        let holder = Holder::of(&bench.host, path, take);
        let names = if path.contains("ostree") { ["OSTree", "lock"] } else { [path, "python3"] };
        // OSTree's is needed when packages are staged already: those are put back.
        let status = if path.contains("ostree") { 3 } else { 1 };
        let refusal = Refusal { status, ..Refusal::failed("Locked", &names, "Wait") };
        bench.refuses_from(path, &["apply-live", "--packages=hello-svc"], refusal, &before);
        if path.ends_with("lists/lock") {
            let (code, message) = bench.error_of_transaction(&["0"]);
            assert_eq!(code, "Locked");
            assert!(message.contains(path), "{message}");
        }
        holder.release();
    }
    // With nobody in the way it is done.
    bench.host.run(["apt-ostree", "apply-live", "--packages=hello-svc"]).success();
}
