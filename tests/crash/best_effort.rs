//! A process that is killed between two commits of `commit = best_effort`: what has committed stays, the rest is rolled back,
//! and nothing is left that recovery would have to do.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use diesel::prelude::*;
use multidb::fault::{Stop, arm};
use multidb::{AnyConn, CommitMode, Error, atomic_many};

use crate::child::recover;
use crate::places::{Account, Audit, Entry, Kind, Places, accounts, audits, entries, registry};

use Kind::{MariaDb, Postgres, Sqlite};

/// The point of a branch.
fn between(branch: usize) -> String {
    format!("best_effort.between.{branch}")
}

/// Puts a row into each of three databases.
fn put(id: i64) -> Result<(), Error> {
    atomic_many::<(Account, Entry, Audit)>().commit(CommitMode::BestEffort).run(|scope| {
        let [mut first, mut second, mut third] =
            [scope.conn::<Account, AnyConn>()?, scope.conn::<Entry, AnyConn>()?, scope.conn::<Audit, AnyConn>()?];
        diesel::insert_into(accounts::table).values(accounts::id.eq(id)).execute(&mut first)?;
        diesel::insert_into(entries::table).values(entries::id.eq(id)).execute(&mut second)?;
        diesel::insert_into(audits::table).values(audits::id.eq(id)).execute(&mut third)?;
        Ok(())
    })
}

/// The child. Run by itself it does nothing.
#[test]
fn puts() {
    let Ok(point) = std::env::var("MULTIDB_TEST_CRASH_PARTS") else { return };
    let urls = std::env::var("MULTIDB_TEST_CRASH_URLS").unwrap();
    let _entered = registry(urls.split(' ')).enter();
    arm(&point, 0, Stop::Kill);
    put(1).unwrap();
}

/// How a child ends that was to be killed at a point: by which signal, or with which code.
fn end_of_child(places: &Places, point: &str) -> (Option<i32>, Option<i32>) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "best_effort::puts"])
        .env("MULTIDB_TEST_CRASH_PARTS", point)
        .env("MULTIDB_TEST_CRASH_URLS", places.urls.join(" "))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    (status.signal(), status.code())
}

#[test]
fn a_kill_between_two_commits_leaves_the_rows_of_those_that_were_done_and_nothing_else() {
    const SIGKILL: i32 = 9;
    for kinds in [
        [Postgres, Postgres, Postgres],
        [MariaDb, MariaDb, MariaDb],
        [Sqlite, Sqlite, Sqlite],
        [Sqlite, Postgres, MariaDb],
        [MariaDb, Sqlite, Postgres],
    ] {
        // The last listed commits first.
        for (branch, left) in [(2, [false, false, true]), (1, [false, true, true])] {
            let Some(places) = Places::new(&kinds) else { return };
            let point = between(branch);
            assert_eq!(end_of_child(&places, &point), (Some(SIGKILL), None), "{places}: not killed at {point}");
            let databases = places.databases();
            let report = databases.recover().unwrap();
            assert!(report.is_clear() && report.problems().is_empty(), "{places}, {point}: {report}");
            for (at, is_there) in left.into_iter().enumerate() {
                let expected: &[i64] = if is_there { &[1] } else { &[] };
                assert_eq!(places.rows(at), expected, "{places}, {point}: database {at}");
                assert_eq!((places.prepared(at), places.own_rows(at)), (0, [0, 0]), "{places}, {point}: database {at}");
            }
            // It can be used as before: no lock is held by what was killed.
            let _entered = databases.enter();
            put(2).unwrap_or_else(|error| panic!("{places}, {point}: {error}"));
            recover(&databases);
            assert!((0..3).all(|at| places.rows(at).contains(&2)), "{places}, {point}");
        }
    }
}

#[test]
fn behind_the_last_commit_there_is_no_point_between_two() {
    let Some(places) = Places::new(&[Sqlite, Sqlite, Sqlite]) else { return };
    assert_eq!(end_of_child(&places, &between(0)), (None, Some(0)));
    assert!((0..3).all(|at| places.rows(at) == [1]));
}
