use super::*;

fn update(host: &Fixture, transaction: TransactionId, files: &[(&str, Option<&str>)]) -> Delta {
    host.snapshot(transaction);
    for (path, text) in files {
        match text {
            Some(text) => drop(host.stage(transaction, path, text)),
            None => host.stage_removal(transaction, path),
        }
    }
    let delta = host.prepare_stage(transaction);
    assert_eq!(host.trees.apply(&delta).unwrap(), Vec::<String>::new());
    delta
}

#[test]
fn two_updates_are_undone_in_one_delta_which_can_be_undone_itself() {
    let host = Fixture::new();
    host.write("etc/both", "0");
    host.write("etc/first", "0");
    host.write("etc/gone", "0");
    host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    let before = host.state();
    let first = update(
        &host,
        FIRST,
        &[
            ("etc/both", Some("1")),
            ("etc/first", Some("1")),
            ("etc/gone", None),
            ("etc/d/new", Some("1")),
            ("etc/passwd", Some("root:x:0:0::/root:/bin/sh\none:x:101:101::/:/bin/false\n")),
        ],
    );
    let second = update(
        &host,
        SECOND,
        &[
            ("etc/both", Some("2")),
            ("etc/d/new", None),
            (
                "etc/passwd",
                Some(
                    "root:x:0:0::/root:/bin/sh\none:x:101:101::/:/bin/false\ntwo:x:102:102::/:/bin/false\n",
                ),
            ),
        ],
    );
    let updated = host.state();
    let source = DeltaSource::Reverse { deltas: vec![second, first] };
    let back = host.prepare(TransactionId(3), &source).unwrap();
    assert_eq!(back.kept, Vec::<String>::new());
    assert_eq!(host.trees.apply(&back).unwrap(), Vec::<String>::new());
    assert_same(&host.state(), &before);
    assert_eq!(host.trees.revert(&back).unwrap(), Vec::<String>::new());
    assert_same(&host.state(), &updated);
}

/// Equal but for the time of the user databases, which are written anew.
fn assert_same(one: &BTreeMap<PathBuf, String>, other: &BTreeMap<PathBuf, String>) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (path, state) in one {
        let without_time = |state: &str| state.rsplit_once(' ').unwrap().0.to_owned();
        if path.ends_with("passwd") {
            assert_eq!(without_time(state), without_time(&other[path]));
        } else {
            assert_eq!(state, &other[path], "{}", path.display());
        }
    }
}

#[test]
fn files_and_users_that_came_or_changed_since_stay_and_are_named() {
    let host = Fixture::new();
    host.write("etc/a", "0");
    host.write("etc/b", "0");
    host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    let delta = update(
        &host,
        FIRST,
        &[
            ("etc/a", Some("1")),
            ("etc/b", Some("1")),
            ("etc/passwd", Some("root:x:0:0::/root:/bin/sh\none:x:101:101::/:/bin/false\n")),
        ],
    );
    host.write("etc/a", "edited");
    let text = host.read("etc/passwd") + "al:x:1000:1000::/:/bin/sh\n";
    host.write("etc/passwd", &text);
    let back = host.prepare(SECOND, &DeltaSource::Reverse { deltas: vec![delta] }).unwrap();
    assert_eq!(back.kept, ["/etc/a: it was changed since and stays as it is"]);
    host.trees.apply(&back).unwrap();
    assert_eq!(host.read("etc/a"), "edited");
    assert_eq!(host.read("etc/b"), "0");
    assert_eq!(host.read("etc/passwd"), "root:x:0:0::/root:/bin/sh\nal:x:1000:1000::/:/bin/sh\n");
}

#[test]
fn users_whose_data_stays_in_var_stay_in_every_database_and_are_named() {
    let host = Fixture::new();
    host.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    host.write("etc/group", "root:x:0:\n");
    host.write("etc/shadow", "root:*:1::::::\n");
    // The files of the test belong to whoever runs it, so that is the id of the user with data.
    let own = fs::metadata(host.path("etc/passwd")).unwrap().uid();
    let passwd = format!(
        "root:x:0:0::/root:/bin/sh\nidle:x:64001:64001::/:/bin/false\nbusy:x:{own}:64002::/:/bin/false\n"
    );
    let delta = update(
        &host,
        FIRST,
        &[
            ("etc/passwd", Some(&passwd)),
            ("etc/group", Some("root:x:0:\nidle:x:64001:\nbusy:x:64002:\n")),
            ("etc/shadow", Some("root:*:1::::::\nidle:!:1::::::\nbusy:!:1::::::\n")),
        ],
    );
    host.write("var/lib/busy/data", "written since");
    let back = host.prepare(SECOND, &DeltaSource::Reverse { deltas: vec![delta] }).unwrap();
    assert_eq!(
        back.kept,
        [
            "/etc/group: the group \"busy\" stays, for files in /var do",
            "/etc/passwd: the user \"busy\" stays, for files in /var do",
        ]
    );
    host.trees.apply(&back).unwrap();
    for name in ["passwd", "group", "shadow"] {
        let text = host.read(&format!("etc/{name}"));
        assert!(text.contains("busy:") && !text.contains("idle:"), "{name}: {text}");
    }
    assert_eq!(host.read("var/lib/busy/data"), "written since");
}

#[test]
fn a_rollback_whose_displaced_files_are_gone_says_so() {
    let host = Fixture::new();
    host.write("etc/a", "0");
    let delta = update(&host, FIRST, &[("etc/a", Some("1"))]);
    host.trees.discard(FIRST).unwrap();
    let failure = host.prepare(SECOND, &DeltaSource::Reverse { deltas: vec![delta] }).unwrap_err();
    assert!(failure.message.contains("transaction 1"), "{failure}");
}
