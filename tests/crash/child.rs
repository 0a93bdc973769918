//! The process that is killed.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use diesel::prelude::*;
use multidb::fault::{Stop, arm};
use multidb::{AnyConn, Databases, Error, atomic, atomic_many};

use crate::places::{Account, Audit, Entry, Places, accounts, audits, entries, registry};

/// What the child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// One transaction whose scope lists all models.
    Listed,
    /// One whose scope lists the first model alone: the others join later.
    Late,
    /// One that fails at the last PREPARE, by a constraint that waits for it.
    Fails,
    /// One in which the last database is only read.
    Reads,
    /// A hundred transactions, so that the last one deletes the rows of all.
    Hundred,
    /// One pass of recovery.
    Recovers,
}

const WORKS: [Work; 6] = [Work::Listed, Work::Late, Work::Fails, Work::Reads, Work::Hundred, Work::Recovers];

/// Starts a child that stops at a point.
pub(crate) fn start(places: &Places, work: Work, point: &str, stop: Stop) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child::works", "--nocapture"])
        .env("MULTIDB_TEST_CRASH", format!("{work:?} {point} {stop:?}"))
        .env("MULTIDB_TEST_CRASH_URLS", places.urls.join(" "))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs a child that is killed at a point, and fails where it was not.
pub(crate) fn kill_at(places: &Places, work: Work, point: &str) {
    const SIGKILL: i32 = 9;
    let status = start(places, work, point, Stop::Kill).wait().unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{places}: {work:?} was not killed at {point}: {status}");
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
        std::thread::yield_now();
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
    let Ok(what) = std::env::var("MULTIDB_TEST_CRASH") else { return };
    let [work, point, stop] = what.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let work = WORKS.into_iter().find(|known| format!("{known:?}") == work).unwrap();
    let urls = std::env::var("MULTIDB_TEST_CRASH_URLS").unwrap();
    let databases = registry(urls.split(' '));
    let last = urls.split(' ').count() - 1;
    let _entered = databases.enter();
    arm(point, 0, if stop == "Kill" { Stop::Kill } else { Stop::Pause });
    match work {
        Work::Listed => transfer(last, 1, 1, None).unwrap(),
        Work::Late => late(last, 1).unwrap(),
        Work::Fails => drop(transfer(last, 1, -1, None)),
        Work::Reads => transfer(last, 1, 1, Some(last)).unwrap(),
        Work::Hundred => (1..=100).for_each(|id| transfer(last, id, id, None).unwrap()),
        Work::Recovers => drop(databases.recover().unwrap()),
    }
}

/// Puts a row into each database; into the last one `last_id`. `reads` is only read.
pub(crate) fn transfer(last: usize, id: i64, last_id: i64, reads: Option<usize>) -> Result<(), Error> {
    let body = |scope: &multidb::Scope<'_>| {
        put(0, &mut scope.conn::<Account, AnyConn>()?, id, reads)?;
        put(1, &mut scope.conn::<Entry, AnyConn>()?, if last == 1 { last_id } else { id }, reads)?;
        if last == 2 {
            put(2, &mut scope.conn::<Audit, AnyConn>()?, last_id, reads)?;
        }
        Ok::<_, Error>(())
    };
    if last == 1 {
        atomic_many::<(Account, Entry)>().run(body)
    } else {
        atomic_many::<(Account, Entry, Audit)>().run(body)
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

/// Recovers until nothing is in doubt: the server needs a moment to see that a killed process has gone.
pub(crate) fn recover(databases: &Databases) {
    const PASSES: usize = 2_000;
    let clear = (0..PASSES).any(|_| databases.recover().unwrap().is_clear());
    assert!(clear, "still in doubt: {}", databases.recover().unwrap());
}
