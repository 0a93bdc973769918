//! Connections that die.

use std::cell::Cell;
use std::rc::Rc;

use diesel::prelude::*;
use multidb::{Databases, Error, FailureClass, atomic, connection, scope};

use super::witness::behind_proxy;
use super::*;
use crate::support::proxy::Loses;

/// What a client sends that commits.
pub(super) const COMMIT: &[u8] = b"COMMIT";

/// Fills the pool with idle connections.
fn fill(databases: &Databases, size: usize) {
    let barrier = std::sync::Barrier::new(size);
    std::thread::scope(|threads| {
        for _ in 0..size {
            threads.spawn(|| {
                let _entered = databases.enter();
                atomic::<Item>()
                    .run(|conn: &mut H| {
                        items::table.count().get_result::<i64>(conn)?;
                        barrier.wait();
                        Ok::<_, Mishap>(())
                    })
                    .unwrap();
            });
        }
    });
    assert_eq!(databases.database("default").unwrap().pool_state().idle_connections, u32::try_from(size).unwrap());
}

#[test]
fn a_scope_replaces_every_idle_connection_that_has_died() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    fill(&databases, 4);
    fixture.witness().kill_all(4);
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_dead_connection_in_autocommit_fails_once_and_is_not_handed_out_again() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    fill(&databases, 1);
    fixture.witness().kill_all(1);
    let mut conn = connection::<Item, H>().unwrap();
    // Neither prepared before, nor the same statement twice.
    let failed = items::table.find(7).get_result::<Item>(&mut conn);
    assert!(matches!(failed, Err(diesel::result::Error::DatabaseError(..))), "never repeated by itself: {failed:?}");
    let again = items::table.count().get_result::<i64>(&mut conn);
    assert_eq!(again, Ok(0), "after {failed:?}");
}

#[test]
fn a_connection_that_dies_in_the_middle_dooms_the_scope_and_is_not_replaced() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for swallowed in [true, false] {
        let run = atomic::<Item>().run(|_: &mut H| {
            put(1, 10)?;
            fixture.witness().kill_all(1);
            let lost = put(2, 20);
            assert!(lost.is_err());
            assert!(scope::is_doomed());
            if swallowed { Ok(()) } else { lost }
        });
        assert!(run.is_err(), "{run:?}");
        assert_eq!(fixture.rows("default"), []);
        assert_eq!(in_use(&databases, "default"), 0);
    }
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default"), [(3, 30)]);
}

#[test]
fn a_connection_that_dies_before_commit_is_never_ok() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        fixture.witness().kill_all(1);
        Ok::<_, Error>(())
    });
    let error = run.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    assert_eq!(fixture.rows("default"), []);
    assert_eq!(in_use(&databases, "default"), 0);
    put(2, 20).unwrap();
}

#[test]
fn a_rollback_that_fails_does_not_hide_the_users_error() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let nested = atomic::<Item>().run(|_: &mut H| {
            put(2, 20)?;
            fixture.witness().kill_all(1);
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(nested, Err(Mishap::OnPurpose)), "{nested:?}");
        nested
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    assert_eq!(in_use(&databases, "default"), 0);
    put(3, 30).unwrap();
}

