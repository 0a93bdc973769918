//! Django's own cases of `on_commit` (`tests/transaction_hooks/tests.py`). The name of each is in the comment above the test.
//! As there, each case compares what the hooks were told with what the database holds.
//!
//! Cases without a meaning here: `test_raises_exception_non_callable` does not compile, and
//! `test_raises_exception_non_autocommit_mode` forbids what manual scopes do: they run their hooks at each commit
//! (`manual.rs`). `test_hooks_cleared_on_reconnect` stands in `each_server/django_lost.rs`, since a file has no connection
//! to lose. The cases with a `partial` are those without one.

use std::sync::{Arc, Mutex};

use diesel::prelude::*;
use multidb::scope::{on_commit, on_commit_robust};
use multidb::{Error, atomic, connection};

use super::newsroom::{is_doomed, is_oops, oops, within};
use super::*;

/// The numbers that the hooks were told, and the failures that were told of.
#[derive(Clone, Default)]
struct Notices {
    told: Arc<Mutex<Vec<i64>>>,
    failures: Arc<Mutex<Vec<String>>>,
}

/// Runs one case, on databases whose failed hooks are written down.
fn case(body: impl FnOnce(&Notices, &Fixture)) {
    let Some(fixture) = fixture() else { return };
    let notices = Notices::default();
    let failures = Arc::clone(&notices.failures);
    let tell = move |error: &Error| failures.lock().unwrap().push(error.to_string());
    let databases = fixture.builder(2).on_hook_failure(tell).build().unwrap();
    let _entered = databases.enter();
    body(&notices, &fixture);
    assert_eq!(in_use(&databases, "default"), 0);
}

impl Notices {
    /// Puts an item, and a hook that is told its number.
    fn put(&self, number: i64) -> Result<(), Mishap> {
        insert(number)?;
        on_commit(self.notify(number));
        Ok(())
    }

    fn notify(&self, number: i64) -> impl FnOnce() + use<> {
        let told = Arc::clone(&self.told);
        move || told.lock().unwrap().push(number)
    }

    fn told<const N: usize>(&self, numbers: [i64; N]) {
        assert_eq!(*self.told.lock().unwrap(), numbers);
    }

    /// The hooks were told these numbers in this order, and the database holds them.
    fn done<const N: usize>(&self, mut numbers: [i64; N], fixture: &Fixture) {
        self.told(numbers);
        numbers.sort_unstable();
        let held: Vec<i64> = fixture.rows("default").into_iter().map(|(id, _)| id).collect();
        assert_eq!(held, numbers);
    }

    /// One failure was told of, with this text.
    fn failed(&self, text: &str) {
        let failures = std::mem::take(&mut *self.failures.lock().unwrap());
        assert!(matches!(&failures[..], [one] if one.contains(text)), "{failures:?}");
    }
}

/// One statement, in the open transaction or in autocommit.
fn insert(number: i64) -> Result<(), Error> {
    let values = (items::id.eq(number), items::value.eq(0));
    diesel::insert_into(items::table).values(values).execute(&mut connection::<Item, H>()?)?;
    Ok(())
}

fn nested(body: impl FnOnce() -> Result<(), Mishap>) -> Result<(), Mishap> {
    within(atomic::<Item>(), body)
}

/// `test_executes_immediately_if_no_transaction`
#[test]
fn outside_of_any_transaction_a_hook_runs_at_once() {
    case(|notices, fixture| {
        notices.put(1).unwrap();
        notices.done([1], fixture);
    });
}

/// `test_robust_if_no_transaction`
#[test]
fn a_robust_hook_that_fails_outside_of_any_transaction_is_told_of_and_nothing_else_happens() {
    case(|notices, fixture| {
        on_commit_robust(|| Err::<(), _>("robust hook"));
        notices.put(1).unwrap();
        notices.done([1], fixture);
        notices.failed("robust hook");
    });
}

/// `test_robust_transaction`
#[test]
fn a_robust_hook_that_fails_after_a_commit_is_told_of_and_the_next_one_runs() {
    case(|notices, fixture| {
        let ran = nested(|| {
            on_commit_robust(|| Err::<(), _>("robust hook"));
            notices.put(1)
        });
        ran.unwrap();
        notices.done([1], fixture);
        notices.failed("robust hook");
    });
}

/// `test_delays_execution_until_after_transaction_commit`, `test_executes_only_after_final_transaction_committed`
#[test]
fn a_hook_waits_for_the_outermost_commit() {
    case(|notices, fixture| {
        let ran = nested(|| {
            notices.put(1)?;
            notices.told([]);
            nested(|| {
                notices.put(2)?;
                notices.told([]);
                Ok(())
            })?;
            notices.told([]);
            Ok(())
        });
        ran.unwrap();
        notices.done([1, 2], fixture);
    });
}

/// `test_does_not_execute_if_transaction_rolled_back`, `test_no_hooks_run_from_failed_transaction`
#[test]
fn no_hook_runs_of_a_transaction_that_was_rolled_back() {
    case(|notices, fixture| {
        let ran = nested(|| {
            notices.put(1)?;
            nested(|| notices.put(2))?;
            oops()
        });
        assert!(is_oops(&ran));
        notices.done([], fixture);
    });
}

