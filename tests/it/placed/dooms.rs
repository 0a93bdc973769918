//! What one database refused dooms the level on all of them.

use multidb::testing::committed;
use multidb::{AnyConn, Databases, Error, Propagation, atomic, scope};

use super::*;
use crate::fixture::Kind;

/// Puts a row that is there already, and swallows the error.
fn swallow_a_duplicate<M: Table>() {
    assert_eq!(word(&insert::<M>(TAKEN)), "refused");
    assert!(scope::is_doomed());
}

#[test]
fn a_swallowed_error_of_either_database_makes_ok_an_error_and_keeps_nothing() {
    let (words, rows) = everywhere(|| {
        let first = over_all(|| {
            put_account(1)?;
            put_entry(1)?;
            swallow_a_duplicate::<Account>();
            Ok(())
        });
        let second = over_all(|| {
            put_account(2)?;
            swallow_a_duplicate::<Entry>();
            Ok(())
        });
        put_entry(3).unwrap();
        [word(&first), word(&second)]
    });
    assert_eq!(words, ["doomed"; 2]);
    assert_eq!(rows, ([], [3], []));
}

#[test]
fn statements_on_any_database_are_refused_while_one_of_them_is_doomed_and_counted() {
    let (refused, rows) = everywhere(|| {
        let run = over_all(|| {
            put_entry(1)?;
            swallow_a_duplicate::<Account>();
            assert_eq!([word(&count::<Entry>()), word(&put_entry(2)), word(&insert::<Audit>(2))], ["doomed"; 3]);
            Ok(())
        });
        let Err(Mishap::Database(Error::Doomed { refused, .. })) = run else { panic!("{run:?}") };
        refused
    });
    assert_eq!(refused, 3);
    assert_eq!(rows, ([], [], []));
}

#[test]
fn a_doom_ends_with_its_level() {
    let ((), rows) = everywhere(|| {
        let run = over_all(|| {
            put_account(1)?;
            let level = nested::<Account, ()>(|| {
                put_account(2)?;
                put_entry(2)?;
                swallow_a_duplicate::<Entry>();
                Ok(())
            });
            assert_eq!(word(&level), "doomed");
            assert!(!scope::is_doomed());
            assert_eq!(word(&nested::<Entry, ()>(|| insert::<Entry>(TAKEN))), "refused");
            put_entry(3)?;
            put_account(3)
        });
        run.unwrap();
    });
    assert_eq!(rows, ([1, 3], [3], []));
}

#[test]
fn a_joined_scope_that_fails_dooms_up_to_the_first_level_around_it() {
    let ((), rows) = everywhere(|| {
        let joined = |id| scope_on::<Entry, ()>(Propagation::Join, || put_entry_and_fail(id));
        let run = over_all(|| {
            put_account(1)?;
            let middle = nested::<Account, ()>(|| {
                put_account(2)?;
                let outer = scope_on::<Account, ()>(Propagation::Join, || {
                    assert_eq!(word(&joined(2)), "purpose");
                    assert_eq!(word(&count::<Account>()), "doomed");
                    Ok(())
                });
                outer?;
                assert!(scope::is_doomed());
                Ok(())
            });
            assert_eq!(word(&middle), "doomed");
            assert_eq!(count::<Account>()?, 1);
            put_entry(3)
        });
        run.unwrap();
        let passed_outward = over_all(|| {
            put_account(4)?;
            let _ = scope_on::<Entry, ()>(Propagation::Mandatory, || Err(Mishap::OnPurpose));
            Ok(())
        });
        assert_eq!(word(&passed_outward), "doomed");
    });
    assert_eq!(rows, ([1], [3], []));
}

#[test]
fn the_users_error_comes_back_unchanged_from_a_doomed_scope() {
    let ((), rows) = everywhere(|| {
        let run = over_all(|| {
            put_account(1)?;
            swallow_a_duplicate::<Entry>();
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(run, Err(Mishap::OnPurpose)));
    });
    assert_eq!(rows, ([], [], []));
}

#[test]
fn a_forced_rollback_undoes_its_level_on_every_database_and_returns_the_value() {
    let (values, rows) = everywhere(|| {
        let whole = over_all(|| {
            put_account(1)?;
            put_entry(1)?;
            scope::set_rollback(true)?;
            Ok(1)
        });
        let level = over_all(|| {
            put_account(2)?;
            let value = nested::<Entry, i64>(|| {
                put_entry(2)?;
                put_account(3)?;
                // A joined scope has no level of its own.
                scope_on::<Account, ()>(Propagation::Join, || Ok(scope::set_rollback(true)?))?;
                assert_eq!(count::<Account>()?, 2, "until the level ends");
                Ok(2)
            })?;
            assert_eq!((count::<Account>()?, count::<Entry>()?), (1, 0));
            Ok(value)
        });
        (whole.unwrap(), level.unwrap())
    });
    assert_eq!(values, (1, 2));
    assert_eq!(rows, ([2], [], []));
}

#[test]
fn a_batch_keeps_every_row_that_was_not_refused() {
    let (refused, rows) = everywhere(|| {
        let run = over_all(|| {
            let mut refused = 0;
            for id in [1, TAKEN, 2, TAKEN, 3] {
                let one = nested::<Account, ()>(|| {
                    insert::<Audit>(id + 100)?;
                    insert::<Entry>(id)?;
                    insert::<Account>(id)
                });
                refused += i32::from(one.is_err());
            }
            Ok(refused)
        });
        run.unwrap()
    });
    assert_eq!(refused, 2);
    assert_eq!(rows, ([1, 2, 3], [1, 2, 3], [101, 102, 103]));
}

#[test]
fn a_database_that_joins_a_doomed_transaction_answers_as_one_that_was_there() {
    for mut placed in world().layouts() {
        let layout = placed.layout;
        let is_late_file = layout.kind(1) == Kind::Sqlite && layout.at[0] != layout.at[1];
        let left = placed.case(|| {
            // Connections of which nothing is known yet.
            let _test = committed(&Databases::current().unwrap()).unwrap();
            let mut words = Vec::new();
            let run = atomic::<Account>().manual().run(|_: &mut AnyConn| {
                swallow_a_duplicate::<Account>();
                words.push(word(&insert::<Entry>(1)));
                scope::rollback()?;
                words.push(word(&insert::<Entry>(2)));
                Ok::<_, Mishap>(scope::rollback()?)
            });
            run.unwrap();
            words
        });
        let words = if is_late_file { ["not atomic"; 2] } else { ["doomed", "ok"] };
        assert_eq!(left.returned, words, "{}", layout.name);
        assert_eq!(left.rows, ([], [], []), "{}", layout.name);
    }
}
