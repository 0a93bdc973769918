//! `AnyConn` in code that is generic over Diesel's connections, which reaches Diesel's own trait.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::QueryResult;
use diesel::connection::{Connection, SimpleConnection, TransactionManager};
use multidb::{AnyConn, Error, atomic, connection};

use super::*;

fn begin<C: Connection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::begin_transaction(conn)
}

fn commit<C: Connection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::commit_transaction(conn)
}

/// Puts a row in a transaction and panics, and inside of another one too if `nested`.
fn panics<C: Connection + SimpleConnection>(conn: &mut C, nested: bool) {
    let panic = |conn: &mut C| -> QueryResult<()> {
        conn.batch_execute("INSERT INTO items VALUES (1, 10)")?;
        if nested {
            return conn.transaction(|_| panic!("on purpose"));
        }
        panic!("on purpose")
    };
    assert!(catch_unwind(AssertUnwindSafe(|| conn.transaction(panic))).is_err());
}

#[test]
fn a_panic_in_a_generic_transaction_rolls_it_back() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for nested in [false, true] {
        let mut conn = connection::<Item, AnyConn>().unwrap();
        panics(&mut conn, nested);
        assert_eq!(in_use(&databases, "default"), 0);
        // The handle is still there, and this one is outermost.
        put(2, 20).unwrap();
        assert_eq!(fixture.rows("default"), [(2, 20)]);
        drop(conn);
        fixture.observer("default").batch_execute("DELETE FROM items").unwrap();
    }
}

#[test]
fn a_panic_in_a_generic_level_undoes_that_level_alone() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut AnyConn| {
        put(2, 20)?;
        panics(conn, false);
        put(3, 30)?;
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20), (3, 30)]);
}

#[test]
fn a_generic_transaction_commits_on_ok_and_rolls_back_on_err() {
    fn run<C: Connection + SimpleConnection>(conn: &mut C, id: u32, fails: bool) -> Result<(), Mishap> {
        conn.transaction(|conn| {
            conn.batch_execute(&format!("INSERT INTO items VALUES ({id}, 0)")).map_err(Error::from)?;
            if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
        })
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let mut conn = connection::<Item, AnyConn>().unwrap();
    run(&mut conn, 1, false).unwrap();
    assert!(matches!(run(&mut conn, 2, true), Err(Mishap::OnPurpose)));
    assert_eq!(fixture.rows("default"), [(1, 0)]);
}

#[test]
fn a_transaction_that_generic_code_begins_by_itself_stays_open() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut conn = connection::<Item, AnyConn>().unwrap();
    begin(&mut conn).unwrap();
    put(1, 10).unwrap();
    assert!(fixture.rows("default").is_empty());
    commit(&mut conn).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    begin(&mut conn).unwrap();
    put(2, 20).unwrap();
    drop(conn);
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    assert_eq!(in_use(&databases, "default"), 0);
}
