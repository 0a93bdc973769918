//! Django's own cases of `atomic` (`tests/transactions/tests.py`: `AtomicTests`, `AtomicInsideTransactionTests`,
//! `AtomicWithoutAutocommitTests`, `AtomicMergeTests`). The name of each is in the comment above the test. What of that file
//! stands elsewhere is told in `django_errors.rs`.
//!
//! Where Django rolls back in silence after a swallowed error, the scope here answers `Error::Doomed`: `Ok` of an
//! outermost scope always means committed.

use diesel::connection::SimpleConnection;
use multidb::scope::{self, savepoint, set_rollback};
use multidb::{Error, atomic, commit_on_success, connection, transactional};

use super::newsroom::*;
use super::*;
use crate::fixture::Kind;

#[transactional(Reporter)]
fn make() -> Result<&'static str, Mishap> {
    create("Tessa", "")?;
    Ok("made")
}

#[transactional(Reporter)]
fn make_and_fail() -> Ran {
    create("Hal", "")?;
    oops()
}

/// `test_decorator_syntax_commit`, `test_decorator_syntax_rollback`
#[test]
fn an_annotated_function_keeps_its_row_on_ok_and_loses_it_on_an_error() {
    everywhere(|room| {
        assert_eq!(make().unwrap(), "made");
        room.holds(["Tessa"]);
        assert!(is_oops(&make_and_fail()));
        room.holds(["Tessa"]);
    });
}

#[commit_on_success(Reporter)]
fn make_by_the_older_name() -> Ran {
    Ok(create("Tessa", "")?)
}

#[commit_on_success(Reporter)]
fn make_and_fail_by_the_older_name() -> Ran {
    create("Hal", "")?;
    oops()
}

/// `test_alternate_decorator_syntax_commit`, `test_alternate_decorator_syntax_rollback`: the other spelling here is the
/// older name of the attribute.
#[test]
fn the_other_spelling_of_the_attribute_means_the_same() {
    everywhere(|room| {
        make_by_the_older_name().unwrap();
        room.holds(["Tessa"]);
        assert!(is_oops(&make_and_fail_by_the_older_name()));
        room.holds(["Tessa"]);
    });
}

/// `test_commit`, `test_rollback`
#[test]
fn a_closure_keeps_its_row_on_ok_and_loses_it_on_an_error() {
    everywhere(|room| {
        let failed = nested(|| {
            create("Hal", "")?;
            oops()
        });
        assert!(is_oops(&failed));
        room.holds([]);
        nested(|| Ok(create("Tessa", "")?)).unwrap();
        room.holds(["Tessa"]);
    });
}

/// What the four cases of Django's `nested`, `merged` and `reuse` do: the outer scope puts `Tessa` and opens the inner one,
/// which puts `Archie Hay`; each fails where it is told to. An error of the inner one is swallowed.
fn pair(
    outer: impl FnOnce(&mut dyn FnMut() -> Ran) -> Ran,
    inner: impl Fn(&dyn Fn() -> Ran) -> Ran,
    fail: [bool; 2],
) -> Ran {
    outer(&mut || {
        create("Tessa", "")?;
        let ran = inner(&|| {
            create("Archie", "Hay")?;
            if fail[1] { oops() } else { Ok(()) }
        });
        assert_eq!(is_oops(&ran), fail[1], "{ran:?}");
        if fail[0] { oops() } else { Ok(()) }
    })
}

/// `test_nested_commit_commit`, `test_nested_commit_rollback`, `test_nested_rollback_commit`,
/// `test_nested_rollback_rollback`
#[test]
fn a_nested_scope_is_undone_alone_and_with_the_one_around_it() {
    everywhere(|room| {
        let run = |fail| pair(|body| nested(body), |body| nested(body), fail);
        assert!(is_oops(&run([true, true])));
        room.holds([]);
        assert!(is_oops(&run([true, false])));
        room.holds([]);
        run([false, true]).unwrap();
        room.holds(["Tessa"]);
        run([false, false]).unwrap();
        room.holds(["Archie Hay", "Tessa", "Tessa"]);
    });
}

