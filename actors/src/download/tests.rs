//! Downloads from mirrors that follow a script, into a real directory. The clock is paused: pauses
//! and timeouts take no time.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use apt_ostree_proto::id::Architecture;
use apt_ostree_proto::package::{Action, Origin, PackageFile, UpdateClass};
use apt_ostree_proto::request::Selection;
use apt_ostree_proto::{CommitId, PackageName, TransactionId, UnitName, Version};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use sha2::Digest;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::port::{FetchError, FetchRequest, FetchResponse, Impact, Resolution};
use crate::{Report, Reporter};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// What a mirror does when it is asked.
#[derive(Clone, Debug)]
enum Act {
    /// Sends the file, from where it was asked if the validator matches.
    Send(Vec<u8>),
    /// Sends so many bytes, then breaks the connection.
    Break(Vec<u8>, usize),
    /// Sends so many bytes, then nothing any more.
    Stall(Vec<u8>, usize),
    /// Sends a byte in that time, again and again.
    Trickle(Vec<u8>, Duration),
    /// Never answers.
    Silence,
    /// Answers so.
    Status(u16, Option<u64>),
    /// Sends the file without telling its size.
    Unsized(Vec<u8>),
    /// Trips the request's token in the middle of the file.
    Cancel(Vec<u8>, CancellationToken),
}

/// Mirrors by URI. The last act is repeated.
#[derive(Debug, Default)]
struct Mirrors {
    acts: RefCell<BTreeMap<String, VecDeque<Act>>>,
    asked: RefCell<Vec<(FetchRequest, Instant)>>,
    validator: Option<String>,
    open: Rc<std::cell::Cell<usize>>,
    most_open: std::cell::Cell<usize>,
}

