//! A database server: a newer version of its own package, under a client that never stops writing.

use serde_json::Value;

use crate::support::{Host, Repository};

const OVERRIDE: &str =
    "[health]\ndwell-seconds = 1\n[service.\"postgresql@*.service\"]\nstrategy = \"restart\"\n";
/// Writes row after row, each until the server has said that it is there, and then counts it.
const CLIENT: &str = r#"
mkdir /run/client; chown postgres /run/client
cat > /run/client/run <<'END'
psql --quiet --command 'CREATE TABLE rows (id bigint PRIMARY KEY)'
i=0
until [ -e /run/client/stop ]; do
    i=$((i + 1))
    until psql --quiet --command "INSERT INTO rows VALUES ($i) ON CONFLICT DO NOTHING"; do
        echo $i >> /run/client/refused
        sleep 0.02
    done
    echo $i > /run/client/acknowledged
done
END
systemd-run --quiet --unit=client --uid=postgres --property=RemainAfterExit=yes sh /run/client/run
"#;
/// Ends the client; tells how many rows it was promised, and how many there are.
const COUNT: &str = "touch /run/client/stop
    until [ $(systemctl show --property=SubState --value client) = exited ]; do sleep 0.05; done
    echo $(cat /run/client/acknowledged) \
        $(runuser -u postgres -- psql --tuples-only --command 'SELECT count(*), max(id) FROM rows' | tr '|' ' ')";

struct Server<'h> {
    host: &'h Host,
    major: String,
    unit: String,
}

impl<'h> Server<'h> {
    /// Installs it by an update, which starts it: nobody's client is lost by that.
    fn install(host: &'h Host) -> Self {
        let mut repository = Repository::default();
        for package in Repository::of_the_release("postgresql") {
            repository = repository.with(package);
        }
        // The later pockets have packages that their mirror here has not.
        host.shell("rm /etc/apt/sources.list.d/debian.list");
        host.mirror().publish(&repository);
        host.apt_ostree(["--quiet", "apply-live", "--install=postgresql"]).success();
        let major = host.shell("ls /usr/lib/postgresql").trim().to_owned();
        let unit = format!("postgresql@{major}-main.service");
        Self { host, major, unit }
    }

    fn package(&self) -> String {
        format!("postgresql-{}", self.major)
    }

    /// Offers a newer version of the server, whose program ends with this text.
    fn publish_newer(&self, suffix: &str) {
        let program = format!("usr/lib/postgresql/{}/bin/postgres", self.major);
        let newer = Repository::newer(suffix, &self.package(), "postgresql", &program);
        self.host.mirror().publish(&Repository::default().with(newer));
    }

    fn process(&self) -> u32 {
        let command = format!("systemctl show --property=MainPID --value {}", self.unit);
        let pid = self.host.shell(&command).trim().parse().expect("a number");
        assert_ne!(pid, 0, "it runs");
        pid
    }

    /// Whether its process executes a program that ends so.
    fn runs(&self, suffix: &str) -> bool {
        let end = format!("tail --bytes={} /proc/{}/exe", suffix.len(), self.process());
        self.host.shell(&end) == suffix
    }

    fn effect(&self, of: &Value) -> Value {
        let units = of["units"].as_array().expect("a list");
        let effect = units.iter().find(|effect| effect["unit"] == self.unit.as_str());
        effect.unwrap_or_else(|| panic!("no {} in {of:#}", self.unit)).clone()
    }
}

fn refused(host: &Host) -> String {
    host.shell("cat /run/client/refused 2> /dev/null || true")
}

#[test]
fn a_database_is_deferred_and_with_an_override_restarted_without_losing_a_row() {
    let host = Host::boot_to_update();
    let server = Server::install(&host);
    host.shell(CLIENT);
    let update = format!("--packages={}", server.package());

    let first = server.process();
    server.publish_newer("+new1");
    host.apt_ostree(["--quiet", "apply-live", &update]).success();
    assert!(host.version_of(&server.package()).ends_with("+new1"));
    assert_eq!((server.process(), refused(&host)), (first, String::new()));
    for told in [host.newest_record(), host.json(0, ["services"])] {
        let effect = server.effect(&told);
        let why = effect["left_because"].as_str().expect("it was left");
        assert!(why.contains("next boot"), "{effect}");
    }

    host.configure(OVERRIDE);
    server.publish_newer("+new2");
    host.apt_ostree(["--quiet", "apply-live", &update, "--restart-services"]).success();
    assert_ne!(server.process(), first);
    assert!(server.runs("+new2"));
    let effect = server.effect(&host.newest_record());
    assert_eq!(effect["left_because"], Value::Null, "{effect}");

    let counted = host.shell(COUNT);
    let rows: Vec<u64> =
        counted.split_whitespace().map(|number| number.parse().expect("a number")).collect();
    let [promised, count, newest] = rows[..] else { panic!("{counted}") };
    assert!(promised > 20 && (count, newest) == (promised, promised), "{counted}");
    host.assert_in_order();
}
