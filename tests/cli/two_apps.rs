//! The example `two_apps`: one program, and only the configuration differs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use tempfile::TempDir;

use crate::bank::Run;
use crate::program::program;

const ONE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two_apps/one.toml");
const TWO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/two_apps/two.toml");

/// A folder to run in, and `data` below it for the databases.
struct Folder(TempDir);

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

#[derive(QueryableByName)]
struct Quota {
    #[diesel(sql_type = Text)]
    user: String,
    #[diesel(sql_type = BigInt)]
    used: i64,
}

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program("two_apps"));
        command.current_dir(self.0.path()).env_remove("DATABASE_URL");
        command
    }

    /// Runs on the databases of a file, in the folder `data`.
    #[track_caller]
    fn tell(&self, databases: &str) -> Run {
        let run = Run::of(self.command().args(["--databases", databases, "--dir", "data"]));
        assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        run
    }

    fn open(&self, database: &str) -> SqliteConnection {
        let file = self.path("data").join(database);
        assert!(file.exists(), "{} does not exist", file.display());
        SqliteConnection::establish(file.to_str().expect("a path in UTF-8")).expect("the database")
    }

    fn lines(&self, database: &str, query: &str) -> Vec<String> {
        let lines: Vec<Line> = diesel::sql_query(query).load(&mut self.open(database)).expect("the rows");
        lines.into_iter().map(|row| row.line).collect()
    }

    fn tables(&self, database: &str) -> Vec<String> {
        self.lines(database, "SELECT name AS line FROM sqlite_master WHERE type = 'table' ORDER BY name")
    }

    fn users(&self, database: &str) -> Vec<String> {
        self.lines(database, "SELECT name AS line FROM astakos_users ORDER BY name")
    }

    /// How much of each user's quota is used.
    fn used(&self, database: &str) -> Vec<(String, i64)> {
        let query = diesel::sql_query("SELECT user, used FROM astakos_quotas ORDER BY user");
        let quotas: Vec<Quota> = query.load(&mut self.open(database)).expect("the quotas");
        quotas.into_iter().map(|quota| (quota.user, quota.used)).collect()
    }

    fn servers(&self, database: &str) -> Vec<String> {
        let line = "owner || ' ' || image || ' ' || state";
        self.lines(database, &format!("SELECT {line} AS line FROM cyclades_servers ORDER BY id"))
    }
}

/// What the program says of a step.
fn said<'a>(run: &'a Run, step: &str) -> Vec<&'a str> {
    run.stdout.lines().filter_map(|line| line.strip_prefix(step)?.strip_prefix(": ")).collect()
}

fn used(quotas: [i64; 5]) -> Vec<(String, i64)> {
    ["alice", "bob", "carol", "dave", "erin"].map(str::to_owned).into_iter().zip(quotas).collect()
}

const NO_BEOS: &str = "there is no image `beos`";

#[test]
fn on_one_database_a_failure_after_the_reservation_undoes_both() {
    let folder = Folder::new();
    let run = folder.tell(ONE);
    assert_eq!(run.stdout.lines().next(), Some("astakos is on `default`, cyclades is on `default`"));
    assert_eq!(said(&run, "launch alice debian"), ["server 1"]);
    assert_eq!(said(&run, "launch bob beos"), [NO_BEOS]);
    assert_eq!(said(&run, "launch_nested carol beos"), [NO_BEOS]);
    assert_eq!(said(&run, "launch_nested carol debian"), ["server 2"]);
    assert_eq!(folder.tables("apps.db"), ["astakos_quotas", "astakos_users", "cyclades_servers"]);
    assert_eq!(folder.used("apps.db"), used([1, 0, 1, 2, 0]));
    let servers = ["alice debian active", "carol debian active", "dave debian active", "dave plan9 building"];
    assert_eq!(folder.servers("apps.db"), servers);
}

#[test]
fn on_two_databases_what_one_application_does_alone_goes_to_its_own_file() {
    let folder = Folder::new();
    let run = folder.tell(TWO);
    assert_eq!(run.stdout.lines().next(), Some("astakos is on `astakos`, cyclades is on `cyclades`"));
    assert_eq!(said(&run, "launch_apart dave debian"), ["server 2", "no quota is left for dave"]);
    assert_eq!(said(&run, "launch_apart dave plan9"), ["server 3"]);
    assert_eq!(said(&run, "launch_apart erin beos"), [NO_BEOS]);
    assert_eq!(folder.tables("apps.db"), Vec::<String>::new());
    assert_eq!(folder.tables("astakos.db"), ["astakos_quotas", "astakos_users"]);
    assert_eq!(folder.tables("cyclades.db"), ["cyclades_servers"]);
}

