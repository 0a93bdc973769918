//! Handles that wander between threads and transactions, and transactions that nobody ends.

use diesel::connection::{Connection, TransactionManager};
use diesel::prelude::*;
use multidb::{Error, atomic, connection, scope};

use super::*;

type Manager = <H as Connection>::TransactionManager;

#[test]
fn a_level_whose_handle_ends_on_another_thread_dooms_its_scope() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let mut second = connection::<Item, H>()?;
        Manager::begin_transaction(&mut second)?;
        std::thread::spawn(move || drop(second)).join().unwrap();
        Ok::<_, Error>(())
    });
    assert!(run.is_err(), "{run:?} {:?}", fixture.rows("default"));
    assert_eq!(fixture.rows("default"), []);
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}

#[test]
fn no_work_after_a_handle_ended_on_another_thread_commits_by_itself() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let mut second = connection::<Item, H>()?;
        Manager::begin_transaction(&mut second)?;
        std::thread::spawn(move || drop(second)).join().unwrap();
        let _ = put(2, 20);
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(run.is_err(), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}

/// A handle that was taken outside of any scope.
fn connection_outside(databases: &multidb::Databases) -> H {
    std::thread::scope(|threads| {
        let take = || {
            let _entered = databases.enter();
            connection::<Item, H>().unwrap()
        };
        threads.spawn(take).join().unwrap()
    })
}

#[test]
fn a_transaction_left_open_on_an_outside_handle_inside_a_scope_is_never_ok() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut outside = connection::<Item, H>().unwrap();
    let run = atomic::<Record>().run(|_: &mut H| {
        Manager::begin_transaction(&mut outside)?;
        put(1, 10)
    });
    assert!(run.is_err(), "{run:?} {:?}", fixture.rows("default"));
    drop(outside);
    let run = atomic::<Record>().run(|_: &mut H| {
        let mut dropped = connection_outside(&databases);
        Manager::begin_transaction(&mut dropped)?;
        put(2, 20)
    });
    assert!(run.is_err(), "{run:?} {:?}", fixture.rows("default"));
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}

#[test]
fn a_transaction_that_is_ended_on_another_thread_is_an_error_and_forgotten() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut conn = connection::<Item, H>().unwrap();
    Manager::begin_transaction(&mut conn).unwrap();
    put(1, 10).unwrap();
    let ended = std::thread::spawn(move || Manager::commit_transaction(&mut conn)).join().unwrap();
    assert!(ended.is_err(), "{ended:?}");
    let later = put(2, 20);
    assert_eq!(later.is_ok(), fixture.rows("default") == [(2, 20)], "{later:?} {:?}", fixture.rows("default"));
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}

#[test]
fn a_level_is_ended_by_nobody_but_who_opened_it() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|a: &mut H| {
        let mut b = connection::<Item, H>()?;
        Manager::begin_transaction(a)?;
        Manager::begin_transaction(&mut b)?;
        Manager::rollback_transaction(a)?;
        atomic::<Item>().run(|_: &mut H| {
            let inner = atomic::<Item>().run(|c: &mut H| {
                diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(0))).execute(c)?;
                let _ = Manager::commit_transaction(&mut b);
                Err::<(), _>(Mishap::OnPurpose)
            });
            assert!(inner.is_err());
            Ok::<_, Mishap>(())
        })
    });
    assert_eq!(fixture.rows("default"), [], "{run:?}");
}

thread_local! {
    static KEPT: std::cell::RefCell<Option<H>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn a_transaction_that_a_thread_leaves_open_in_a_thread_local_is_rolled_back() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    std::thread::scope(|threads| {
        let thread = threads.spawn(|| {
            let _entered = databases.enter();
            KEPT.with_borrow_mut(|kept| {
                let conn = kept.insert(connection::<Item, H>().unwrap());
                conn.begin_test_transaction().unwrap();
                put(1, 10).unwrap();
            });
        });
        thread.join().unwrap();
    });
    let _entered = databases.enter();
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_level_begun_on_a_handle_that_outlives_its_scope_dooms_the_scope() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let mut kept = None;
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let conn = kept.insert(connection::<Item, H>()?);
        Manager::begin_transaction(conn)?;
        put(2, 20)
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    let ended = Manager::commit_transaction(&mut kept.unwrap());
    assert!(ended.is_err());
    assert_eq!((in_use(&databases, "default"), scope::depth()), (0, 0));
}
