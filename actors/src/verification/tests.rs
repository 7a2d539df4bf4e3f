use std::path::Path;

use apt_ostree_proto::id::Architecture;
use apt_ostree_proto::package::{Action, Origin, PackageFile, UpdateClass};
use apt_ostree_proto::{PackageName, TransactionId, Version};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Report, Reporter};

/// Answers with given contents.
#[derive(Debug)]
struct Reads(PortResult<ArchiveContents>);

#[async_trait(?Send)]
impl Archive for Reads {
    async fn inspect(&self, _: &Path, _: &StepContext) -> PortResult<ArchiveContents> {
        self.0.clone()
    }
}

fn digest(digit: &str) -> Sha256 {
    Sha256::parse(digit.repeat(64)).unwrap()
}

fn change() -> PackageChange {
    PackageChange {
        name: PackageName::parse("hello").unwrap(),
        architecture: Architecture::parse("amd64").unwrap(),
        action: Action::Upgrade,
        old_version: None,
        new_version: Some(Version::parse("1:2.10-3").unwrap()),
        source: "hello".to_owned(),
        automatic: false,
        origin: Origin { trusted: true, site: "mirror".to_owned(), ..Origin::default() },
        installed_growth_bytes: 0,
        class: UpdateClass::Live,
        class_reason: None,
        file: Some(PackageFile {
            uris: vec![],
            cache_name: "hello_1%3a2.10-3_amd64.deb".to_owned(),
            sha256: digest("a"),
            size_bytes: 10,
        }),
    }
}

fn contents() -> ArchiveContents {
    ArchiveContents {
        sha256: digest("a"),
        size_bytes: 10,
        package: "hello".to_owned(),
        version: "1:2.10-3".to_owned(),
        architecture: "amd64".to_owned(),
        forbidden: vec![],
    }
}

fn verify(
    change: PackageChange,
    contents: PortResult<ArchiveContents>,
    digest: Option<Sha256>,
) -> (PortResult<()>, Vec<Report>) {
    actix::System::new().block_on(async move {
        let (report, mut reports) = Reporter::channel();
        let cancel = CancellationToken::new();
        let context = StepContext { transaction: TransactionId(1), cancel, report };
        let actor = VerificationActor::new(Rc::new(Reads(contents))).start();
        let request = VerifyPackage { change, path: PathBuf::from("/x.deb"), digest, context };
        let outcome = actor.send(request).await.unwrap();
        let mut seen = Vec::new();
        while let Ok(report) = reports.try_recv() {
            seen.push(report);
        }
        (outcome, seen)
    })
}

#[test]
fn a_package_that_is_what_the_plan_says_is_verified_and_reported() {
    let (outcome, reports) = verify(change(), Ok(contents()), Some(digest("a")));
    outcome.unwrap();
    let item = "hello".to_owned();
    assert_eq!(reports.last(), Some(&Report::Item { item, status: "verified", percentage: 100 }));
}

#[test]
fn each_difference_from_the_plan_is_named_with_both_values() {
    type Alter = fn(&mut ArchiveContents);
    let cases: [(Alter, &str, &str); 5] = [
        (|c| c.size_bytes = 11, "\"11\"", "\"10\""),
        (|c| c.sha256 = digest("b"), "bbbb", "aaaa"),
        (|c| c.package = "hell\u{1b}o".to_owned(), "\"hell\\u{1b}o\"", "\"hello\""),
        (|c| c.version = "2.10-3".to_owned(), "\"2.10-3\"", "\"1:2.10-3\""),
        (|c| c.architecture = "arm64".to_owned(), "\"arm64\"", "\"amd64\""),
    ];
    for (alter, found, expected) in cases {
        let mut altered = contents();
        alter(&mut altered);
        let failure = verify(change(), Ok(altered), None).0.unwrap_err();
        assert_eq!(failure.code, ErrorCode::VerificationFailed);
        for part in ["package hello", found, expected] {
            assert!(failure.message.contains(part), "{failure}");
        }
    }
}

#[test]
fn forbidden_members_make_a_package_unsupported() {
    let forbidden = vec!["\"opt/x\": outside".to_owned(), "\"dev/x\": a device".to_owned()];
    let failure = verify(change(), Ok(ArchiveContents { forbidden, ..contents() }), None).0;
    let failure = failure.unwrap_err();
    assert_eq!(failure.code, ErrorCode::UnsupportedPackage);
    assert!(failure.message.contains("opt/x") && failure.message.contains("dev/x"), "{failure}");
}

#[test]
fn an_untrusted_origin_and_another_digest_are_refused_before_the_file_is_read() {
    let unread = || Err(Failure::new(ErrorCode::Internal, "it was read"));
    let mut untrusted = change();
    untrusted.origin.trusted = false;
    let failure = verify(untrusted, unread(), None).0.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Untrusted);
    let failure = verify(change(), unread(), Some(digest("b"))).0.unwrap_err();
    assert_eq!(failure.code, ErrorCode::VerificationFailed);
}

#[test]
fn a_failure_to_read_names_the_package() {
    let failure = Failure::new(ErrorCode::VerificationFailed, "it is cut short");
    let failure = verify(change(), Err(failure), None).0.unwrap_err();
    assert_eq!(failure.message, "the package hello: it is cut short");
}