struct Open(Rc<std::cell::Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[async_trait(?Send)]
impl Http for Mirrors {
    async fn open(&self, request: &FetchRequest) -> Result<FetchResponse, FetchError> {
        self.asked.borrow_mut().push((request.clone(), Instant::now()));
        if !request.uri.starts_with("http") {
            return Err(FetchError::ForeignScheme { uri: request.uri.clone() });
        }
        let act = {
            let mut acts = self.acts.borrow_mut();
            let acts = acts.get_mut(&request.uri).unwrap();
            if acts.len() > 1 { acts.pop_front() } else { acts.front().cloned() }
        };
        self.open.set(self.open.get() + 1);
        self.most_open.set(self.most_open.get().max(self.open.get()));
        let guard = Open(Rc::clone(&self.open));
        let broken = || FetchError::Connection("reset".into());
        let (bytes, tail): (Vec<u8>, Vec<Result<Bytes, FetchError>>) = match act.clone().unwrap() {
            Act::Status(status, retry_after_seconds) if status >= 429 => {
                return Err(FetchError::Unavailable { status, retry_after_seconds });
            }
            Act::Status(status, _) => return Err(FetchError::Refused { status }),
            Act::Silence => std::future::pending().await,
            Act::Break(bytes, _) => (bytes, vec![Err(broken())]),
            Act::Send(bytes)
            | Act::Unsized(bytes)
            | Act::Cancel(bytes, _)
            | Act::Stall(bytes, _)
            | Act::Trickle(bytes, _) => (bytes, vec![]),
        };
        let total = bytes.len() as u64;
        let same = request.if_range == self.validator;
        let offset = if same && request.offset <= total { request.offset } else { 0 };
        let start = usize::try_from(offset).unwrap();
        let act = act.unwrap();
        let end = match &act {
            Act::Break(_, length) | Act::Stall(_, length) => (start + length).min(bytes.len()),
            Act::Cancel(..) => bytes.len() / 2,
            _ => bytes.len(),
        };
        let (size, pause) = match &act {
            Act::Trickle(_, pause) => (1, *pause),
            _ => (1000, Duration::from_millis(1)),
        };
        let chunks: Vec<_> = bytes[start..end]
            .chunks(size)
            .map(|c| Ok(Bytes::copy_from_slice(c)))
            .chain(tail)
            .collect();
        let chunks = stream::iter(chunks).then(move |chunk| async move {
            tokio::time::sleep(pause).await;
            chunk
        });
        let never = matches!(act, Act::Stall(..) | Act::Cancel(..));
        let cancel = match &act {
            Act::Cancel(_, token) => Some(token.clone()),
            _ => None,
        };
        let end = async move {
            if let Some(token) = cancel {
                token.cancel();
            }
            if never { std::future::pending().await } else { None }
        };
        let end = stream::once(end).filter_map(std::future::ready);
        let body = chunks.chain(end).inspect(move |_| {
            let _ = &guard;
        });
        let total_bytes = (!matches!(act, Act::Unsized(_))).then_some(total);
        let validator = self.validator.clone();
        Ok(FetchResponse { offset, total_bytes, validator, body: body.boxed_local() })
    }

    async fn configure(&self, _: &[String], _: &StepContext) -> PortResult<()> {
        Ok(())
    }
}

/// An apt that fetches by writing a file.
#[derive(Debug, Default)]
struct Apt {
    writes: RefCell<Option<(PathBuf, Vec<u8>)>>,
}

#[async_trait(?Send)]
impl Packages for Apt {
    async fn refresh(&self, _: &StepContext) -> PortResult<()> {
        unreachable!("downloads do not refresh")
    }
    async fn resolve(
        &self,
        _: &Selection,
        _: &[PackageName],
        _: &StepContext,
    ) -> PortResult<Resolution> {
        unreachable!("downloads do not resolve")
    }
    async fn difference(
        &self,
        _: &CommitId,
        _: &CommitId,
        _: &StepContext,
    ) -> PortResult<Vec<PackageChange>> {
        unreachable!("downloads do not compare")
    }
    async fn impact(&self, _: &[PackageChange]) -> PortResult<Impact> {
        unreachable!("downloads do not predict")
    }
    async fn lock_archives(&self) -> PortResult<()> {
        unreachable!("the caller holds the lock")
    }
    async fn unlock_archives(&self) -> PortResult<()> {
        unreachable!("the caller holds the lock")
    }
    async fn installed(&self) -> PortResult<BTreeMap<(String, String), String>> {
        unreachable!("downloads do not list")
    }
    async fn services_with(&self, _: &[PathBuf]) -> PortResult<BTreeMap<PathBuf, Vec<UnitName>>> {
        unreachable!("downloads have nothing to do with services")
    }
    async fn fetch_through_apt(&self, _: &PackageChange, _: &StepContext) -> PortResult<()> {
        if let Some((path, bytes)) = self.writes.borrow().as_ref() {
            std::fs::write(path, bytes).unwrap();
        }
        Ok(())
    }
}

struct Bench {
    directory: TempDir,
    http: Rc<Mirrors>,
    apt: Rc<Apt>,
    limits: Limits,
    cancel: CancellationToken,
    reports: Vec<Report>,
}

impl Bench {
    fn new(acts: &[(&str, Vec<Act>)]) -> Self {
        let acts =
            acts.iter().map(|(uri, acts)| ((*uri).to_owned(), acts.clone().into())).collect();
        let http = Mirrors {
            acts: RefCell::new(acts),
            validator: Some(DATE.to_owned()),
            ..Mirrors::default()
        };
        Self {
            directory: tempfile::tempdir().unwrap(),
            http: Rc::new(http),
            apt: Rc::default(),
            limits: Limits::default(),
            cancel: CancellationToken::new(),
            reports: Vec::new(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.path("partial").join(name)
    }

    async fn fetch(
        &mut self,
        changes: Vec<PackageChange>,
    ) -> (PortResult<DownloadSummary>, Vec<FinishedFile>) {
        let (report, mut reports) = Reporter::channel();
        let (finished, mut files) = mpsc::unbounded_channel();
        let context =
            StepContext { transaction: TransactionId(1), cancel: self.cancel.clone(), report };
        let archives = self.directory.path().to_owned();
        let request =
            DownloadPackages { changes, archives, limits: self.limits, context, finished };
        let http: Rc<dyn Http> = self.http.clone();
        let outcome = download_packages(http, self.apt.clone(), request).await;
        while let Some(Some(report)) = reports.recv().now_or_never() {
            self.reports.push(report);
        }
        let mut found = Vec::new();
        while let Some(file) = files.recv().await {
            found.push(file);
        }
        (outcome, found)
    }

    fn asked(&self) -> Vec<(String, u64)> {
        self.http.asked.borrow().iter().map(|(r, _)| (r.uri.clone(), r.offset)).collect()
    }
}

fn contents(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap() ^ seed).collect()
}

fn change(name: &str, uris: &[&str], bytes: &[u8]) -> PackageChange {
    PackageChange {
        name: PackageName::parse(name).unwrap(),
        architecture: Architecture::parse("all").unwrap(),
        action: Action::Upgrade,
        old_version: None,
        new_version: Some(Version::parse("1").unwrap()),
        source: name.to_owned(),
        automatic: false,
        origin: Origin::default(),
        installed_growth_bytes: 0,
        class: UpdateClass::Live,
        class_reason: None,
        file: Some(PackageFile {
            uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
            cache_name: format!("{name}.deb"),
            sha256: Sha256::parse(format!("{:x}", sha2::Sha256::digest(bytes))).unwrap(),
            size_bytes: bytes.len() as u64,
        }),
    }
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

const A: &str = "http://a/hello.deb";
const B: &str = "http://b/hello.deb";

/// One package from mirrors that act so; the bytes are what the index promises.
async fn fetch_hello(
    acts: &[(&str, Vec<Act>)],
    bytes: &[u8],
) -> (Bench, PortResult<DownloadSummary>) {
    let mut bench = Bench::new(acts);
    let uris: Vec<_> = acts.iter().map(|(uri, _)| *uri).collect();
    let (outcome, _) = bench.fetch(vec![change("hello", &uris, bytes)]).await;
    (bench, outcome)
}

#[tokio::test(start_paused = true)]
async fn files_arrive_whole_readable_and_in_apts_place() {
    let bytes = contents(1, 1_000_000);
    let (bench, outcome) = fetch_hello(&[(A, vec![Act::Send(bytes.clone())])], &bytes).await;
    let expected = DownloadSummary { files: 1, total_bytes: 1_000_000, cached_bytes: 0 };
    assert_eq!(outcome, Ok(expected));
    assert!(read(&bench.path("hello.deb")) == bytes);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bench.path("hello.deb")), 0o644);
    assert_eq!(mode(&bench.path("partial")), 0o700);
    assert!(!bench.partial("hello.deb").exists());
    let last = Report::Transfer { done_bytes: 1_000_000, total_bytes: 1_000_000 };
    assert!(bench.reports.contains(&last), "{:?}", bench.reports);
    let item = Report::Item { item: "hello".to_owned(), status: "downloaded", percentage: 100 };
    assert!(bench.reports.contains(&item));
}

#[tokio::test(start_paused = true)]
async fn sixteen_transfers_run_at_once_and_no_more() {
    let names: Vec<_> = (0..40).map(|n| format!("package{n}")).collect();
    let uris: Vec<_> = names.iter().map(|name| format!("http://a/{name}")).collect();
    let bytes = contents(2, 50_000);
    let acts: Vec<_> =
        uris.iter().map(|uri| (uri.as_str(), vec![Act::Send(bytes.clone())])).collect();
    let mut bench = Bench::new(&acts);
    let changes =
        names.iter().zip(&uris).map(|(name, uri)| change(name, &[uri], &bytes)).collect::<Vec<_>>();
    let (outcome, files) = bench.fetch(changes.clone()).await;
    assert_eq!((outcome.unwrap().files, files.len()), (40, 40));
    assert_eq!(bench.http.most_open.get(), 16);
    // Again: nothing is asked for, everything comes from the cache.
    bench.http.asked.borrow_mut().clear();
    let (outcome, _) = bench.fetch(changes).await;
    assert_eq!(outcome.unwrap().cached_bytes, 40 * 50_000);
    assert_eq!(bench.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn a_broken_transfer_goes_on_where_it_ended() {
    let bytes = contents(3, 900_000);
    let acts = vec![
        Act::Break(bytes.clone(), 400_000),
        Act::Break(bytes.clone(), 300_000),
        Act::Send(bytes.clone()),
    ];
    let (bench, outcome) = fetch_hello(&[(A, acts)], &bytes).await;
    assert_eq!(outcome.unwrap().files, 1);
    assert!(read(&bench.path("hello.deb")) == bytes);
    let offsets: Vec<_> = bench.asked().into_iter().map(|(_, offset)| offset).collect();
    assert_eq!(offsets, [0, 400_000, 700_000]);
    let asked = bench.http.asked.borrow();
    assert_eq!(asked[1].0.if_range.as_deref(), Some(DATE));
}

#[tokio::test(start_paused = true)]
async fn a_partial_file_of_apt_is_resumed_by_its_time() {
    let bytes = contents(4, 100_000);
    let mut bench = Bench::new(&[(A, vec![Act::Send(bytes.clone())])]);
    std::fs::create_dir(bench.path("partial")).unwrap();
    std::fs::write(bench.partial("hello.deb"), &bytes[..60_000]).unwrap();
    let time = httpdate::parse_http_date(DATE).unwrap();
    std::fs::File::options()
        .append(true)
        .open(bench.partial("hello.deb"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let (outcome, files) = bench.fetch(vec![change("hello", &[A], &bytes)]).await;
    assert_eq!(outcome.unwrap().cached_bytes, 60_000);
    assert_eq!(files[0].cached_bytes, 60_000);
    assert_eq!(bench.asked(), [(A.to_owned(), 60_000)]);
    assert!(read(&bench.path("hello.deb")) == bytes);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changed_on_the_server_is_fetched_from_its_beginning() {
    let bytes = contents(5, 100_000);
    let mut bench = Bench::new(&[(A, vec![Act::Send(bytes.clone())])]);
    std::fs::create_dir(bench.path("partial")).unwrap();
    // Its time is now, which is not the server's.
    std::fs::write(bench.partial("hello.deb"), contents(9, 60_000)).unwrap();
    let (outcome, _) = bench.fetch(vec![change("hello", &[A], &bytes)]).await;
    assert_eq!(outcome.unwrap().cached_bytes, 0);
    assert_eq!(bench.asked().len(), 1);
    assert!(read(&bench.path("hello.deb")) == bytes);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_prefix_is_dropped_and_the_file_fetched_anew() {
    let bytes = contents(6, 100_000);
    for length in [60_000, 100_000, 200_000] {
        let mut bench = Bench::new(&[(A, vec![Act::Send(bytes.clone())])]);
        std::fs::create_dir(bench.path("partial")).unwrap();
        std::fs::write(bench.partial("hello.deb"), contents(9, length)).unwrap();
        let time = httpdate::parse_http_date(DATE).unwrap();
        std::fs::File::options()
            .append(true)
            .open(bench.partial("hello.deb"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        let (outcome, _) = bench.fetch(vec![change("hello", &[A], &bytes)]).await;
        assert_eq!(outcome.unwrap().cached_bytes, 0, "{length}");
        assert_eq!(bench.asked().last(), Some(&(A.to_owned(), 0)));
        assert!(read(&bench.path("hello.deb")) == bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_cached_file_is_replaced() {
    let bytes = contents(7, 1000);
    for wrong in [contents(8, 1000), contents(7, 10)] {
        let mut bench = Bench::new(&[(A, vec![Act::Send(bytes.clone())])]);
        std::fs::write(bench.path("hello.deb"), wrong).unwrap();
        let (outcome, _) = bench.fetch(vec![change("hello", &[A], &bytes)]).await;
        assert_eq!(outcome.unwrap().cached_bytes, 0);
        assert!(read(&bench.path("hello.deb")) == bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_mirror_without_the_file_is_left_at_once_for_the_next() {
    let bytes = contents(10, 1000);
    let acts = [(A, vec![Act::Status(404, None)]), (B, vec![Act::Send(bytes.clone())])];
    let begun = Instant::now();
    let (bench, outcome) = fetch_hello(&acts, &bytes).await;
    assert_eq!(outcome.unwrap().files, 1);
    assert_eq!(bench.asked(), [(A.to_owned(), 0), (B.to_owned(), 0)]);
    assert!(begun.elapsed() < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_mirror_is_asked_again_when_it_wants() {
    let bytes = contents(11, 1000);
    let acts = vec![Act::Status(503, Some(7)), Act::Status(503, None), Act::Send(bytes.clone())];
    let (bench, outcome) = fetch_hello(&[(A, acts)], &bytes).await;
    assert_eq!(outcome.unwrap().files, 1);
    let asked = bench.http.asked.borrow();
    let pauses: Vec<_> = asked.windows(2).map(|pair| (pair[1].1 - pair[0].1).as_millis()).collect();
    assert!((7000..7100).contains(&pauses[0]) && (500..1100).contains(&pauses[1]), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn stalled_silent_and_slow_mirrors_are_left_and_what_came_is_kept() {
    let bytes = contents(12, 20_000);
    for (act, offset) in [
        (Act::Stall(bytes.clone(), 8_000), 8_000),
        (Act::Silence, 0),
        (Act::Trickle(bytes.clone(), Duration::from_secs(1)), 30),
    ] {
        let acts = [(A, vec![act]), (B, vec![Act::Send(bytes.clone())])];
        let begun = Instant::now();
        let (bench, outcome) = fetch_hello(&acts, &bytes).await;
        assert_eq!(outcome.unwrap().files, 1);
        assert_eq!(bench.asked(), [(A.to_owned(), 0), (B.to_owned(), offset)]);
        assert!(begun.elapsed() < Duration::from_secs(32), "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_names_every_mirrors_own_and_comes_in_bounded_time() {
    let bytes = contents(13, 1000);
    let acts = [
        ("http://user:secret@a/hello.deb", vec![Act::Status(404, None)]),
        (B, vec![Act::Status(500, None)]),
        ("http://c/hello.deb", vec![Act::Break(bytes.clone(), 0)]),
    ];
    let begun = Instant::now();
    let (bench, outcome) = fetch_hello(&acts, &bytes).await;
    let failure = outcome.unwrap_err();
    assert_eq!(failure.code, ErrorCode::DownloadFailed);
    for part in [
        "hello",
        "http://a/hello.deb: the server answered 404",
        "http://b/",
        "500",
        "http://c/",
        "reset",
    ] {
        assert!(failure.message.contains(part), "{failure}");
    }
    assert!(!failure.message.contains("secret"));
    assert_eq!(bench.asked().len(), 1 + 5 + 5);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn another_file_than_the_index_promises_fails_verification_and_is_removed() {
    let bytes = contents(14, 1000);
    for (act, part) in [
        (Act::Send(contents(15, 1000)), "its SHA-256 is"),
        (Act::Send(contents(14, 1001)), "its size is 1001 bytes, not 1000"),
        (Act::Send(contents(14, 999)), "999 bytes, not 1000"),
        (Act::Unsized(contents(14, 1001)), "longer than 1000 bytes"),
        (Act::Unsized(contents(14, 9000)), "longer than 1000 bytes"),
    ] {
        let (bench, outcome) = fetch_hello(&[(A, vec![act])], &bytes).await;
        let failure = outcome.unwrap_err();
        assert_eq!(failure.code, ErrorCode::VerificationFailed, "{failure}");
        assert!(failure.message.contains(part) && failure.message.contains("hello"), "{failure}");
        assert_eq!(bench.asked().len(), 1);
        assert!(!bench.path("hello.deb").exists() && !bench.partial("hello.deb").exists());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_in_the_middle_leaves_a_partial_file_that_is_resumed() {
    let bytes = contents(16, 600_000);
    let mut bench = Bench::new(&[]);
    let act = Act::Cancel(bytes.clone(), bench.cancel.clone());
    bench.http.acts.borrow_mut().insert(A.to_owned(), vec![act, Act::Send(bytes.clone())].into());
    let changes = vec![change("hello", &[A], &bytes)];
    let failure = bench.fetch(changes.clone()).await.0.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Cancelled);
    assert!(read(&bench.partial("hello.deb")) == bytes[..300_000]);
    bench.cancel = CancellationToken::new();
    let (outcome, _) = bench.fetch(changes).await;
    assert_eq!(outcome.unwrap().cached_bytes, 300_000);
    assert!(read(&bench.path("hello.deb")) == bytes);
}

#[tokio::test(start_paused = true)]
async fn one_failure_ends_the_other_transfers_and_keeps_what_they_have() {
    let bytes = contents(17, 500_000);
    let lost = contents(18, 1000);
    let slow = "http://a/slow.deb";
    let mut bench = Bench::new(&[
        (slow, vec![Act::Stall(bytes.clone(), 100_000)]),
        (A, vec![Act::Status(503, None), Act::Status(404, None)]),
    ]);
    let changes = vec![change("slow", &[slow], &bytes), change("hello", &[A], &lost)];
    let failure = bench.fetch(changes).await.0.unwrap_err();
    assert!(failure.message.contains("hello"), "{failure}");
    assert!(read(&bench.partial("slow.deb")) == bytes[..100_000]);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_scheme_goes_through_apt_and_is_checked() {
    let bytes = contents(19, 1000);
    for (came, good) in [(bytes.clone(), true), (contents(20, 1000), false)] {
        let mut bench = Bench::new(&[]);
        bench.apt.writes.replace(Some((bench.path("hello.deb"), came)));
        let (outcome, _) = bench.fetch(vec![change("hello", &["ftp://a/hello.deb"], &bytes)]).await;
        assert_eq!(outcome.map_err(|failure| failure.code).is_ok(), good);
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_on_the_disk_is_refused_with_the_numbers() {
    let mut bench = Bench::new(&[(A, vec![Act::Silence])]);
    let mut huge = change("hello", &[A], b"x");
    huge.file.as_mut().unwrap().size_bytes = 1 << 60;
    let failure = bench.fetch(vec![huge]).await.0.unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoSpace);
    assert!(failure.message.contains("1152921504606846976 more bytes"), "{failure}");
    assert_eq!(bench.asked(), []);
}

#[tokio::test(start_paused = true)]
async fn links_and_pipes_in_the_partial_directory_are_replaced_not_followed() {
    let bytes = contents(21, 1000);
    let mut bench = Bench::new(&[(A, vec![Act::Send(bytes.clone())])]);
    std::fs::create_dir(bench.path("partial")).unwrap();
    std::fs::write(bench.path("victim"), "untouched").unwrap();
    std::os::unix::fs::symlink(bench.path("victim"), bench.partial("hello.deb")).unwrap();
    let changes = vec![change("hello", &[A], &bytes)];
    bench.fetch(changes.clone()).await.0.unwrap();
    std::fs::remove_file(bench.path("hello.deb")).unwrap();
    std::fs::hard_link(bench.path("victim"), bench.partial("hello.deb")).unwrap();
    bench.fetch(changes).await.0.unwrap();
    assert!(read(&bench.path("hello.deb")) == bytes);
    assert!(read(&bench.path("victim")) == b"untouched");
}

#[test]
fn the_actor_answers_other_requests_while_it_downloads() {
    actix::System::new().block_on(async {
        let bytes = contents(22, 1000);
        let bench = Bench::new(&[(A, vec![Act::Silence]), (B, vec![Act::Send(bytes.clone())])]);
        let actor = DownloadActor::new(bench.http.clone(), bench.apt.clone()).start();
        let request = |uri: &str, cancel: &CancellationToken| DownloadPackages {
            changes: vec![change(if uri == A { "stuck" } else { "hello" }, &[uri], &bytes)],
            archives: bench.directory.path().to_owned(),
            limits: Limits::default(),
            context: StepContext {
                transaction: TransactionId(1),
                cancel: cancel.clone(),
                report: Reporter::silent(),
            },
            finished: mpsc::unbounded_channel().0,
        };
        let stop = CancellationToken::new();
        let stuck = actor.send(request(A, &stop));
        let done = actor.send(request(B, &CancellationToken::new()));
        let ((), stuck) = futures_util::future::join(
            async {
                assert_eq!(done.await.unwrap().unwrap().files, 1);
                stop.cancel();
            },
            stuck,
        )
        .await;
        assert_eq!(stuck.unwrap().unwrap_err().code, ErrorCode::Cancelled);
    });
}
