//! Tests of applications whose transactions are on two databases: a commit is a release of levels on both.

use diesel::prelude::*;
use multidb::testing::{Fault, Point, rolled_back};
use multidb::{Error, atomic, atomic_many, connection, scope};

use super::*;
use crate::fixture::Kind;

/// Puts a row into each database.
fn put_both(id: i64) -> Result<(), Error> {
    atomic_many::<(Item, Record)>().run(|_| {
        put(id, 10)?;
        put_record(id, 20)
    })
}

/// What the test sees of both, in autocommit.
fn seen() -> [Vec<i64>; 2] {
    [connection::<Item, H>().unwrap(), connection::<Record, H>().unwrap()]
        .map(|mut conn| items::table.select(items::id).order(items::id).load(&mut conn).unwrap())
}

#[test]
fn both_databases_of_a_test_keep_a_commit_or_neither_does_and_nothing_stays() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = rolled_back(&databases).unwrap();
    // The library's tables are not needed: nobody will ever recover it.
    put_both(1).unwrap();
    let failed = atomic_many::<(Item, Record)>().run(|_| {
        put(2, 10)?;
        put_record(2, 20)?;
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(failed, Err(Mishap::OnPurpose)));
    assert_eq!(seen(), [vec![1], vec![1]]);
    drop(test);
    assert_eq!((fixture.rows("default").len(), fixture.rows("other").len()), (0, 0));
}

#[test]
fn a_planned_failure_of_any_phase_leaves_both_or_neither() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let mut id = 0;
    for (alias, point, kept) in [
        ("other", Point::Prepare, false),
        ("default", Point::Commit, false),
        // Decided by then: in production recovery finishes what is left.
        ("other", Point::CommitPrepared, true),
    ] {
        for fault in [Fault::Refused, Fault::Deadlock] {
            let test = rolled_back(&databases).unwrap();
            id += 1;
            test.fail(alias, point, fault).unwrap();
            let put = put_both(id);
            assert_eq!(test.faults_left(), 0, "{point:?} was not reached");
            assert_eq!(put.is_ok(), kept, "{point:?}, {fault:?}: {put:?}");
            if let Err(error) = put {
                assert_eq!(error.is_retryable(), fault == Fault::Deadlock, "{point:?}: {error}");
            }
            if !kept {
                assert_eq!(seen(), [const { Vec::<i64>::new() }; 2], "{point:?}, {fault:?}");
                put_both(id).unwrap();
                assert_eq!(seen(), [vec![id], vec![id]], "{point:?}, {fault:?}");
            }
        }
    }
}

#[test]
fn a_database_that_joins_later_is_judged_as_in_production() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _test = rolled_back(&databases).unwrap();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        put_record(1, 20)
    });
    let refused = matches!(run, Err(Error::NotAtomic { .. }));
    assert_eq!(refused, super::KIND == Kind::Sqlite, "{run:?}");
    assert_eq!(seen(), if refused { [Vec::new(), Vec::new()] } else { [vec![1], vec![1]] });
    // Manual scopes and retries too.
    let manual = atomic_many::<(Item, Record)>().manual().run(|_| {
        put(5, 10)?;
        put_record(5, 20)?;
        scope::commit()?;
        put_record(6, 20)?;
        scope::rollback()
    });
    manual.unwrap();
    assert!(seen().iter().all(|ids| ids.last() == Some(&5)), "{:?}", seen());
}
