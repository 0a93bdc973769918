//! Another program has locked SQLite's file: at BEGIN, and at COMMIT.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Mutex;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{
    Databases, Error, FailureClass, Route, RouteRequest, Router, SqliteConn, atomic, connection, schema, scope,
};

use crate::sqlite::*;

/// A pool of one connection that hardly waits for locks.
fn impatient(fixture: &Fixture) -> Databases {
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.sqlite.busy_timeout = Some("1ms".into());
    config.pool.max_size = Some(1);
    Databases::builder().database(config).build().unwrap()
}

fn insert(conn: &mut SqliteConn, id: i64) -> QueryResult<()> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn).map(drop)
}

/// Claims that the pool's connection holds no lock and is in no transaction, and that it serves who comes next.
fn assert_clean(fixture: &Fixture, databases: &Databases, expected: &[i64], name: &str) {
    let ids = || fixture.rows("default").into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let state = databases.database("default").unwrap().pool_state();
    assert_eq!((state.connections, state.idle_connections), (1, 1), "{name}: the connection is fit for the pool");
    assert_eq!(ids(), expected, "{name}");
    let lock = fixture.observer("default").batch_execute("BEGIN EXCLUSIVE; ROLLBACK");
    assert!(lock.is_ok(), "{name}: the pool holds a lock: {lock:?}");
    insert(&mut connection::<Item, SqliteConn>().unwrap(), 1001).unwrap();
    assert!(ids().contains(&1001), "{name}: the connection is inside a transaction");
    put(1002, 0).unwrap_or_else(|error| panic!("{name}: the next scope: {error}"));
    assert_eq!(ids(), [expected, &[1001, 1002]].concat(), "{name}");
    diesel::delete(items::table.filter(items::id.gt(1000))).execute(&mut fixture.observer("default")).unwrap();
}

#[test]
fn a_begin_that_finds_the_file_locked_is_never_ok_at_any_depth() {
    let Some(fixture) = fixture() else { return };
    let databases = impatient(&fixture);
    let _entered = databases.enter();
    put(1, 10).unwrap();
    for (nested, swallows) in [(false, false), (false, true), (true, false), (true, true)] {
        let name = format!("nested: {nested}, swallows: {swallows}");
        let mut other = fixture.observer("default");
        other.batch_execute("BEGIN IMMEDIATE").unwrap();
        let run = atomic::<Item>().run(|conn: &mut SqliteConn| {
            let locked = if nested { put(2, 0) } else { insert(conn, 2).map_err(Error::from) };
            assert!(locked.as_ref().is_err_and(Error::is_retryable), "{name}: {locked:?}");
            other.batch_execute("COMMIT").unwrap();
            if !swallows {
                locked?;
            }
            // The file is free again, but what came before is not there.
            let _ = insert(conn, 3);
            let _ = put(4, 0);
            Ok::<_, Error>(())
        });
        let error = run.unwrap_err();
        assert!(error.is_retryable() && !error.is_in_doubt(), "{name}: {error}");
        if swallows {
            let Error::Doomed { first, .. } = error else { panic!("{name}: {error}") };
            assert_eq!(first.class(), FailureClass::Locked, "{name}");
        }
        assert_eq!(fixture.rows("default"), [(1, 10)], "{name}");
        assert_eq!(in_use(&databases, "default"), 0, "{name}");
        // A batch that failed may have been carried out in part, so its connection is not kept.
        put(5, 0).unwrap();
        assert_clean(&fixture, &databases, &[1, 5], &name);
        diesel::delete(items::table.find(5)).execute(&mut fixture.observer("default")).unwrap();
    }
}

#[test]
fn a_commit_that_finds_the_file_locked_leaves_nothing_and_holds_no_lock() {
    let Some(fixture) = fixture() else { return };
    let databases = impatient(&fixture);
    let _entered = databases.enter();
    put(1, 10).unwrap();
    for (nested, manual) in [(false, false), (true, false), (false, true), (true, true)] {
        let name = format!("nested: {nested}, manual: {manual}");
        let mut reader = fixture.observer("default");
        reader.batch_execute("BEGIN; SELECT * FROM items").unwrap();
        let hooks = [Rc::new(Cell::new(0_u8)), Rc::default()];
        let [committed, rolled_back] = hooks.clone();
        let scope = if manual { atomic::<Item>().manual() } else { atomic::<Item>() };
        let run = scope.run(|conn: &mut SqliteConn| {
            scope::on_commit(move || committed.set(committed.get() + 1));
            scope::on_rollback(move || rolled_back.set(rolled_back.get() + 1));
            if nested { put(2, 0) } else { insert(conn, 2).map_err(Error::from) }?;
            if manual { scope::commit() } else { Ok(()) }
        });
        let error = run.unwrap_err();
        assert!(matches!(error, Error::Query(_)) && error.is_retryable() && !error.is_in_doubt(), "{name}: {error}");
        assert_eq!(hooks.map(|hook| hook.get()), [0, 1], "{name}: hooks on commit, on rollback");
        // A failed COMMIT keeps other readers out until it is rolled back.
        assert_eq!(fixture.rows("default"), [(1, 10)], "{name}");
        reader.batch_execute("COMMIT").unwrap();
        assert_clean(&fixture, &databases, &[1], &name);
    }
}

#[test]
fn a_manual_scope_goes_on_after_a_commit_that_found_the_file_locked() {
    let Some(fixture) = fixture() else { return };
    let databases = impatient(&fixture);
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let mut reader = fixture.observer("default");
    reader.batch_execute("BEGIN; SELECT * FROM items").unwrap();
    let run = atomic::<Item>().manual().run(|_: &mut SqliteConn| {
        put(2, 0)?;
        let locked = scope::commit();
        assert!(locked.as_ref().is_err_and(Error::is_retryable), "{locked:?}");
        reader.batch_execute("COMMIT").unwrap();
        put(3, 0)?;
        scope::commit()
    });
    run.unwrap();
    // What a commit has failed for is not committed by the next one.
    assert_clean(&fixture, &databases, &[1, 3], "after the scope");
}

#[test]
fn a_claim_that_finds_the_file_locked_begins_anew() {
    /// Frees the file when a scope is opened for the second time.
    struct Frees(Mutex<(u32, diesel::SqliteConnection)>);

    impl Router for Frees {
        fn select_db(&self, _: &RouteRequest<'_>) -> Route {
            let (opened, other) = &mut *self.0.lock().unwrap();
            *opened += 1;
            if *opened == 2 {
                other.batch_execute("COMMIT").unwrap();
            }
            Route::pass()
        }
    }

    let Some(fixture) = fixture() else { return };
    let databases = impatient(&fixture);
    schema::install(&databases).unwrap();
    let mut other = fixture.observer("default");
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let databases = databases.with_router(Frees(Mutex::new((0, other))));
    let _entered = databases.enter();
    let mut runs = 0;
    let run = atomic::<Item>().once("a").run(|conn: &mut SqliteConn| {
        runs += 1;
        insert(conn, 1)?;
        Ok::<_, Error>(7)
    });
    assert_eq!((run.unwrap(), runs), (7, 1));
    assert_clean(&fixture, &databases, &[1], "once");
}
