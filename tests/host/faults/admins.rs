//! What admins do in the middle of an update is neither lost nor in its way.

use serde_json::Value;

use super::between::{Between, during};
use crate::support::{Host, Repository, look};

fn warns_of(record: &Value, path: &str) -> bool {
    let warnings = record["warnings"].as_array().expect("a list");
    warnings.iter().any(|warning| warning.as_str().is_some_and(|text| text.contains(path)))
}

#[test]
fn a_deployment_that_an_admin_makes_in_between_stays_and_the_update_is_put_back() {
    let between = Between::boot();
    let deploy = "ostree admin deploy --os=debian debian/test/host >&2";
    for step in ["install", "check-health"] {
        let outcome = between.run(step, deploy, "ostree admin undeploy 0 >&2");
        assert_eq!(outcome.as_deref(), Some("rolled-back"), "{step}");
    }
    between.note("foreign-deployment");
}

#[test]
fn an_apt_that_an_admin_runs_in_between_is_told_who_holds_the_lock() {
    let host = Host::boot_to_update();
    host.mirror().publish(&Repository::hello(2));
    let (output, told) = during(&host, "install", |host| {
        host.run(["apt-get", "--yes", "--reinstall", "install", "hello-svc"])
    });
    assert_ne!(told.code, Some(0));
    assert!(told.stderr.contains("lock"), "{}", told.stderr);
    output.success();
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-2"), "{}", host.hello());
    host.assert_in_order();
}

#[test]
fn a_file_that_an_admin_edits_in_between_is_kept_and_reported() {
    let host = Host::boot_to_update();
    host.configure("[health]\ndwell-seconds = 20\n");
    host.mirror().publish(&Repository::hello(2));
    let configuration = "/etc/hello-svc/hello.conf";

    // After the switch and before the rollback.
    let before = look(&host);
    let (output, ()) = during(&host, "check-health", |host| {
        host.shell(&format!(
            "echo 'after the switch' >> {configuration}; systemctl kill --signal=KILL hello-svc"
        ));
    });
    assert_eq!(output.code, Some(3), "{}", output.stderr);
    let text = host.shell(&format!("cat {configuration}"));
    assert!(text.ends_with("after the switch\n"), "{text}");
    assert!(warns_of(&host.newest_record(), configuration), "{}", host.newest_record());
    host.shell(&format!(
        "printf '# hello-svc 1\\ngreeting=hi-1\\n' > {configuration}; systemctl restart hello-svc"
    ));
    look(&host).assert_same_as(&before);

    // After the plan and before the switch.
    host.configure("[health]\ndwell-seconds = 1\n");
    let (output, ()) = during(&host, "install", |host| {
        host.shell(&format!("echo 'before the switch' >> {configuration}"));
    });
    output.success();
    let text = host.shell(&format!("cat {configuration}"));
    assert_eq!(text, "# hello-svc 1\ngreeting=hi-1\nbefore the switch\n");
    assert!(warns_of(&host.newest_record(), configuration), "{}", host.newest_record());
    assert!(host.hello().starts_with("version=2 disk=2 conf=hi-1"), "{}", host.hello());
}
