//! The commands of docs/OPERATIONS.md are run as they stand there, by the servers' own clients, in the states that they are for:
//! they show what the runbook says, and the remedy works.

mod branches;
mod document;
mod heuristics;
mod lost;
mod outcomes;
mod own_rows;
mod sessions;
mod set_up;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use multidb::{Databases, Reason, RecoveryReport, TransactionId};

use crate::child::recover_until;
use crate::places::{Kind, Places};
use document::block;

/// How long a server may take to show something.
const LIMIT: Duration = Duration::from_secs(30);

/// How long to wait between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Held by the test that looks at MariaDB's tables of transactions and their waits: it shows a copy that all share, and that is not
/// renewed while anybody has read it within a tenth of a second. Two that look in turns would both see an old one for ever.
static LOOKING: Mutex<()> = Mutex::new(());
/// After this long the copy is renewed.
const COPY_IS_OLD: Duration = Duration::from_millis(150);

/// What a client prints below the names of the columns.
type Rows = Vec<Vec<String>>;

/// What is written for a placeholder.
type Fill<'a> = &'a [(&'a str, &'a str)];

/// Runs a block on one database. What it shows has the columns that the runbook says.
fn run(places: &Places, at: usize, name: &str, fill: Fill<'_>) -> Rows {
    let sql = block(name).filled(fill);
    let looking = sql.contains("innodb_").then(|| {
        let looking = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::sleep(COPY_IS_OLD);
        looking
    });
    let output = client(places, at, &sql);
    drop(looking);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let separator = if places.kinds[at] == Kind::Postgres { '|' } else { '\t' };
    let mut lines = said.lines().map(|line| line.split(separator).map(str::to_owned).collect::<Vec<_>>());
    let columns = lines.next();
    if let (Some(columns), Some(shown)) = (columns, block(name).columns()) {
        assert_eq!(columns, shown, "{name}: the columns of the runbook");
    }
    lines.collect()
}

/// Runs a block that is refused. What the server says.
fn refused(places: &Places, at: usize, name: &str, fill: Fill<'_>) -> String {
    let output = client(places, at, &block(name).filled(fill));
    assert!(!output.status.success(), "{name} was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a block. What the server remarks.
fn notices(places: &Places, at: usize, name: &str, fill: Fill<'_>) -> String {
    let output = client(places, at, &block(name).filled(fill));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {said}");
    said
}

/// Runs a block until what it shows is as wanted.
fn until<T>(places: &Places, at: usize, name: &str, fill: Fill<'_>, wanted: impl Fn(&Rows) -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        let rows = run(places, at, name, fill);
        if let Some(found) = wanted(&rows) {
            return found;
        }
        assert!(begin.elapsed() < LIMIT, "{places}: {name} shows {rows:?}");
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

fn client(places: &Places, at: usize, sql: &str) -> Output {
    let url = &places.urls[at];
    let mut command = match places.kinds[at] {
        Kind::Postgres => {
            let mut command = Command::new(psql());
            command.args(["--no-psqlrc", "--quiet", "--no-align", "--set=ON_ERROR_STOP=1"]);
            command.args(["--pset=footer=off", "--pset=null=NULL", url]);
            command
        }
        Kind::MariaDb => mariadb(url),
        Kind::Sqlite => unreachable!("a file has no client that is always installed"),
    };
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the client");
    child.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The newest one. What is on the PATH may be a wrapper that reads the machine's settings.
fn psql() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("bin/psql")).filter(|program| program.exists());
    programs.max().unwrap_or_else(|| "psql".into())
}

fn mariadb(url: &str) -> Command {
    let (user, place) = url.strip_prefix("mysql://").unwrap().split_once('@').unwrap();
    let (server, database) = place.split_once('/').unwrap();
    let ((user, password), (host, port)) = (user.split_once(':').unwrap(), server.split_once(':').unwrap());
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--batch", "-h", host, "-P", port, "-u", user, database]);
    command.arg(format!("--password={password}"));
    command
}

/// A branch that an operator has found prepared.
#[derive(Debug)]
struct Found {
    gid: String,
    branch: String,
}

impl Found {
    fn fill(&self) -> [(&str, &str); 2] {
        [("gid", &self.gid), ("branch", &self.branch)]
    }

    fn id(&self) -> TransactionId {
        self.gid.parse().unwrap()
    }

    /// Its home's `database_id`.
    fn home(&self) -> &str {
        self.gid.split('_').nth(2).unwrap()
    }

    fn uuid(&self) -> &str {
        self.gid.split('_').next_back().unwrap()
    }
}

/// The only branch that is prepared in one database, as the runbook finds it.
fn prepared(places: &Places, at: usize) -> Found {
    let own = places.meta(at, "database_id");
    if places.kinds[at] == Kind::Postgres {
        let rows = run(places, at, "prepared-postgres", &[]);
        let [row] = &rows[..] else { panic!("{places}: prepared: {rows:?}") };
        let (gid, branch) = row[0].split_once(':').unwrap();
        return Found { gid: gid.into(), branch: branch.into() };
    }
    // The server lists those of all its databases.
    let rows = run(places, at, "prepared-mariadb", &[]);
    let found: Vec<Found> = rows
        .iter()
        .filter(|row| row[3].ends_with(&own))
        .map(|row| {
            let (gid, branch) = row[3].split_at(row[1].parse().unwrap());
            Found { gid: gid.into(), branch: branch.into() }
        })
        .collect();
    <[Found; 1]>::try_from(found).unwrap().into_iter().next().unwrap()
}

/// Finishes the only branch of one database by hand.
fn by_hand(places: &Places, at: usize, commit: bool) {
    let name = match (places.kinds[at], commit) {
        (Kind::Postgres, true) => "finish-postgres",
        (Kind::Postgres, false) => "undo-postgres",
        (_, true) => "finish-mariadb",
        (_, false) => "undo-mariadb",
    };
    let found = prepared(places, at);
    run(places, at, name, &found.fill());
}

/// Runs a statement of the runbook on any database. A file takes it too.
fn change(places: &Places, at: usize, name: &str, fill: Fill<'_>) {
    if places.kinds[at] == Kind::Sqlite {
        places.execute(at, &block(name).filled(fill));
    } else {
        run(places, at, name, fill);
    }
}

/// Recovers until the servers have seen that the session at home has gone.
fn until_decided(databases: &Databases) -> RecoveryReport {
    recover_until(databases, |report| report.left().iter().all(|left| left.reason != Reason::Alive))
}

/// The runbook has these words, and so has what was said.
#[track_caller]
fn says(said: &impl ToString, words: &str) {
    let said = said.to_string();
    assert!(document::words().contains(words), "the runbook doesn't say: {words}");
    assert!(said.contains(words), "{words:?} is not in: {said}");
}
