//! What a test of an application finds that production would not have done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::testing::{Fault, Point, rolled_back};
use multidb::{Error, atomic, connection, scope};

use super::*;
use crate::fixture::Kind;

fn insert(conn: &mut H, id: i64) -> QueryResult<usize> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)
}

fn ids() -> Vec<i64> {
    items::table.select(items::id).order(items::id).load(&mut connection::<Item, H>().unwrap()).unwrap()
}

#[test]
fn a_planned_failure_takes_nothing_away_that_was_committed_before_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    for point in [Point::Begin, Point::Statement, Point::Savepoint, Point::RollbackTo, Point::Commit, Point::Rollback] {
        for fault in [Fault::Refused, Fault::Serialization, Fault::ConnectionLost, Fault::ReplyLost] {
            let test = rolled_back(&databases).unwrap();
            put(1, 10).unwrap();
            test.fail("default", point, fault).unwrap();
            let run = atomic::<Item>().run(|conn: &mut H| {
                insert(conn, 2)?;
                put_and_fail(3).unwrap_err();
                insert(conn, 4)?;
                if point == Point::Rollback { Err(Mishap::OnPurpose) } else { Ok(()) }
            });
            assert_eq!(test.faults_left(), 0, "{point:?} {fault:?}");
            // What is lost after a COMMIT was carried out is its answer alone; a BEGIN is repeated elsewhere.
            let kept = point == Point::Commit && fault == Fault::ReplyLost
                || point == Point::Begin && matches!(fault, Fault::ConnectionLost | Fault::ReplyLost);
            let left: &[i64] = if kept { &[1, 2, 4] } else { &[1] };
            assert_eq!(ids(), left, "{point:?} {fault:?} {run:?}");
            drop(test);
            assert_eq!(fixture.rows("default"), [], "{point:?} {fault:?}");
        }
    }
    // In autocommit too.
    let test = rolled_back(&databases).unwrap();
    put(1, 10).unwrap();
    for fault in [Fault::UniqueViolation, Fault::ConnectionLost, Fault::ReplyLost] {
        test.fail("default", Point::Statement, fault).unwrap();
        insert(&mut connection::<Item, H>().unwrap(), 2).unwrap_err();
        assert_eq!(ids(), [1], "{fault:?}");
    }
}

#[test]
fn work_that_a_text_inside_with_raw_has_committed_is_told_of() {
    if KIND == Kind::Sqlite {
        // It refuses a BEGIN in a transaction.
        return;
    }
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _test = rolled_back(&databases).unwrap();
    let run = connection::<Item, H>().unwrap().with_raw(|raw| {
        raw.batch_execute("BEGIN")?;
        raw.batch_execute("INSERT INTO items VALUES (1, 1)")?;
        raw.batch_execute("COMMIT")?;
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::TransactionControl { .. })), "{run:?}");
}

#[test]
fn statements_outside_of_scopes_fail_and_end_as_in_production() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = rolled_back(&databases).unwrap();
    let conn = &mut connection::<Item, H>().unwrap();
    insert(conn, 1).unwrap();
    insert(conn, 1).unwrap_err();
    conn.batch_execute("INSERT INTO items VALUES (2, 2); INSERT INTO items VALUES (1, 1)").unwrap_err();
    let second = KIND != Kind::Postgres;
    assert_eq!(ids(), if second { vec![1, 2] } else { vec![1] });
    diesel::delete(items::table.find(2)).execute(conn).unwrap();
    // Diesel's own transactions.
    conn.transaction(|conn| {
        insert(conn, 3)?;
        conn.transaction(|conn| insert(conn, 4).and(Err::<(), _>(diesel::result::Error::RollbackTransaction))).unwrap_err();
        put(5, 0).map_err(|_| diesel::result::Error::RollbackTransaction)
    })
    .unwrap();
    conn.transaction(|conn| insert(conn, 6).and(Err::<(), _>(diesel::result::Error::RollbackTransaction))).unwrap_err();
    assert!(catch_unwind(AssertUnwindSafe(|| conn.transaction(|conn| -> QueryResult<()> {
        insert(conn, 7)?;
        panic!("on purpose")
    })))
    .is_err());
    {
        let mut tested = connection::<Item, H>().unwrap();
        tested.begin_test_transaction().unwrap();
        insert(&mut tested, 8).unwrap();
        put(9, 0).unwrap();
    }
    assert_eq!(ids(), [1, 3, 5]);
    // Lent, with a transaction of its own.
    conn.with_raw(|raw| raw.transaction(|raw| raw.batch_execute("INSERT INTO items VALUES (10, 0)")).map_err(Error::from))
        .unwrap();
    // Rows one by one, of which some are left.
    {
        let mut rows = items::table.load_iter::<Item, diesel::connection::DefaultLoadingMode>(conn).unwrap();
        rows.next().unwrap().unwrap();
    }
    assert!(catch_unwind(|| atomic::<Item>().run(|conn: &mut H| -> Result<(), Error> {
        insert(conn, 11)?;
        panic!("on purpose")
    }))
    .is_err());
    assert_eq!((ids(), in_use(test.databases(), "default")), (vec![1, 3, 5, 10], 0));
    drop(test);
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn a_thread_that_holds_another_database_waits_for_the_one_that_a_third_uses() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = rolled_back(&databases).unwrap();
    put(1, 10).unwrap();
    let (held, tried) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|threads| {
        let databases = test.databases();
        threads.spawn(|| {
            let _entered = databases.enter();
            atomic::<Item>()
                .run(|conn: &mut H| {
                    insert(conn, 2)?;
                    held.wait();
                    tried.wait();
                    Ok::<_, Error>(())
                })
                .unwrap();
        });
        held.wait();
        let run = atomic::<Record>().run(|conn: &mut H| {
            insert(conn, 1)?;
            let mut outside = connection_elsewhere();
            let error = insert(&mut outside, 3).map_err(Error::from);
            Ok::<_, Error>(error)
        });
        tried.wait();
        // It has waited as long as in production, and says who has it.
        assert!(matches!(run, Ok(Err(Error::PoolExhausted { .. }))), "{run:?}");
    });
}

/// A handle that belongs to no scope.
fn connection_elsewhere() -> H {
    multidb::detached(|| connection::<Item, H>().unwrap())
}

#[test]
fn a_scope_after_an_abandoned_connection_is_as_any_other() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = rolled_back(&databases).unwrap();
    put(1, 10).unwrap();
    let run = catch_unwind(|| {
        atomic::<Item>().run(|conn: &mut H| {
            conn.with_raw(|raw| {
                raw.batch_execute("INSERT INTO items VALUES (2, 2)")?;
                panic!("on purpose");
                #[expect(unreachable_code, reason = "gives the closure its type")]
                Ok::<(), Error>(())
            })
        })
    });
    assert!(run.is_err());
    assert_eq!(scope::depth(), 0);
    assert_eq!((ids(), in_use(test.databases(), "default")), (vec![1], 0));
}
