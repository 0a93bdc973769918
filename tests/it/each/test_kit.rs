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
        conn.transaction(|conn| insert(conn, 4).and(Err::<(), _>(diesel::result::Error::RollbackTransaction)))
            .unwrap_err();
        put(5, 0).map_err(|_| diesel::result::Error::RollbackTransaction)
    })
    .unwrap();
    conn.transaction(|conn| insert(conn, 6).and(Err::<(), _>(diesel::result::Error::RollbackTransaction))).unwrap_err();
    assert!(
        catch_unwind(AssertUnwindSafe(|| conn.transaction(|conn| -> QueryResult<()> {
            insert(conn, 7)?;
            panic!("on purpose")
        })))
        .is_err()
    );
    {
        let mut tested = connection::<Item, H>().unwrap();
        tested.begin_test_transaction().unwrap();
        insert(&mut tested, 8).unwrap();
        put(9, 0).unwrap();
    }
    assert_eq!(ids(), [1, 3, 5]);
    // Lent, with a transaction of its own.
    conn.with_raw(|raw| {
        raw.transaction(|raw| raw.batch_execute("INSERT INTO items VALUES (10, 0)")).map_err(Error::from)
    })
    .unwrap();
    // Rows one by one, of which some are left.
    {
        let mut rows = items::table.load_iter::<Item, diesel::connection::DefaultLoadingMode>(conn).unwrap();
        rows.next().unwrap().unwrap();
    }
    assert!(
        catch_unwind(|| atomic::<Item>().run(|conn: &mut H| -> Result<(), Error> {
            insert(conn, 11)?;
            panic!("on purpose")
        }))
        .is_err()
    );
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

#[test]
fn a_constraint_that_waits_for_the_commit_is_checked_at_the_end_of_a_scope_of_a_test() {
    if KIND != Kind::Postgres {
        return;
    }
    let Some(fixture) = fixture() else { return };
    fixture
        .observer("default")
        .batch_execute("CREATE TABLE parts (item BIGINT REFERENCES items DEFERRABLE INITIALLY DEFERRED)")
        .unwrap();
    let databases = fixture.databases();
    let put_part = || {
        atomic::<Item>().run(|conn: &mut H| {
            conn.batch_execute("INSERT INTO parts VALUES (1)")?;
            Ok::<_, Error>(())
        })
    };
    {
        let _entered = databases.enter();
        put_part().unwrap_err();
    }
    let _test = rolled_back(&databases).unwrap();
    put_part().unwrap_err();
    connection::<Item, H>().unwrap().batch_execute("INSERT INTO parts VALUES (2)").unwrap_err();
    // Still only at the end, in the next scope as well.
    for _ in 0..2 {
        let run = atomic::<Item>().run(|conn: &mut H| {
            conn.batch_execute("INSERT INTO parts VALUES (3)")?;
            conn.batch_execute("INSERT INTO items VALUES (3, 0) ON CONFLICT DO NOTHING")?;
            Ok::<_, Error>(())
        });
        run.unwrap();
    }
}

#[test]
fn a_captured_hook_that_panics_does_not_stop_the_others() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _test = rolled_back(&databases).unwrap();
    let ran = std::rc::Rc::new(std::cell::Cell::new(0));
    let counted = std::rc::Rc::clone(&ran);
    let (_, captured) = multidb::testing::capture_hooks(|| {
        atomic::<Item>().run(|_: &mut H| {
            scope::on_commit(|| -> () { panic!("on purpose") });
            scope::on_commit(move || counted.set(counted.get() + 1));
            Ok::<_, Error>(())
        })
    });
    let run = catch_unwind(AssertUnwindSafe(|| atomic::<Item>().run(|_: &mut H| Ok::<_, Error>(captured.run()))));
    assert_eq!(ran.get(), 1);
    assert!(matches!(run, Ok(Ok(Err(errors))) if errors.len() == 1 && errors[0].to_string().contains("on purpose")));
}

#[test]
fn captured_hooks_run_outside_of_the_scope_around_them() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _test = rolled_back(&databases).unwrap();
    let (_, captured) = multidb::testing::capture_hooks(|| {
        atomic::<Item>().run(|_: &mut H| {
            scope::on_commit(|| assert_eq!(scope::depth(), 0));
            Ok::<_, Error>(())
        })
    });
    atomic::<Item>()
        .run(|_: &mut H| {
            captured.run().unwrap();
            Ok::<_, Error>(())
        })
        .unwrap();
}

#[test]
fn a_ddl_outside_of_scopes_that_commits_the_work_of_a_test_is_told_of() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = rolled_back(&databases).unwrap();
    put(1, 10).unwrap();
    let made = connection::<Item, H>().unwrap().batch_execute("CREATE TABLE made (id BIGINT)").map_err(Error::from);
    assert_eq!(matches!(made, Err(Error::ImplicitCommit { .. })), KIND == Kind::Mysql, "{made:?}");
    drop(test);
    assert_eq!(fixture.rows("default").len(), usize::from(KIND == Kind::Mysql));
}

#[test]
fn a_failure_that_is_planned_for_later_lets_the_first_ones_pass() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = rolled_back(&databases).unwrap();
    test.fail_after("default", Point::Commit, 2, Fault::Refused).unwrap();
    put(1, 0).unwrap();
    put(2, 0).unwrap();
    assert_eq!(test.faults_left(), 1);
    put(3, 0).unwrap_err();
    put(4, 0).unwrap();
    assert_eq!((ids(), test.faults_left()), (vec![1, 2, 4], 0));
}
