//! The worker's apt tasks against a scratch root. No root, no network.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails the test that calls it")]

mod scratch;

use apt_ostree::host::worker::tasks;
use apt_ostree::host::worker::transport::{Transport, TransportRequest};
use apt_ostree_actors::context::Report;
use apt_ostree_actors::port::Resolution;
use apt_ostree_proto::ErrorCode;
use apt_ostree_proto::package::Action;
use scratch::{Deb, Scratch, selection};

fn names(resolution: &Resolution) -> Vec<String> {
    resolution
        .changes
        .iter()
        .map(|change| {
            let version = change.new_version.as_ref().map_or("-", |version| version.as_str());
            format!("{:?} {} {version}", change.action, change.name)
        })
        .collect()
}

fn refused(resolution: &Resolution) -> Vec<String> {
    resolution
        .refused
        .iter()
        .map(|refusal| format!("{}: {}", refusal.subject, refusal.reason))
        .collect()
}

/// A host with a library and a daemon that needs it, and newer versions of both.
fn daemon_and_library() -> Scratch {
    Scratch::new(
        &[
            Deb::new("libthing1", "1.0", ""),
            Deb::new("thingd", "1:1.0", "Depends: libthing1 (>= 1.0)"),
            Deb::new("tool", "1", ""),
        ],
        &[
            Deb::new("libthing1", "1.1", "Source: thing (1.1-1)"),
            Deb::new("thingd", "1:1.1", "Depends: libthing1 (>= 1.1), newdep"),
            Deb::new("newdep", "1", ""),
            Deb::new("tool", "1", ""),
            Deb::new("extra", "1", "Depends: libthing1"),
        ],
    )
}

#[tokio::test]
async fn a_whole_upgrade_takes_new_versions_and_new_dependencies() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    let resolution = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    assert_eq!(
        names(&resolution),
        ["Upgrade libthing1 1.1", "Install newdep 1", "Upgrade thingd 1:1.1"]
    );
    let [library, new, daemon] = &resolution.changes[..] else { panic!("three") };
    assert_eq!((library.source.as_str(), new.automatic), ("thing", true));
    assert!(library.origin.trusted);
    assert_eq!(library.origin.codename, "bookworm");
    assert_eq!(new.installed_growth_bytes, 10 * 1024);
    let file = daemon.file.as_ref().unwrap();
    assert_eq!(file.cache_name, "thingd_1%3a1.1_amd64.deb");
    assert!(file.uris[0].starts_with("copy:") && file.size_bytes > 0, "{file:?}");
    assert!(resolution.refused.is_empty(), "{:?}", resolution.refused);
}

#[tokio::test]
async fn the_digest_of_the_inputs_changes_with_them_and_with_nothing_else() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    let inputs = async |chosen| scratch.resolve(chosen).await.unwrap().inputs.unwrap();
    let first = inputs(selection(&[], &[], &[])).await;
    scratch.refresh().await.unwrap();
    assert_eq!(inputs(selection(&[], &[], &[])).await, first);
    assert_ne!(inputs(selection(&["tool"], &[], &[])).await, first);
    scratch
        .write("etc/apt/preferences.d/pin", "Package: tool\nPin: version 1\nPin-Priority: 900\n");
    assert_ne!(inputs(selection(&[], &[], &[])).await, first);
}

