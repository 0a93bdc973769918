//! Django's own cases of errors inside `atomic` and of durable blocks (`tests/transactions/tests.py`: `AtomicErrorsTests`,
//! `AtomicMiscTests`, `DurableTestsBase`, `NonAutocommitTests`). The name of each is in the comment above the test.
//!
//! Cases of that file that stand elsewhere:
//!
//! | Django | here |
//! |---|---|
//! | `test_atomic_prevents_calling_transaction_methods` | `manual.rs`: `commit_and_rollback_inside_an_automatic_scope_are_errors` |
//! | `test_atomic_prevents_queries_in_broken_transaction_after_client_close` | `each_server/django_lost.rs` |
//! | `AtomicMySQLTests.test_implicit_savepoint_rollback` | `each_server/django_lost.rs` |
//!
//! Cases without a meaning here: `AsyncTransactionTestCase`, since a scope belongs to a thread, and an `async fn` does
//! not compile (`tests/ui/async_fn.rs`).

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::scope::{self, set_rollback};
use multidb::{Error, FailureClass, Propagation, atomic, connection};

use super::newsroom::*;
use super::*;
use crate::fixture::Kind;

/// `test_atomic_prevents_setting_autocommit`. Here it can be set nowhere, since the connection would go back to the pool
/// with it.
#[test]
fn autocommit_cannot_be_switched_off_and_the_scope_stays_usable() {
    everywhere(|room| {
        let switch = || connection::<Reporter, H>()?.batch_execute("SET autocommit = 0").map_err(Error::from);
        let ran = nested(|| {
            create("Tessa", "")?;
            assert!(matches!(switch(), Err(Error::TransactionControl { .. })));
            assert!(!scope::is_doomed());
            Ok(create("Archie", "Hay")?)
        });
        ran.unwrap();
        assert!(matches!(switch(), Err(Error::TransactionControl { .. })));
        room.holds(["Archie Hay", "Tessa"]);
    });
}

/// `test_atomic_prevents_queries_in_broken_transaction`. Django's block ends in silence; here its `Ok` is an error, which
/// carries the cause as Django's `__cause__` does.
#[test]
fn after_a_refused_statement_no_other_one_runs_and_the_error_tells_the_cause() {
    everywhere(|room| {
        create_as(1, "Archie").unwrap();
        let ran = nested(|| {
            let taken = create_as(1, "Cal");
            assert!(matches!(taken, Err(Error::Query(_))), "{taken:?}");
            let refused = rename(1, "Cal").unwrap_err();
            let text = refused.to_string();
            let Error::Doomed { first, .. } = refused else { panic!("{text}") };
            assert_eq!(first.class(), FailureClass::Constraint, "{text}");
            assert!(text.contains("nest"), "the remedy is missing in: {text}");
            Ok(())
        });
        assert!(is_doomed(&ran), "{ran:?}");
        room.holds(["Archie"]);
    });
}

/// `test_atomic_allows_queries_after_fixing_transaction`, which Django has for MySQL and SQLite alone: there
/// `set_rollback(False)` makes the transaction usable again. PostgreSQL's would not be, so here it is so on none.
#[test]
fn a_doom_is_not_lifted_by_a_flag_and_the_remedy_is_to_nest_the_risky_statement() {
    everywhere(|room| {
        create_as(1, "Archie").unwrap();
        let ran = nested(|| {
            assert!(create_as(1, "Cal").is_err());
            set_rollback(false)?;
            assert!(matches!(rename(1, "Cal"), Err(Error::Doomed { .. })));
            Ok(())
        });
        assert!(is_doomed(&ran), "{ran:?}");
        room.holds(["Archie"]);
        let ran = nested(|| {
            assert!(nested(|| Ok(create_as(1, "Cal")?)).is_err());
            Ok(rename(1, "Cal")?)
        });
        ran.unwrap();
        room.holds(["Cal"]);
    });
}

/// `test_wrap_callable_instance`: what can be called at all.
#[test]
fn a_scope_runs_a_function_a_closure_that_gives_away_what_it_holds_and_a_boxed_one() {
    fn function(_: &mut H) -> Ran {
        Ok(create("Archie", "")?)
    }
    everywhere(|room| {
        atomic::<Reporter>().run(function).unwrap();
        let name = String::from("Bea");
        let given = atomic::<Reporter>().run(move |_: &mut H| {
            create(&name, "")?;
            Ok::<_, Mishap>(name)
        });
        assert_eq!(given.unwrap(), "Bea");
        let boxed: Box<dyn FnOnce(&mut H) -> Ran> = Box::new(|_| Ok(create("Cal", "")?));
        atomic::<Reporter>().run(boxed).unwrap();
        room.holds(["Archie", "Bea", "Cal"]);
    });
}