#[test]
fn a_lost_reply_to_commit_is_an_unknown_outcome_that_names_the_transaction() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 2);
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let mut id = None;
    proxy.drop_replies_when(COMMIT);
    let run = atomic::<Item>().run(|_: &mut H| {
        id = scope::current();
        put(2, 20)
    });
    assert!(proxy.hit(), "the proxy saw no COMMIT");
    proxy.clear();
    let error = run.unwrap_err();
    assert!(error.is_in_doubt() && !error.is_retryable(), "{error}");
    let text = error.to_string();
    let Error::OutcomeUnknown { id: named, databases: involved } = error else { panic!("{text}") };
    assert_eq!((Some(named), involved), (id, vec!["default".into()]));
    fixture.witness().settle(&databases, "a lost reply");
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)], "the server had committed");
    put(3, 30).unwrap();
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_lost_request_of_commit_is_an_unknown_outcome_too() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 2);
    let _entered = databases.enter();
    put(1, 10).unwrap();
    proxy.drop_requests_when(COMMIT);
    let error = put(2, 20).unwrap_err();
    assert!(proxy.hit());
    proxy.clear();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_manual_scope_goes_on_in_a_new_transaction_after_a_commit_that_was_lost() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 1);
    let mut witness = fixture.witness();
    let _entered = databases.enter();
    for loses in [Loses::Request, Loses::ReplyAfter(0)] {
        let name = format!("{loses:?}");
        witness.empty();
        let hooks = [Rc::new(Cell::new(0_u8)), Rc::default()];
        let [lost, kept] = hooks.clone();
        let run = atomic::<Item>().manual().run(|_: &mut H| {
            let again = Rc::clone(&lost);
            scope::on_commit(move || lost.set(1));
            scope::on_rollback(move || again.set(2));
            put(1, 10)?;
            proxy.lose_once(COMMIT, loses);
            let unknown = scope::commit();
            assert!(proxy.hit(), "{name}");
            assert!(unknown.as_ref().is_err_and(Error::is_in_doubt), "{name}: {unknown:?}");
            scope::on_commit(move || kept.set(1));
            put(2, 20)?;
            scope::commit()
        });
        run.unwrap();
        proxy.clear();
        assert_eq!(hooks.map(|hook| hook.get()), [0, 1], "{name}: no hook runs for an unknown outcome");
        witness.settle(&databases, &name);
        let expected: &[_] = if loses == Loses::Request { &[(2, 20)] } else { &[(1, 10), (2, 20)] };
        assert_eq!(witness.rows(), expected, "{name}");
        witness.assert_clean(&databases, &name);
    }
}

#[test]
fn a_lost_reply_to_a_savepoint_or_its_undoing_never_keeps_rows_that_should_be_gone() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 2);
    let _entered = databases.enter();
    put(1, 10).unwrap();
    for needle in [&b"SAVEPOINT multidb_2"[..], b"ROLLBACK TO SAVEPOINT multidb_2"] {
        proxy.drop_replies_when(needle);
        let run = atomic::<Item>().run(|conn: &mut H| {
            items::table.count().get_result::<i64>(conn)?;
            let inner = put_and_fail(2);
            assert!(inner.is_err());
            Ok::<_, Mishap>(())
        });
        assert!(proxy.hit(), "{}", String::from_utf8_lossy(needle));
        proxy.clear();
        assert!(run.is_err(), "{run:?}");
        assert_eq!(fixture.rows("default"), [(1, 10)]);
        assert_eq!(in_use(&databases, "default"), 0);
    }
    put(3, 30).unwrap();
}

#[cfg(feature = "testing")]
#[test]
fn a_rolled_back_test_whose_connection_dies_is_told_so_from_then_on_and_never_goes_on_without_its_work() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = multidb::testing::rolled_back(&databases).unwrap();
    put(1, 10).unwrap();
    fixture.witness().kill_all(1);
    // The first one finds it out.
    put(2, 20).unwrap_err();
    for _ in 0..2 {
        let told = put(3, 30).unwrap_err().to_string();
        for named in ["`default`", "was lost", "testing::committed"] {
            assert!(told.contains(named), "{named} is missing in: {told}");
        }
    }
    put_record(1, 10).unwrap();
    drop(test);
    let _entered = databases.enter();
    put(4, 40).unwrap();
    assert_eq!(fixture.rows("default"), [(4, 40)]);
}

#[test]
fn a_transaction_that_has_lost_its_connection_before_the_commit_may_be_run_again() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let attempts = Cell::new(0);
    let body = |conn: &mut H| {
        attempts.set(attempts.get() + 1);
        put(attempts.get(), 0)?;
        if attempts.get() % 2 == 1 {
            fixture.witness().kill_all(1);
        }
        Ok::<_, Error>(items::table.count().get_result::<i64>(conn).map(drop)?)
    };
    let run = atomic::<Item>().run(|conn: &mut H| {
        let lost = body(conn);
        let class = lost.as_ref().err().and_then(Error::class);
        assert_eq!(class, Some(FailureClass::ConnectionLost), "{lost:?}");
        Ok::<_, Error>(())
    });
    let error = run.unwrap_err();
    assert!(matches!(&error, Error::Doomed { .. }) && error.is_retryable() && !error.is_in_doubt(), "{error}");
    attempts.set(0);
    atomic::<Item>().retry(1).run(body).unwrap();
    assert_eq!((attempts.get(), fixture.rows("default")), (2, vec![(2, 0)]));
}