/// `test_merged_commit_commit`, `test_merged_commit_rollback`, `test_merged_rollback_commit`,
/// `test_merged_rollback_rollback`. Django returns from the second one as if it had committed.
#[test]
fn a_joined_scope_that_fails_takes_the_one_around_it_along_and_ok_becomes_an_error() {
    everywhere(|room| {
        let run = |fail| pair(|body| nested(body), |body| joined(body), fail);
        assert!(is_oops(&run([true, true])));
        room.holds([]);
        assert!(is_oops(&run([true, false])));
        room.holds([]);
        assert!(is_doomed(&run([false, true])));
        room.holds([]);
        run([false, false]).unwrap();
        room.holds(["Archie Hay", "Tessa"]);
    });
}

/// `test_reuse_commit_commit`, `test_reuse_commit_rollback`, `test_reuse_rollback_commit`, `test_reuse_rollback_rollback`:
/// one scope object, entered again while it runs.
#[test]
fn one_description_of_a_scope_can_be_run_inside_of_itself() {
    everywhere(|room| {
        let again = atomic::<Reporter>();
        let run = |fail| pair(|body| within(again.clone(), body), |body| within(again.clone(), body), fail);
        assert!(is_oops(&run([true, true])));
        room.holds([]);
        assert!(is_oops(&run([true, false])));
        room.holds([]);
        run([false, true]).unwrap();
        room.holds(["Tessa"]);
        run([false, false]).unwrap();
        room.holds(["Archie Hay", "Tessa", "Tessa"]);
    });
}

/// Makes a reporter for each letter left, each in a call of its own, and fails at an `x`.
#[transactional(Reporter)]
fn make_each(letters: &str) -> Ran {
    let Some(letter) = letters.get(..1) else { return Ok(()) };
    if letter == "x" {
        return oops();
    }
    create(letter, "")?;
    let _ = make_each(&letters[1..]);
    Ok(())
}

/// The same cases, for an annotated function.
#[test]
fn an_annotated_function_can_call_itself_and_each_call_is_a_level() {
    everywhere(|room| {
        make_each("abc").unwrap();
        room.holds(["a", "b", "c"]);
        make_each("dx").unwrap();
        room.holds(["a", "b", "c", "d"]);
        assert!(is_oops(&make_each("x")));
        room.holds(["a", "b", "c", "d"]);
    });
}

/// `test_force_rollback`
#[test]
fn a_forced_rollback_undoes_the_scope_and_returns_ok() {
    everywhere(|room| {
        let ran = nested(|| {
            create("Tessa", "")?;
            assert!(!scope::is_doomed());
            Ok(set_rollback(true)?)
        });
        ran.unwrap();
        room.holds([]);
    });
}

/// `test_prevent_rollback`. Django needs `set_rollback(False)` as well; here the rollback of the savepoint lifts the doom
/// that came after it, and nothing else does.
#[test]
fn a_savepoint_recovers_from_an_error_in_a_joined_scope() {
    everywhere(|room| {
        let ran = nested(|| {
            create("Tessa", "")?;
            let before = savepoint("before")?;
            let failed =
                joined(|| Ok(connection::<Reporter, H>()?.batch_execute("SELECT no_such_column FROM reporters")?));
            assert!(matches!(failed, Err(Mishap::Query(_))), "{failed:?}");
            assert!(scope::is_doomed());
            set_rollback(false)?;
            assert!(scope::is_doomed());
            before.rollback()?;
            assert!(!scope::is_doomed());
            assert_eq!(count()?, 1);
            Ok(())
        });
        ran.unwrap();
        room.holds(["Tessa"]);
    });
}

/// Takes the savepoint of the innermost scope away from it.
fn lose_the_savepoint() -> Ran {
    let text = format!("RELEASE SAVEPOINT multidb_{}", scope::depth());
    connection::<Reporter, H>()?.with_raw(|raw: &mut Raw| raw.batch_execute(&text).map_err(Mishap::from))
}

