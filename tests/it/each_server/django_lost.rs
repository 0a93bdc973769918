//! Django's own cases that need a server: a connection that is lost, and two threads that wait for each other
//! (`tests/transactions/tests.py`, `tests/transaction_hooks/tests.py`).
//!
//! `test_atomic_prevents_queries_in_broken_transaction_after_client_close` is
//! `a_connection_that_dies_in_the_middle_dooms_the_scope_and_is_not_replaced` in `lost.rs`.

use std::sync::{Arc, Barrier, Mutex};

use diesel::prelude::*;
use multidb::scope::{on_commit, on_rollback};
use multidb::{Error, Propagation, atomic};

use super::lost::COMMIT;
use super::witness::behind_proxy;
use super::*;

/// What has run, in order.
#[derive(Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    /// Registers a hook of each kind.
    fn hooks(&self, committed: &'static str, rolled_back: &'static str) {
        let [committed, rolled_back] = [committed, rolled_back].map(|name| {
            let log = Arc::clone(&self.0);
            move || log.lock().unwrap().push(name)
        });
        on_commit(committed);
        on_rollback(rolled_back);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// `test_hooks_cleared_on_reconnect`. A transaction whose connection died before COMMIT is rolled back for certain.
#[test]
fn hooks_of_a_transaction_whose_connection_died_are_those_of_a_rollback_and_leave_with_it() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let log = Log::default();
    for swallowed in [false, true] {
        let run = atomic::<Item>().run(|_: &mut H| {
            log.hooks("kept 1", "undone 1");
            put(1, 10)?;
            fixture.witness().kill_all(1);
            let lost = put(2, 20);
            assert!(lost.is_err());
            if swallowed { Ok(()) } else { lost }
        });
        assert!(run.is_err(), "{run:?}");
        assert_eq!(log.take(), ["undone 1"]);
    }
    let next = atomic::<Item>().run(|_: &mut H| {
        log.hooks("kept 2", "undone 2");
        put(2, 20)
    });
    next.unwrap();
    assert_eq!(log.take(), ["kept 2"]);
    assert_eq!(fixture.rows("default"), [(2, 20)]);
}

#[test]
fn after_an_unknown_outcome_no_hook_of_either_kind_runs() {
    let Some(fixture) = fixture() else { return };
    let (proxy, databases) = behind_proxy(&fixture, 2);
    let _entered = databases.enter();
    let log = Log::default();
    put(1, 10).unwrap();
    for (lose, rows) in [("reply", 2), ("request", 2)] {
        if lose == "reply" {
            proxy.drop_replies_when(COMMIT);
        } else {
            proxy.drop_requests_when(COMMIT);
        }
        let run = atomic::<Item>().run(|_: &mut H| {
            log.hooks("kept", "undone");
            put(if lose == "reply" { 2 } else { 3 }, 20)
        });
        assert!(proxy.hit(), "{lose}");
        proxy.clear();
        assert!(matches!(run, Err(Error::OutcomeUnknown { .. })), "{lose}: {run:?}");
        assert_eq!(log.take(), Vec::<&str>::new(), "{lose}");
        // The server may still be at work on what nobody hears of.
        fixture.witness().settle(&databases, lose);
        assert_eq!(fixture.rows("default").len(), rows, "{lose}: the reply tells nothing of the rows");
    }
}

/// `test_implicit_savepoint_rollback`: a deadlock takes the savepoints away on MySQL and MariaDB, and the attempt to roll
/// back to one must not hide it.
#[test]
fn a_deadlock_inside_of_a_nested_scope_comes_back_as_a_deadlock() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put(2, 20).unwrap();
    let barrier = Barrier::new(2);
    let ends = std::thread::scope(|threads| {
        let threads = [(1_i64, 2_i64), (2, 1)].map(|(own, other)| {
            let (databases, barrier) = (&databases, &barrier);
            threads.spawn(move || {
                let _entered = databases.enter();
                atomic::<Item>().run(|_: &mut H| {
                    atomic::<Item>().run(|conn: &mut H| {
                        items::table.find(own).for_update().first::<Item>(conn)?;
                        barrier.wait();
                        let others = diesel::update(items::table.find(other));
                        others.set(items::value.eq(100 * own)).execute(conn)?;
                        Ok::<_, Mishap>(own)
                    })
                })
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let (mut kept, mut failed) = (Vec::new(), Vec::new());
    for end in ends {
        match end {
            Ok(own) => kept.push(own),
            Err(Mishap::Query(error)) => failed.push(error),
            Err(other) => panic!("{other}"),
        }
    }
    let [error] = <[_; 1]>::try_from(failed).unwrap();
    assert!(error.to_string().to_lowercase().contains("deadlock"), "{error}");
    assert!(Error::from(error).is_retryable());
    let rows = if kept == [1] { [(1, 10), (2, 100)] } else { [(1, 200), (2, 20)] };
    assert_eq!(fixture.rows("default"), rows);
    assert_eq!(in_use(&databases, "default"), 0);
}

/// Spring's `REQUIRES_NEW` inside of itself.
#[test]
fn independent_transactions_nest_on_one_database_and_each_ends_by_itself() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(3).build().unwrap();
    let _entered = databases.enter();
    let apart = || atomic::<Item>().propagation(Propagation::RequiresNew);
    let outer = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let middle = apart().run(|_: &mut H| {
            put(2, 20)?;
            let inner = apart().run(|_: &mut H| {
                put(3, 30)?;
                assert_eq!(in_use(&databases, "default"), 3);
                assert_eq!(fixture.rows("default"), []);
                Ok::<_, Mishap>(())
            });
            inner?;
            assert_eq!(fixture.rows("default"), [(3, 30)]);
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(middle, Err(Mishap::OnPurpose)), "{middle:?}");
        assert_eq!(in_use(&databases, "default"), 1);
        put(4, 40)
    });
    outer.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30), (4, 40)]);
    assert_eq!(in_use(&databases, "default"), 0);
}
