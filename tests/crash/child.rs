//! The process that is killed.

use std::io::Read as _;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use multidb::fault::{Stop, arm, point};
use multidb::{Acknowledge, AnyConn, CommitMode, Databases, Error, Model, RecoveryReport, atomic, atomic_many, scope};

use crate::places::{Account, Audit, Entry, POLL, Places, accounts, audits, entries, registry};

/// What the child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// One transaction whose scope lists all models.
    Listed,
    /// One whose scope lists the first model alone: the others join later.
    Late,
    /// One in which the last database is only read.
    Reads,
    /// One in which the last database alone is written.
    Alone,
    /// One that commits its databases one after the other.
    InParts,
    /// One whose scope returns once it is decided. A thread applies it.
    Acknowledged,
    /// A manual scope that commits two transactions.
    Manual,
    /// A hundred transactions, so that the last one deletes the rows of all.
    Hundred,
    /// One pass of recovery.
    Recovers,
    /// Ten transactions that are rolled back, and one that commits, between the opening of two files that are not there.
    Traced,
    /// Reads every database, and has their connections open.
    Holds,
    /// One whose body runs a text on one database: [`Wandering`].
    Wanders,
}

/// The database, and the text that a body runs on it once all rows are put.
pub(crate) struct Wandering<'a>(pub(crate) usize, pub(crate) &'a str);

const WORKS: [Work; 12] = [
    Work::Listed,
    Work::Late,
    Work::Reads,
    Work::Alone,
    Work::InParts,
    Work::Acknowledged,
    Work::Manual,
    Work::Hundred,
    Work::Recovers,
    Work::Traced,
    Work::Holds,
    Work::Wanders,
];

/// The row of the transaction that shows that its process can go on.
pub(crate) const AGAIN: i64 = 1_000;
/// Opening these tells in a trace where the work begins and ends.
pub(crate) const BEGINS: &str = "/multidb-work-begins";
pub(crate) const ENDS: &str = "/multidb-work-ends";
const SIGKILL: i32 = 9;
/// How long recovery may take to come to what a test waits for.
const LIMIT: Duration = Duration::from_secs(30);

/// Where a child stops: the point, how often it passes it before, and how it stops.
pub(crate) type At<'a> = (&'a str, u32, Stop);

