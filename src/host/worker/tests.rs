use apt_ostree_actors::context::{Report, Reporter};
use apt_ostree_proto::TransactionId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::PidfdFlags;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::*;

fn context() -> (StepContext, UnboundedReceiver<Report>) {
    let (report, reports) = Reporter::channel();
    let cancel = CancellationToken::new();
    (StepContext { transaction: TransactionId(1), cancel, report }, reports)
}

async fn converse_with(script: &str, context: &StepContext) -> PortResult<String> {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(script);
    converse(command, "test", &"the request", context).await
}

#[tokio::test]
async fn a_worker_gets_its_request_reports_and_answers() {
    let (context, mut reports) = context();
    let script = r#"read -r line; [ "$line" = '"the request"' ] || exit 3
        echo '{"log":"one line"}'; echo '{"item":["nginx","unpacking",7]}'; echo '{"fraction":0.5}'
        echo '{"answer":"done"}'"#;
    assert_eq!(converse_with(script, &context).await.unwrap(), "done");
    assert_eq!(reports.recv().await, Some(Report::Log("one line".to_owned())));
    let item = Report::Item { item: "nginx".to_owned(), status: "unpacking", percentage: 7 };
    assert_eq!(reports.recv().await, Some(item));
    assert_eq!(reports.recv().await, Some(Report::Fraction(0.5)));
}

#[tokio::test]
async fn a_crash_names_the_signal_and_the_last_words() {
    let (context, _reports) = context();
    let failure =
        converse_with("echo 'assertion failed' >&2; kill -SEGV $$", &context).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Internal);
    assert!(failure.message.contains("SIGSEGV"), "{}", failure.message);
    assert!(failure.message.contains("assertion failed"), "{}", failure.message);
}

#[tokio::test]
async fn nonsense_is_a_failure() {
    let (context, _reports) = context();
    for script in ["echo nonsense", "echo '{\"answer\":7}'", "exit 1", "true"] {
        let failure = converse_with(script, &context).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Internal, "{script}");
    }
}

#[tokio::test]
async fn a_failure_of_the_worker_is_passed_on() {
    let (context, _reports) = context();
    let sent = Failure::new(ErrorCode::Untrusted, "no signature").with_kept("all lists");
    let line = serde_json::to_string(&Line::<()>::Failure(sent.clone())).unwrap();
    let got = converse_with(&format!("cat >/dev/null; echo '{line}'; exit 1"), &context).await;
    assert_eq!(got.unwrap_err(), sent);
}

#[tokio::test]
async fn a_cancelled_worker_is_gone_with_its_children() {
    let (context, mut reports) = context();
    let cancel = context.cancel.clone();
    let script = r#"sleep 1000 & printf '{"log":"%s"}\n' "$!"; wait"#;
    let run = converse_with(script, &context);
    let watch = async {
        let Some(Report::Log(pid)) = reports.recv().await else { panic!("no report") };
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        cancel.cancel();
        process
    };
    let (result, process) = tokio::join!(run, watch);
    assert_eq!(result.unwrap_err().code, ErrorCode::Cancelled);
    // A pidfd is readable when its process has ended.
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut descriptors = [PollFd::new(&process, PollFlags::IN)];
    assert_eq!(poll(&mut descriptors, Some(&limit)).unwrap(), 1);
}

#[tokio::test]
async fn a_line_without_end_is_refused() {
    let mut reader = BufReader::new(tokio::io::repeat(b'x'));
    let failure = read_line(&mut reader, &mut Vec::new()).await.unwrap_err();
    assert!(failure.message.contains("no end"));
}