/// `test_discards_hooks_from_rolled_back_savepoint`
#[test]
fn hooks_of_an_undone_level_are_dropped_and_those_beside_it_run() {
    case(|notices, fixture| {
        let ran = nested(|| {
            nested(|| notices.put(1))?;
            let failed = nested(|| {
                notices.put(2)?;
                oops()
            });
            assert!(is_oops(&failed));
            nested(|| notices.put(3))
        });
        ran.unwrap();
        notices.done([1, 3], fixture);
    });
}

/// `test_inner_savepoint_rolled_back_with_outer`
#[test]
fn hooks_of_a_level_that_was_kept_are_dropped_with_the_level_around_it() {
    case(|notices, fixture| {
        let ran = nested(|| {
            let failed = nested(|| {
                nested(|| notices.put(1))?;
                oops()
            });
            assert!(is_oops(&failed));
            notices.put(2)
        });
        ran.unwrap();
        notices.done([2], fixture);
    });
}

/// `test_no_savepoints_atomic_merged_with_outer`. Django's blocks end in silence; here the level that is undone says so,
/// and the outermost scope, which passes that on, returns it.
#[test]
fn a_joined_scope_that_fails_drops_the_hooks_of_the_level_that_it_joined() {
    case(|notices, fixture| {
        let doomed = || {
            nested(|| {
                notices.put(1)?;
                let joined = atomic::<Item>().propagation(multidb::Propagation::Join);
                assert!(is_oops(&within(joined, oops)));
                Ok(())
            })
        };
        let passed_on = nested(doomed);
        assert!(is_doomed(&passed_on), "{passed_on:?}");
        notices.done([], fixture);
        let swallowed = nested(|| {
            assert!(is_doomed(&doomed()));
            notices.put(2)
        });
        swallowed.unwrap();
        notices.done([2], fixture);
    });
}

/// `test_inner_savepoint_does_not_affect_outer`
#[test]
fn an_inner_level_that_fails_leaves_the_hooks_of_the_outer_ones() {
    case(|notices, fixture| {
        let ran = nested(|| {
            nested(|| {
                notices.put(1)?;
                assert!(is_oops(&nested(oops)));
                Ok(())
            })
        });
        ran.unwrap();
        notices.done([1], fixture);
    });
}

/// `test_runs_hooks_in_order_registered`
#[test]
fn hooks_run_in_the_order_in_which_they_were_registered_whatever_their_level() {
    case(|notices, fixture| {
        let ran = nested(|| {
            notices.put(3)?;
            nested(|| notices.put(2))?;
            notices.put(1)
        });
        ran.unwrap();
        notices.done([3, 2, 1], fixture);
    });
}

/// `test_hooks_cleared_after_successful_commit`, `test_hooks_cleared_after_rollback`
#[test]
fn a_transaction_knows_nothing_of_the_hooks_of_an_earlier_one() {
    case(|notices, fixture| {
        nested(|| notices.put(1)).unwrap();
        let failed = nested(|| {
            notices.put(2)?;
            oops()
        });
        assert!(is_oops(&failed));
        nested(|| notices.put(3)).unwrap();
        notices.done([1, 3], fixture);
    });
}

/// `test_error_in_hook_doesnt_prevent_clearing_hooks`. Django raises the hook's error out of the block that has committed,
/// and leaves out the hooks behind it. Here the block has committed and says so, and the others run.
#[test]
fn a_hook_that_fails_is_told_of_and_neither_comes_back_nor_stops_the_others() {
    case(|notices, fixture| {
        let ran = nested(|| {
            on_commit(|| Err::<(), _>("no mail server"));
            notices.put(1)
        });
        ran.unwrap();
        notices.failed("no mail server");
        nested(|| notices.put(2)).unwrap();
        notices.done([1, 2], fixture);
        assert!(notices.failures.lock().unwrap().is_empty());
    });
}

/// `test_db_query_in_hook`
#[test]
fn a_hook_reads_what_was_committed() {
    case(|notices, fixture| {
        let told = Arc::clone(&notices.told);
        let ran = nested(|| {
            insert(1)?;
            on_commit(move || {
                let numbers = items::table.select(items::id).load(&mut connection::<Item, H>()?)?;
                *told.lock().unwrap() = numbers;
                Ok::<_, Error>(())
            });
            Ok(())
        });
        ran.unwrap();
        notices.done([1], fixture);
    });
}

/// `test_transaction_in_hook`
#[test]
fn a_hook_opens_a_transaction_of_its_own() {
    case(|notices, fixture| {
        let notify = notices.notify(1);
        let ran = nested(|| {
            on_commit(|| {
                nested(|| {
                    insert(1)?;
                    notify();
                    Ok(())
                })
            });
            Ok(())
        });
        ran.unwrap();
        notices.done([1], fixture);
    });
}

/// Puts an item in a transaction of its own; its hook does the same for the number above it by ten.
fn put_two(notices: &Notices, number: i64, again: bool) -> Result<(), Mishap> {
    nested(|| {
        if again {
            let notices = notices.clone();
            on_commit(move || put_two(&notices, number + 10, false));
        }
        insert(number)?;
        notices.notify(number)();
        Ok(())
    })
}

/// `test_hook_in_hook`
#[test]
fn a_hook_of_a_hooks_transaction_runs_before_the_next_hook() {
    case(|notices, fixture| {
        let ran = nested(|| {
            for number in [1, 2] {
                let notices = notices.clone();
                on_commit(move || put_two(&notices, number, true));
            }
            Ok(())
        });
        ran.unwrap();
        notices.done([1, 11, 2, 12], fixture);
    });
}