/// If a savepoint of the library is gone, what took it away may have committed, and the scopes must report that. PostgreSQL
/// alone is asked by other means.
fn is_told<T>(ran: &Result<T, Error>) -> bool {
    match ran {
        Err(Error::Doomed { .. }) => KIND == Kind::Postgres,
        Err(Error::ImplicitCommit { .. }) => KIND != Kind::Postgres,
        _ => false,
    }
}

/// `test_failure_on_exit_transaction`
#[test]
fn a_level_that_cannot_be_undone_dooms_the_scope_around_it() {
    alone(|room| {
        let ran = atomic::<Reporter>().run(|_: &mut H| {
            let inner = nested(|| {
                create("Tessa", "")?;
                assert_eq!(count()?, 1);
                assert_eq!(lose_the_savepoint().is_err(), KIND != Kind::Postgres);
                oops()
            });
            assert!(is_oops(&inner), "the user's error comes back unchanged: {inner:?}");
            assert!(scope::is_doomed());
            let refused = count();
            assert!(is_told(&refused), "{refused:?}");
            Ok(())
        });
        assert!(is_told(&ran), "{ran:?}");
        room.holds([]);
    });
}

/// The same where the inner scope succeeds. PostgreSQL is not asked whether the savepoint is still there: its rows belong to
/// the scope around it either way.
#[test]
fn a_level_that_cannot_be_kept_is_an_error_or_its_rows_are_kept() {
    alone(|room| {
        let ran = atomic::<Reporter>().run(|_: &mut H| {
            let inner = nested(|| {
                create("Tessa", "")?;
                lose_the_savepoint()
            });
            assert_eq!(inner.is_err(), KIND != Kind::Postgres, "{inner:?}");
            assert_eq!(scope::is_doomed(), inner.is_err());
            Ok(())
        });
        if KIND == Kind::Postgres {
            ran.unwrap();
            room.holds(["Tessa"]);
        } else {
            assert!(is_told(&ran), "{ran:?}");
            room.holds([]);
        }
    });
}

/// `test_merged_outer_rollback`. Django lets `set_rollback(False)` look at the rows that can't be undone alone; here no
/// statement passes.
#[test]
fn a_doom_of_a_joined_scope_passes_every_joined_scope_up_to_the_one_with_a_level() {
    everywhere(|room| {
        let ran = nested(|| {
            create("Tessa", "")?;
            let middle = joined(|| {
                create("Archie", "Hay")?;
                let inner = joined(|| {
                    create("Cal", "")?;
                    oops()
                });
                assert!(is_oops(&inner));
                assert!(scope::is_doomed());
                assert!(matches!(count(), Err(Error::Doomed { .. })));
                Ok(())
            });
            middle?;
            assert!(scope::is_doomed());
            assert!(matches!(count(), Err(Error::Doomed { .. })));
            Ok(())
        });
        assert!(is_doomed(&ran), "{ran:?}");
        room.holds([]);
    });
}

/// `test_merged_inner_savepoint_rollback`. The middle scope tells of it, where Django is silent.
#[test]
fn a_doom_of_a_joined_scope_ends_at_the_first_level_around_it() {
    everywhere(|room| {
        let ran = nested(|| {
            create("Tessa", "")?;
            let middle = nested(|| {
                create("Archie", "Hay")?;
                let inner = joined(|| {
                    create("Cal", "")?;
                    oops()
                });
                assert!(is_oops(&inner) && scope::is_doomed());
                Ok(())
            });
            assert!(is_doomed(&middle), "{middle:?}");
            assert_eq!(count()?, 1);
            Ok(())
        });
        ran.unwrap();
        room.holds(["Tessa"]);
    });
}

/// A `set_rollback` in a joined scope means the level that it joined, since it has none of its own: Django's rule.
#[test]
fn a_forced_rollback_in_a_joined_scope_undoes_the_level_that_it_joined() {
    everywhere(|room| {
        create("Tessa", "").unwrap();
        let ran = nested(|| {
            create("Hal", "")?;
            joined(|| {
                create("Cal", "")?;
                Ok(set_rollback(true)?)
            })?;
            assert_eq!(count()?, 3, "until the level ends");
            Ok(())
        });
        ran.unwrap();
        room.holds(["Tessa"]);
    });
}