/// A child that does this on the databases at these URLs.
pub(crate) fn command(urls: &[String], work: Work, stops: &[At<'_>]) -> Command {
    let stops: Vec<String> = stops.iter().map(|(point, skip, stop)| format!("{point} {skip} {stop:?}")).collect();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child::works", "--nocapture"])
        .env("MULTIDB_TEST_CRASH", format!("{work:?}"))
        .env("MULTIDB_TEST_CRASH_STOPS", stops.join(","))
        .env("MULTIDB_TEST_CRASH_URLS", urls.join(" "))
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// A child that runs. Dropped it is killed: one that has stopped itself would outlive a test that fails.
pub(crate) struct Started(Child);

impl Started {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a child that stops at a point.
pub(crate) fn start(places: &Places, work: Work, point: &str, stop: Stop) -> Started {
    Started::of(&mut command(&places.urls, work, &[(point, 0, stop)]))
}

/// Runs such a body in a child that is killed at a point, as [`kill_at`] does.
pub(crate) fn kill_wandering(places: &Places, Wandering(at, text): Wandering<'_>, point: &str) {
    let known = places.sessions();
    let mut command = command(&places.urls, Work::Wanders, &[(point, 0, Stop::Kill)]);
    command.env("MULTIDB_TEST_CRASH_WANDERS_ON", at.to_string()).env("MULTIDB_TEST_CRASH_WANDERS_BY", text);
    let ended = Ended::of(Started::of(&mut command));
    assert!(ended.was_killed(), "{places}: {text} on {at} was not killed at {point}: {ended:?}");
    places.until_gone_but(&known);
}

/// Runs a child that is killed at a point, and fails where it was not. Its sessions have ended: until then MariaDB may tell who
/// finishes one of its branches that this is done, and it is not.
pub(crate) fn kill_at(places: &Places, work: Work, point: &str) {
    let known = places.sessions();
    let ended = Ended::of(start(places, work, point, Stop::Kill));
    assert!(ended.was_killed(), "{places}: {work:?} was not killed at {point}: {ended:?}");
    places.until_gone_but(&known);
}

/// How a child has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    signal: Option<i32>,
    said: String,
}

/// What the caller of a transaction was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Committed,
    RolledBack,
    Unknown,
}

impl Ended {
    /// Waits for it.
    pub(crate) fn of(mut child: Started) -> Self {
        let mut said = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
        let status = child.wait().unwrap();
        Self { signal: status.signal(), said: String::from_utf8_lossy(&said).into_owned() }
    }

    pub(crate) fn was_killed(&self) -> bool {
        self.signal == Some(SIGKILL)
    }

    fn word(&self, key: &str) -> Option<&str> {
        self.said.lines().find_map(|line| line.strip_prefix(key))
    }

    /// What it was told of its transaction; `None` where it has not lived to hear it.
    pub(crate) fn told(&self) -> Option<Told> {
        Some(match self.word("told: ")?.split(' ').next()? {
            "committed" => Told::Committed,
            "unknown" => Told::Unknown,
            _ => Told::RolledBack,
        })
    }

    /// Whether it could go on with another transaction, and then held no connection.
    pub(crate) fn went_on(&self) -> bool {
        self.word("then: ") == Some("committed, 0 in use")
    }
}

/// Waits until a child has stopped itself.
pub(crate) fn until_stopped(child: &Child) {
    let stat = format!("/proc/{}/stat", child.id());
    loop {
        let stat = std::fs::read_to_string(&stat).unwrap();
        let state = stat.rsplit_once(") ").unwrap().1.chars().next().unwrap();
        assert!(!"ZX".contains(state), "it has ended before the point");
        if state == 'T' {
            return;
        }
        std::thread::sleep(POLL);
    }
}

/// Lets a child go on that has stopped itself.
pub(crate) fn resume(child: &Child) {
    let sent = Command::new("kill").args(["-CONT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// The child. Run by itself it does nothing.
#[test]
fn works() {
    let Ok(work) = std::env::var("MULTIDB_TEST_CRASH") else { return };
    let work = WORKS.into_iter().find(|known| format!("{known:?}") == work).unwrap();
    let urls = std::env::var("MULTIDB_TEST_CRASH_URLS").unwrap();
    let databases = registry(urls.split(' '));
    let last = urls.split(' ').count() - 1;
    let _entered = databases.enter();
    for stop in std::env::var("MULTIDB_TEST_CRASH_STOPS").unwrap().split(',').filter(|stop| !stop.is_empty()) {
        let [point, skip, stop] = stop.split(' ').collect::<Vec<_>>().try_into().unwrap();
        arm(point, skip.parse().unwrap(), if stop == "Kill" { Stop::Kill } else { Stop::Pause });
    }
    let result = match work {
        Work::Listed => transfer(last, 1, 1, None),
        Work::Late => late(last, 1),
        Work::Reads => transfer(last, 1, 1, Some(last)),
        Work::Alone => alone(last, 1),
        Work::InParts => in_parts(last, 1),
        Work::Acknowledged => acknowledged(&databases, last),
        Work::Manual => manual(last),
        Work::Hundred => (1..=100).try_for_each(|id| transfer(last, id, id, None)),
        Work::Recovers => databases.recover().map(drop),
        Work::Traced => traced(last),
        Work::Holds => holds(last),
        Work::Wanders => wanders(last),
    };
    match result {
        Ok(()) => println!("\ntold: committed"),
        Err(error) if error.is_in_doubt() => println!("\ntold: unknown ({error})"),
        Err(error) => println!("\ntold: rolled back ({error})"),
    }
    if work == Work::Recovers || std::env::var("MULTIDB_TEST_CRASH_AGAIN").is_err() {
        return;
    }
    let again = transfer(last, AGAIN, AGAIN, None);
    let in_use = |alias: &str| {
        let state = databases.database(alias).unwrap().pool_state();
        state.connections - state.idle_connections
    };
    let in_use: u32 = ["accounts", "entries", "audits"][..=last].iter().map(|alias| in_use(alias)).sum();
    match again {
        Ok(()) => println!("then: committed, {in_use} in use"),
        Err(error) => println!("then: {error}, {in_use} in use"),
    }
}

/// Puts a row into each database; into the last one `last_id`. `reads` is only read.
pub(crate) fn transfer(last: usize, id: i64, last_id: i64, reads: Option<usize>) -> Result<(), Error> {
    listed(last, |at, conn| put(at, conn, if at == last { last_id } else { id }, reads))
}

/// A scope that lists the models of all databases, with some work on each.
fn listed(last: usize, work: impl FnMut(usize, &mut AnyConn) -> Result<(), Error>) -> Result<(), Error> {
    listed_as(CommitMode::Atomic, Acknowledge::Applied, last, work)
}

fn acknowledged(databases: &Databases, last: usize) -> Result<(), Error> {
    let handle = databases.start_recovery();
    // Only what is handed over is done.
    handle.suspend();
    let result = listed_as(CommitMode::Atomic, Acknowledge::Decided, last, |at, conn| put(at, conn, 1, None));
    handle.stop();
    result
}

fn in_parts(last: usize, id: i64) -> Result<(), Error> {
    listed_as(CommitMode::BestEffort, Acknowledge::Applied, last, |at, conn| put(at, conn, id, None))
}

fn listed_as(
    mode: CommitMode,
    acknowledge: Acknowledge,
    last: usize,
    mut work: impl FnMut(usize, &mut AnyConn) -> Result<(), Error>,
) -> Result<(), Error> {
    let body = |scope: &multidb::Scope<'_>| {
        work(0, &mut scope.conn::<Account, AnyConn>()?)?;
        work(1, &mut scope.conn::<Entry, AnyConn>()?)?;
        if last == 2 {
            work(2, &mut scope.conn::<Audit, AnyConn>()?)?;
        }
        Ok::<_, Error>(())
    };
    if last == 1 {
        atomic_many::<(Account, Entry)>().commit(mode).acknowledge(acknowledge).run(body)
    } else {
        atomic_many::<(Account, Entry, Audit)>().commit(mode).acknowledge(acknowledge).run(body)
    }
}

fn late(last: usize, id: i64) -> Result<(), Error> {
    atomic::<Account>().run(|conn: &mut AnyConn| {
        put(0, conn, id, None)?;
        atomic::<Entry>().run(|conn: &mut AnyConn| put(1, conn, id, None))?;
        if last == 2 {
            atomic::<Audit>().run(|conn: &mut AnyConn| put(2, conn, id, None))?;
        }
        Ok(())
    })
}

fn alone(last: usize, id: i64) -> Result<(), Error> {
    listed(last, |at, conn| if at == last { put(at, conn, id, None) } else { Ok(()) })
}

fn manual(last: usize) -> Result<(), Error> {
    let put_all = |id: i64| {
        put_on::<Account>(0, id)?;
        put_on::<Entry>(1, id)?;
        if last == 2 { put_on::<Audit>(2, id) } else { Ok(()) }
    };
    let body = |_: &multidb::Scope<'_>| {
        put_all(1)?;
        scope::commit()?;
        point("manual.between_commits");
        put_all(2)?;
        scope::commit()
    };
    if last == 1 {
        atomic_many::<(Account, Entry)>().manual().run(body)
    } else {
        atomic_many::<(Account, Entry, Audit)>().manual().run(body)
    }
}

fn wanders(last: usize) -> Result<(), Error> {
    let on: usize = std::env::var("MULTIDB_TEST_CRASH_WANDERS_ON").unwrap().parse().unwrap();
    let text = std::env::var("MULTIDB_TEST_CRASH_WANDERS_BY").unwrap();
    listed(last, |at, conn| {
        put(at, conn, 1, None)?;
        if at == on { Ok(conn.batch_execute(&text)?) } else { Ok(()) }
    })
}

fn put_on<M: Model>(table: usize, id: i64) -> Result<(), Error> {
    put(table, &mut multidb::connection::<M, AnyConn>()?, id, None)
}

fn holds(last: usize) -> Result<(), Error> {
    listed(last, |_, _| Ok(()))?;
    let mut all = vec![multidb::connection::<Account, AnyConn>()?, multidb::connection::<Entry, AnyConn>()?];
    if last == 2 {
        all.push(multidb::connection::<Audit, AnyConn>()?);
    }
    for (at, conn) in all.iter_mut().enumerate() {
        put(at, conn, 0, Some(at))?;
    }
    point("holds");
    Ok(())
}

fn traced(last: usize) -> Result<(), Error> {
    for id in 10..20 {
        let undone = listed(last, |at, conn| {
            put(at, conn, id, None)?;
            if at == last { Err(diesel::result::Error::RollbackTransaction.into()) } else { Ok(()) }
        });
        assert!(undone.is_err());
    }
    drop(std::fs::File::open(BEGINS));
    let result = transfer(last, 1, 1, None);
    drop(std::fs::File::open(ENDS));
    result
}

fn put(table: usize, conn: &mut AnyConn, id: i64, reads: Option<usize>) -> Result<(), Error> {
    let only_reads = reads == Some(table);
    match table {
        0 if only_reads => drop(accounts::table.count().get_result::<i64>(conn)?),
        1 if only_reads => drop(entries::table.count().get_result::<i64>(conn)?),
        2 if only_reads => drop(audits::table.count().get_result::<i64>(conn)?),
        0 => drop(diesel::insert_into(accounts::table).values(accounts::id.eq(id)).execute(conn)?),
        1 => drop(diesel::insert_into(entries::table).values(entries::id.eq(id)).execute(conn)?),
        _ => drop(diesel::insert_into(audits::table).values(audits::id.eq(id)).execute(conn)?),
    }
    Ok(())
}

/// Recovers until nothing is in doubt: others may still be at it.
pub(crate) fn recover(databases: &Databases) {
    recover_until(databases, RecoveryReport::is_clear);
}

/// Recovers until a pass reports what is wanted.
pub(crate) fn recover_until(databases: &Databases, wanted: impl Fn(&RecoveryReport) -> bool) -> RecoveryReport {
    let begin = Instant::now();
    loop {
        let report = databases.recover().unwrap();
        if wanted(&report) {
            return report;
        }
        assert!(begin.elapsed() < LIMIT, "this is not what is waited for: {report}");
        std::thread::sleep(POLL);
    }
}