#[tokio::test]
async fn single_packages_are_upgraded_with_what_they_then_need() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    let library = scratch.resolve(selection(&["libthing1"], &[], &[])).await.unwrap();
    assert_eq!(names(&library), ["Upgrade libthing1 1.1"]);
    let daemon = scratch.resolve(selection(&["thingd"], &[], &[])).await.unwrap();
    assert_eq!(
        names(&daemon),
        ["Upgrade libthing1 1.1", "Install newdep 1", "Upgrade thingd 1:1.1"]
    );
    let newest = scratch.resolve(selection(&["tool"], &[], &[])).await.unwrap();
    assert!(newest.changes.is_empty() && newest.refused.is_empty());
    let absent = scratch.resolve(selection(&["extra"], &[], &[])).await.unwrap_err();
    assert_eq!(absent.code, ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn packages_are_installed_and_removed_as_asked() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    let install = scratch.resolve(selection(&[], &["extra"], &[])).await.unwrap();
    assert_eq!(names(&install), ["Install extra 1"]);
    assert!(!install.changes[0].automatic);
    // What needs the removed package goes with it, as with apt.
    let remove = scratch.resolve(selection(&[], &[], &["libthing1", "newdep"])).await.unwrap();
    assert_eq!(names(&remove), ["Remove libthing1 -", "Remove thingd -"]);
    assert_eq!(refused(&remove), ["newdep: it is not installed"]);
    let both = scratch.resolve(selection(&[], &["tool"], &["tool"])).await.unwrap_err();
    assert_eq!(both.code, ErrorCode::InvalidArgument);
}

#[tokio::test]
async fn essential_packages_and_this_program_stay() {
    let scratch = Scratch::new(
        &[
            Deb::new("base", "1", "Essential: yes"),
            Deb::new("init", "1", "Protected: yes"),
            Deb::new("apt-ostree", "1", "Depends: libx"),
            Deb::new("libx", "1", ""),
        ],
        &[],
    );
    scratch.refresh().await.unwrap();
    for name in ["base", "init", "apt-ostree"] {
        let failure = scratch.resolve(selection(&[], &[], &[name])).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::InvalidArgument, "{}", failure.message);
    }
    let failure = scratch.resolve(selection(&[], &[], &["libx"])).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unsatisfiable);
    assert!(failure.message.contains("apt-ostree"), "{}", failure.message);
}

#[tokio::test]
async fn unknown_names_versions_and_architectures_are_not_found_with_advice() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    for (spec, word) in
        [("libthign1", "libthing1"), ("tool=7", "Known versions: 1"), ("tool:s390x", "s390x")]
    {
        let failure = scratch.resolve(selection(&[], &[spec], &[])).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::NotFound, "{spec}");
        let text = format!("{} {}", failure.message, failure.hint);
        assert!(text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn held_and_pinned_packages_are_left_and_reported() {
    let scratch = daemon_and_library();
    scratch.write_status(
        &[
            Deb::new("libthing1", "1.0", ""),
            Deb::new("thingd", "1:1.0", "Depends: libthing1 (>= 1.0)"),
        ],
        &["libthing1"],
    );
    scratch.refresh().await.unwrap();
    let whole = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    assert!(whole.changes.is_empty(), "{:?}", names(&whole));
    let lines = refused(&whole);
    assert_eq!(lines[0], "libthing1: it is held");
    assert!(
        lines[1].contains("kept back because") && lines[1].contains("held at 1.0"),
        "{lines:?}"
    );
    let asked = scratch.resolve(selection(&["libthing1"], &[], &[])).await.unwrap();
    assert_eq!(refused(&asked), ["libthing1: it is held"]);
    let failure = scratch.resolve(selection(&["thingd"], &[], &[])).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unsatisfiable);
    assert!(failure.message.contains("held at 1.0"), "{}", failure.message);

    scratch.write_status(&[Deb::new("libthing1", "1.0", "")], &[]);
    let pin = "Package: libthing1\nPin: version 1.0*\nPin-Priority: 990\n";
    scratch.write("etc/apt/preferences.d/pin", pin);
    let pinned = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    assert_eq!(refused(&pinned), ["libthing1: it is pinned to 1.0 (priority 990)"]);
}

#[tokio::test]
async fn a_downgrade_needs_its_version_named() {
    let scratch = Scratch::new(&[Deb::new("tool", "2", "")], &[Deb::new("tool", "1", "")]);
    scratch.refresh().await.unwrap();
    let pin = "Package: tool\nPin: version 1\nPin-Priority: 1001\n";
    scratch.write("etc/apt/preferences.d/pin", pin);
    let whole = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    assert!(whole.changes.is_empty());
    assert!(refused(&whole)[0].contains("older than the installed 2"), "{:?}", refused(&whole));
    scratch.write("etc/apt/preferences.d/pin", "");
    let named = scratch.resolve(selection(&[], &["tool=1"], &[])).await.unwrap();
    assert_eq!(names(&named), ["Downgrade tool 1"]);
    assert_eq!(named.changes[0].action, Action::Downgrade);
}