/// `test_atomic_does_not_leak_savepoints_on_failure`. On MySQL and MariaDB the savepoint is gone with its level. On the
/// others it goes at the latest when the next one is set, in the same batch; so the next level loses its own one first,
/// and then finds no older one of the same name.
#[test]
fn an_undone_level_leaves_no_savepoint_behind() {
    alone(|room| {
        let raw = |text: &str, level| {
            let text = format!("{text} SAVEPOINT multidb_{level}");
            connection::<Reporter, H>()?.with_raw(|raw: &mut Raw| raw.batch_execute(&text).map_err(Mishap::from))
        };
        let ran = nested(|| {
            create("Tessa", "")?;
            for _ in 0..3 {
                let inner = nested(|| {
                    create("Hal", "")?;
                    oops()
                });
                assert!(is_oops(&inner));
            }
            if KIND == Kind::Mysql {
                return raw("ROLLBACK TO", 2);
            }
            nested(|| {
                create("Hal", "")?;
                // On SQLite the mark goes with it by which the scope knows its transaction.
                assert_eq!(raw("RELEASE", 2).is_err(), KIND == Kind::Sqlite);
                raw("ROLLBACK TO", 2)
            })
        });
        match ran {
            Err(Mishap::Database(Error::ImplicitCommit { .. })) if KIND == Kind::Sqlite => {}
            Err(Mishap::Query(diesel::result::Error::DatabaseError(..))) => {}
            other => panic!("{other:?}"),
        }
        room.holds([]);
    });
}

/// `test_mark_for_rollback_on_error_in_transaction`: what marks a transaction without undoing a level is a joined scope.
#[test]
fn an_error_without_a_level_of_its_own_marks_the_transaction_until_it_ends() {
    everywhere(|room| {
        let ran = nested(|| {
            let marked = joined(|| {
                assert!(!scope::is_doomed());
                oops()
            });
            assert!(is_oops(&marked));
            assert!(scope::is_doomed());
            assert!(matches!(create("Hal", ""), Err(Error::Doomed { .. })));
            Ok(())
        });
        assert!(is_doomed(&ran), "{ran:?}");
        create("Tessa", "").unwrap();
        room.holds(["Tessa"]);
    });
}

/// `test_mark_for_rollback_on_error_in_autocommit`
#[test]
fn an_error_in_autocommit_marks_nothing() {
    alone(|room| {
        let ran = within(atomic::<Reporter>().propagation(Propagation::Supports), || {
            assert!(!scope::is_doomed());
            create("Archie", "")?;
            assert!(create_as(1, "Cal").is_err());
            assert!(!scope::is_doomed());
            oops()
        });
        assert!(is_oops(&ran));
        assert!(!scope::is_doomed());
        create("Tessa", "").unwrap();
        room.holds(["Archie", "Tessa"]);
    });
}

/// `NonAutocommitTests`: `test_orm_query_after_error_and_rollback`, `test_orm_query_without_autocommit`. What Django calls
/// autocommit turned off is a manual scope.
#[test]
fn a_manual_scope_reads_again_after_an_error_and_a_rollback_and_keeps_nothing_of_it() {
    alone(|room| {
        let ran = within(atomic::<Reporter>().manual(), || {
            create_as(1, "Archie")?;
            assert!(create_as(1, "Cal").is_err());
            assert!(matches!(count(), Err(Error::Doomed { .. })));
            scope::rollback()?;
            assert_eq!(count()?, 0);
            Ok(())
        });
        ran.unwrap();
        room.holds([]);
        let ran = within(atomic::<Reporter>().manual(), || {
            create("Tessa", "")?;
            assert_eq!(count()?, 1);
            Ok(scope::rollback()?)
        });
        ran.unwrap();
        room.holds([]);
    });
}

/// `DurableTestsBase`: `test_commit`, `test_nested_outer_durable`, `test_sequence_of_durables`
#[test]
fn a_durable_scope_has_committed_when_it_returns_ok() {
    alone(|room| {
        durable(|| Ok(create("Tessa", "1")?)).unwrap();
        room.holds(["Tessa 1"]);
        durable(|| Ok(create("Tessa", "2")?)).unwrap();
        room.holds(["Tessa 1", "Tessa 2"]);
        let ran = durable(|| {
            create("Tessa", "3")?;
            nested(|| Ok(create("Archie", "Hay")?))
        });
        ran.unwrap();
        room.holds(["Archie Hay", "Tessa 1", "Tessa 2", "Tessa 3"]);
    });
}

/// `test_nested_both_durable`, `test_nested_inner_durable`
#[test]
fn a_durable_scope_inside_of_another_one_is_refused_and_the_outer_one_goes_on() {
    alone(|room| {
        for outer in [Propagation::Durable, Propagation::Nested, Propagation::Join] {
            let ran = within(atomic::<Reporter>().propagation(outer), || {
                let inner = durable(|| panic!("must not run"));
                assert!(matches!(inner, Err(Mishap::Database(Error::Durable { .. }))), "{inner:?}");
                assert!(!scope::is_doomed());
                Ok(create("Tessa", "")?)
            });
            ran.unwrap();
        }
        room.holds(["Tessa", "Tessa", "Tessa"]);
    });
}

/// `DurableTests`, the same cases inside of Django's `TestCase`, which its durable blocks overlook. Here a test transaction
/// is one like any other: a durable scope in it would return `Ok` without having committed.
#[test]
fn a_durable_scope_inside_of_a_test_transaction_is_refused() {
    alone(|room| {
        let mut conn = connection::<Reporter, H>().unwrap();
        conn.begin_test_transaction().unwrap();
        let inner = durable(|| panic!("must not run"));
        assert!(matches!(inner, Err(Mishap::Database(Error::Durable { .. }))), "{inner:?}");
        nested(|| Ok(create("Tessa", "")?)).unwrap();
        assert_eq!(reporters::table.count().get_result::<i64>(&mut conn), Ok(1));
        drop(conn);
        room.holds([]);
    });
}
