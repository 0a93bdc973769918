//! What has committed inside of a scope by itself: it is not done twice, and a manual scope reports what it could not do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::prelude::*;
use multidb::{Error, Propagation, atomic, connection_on, scope};

use super::retry::{stumbling, with_stumbling};
use super::*;
use crate::fixture::Kind;

/// Runs a scope with `retry` that fails in a way that may pass, after `independent` has run in it. Gives the attempts.
fn attempts(independent: impl Fn(i64) -> Result<(), Error>) -> i64 {
    let runs = Cell::new(0);
    let run = atomic::<Item>().retry(3).run(|conn: &mut H| {
        runs.set(runs.get() + 1);
        put(runs.get(), 0)?;
        independent(runs.get())?;
        Ok::<_, Error>(conn.batch_execute(stumbling())?)
    });
    assert!(run.is_err(), "{run:?}");
    runs.get()
}

#[test]
fn a_scope_is_not_run_again_once_something_independent_has_committed_in_it() {
    let Some(fixture) = fixture() else { return };
    with_stumbling(&fixture);
    let _entered = fixture.databases().enter();
    assert_eq!(attempts(|_| Ok(())), 4, "nothing independent has run");
    let audits = |fixture: &Fixture| fixture.rows("other").len();
    let insert_alone = |id: i64| {
        let mut conn = connection_on::<H>("other")?;
        diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(&mut conn)?;
        Ok(())
    };
    assert_eq!((attempts(|n| put_record_apart(n, 0)), audits(&fixture)), (1, 1), "requires_new");
    let suspended = |n| {
        let suspended = atomic::<Record>().propagation(Propagation::NotSupported);
        suspended.run(|conn: &mut H| {
            diesel::insert_into(items::table).values((items::id.eq(10 + n), items::value.eq(0))).execute(conn)?;
            Ok::<_, Error>(())
        })
    };
    assert_eq!((attempts(suspended), audits(&fixture)), (1, 2), "not_supported");
    let outside = connection_outside();
    let by_handle = |n| {
        let mut conn = outside.borrow_mut();
        diesel::insert_into(items::table).values((items::id.eq(20 + n), items::value.eq(0))).execute(&mut *conn)?;
        Ok(())
    };
    assert_eq!((attempts(by_handle), audits(&fixture)), (1, 3), "a handle from outside");
    let detached = |n| multidb::detached(|| insert_alone(30 + n));
    assert_eq!((attempts(detached), audits(&fixture)), (1, 4), "detached");
    let manual = |n| {
        atomic::<Record>().propagation(Propagation::RequiresNew).manual().run(|conn: &mut H| {
            diesel::insert_into(items::table).values((items::id.eq(40 + n), items::value.eq(0))).execute(conn)?;
            scope::commit()
        })
    };
    assert_eq!((attempts(manual), audits(&fixture)), (1, 5), "a manual commit");
    // What has only read, or was rolled back, is no reason.
    let reads = |_| {
        let count = items::table.count().get_result::<i64>(&mut *outside.borrow_mut());
        count.map(drop).map_err(Error::from)
    };
    assert_eq!(attempts(reads), 4);
    let undone = |n| {
        let failed = atomic::<Record>().propagation(Propagation::RequiresNew).run(|conn: &mut H| {
            diesel::insert_into(items::table).values((items::id.eq(50 + n), items::value.eq(0))).execute(conn)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(failed.is_err());
        Ok(())
    };
    assert_eq!((attempts(undone), audits(&fixture)), (4, 5));
}

/// A handle on the other database, taken outside of any scope.
fn connection_outside() -> RefCell<H> {
    RefCell::new(connection_on::<H>("other").unwrap())
}

#[test]
fn a_manual_commit_or_rollback_with_an_open_cursor_changes_nothing() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(100, 0).unwrap();
    let hooks = Rc::new(RefCell::new(Vec::new()));
    let run = atomic::<Item>().manual().run(|conn: &mut H| {
        let (committed, rolled_back) = (Rc::clone(&hooks), Rc::clone(&hooks));
        put(1, 10)?;
        scope::on_commit(move || committed.borrow_mut().push("committed"));
        scope::on_rollback(move || rolled_back.borrow_mut().push("rolled back"));
        if KIND != Kind::Postgres {
            // PostgreSQL's cursor has received all rows, and keeps no connection.
            let mut second = multidb::connection::<Item, H>()?;
            let mut reading = items::table.load_iter::<Item, DefaultLoadingMode>(&mut second)?;
            assert!(reading.next().is_some());
            for ended in [scope::rollback(), scope::commit()] {
                assert!(matches!(ended, Err(Error::Busy { .. })), "{ended:?}");
            }
        }
        assert!(hooks.borrow().is_empty());
        diesel::insert_into(items::table).values((items::id.eq(2), items::value.eq(20))).execute(conn)?;
        scope::rollback()?;
        put(3, 30)?;
        scope::commit()
    });
    run.unwrap();
    assert_eq!(*hooks.borrow(), ["rolled back"]);
    assert_eq!(fixture.rows("default"), [(3, 30), (100, 0)]);
}

#[test]
fn a_manual_scope_that_could_not_commit_for_a_cursor_has_pending_work() {
    let Some(fixture) = fixture() else { return };
    if KIND == Kind::Postgres {
        return; // its cursors keep no connection
    }
    let _entered = fixture.databases().enter();
    put(100, 0).unwrap();
    let run = atomic::<Item>().manual().run(|_: &mut H| {
        put(1, 10)?;
        let mut second = multidb::connection::<Item, H>()?;
        let mut reading = items::table.load_iter::<Item, DefaultLoadingMode>(&mut second)?;
        assert!(reading.next().is_some());
        assert!(matches!(scope::commit(), Err(Error::Busy { .. })));
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::PendingWork { .. })), "{run:?}");
    assert_eq!(fixture.rows("default"), [(100, 0)]);
}