#[tokio::test]
async fn what_cannot_be_satisfied_is_told_by_packages_and_relations() {
    let scratch = Scratch::new(
        &[
            Deb::new("old", "1", "Depends: lib (= 1)"),
            Deb::new("lib", "1", ""),
            Deb::new("rival", "1", ""),
        ],
        &[
            Deb::new("aa", "1", "Depends: bb"),
            Deb::new("bb", "1", "Depends: nowhere (>= 2)"),
            Deb::new("lib", "2", ""),
            Deb::new("foe", "1", "Conflicts: rival"),
            Deb::new("xx", "1", "Depends: lib (>= 9) | nowhere"),
        ],
    );
    scratch.refresh().await.unwrap();
    for (spec, words) in [
        ("aa", ["\"bb\" 1 needs nowhere (>= 2)", "no repository has \"nowhere\""]),
        ("lib=2", ["\"old\" 1", "needs lib (= 1)"]),
        ("xx", ["needs lib (>= 9) | nowhere", "\"lib\""]),
        ("foe", ["\"rival\" would have to be removed", "conflicts with rival"]),
    ] {
        let failure = scratch.resolve(selection(&[], &[spec], &[])).await.unwrap_err();
        assert_eq!(failure.code, ErrorCode::Unsatisfiable, "{spec}: {}", failure.message);
        for word in words {
            assert!(failure.message.contains(word), "{spec}: {}", failure.message);
        }
    }
    let foe = scratch.resolve(selection(&[], &["foe"], &["rival"])).await.unwrap();
    assert_eq!(names(&foe), ["Install foe 1", "Remove rival -"]);
    let whole = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    assert!(
        refused(&whole)[0].starts_with("lib: kept back because \"old\" 1"),
        "{:?}",
        refused(&whole)
    );
}

#[tokio::test]
async fn a_repository_that_cannot_be_trusted_or_reached_is_refused_and_the_old_lists_stay() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    let plan = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    let check = async |code: ErrorCode, what: &str| {
        let failure = scratch.refresh().await.expect_err(what);
        assert_eq!(failure.code, code, "{what}: {}", failure.message);
        let place = scratch.path("repo").display().to_string();
        assert!(failure.message.contains(&place), "{what}: {}", failure.message);
        let again = scratch.resolve(selection(&[], &[], &[])).await.expect(what);
        assert_eq!(again.changes, plan.changes, "{what}");
    };

    scratch.make_key("stranger");
    scratch.index("Version=2");
    scratch.sign("stranger");
    check(ErrorCode::Untrusted, "signed by a stranger").await;

    scratch.index("Version=3");
    check(ErrorCode::Untrusted, "not signed any more").await;

    scratch.index("Version=4 ValidTime=1");
    let release = scratch.read("repo/dists/stable/Release");
    let expired: String = release
        .lines()
        .filter(|line| !line.starts_with("Date:") && !line.starts_with("Valid-Until:"))
        .chain([
            "Date: Mon, 01 Jan 2024 00:00:00 UTC",
            "Valid-Until: Tue, 02 Jan 2024 00:00:00 UTC",
        ])
        .map(|line| format!("{line}\n"))
        .collect();
    scratch.write("repo/dists/stable/Release", &expired);
    scratch.sign("signer");
    check(ErrorCode::Untrusted, "expired").await;

    scratch.build(&Deb::new("tool", "3", ""));
    scratch.index("Version=5");
    scratch.sign("signer");
    let index = "repo/dists/stable/main/binary-amd64/Packages";
    let text = scratch.read(index);
    scratch.write(index, &text.replace("Version: 1.1", "Version: 1.9"));
    check(ErrorCode::Untrusted, "an index that was altered").await;

    std::fs::rename(scratch.path("repo/dists"), scratch.path("repo/away")).unwrap();
    check(ErrorCode::RefreshFailed, "a repository that is gone").await;
}

