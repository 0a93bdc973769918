//! Manual scopes over several models, and savepoints on all their databases.

use multidb::scope::{self, commit, rollback, savepoint, set_rollback};
use multidb::{AnyConn, Error, Propagation, atomic, atomic_many, commit_manually};

use super::*;

#[commit_manually(Account, Entry)]
fn in_parts() -> Ran {
    put_account(1)?;
    put_entry(1)?;
    commit()?;
    put_account(2)?;
    put_entry(2)?;
    rollback()?;
    put_entry(3)?;
    put_account(3)?;
    Ok(commit()?)
}

/// A manual scope on all models.
fn manual<T>(body: impl FnOnce() -> Ran<T>) -> Ran<T> {
    atomic_many::<(Account, Entry, Audit)>().manual().run(|_| body())
}

#[test]
fn each_commit_keeps_what_came_before_it_and_each_rollback_undoes_it() {
    let ((), rows) = everywhere(|| in_parts().unwrap());
    assert_eq!(rows, ([1, 3], [1, 3], []));
}

#[test]
fn pending_writes_on_any_database_are_rolled_back_and_ok_becomes_an_error_that_counts_them() {
    let (pending, rows) = everywhere(|| {
        let run = manual(|| {
            put_account(1)?;
            put_entry(1)?;
            commit()?;
            put_entry(2)?;
            put_account(2)?;
            insert::<Audit>(2)
        });
        let Err(Mishap::Database(Error::PendingWork { statements, .. })) = run else { panic!("{run:?}") };
        assert_eq!(manual(count::<Entry>).unwrap(), 1, "a lone read is no pending work");
        statements
    });
    assert_eq!(pending, 3);
    assert_eq!(rows, ([1], [1], []));
}

#[test]
fn commit_and_rollback_inside_an_automatic_scope_are_errors() {
    let ((), rows) = everywhere(|| {
        let run = manual(|| {
            nested::<Entry, ()>(|| {
                for ended in [commit(), rollback()] {
                    assert!(matches!(ended, Err(Error::NotManual { .. })), "{ended:?}");
                }
                put_entry(1)
            })?;
            put_account(1)?;
            Ok(commit()?)
        });
        run.unwrap();
        assert!(matches!(over_all(|| Ok(commit()?)), Err(Mishap::Database(Error::NotManual { .. }))));
        assert!(matches!(commit(), Err(Error::NoScope { .. })));
    });
    assert_eq!(rows, ([1], [1], []));
}

#[test]
fn a_manual_scope_inside_a_transaction_is_an_error_unless_it_is_independent() {
    let ((), rows) = everywhere(|| {
        let run = over_all(|| {
            assert_eq!(word(&in_parts()), "conflict");
            let apart = atomic_many::<(Account, Entry)>().manual().propagation(Propagation::RequiresNew);
            apart.run(|_| {
                put_account(1)?;
                put_entry(1)?;
                Ok::<_, Mishap>(commit()?)
            })?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(run, Err(Mishap::OnPurpose)));
    });
    assert_eq!(rows, ([1], [1], []));
}

#[test]
fn a_doomed_manual_scope_goes_on_after_a_rollback_on_every_database() {
    let ((), rows) = everywhere(|| {
        let run = manual(|| {
            put_account(1)?;
            assert_eq!(word(&insert::<Entry>(TAKEN)), "refused");
            assert!(matches!(commit(), Err(Error::Doomed { .. })));
            rollback()?;
            put_account(2)?;
            put_entry(2)?;
            commit()?;
            set_rollback(true)?;
            assert!(matches!(commit(), Err(Error::OptionConflict { .. })));
            rollback()?;
            insert::<Audit>(3)?;
            Ok(commit()?)
        });
        run.unwrap();
    });
    assert_eq!(rows, ([2], [2], [3]));
}

#[test]
fn a_manual_loop_keeps_the_jobs_that_went_well() {
    let ((), rows) = everywhere(|| {
        let run = manual(|| {
            for id in 1..6 {
                let job = nested::<Account, ()>(|| {
                    put_account(id)?;
                    if id % 2 == 0 { put_entry_and_fail(id) } else { put_entry(id) }
                });
                if job.is_ok() { commit()? } else { rollback()? }
            }
            Ok(())
        });
        run.unwrap();
    });
    assert_eq!(rows, ([1, 3, 5], [1, 3, 5], []));
}

#[test]
fn a_savepoint_undoes_what_came_after_it_on_every_database_and_lifts_a_doom() {
    let ((), rows) = everywhere(|| {
        let run = over_all(|| {
            put_account(1)?;
            let before = savepoint("before")?;
            put_account(2)?;
            put_entry(2)?;
            assert_eq!(word(&insert::<Entry>(TAKEN)), "refused");
            before.rollback()?;
            assert!(!scope::is_doomed());
            let kept = savepoint("kept")?;
            put_entry(3)?;
            kept.release()?;
            let doomed = savepoint("doomed")?;
            insert::<Audit>(4)?;
            assert_eq!(word(&insert::<Account>(TAKEN)), "refused");
            assert!(matches!(doomed.release(), Err(Error::Doomed { .. })));
            drop(savepoint("dropped")?);
            insert::<Audit>(5)
        });
        run.unwrap();
    });
    assert_eq!(rows, ([1], [3], [5]));
}

#[test]
fn an_older_savepoint_takes_the_younger_ones_with_it_on_every_database() {
    let ((), rows) = everywhere(|| {
        let run = over_all(|| {
            put_account(1)?;
            let older = savepoint("older")?;
            put_entry(2)?;
            let younger = savepoint("younger")?;
            insert::<Audit>(3)?;
            older.rollback()?;
            assert!(matches!(younger.rollback(), Err(Error::AlreadyEnded { .. })));
            put_entry(4)
        });
        run.unwrap();
    });
    assert_eq!(rows, ([1], [4], []));
}

#[test]
fn a_savepoint_that_a_joined_scope_dropped_takes_nothing_of_it_along() {
    let ((), rows) = everywhere(|| {
        let run = over_all(|| {
            scope_on::<Entry, ()>(Propagation::Join, || {
                drop(savepoint("dropped")?);
                insert::<Entry>(1)?;
                insert::<Account>(1)
            })?;
            assert!(put_entry_and_fail(2).is_err());
            insert::<Audit>(3)
        });
        run.unwrap();
    });
    assert_eq!(rows, ([1], [1], [3]));
}

#[test]
fn diesels_own_transaction_on_one_handle_is_a_level_of_all_databases() {
    let ((), rows) = everywhere(|| {
        let run = atomic::<Account>().run(|conn: &mut AnyConn| {
            Account::insert(conn, 1)?;
            conn.transaction(|_| {
                assert_eq!(scope::depth(), 2);
                insert::<Account>(2)
            })?;
            let swallowed = conn.transaction(|conn| {
                let _ = Account::insert(conn, TAKEN);
                Ok::<_, Mishap>(())
            });
            assert_eq!(word(&swallowed), "doomed");
            Ok::<_, Mishap>(())
        });
        run.unwrap();
        let both = over_all(|| {
            let mut conn = multidb::connection::<Entry, AnyConn>()?;
            let undone: Ran = conn.transaction(|_| {
                put_account(3)?;
                put_entry(3)?;
                Err(Mishap::OnPurpose)
            });
            assert!(undone.is_err());
            conn.transaction(|conn| {
                put_account(4)?;
                Ok(Entry::insert(conn, 4).map(drop)?)
            })
        });
        both.unwrap();
    });
    assert_eq!(rows, ([1, 2, 4], [4], []));
}