#[test]
fn on_two_databases_a_launch_that_lists_both_does_both_or_neither() {
    let folder = Folder::new();
    let run = folder.tell(TWO);
    assert_eq!(said(&run, "launch alice debian"), ["server 1"]);
    assert_eq!(said(&run, "launch bob beos"), [NO_BEOS]);
    for launch in ["launch_nested carol beos", "launch_nested carol debian"] {
        let [refused] = said(&run, launch)[..] else { panic!("{launch}: {run:#?}") };
        let both = "NotAtomic: databases `astakos`, `cyclades` can't take part in one transaction: ";
        assert!(refused.starts_with(both), "{launch}: {refused}");
        for name in ["`start`", "`Server`", "`launch_nested`", "list model `Server`", "requires_new"] {
            assert!(refused.contains(name), "{name} is missing in: {refused}");
        }
    }
    assert_eq!(folder.used("astakos.db"), used([1, 0, 0, 2, 0]));
    let servers = ["alice debian active", "dave debian active", "dave plan9 building"];
    assert_eq!(folder.servers("cyclades.db"), servers);
}

#[test]
fn one_application_moves_away_with_one_variable_and_the_other_stays() {
    let folder = Folder::new();
    let moved = [("DATABASE_URL_CYCLADES", "moved.db")];
    let run = Run::of(folder.command().args(["--databases", ONE, "--dir", "data"]).envs(moved));
    assert_eq!(run.status, Some(0), "{run:#?}");
    assert_eq!(run.stdout.lines().next(), Some("astakos is on `default`, cyclades is on `cyclades`"));
    assert_eq!(said(&run, "launch alice debian"), ["server 1"]);
    assert_eq!(folder.tables("apps.db"), ["astakos_quotas", "astakos_users"]);
    assert_eq!(folder.used("apps.db"), used([1, 0, 0, 2, 0]));
    assert_eq!(folder.servers("moved.db").len(), 3);
}

#[test]
fn an_import_keeps_its_commits_and_loses_what_was_pending_at_the_bad_line() {
    for (databases, file, alias) in [(ONE, "apps.db", "default"), (TWO, "astakos.db", "astakos")] {
        let folder = Folder::new();
        let run = folder.tell(databases);
        let stopped = format!(
            "stopped at line 5: database `{alias}`: UNIQUE constraint failed: astakos_users.name; the first 3 are committed"
        );
        // The second import adds dave again, who was pending: he would be refused if he were still there.
        assert_eq!(said(&run, "import"), [&*stopped, "2 more from line 4 on, without line 5"]);
        assert_eq!(folder.users(file), ["alice", "bob", "carol", "dave", "erin"]);
    }
}

#[test]
fn without_arguments_it_runs_in_any_folder_and_leaves_nothing_there() {
    let folder = Folder::new();
    let run = Run::of(&mut folder.command());
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    assert_eq!(folder.0.path().read_dir().expect("the folder").count(), 0);
    assert_eq!(run.stdout, folder.tell(ONE).stdout, "the built-in databases are those of one.toml");
}

#[test]
fn the_file_is_looked_for_where_the_program_was_started() {
    let folder = Folder::new();
    fs::write(folder.path("mine.toml"), "[default]\nurl = \"mine.db\"\n").expect("a configuration");
    folder.tell("mine.toml");
    assert_eq!(folder.users("mine.db").len(), 5);
    Run::of(folder.command().args(["--databases", "nowhere.toml"])).stopped_with("`nowhere.toml` can't be read");
}

#[test]
fn a_folder_with_an_earlier_run_is_refused_and_stays_as_it_is() {
    let folder = Folder::new();
    folder.tell(TWO);
    let again = Run::of(folder.command().args(["--databases", TWO, "--dir", "data"]));
    again.stopped_with("table astakos_users already exists; begin in an empty folder");
    assert_eq!(folder.users("astakos.db").len(), 5);
    assert_eq!(folder.servers("cyclades.db").len(), 3);
}