#[tokio::test]
async fn a_candidate_that_nobody_signed_is_refused() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    let lists = scratch.path("var/lib/apt/lists");
    let release = std::fs::read_dir(lists)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_string_lossy().ends_with("InRelease"))
        .unwrap();
    std::fs::remove_file(release).unwrap();
    let failure = scratch.resolve(selection(&["libthing1"], &[], &[])).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Untrusted, "{}", failure.message);
    assert!(failure.message.contains("libthing1"), "{}", failure.message);
}

#[tokio::test]
async fn a_missing_database_and_malformed_lists_are_failures_not_crashes() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    std::fs::remove_file(scratch.path("var/lib/dpkg/status")).unwrap();
    let failure = scratch.resolve(selection(&[], &[], &[])).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::DatabaseOutsideTree);
    scratch.write_status(&[], &[]);
    scratch.write("etc/apt/sources.list", "deb nonsense\n");
    let failure = scratch.resolve(selection(&[], &[], &[])).await.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Internal);
    assert!(failure.message.contains("sources.list"), "{}", failure.message);
}

#[tokio::test]
async fn files_come_through_apt_into_its_cache() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    let plan = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    let daemon = plan.changes.iter().find(|change| change.name.as_str() == "thingd").unwrap();
    let request = tasks::FetchRequest { change: daemon.clone() };
    let (answer, _) = scratch.task::<_, ()>(tasks::FETCH, &request).await;
    answer.unwrap();
    let file = daemon.file.as_ref().unwrap();
    let path = scratch.path("var/cache/apt/archives").join(&file.cache_name);
    assert_eq!(path.metadata().unwrap().len(), file.size_bytes);
}

#[tokio::test]
async fn apts_transfer_settings_are_dumped() {
    let scratch = daemon_and_library();
    let detector = scratch.path("detect").display().to_string();
    scratch.write("detect", "#!/bin/sh\necho http://found.example:3128\n");
    std::process::Command::new("chmod").arg("755").arg(&detector).status().unwrap();
    scratch.write(
        "etc/apt/apt.conf.d/90proxy",
        &format!(
            "Acquire::http::Proxy \"http://proxy.example:8080\";\n\
             Acquire::http::Proxy::direct.example \"DIRECT\";\nAcquire::http::Timeout \"7\";\n\
             Acquire::https::Verify-Peer \"false\";\n\
             Acquire::https::own.example::SslCert \"/c.pem\";\n\
             Acquire::http::Proxy-Auto-Detect \"{detector}\";\n"
        ),
    );
    scratch.write("etc/apt/auth.conf.d/a.conf", "machine m.example login u password p\n");
    let uris = vec!["http://m.example/debian".to_owned(), "http://direct.example/".to_owned()];
    let request = TransportRequest { uris };
    let (answer, _) = scratch.task::<_, Transport>(tasks::TRANSPORT, &request).await;
    let transport = answer.unwrap();
    assert_eq!(transport.http.general.proxy.as_deref(), Some("http://proxy.example:8080"));
    assert_eq!(transport.http.general.timeout_seconds, Some(7));
    assert_eq!(transport.http.hosts["direct.example"].proxy.as_deref(), Some("DIRECT"));
    assert_eq!(transport.https.general.verify_peer, Some(false));
    assert_eq!(transport.https.hosts["own.example"].client_certificate.as_deref(), Some("/c.pem"));
    assert_eq!(transport.credentials[0].login, "u");
    assert_eq!(transport.detected_proxies["http://m.example/debian"], "http://found.example:3128");
    assert!(!transport.detected_proxies.contains_key("http://direct.example/"));
}

#[tokio::test]
async fn hooks_that_will_not_run_are_named() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    scratch.write("etc/apt/apt.conf.d/50hook", "DPkg::Post-Invoke { \"touch /tmp/x\"; };\n");
    let plan = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    assert!(
        plan.hooks_not_run.contains(&"DPkg::Post-Invoke: touch /tmp/x".to_owned()),
        "{:?}",
        plan.hooks_not_run
    );
}

/// Copies the files of a plan to where apt would have them.
fn fill_cache(scratch: &Scratch, plan: &Resolution) {
    for file in plan.changes.iter().filter_map(|change| change.file.as_ref()) {
        let source = file.uris[0].strip_prefix("copy:").unwrap();
        let target = scratch.path("var/cache/apt/archives").join(&file.cache_name);
        std::fs::copy(source, target).unwrap();
    }
}

fn install_request(plan: &Resolution) -> tasks::InstallRequest {
    tasks::InstallRequest {
        changes: plan.changes.clone(),
        archives: None,
        path: "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    }
}

#[tokio::test]
async fn a_plan_is_installed_by_dpkg_with_its_output_line_by_line() {
    let scratch = Scratch::new(
        &[Deb::new("tool", "1", "")],
        &[
            Deb::new("tool", "2", "Depends: newdep").with(&[
                ("DEBIAN/postinst", "#!/bin/sh\necho the postinst of tool speaks\n"),
                ("usr/share/tool/data", "x\n"),
            ]),
            Deb::new("newdep", "1", ""),
        ],
    );
    scratch.refresh().await.unwrap();
    scratch.write("etc/apt/apt.conf.d/50hook", "DPkg::Pre-Invoke { \"exit 1\"; };\n");
    let plan = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    fill_cache(&scratch, &plan);
    let (answer, reports) = scratch.task::<_, ()>(tasks::INSTALL, &install_request(&plan)).await;
    answer.unwrap();
    let spoke = Report::Log("the postinst of tool speaks".to_owned());
    assert!(reports.contains(&spoke), "{reports:?}");
    let installed = |report: &Report| matches!(report, Report::Item { item, status: "installed", percentage: 100 } if item == "tool");
    assert!(reports.iter().any(installed), "{reports:?}");
    assert_eq!(scratch.read("usr/share/tool/data"), "x\n");
    assert!(scratch.read("var/lib/apt/extended_states").contains("Package: newdep"));
}

#[tokio::test]
async fn a_script_that_fails_is_named_with_its_last_words() {
    let scratch = Scratch::new(
        &[Deb::new("tool", "1", "")],
        &[Deb::new("tool", "2", "")
            .with(&[("DEBIAN/postinst", "#!/bin/sh\necho no such luck >&2\nexit 3\n")])],
    );
    scratch.refresh().await.unwrap();
    let plan = scratch.resolve(selection(&[], &[], &[])).await.unwrap();
    let missing = scratch.task::<_, ()>(tasks::INSTALL, &install_request(&plan)).await.0;
    assert_eq!(missing.unwrap_err().code, ErrorCode::InstallFailed);
    fill_cache(&scratch, &plan);
    let failure =
        scratch.task::<_, ()>(tasks::INSTALL, &install_request(&plan)).await.0.unwrap_err();
    assert_eq!(failure.code, ErrorCode::InstallFailed);
    for word in ["\"tool\"", "post-installation script", "exit status 3", "no such luck"] {
        assert!(failure.message.contains(word), "{word}: {}", failure.message);
    }
}

#[tokio::test]
async fn a_plan_that_no_longer_fits_is_not_installed() {
    let scratch = daemon_and_library();
    scratch.refresh().await.unwrap();
    let mut plan = scratch.resolve(selection(&["thingd"], &[], &[])).await.unwrap();
    fill_cache(&scratch, &plan);
    plan.changes.retain(|change| change.name.as_str() != "newdep");
    let failure =
        scratch.task::<_, ()>(tasks::INSTALL, &install_request(&plan)).await.0.unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unsatisfiable, "{}", failure.message);
    assert!(scratch.read("var/lib/dpkg/status").contains("Version: 1:1.0"));
}
