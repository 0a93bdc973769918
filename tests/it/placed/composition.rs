//! Functions of different models that call each other, with nothing passed between them.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use multidb::{AnyConn, Error, Propagation, atomic, atomic_many, connection, scope, transactional};

use super::*;

#[transactional(Account, Entry)]
fn book(id: i64, fails: bool) -> Ran<i64> {
    put_account(id)?;
    put_entry(id)?;
    if fails { Err(Mishap::OnPurpose) } else { Ok(id) }
}

#[transactional(Account, Entry)]
fn book_by_handles(#[conn(Account)] account: &mut AnyConn, #[conn(Entry)] entry: &mut AnyConn, id: i64) -> Ran {
    Account::insert(account, id)?;
    Entry::insert(entry, id)?;
    Ok(())
}

#[test]
fn nested_functions_commit_together_and_are_undone_together() {
    let (returned, rows) = everywhere(|| {
        assert!(book(1, true).is_err());
        book_by_handles(2).unwrap();
        book(3, false).unwrap()
    });
    assert_eq!(returned, 3);
    assert_eq!(rows, ([2, 3], [2, 3], []));
}

#[test]
fn an_inner_error_undoes_the_inner_function_alone_wherever_its_rows_are() {
    let ((), rows) = everywhere(|| {
        let run = over_all(|| {
            put_account(1)?;
            assert!(matches!(put_entry_and_fail(2), Err(Mishap::OnPurpose)));
            // The level of one model holds what its functions did to others.
            let level = nested::<Account, ()>(|| {
                put_account(3)?;
                put_entry(3)?;
                insert::<Audit>(3)?;
                Err(Mishap::OnPurpose)
            });
            assert!(matches!(level, Err(Mishap::OnPurpose)));
            put_entry(4)?;
            insert::<Audit>(4)
        });
        run.unwrap();
    });
    assert_eq!(rows, ([1], [4], [4]));
}

#[test]
fn the_scope_sees_its_own_rows_on_every_database() {
    let (seen, rows) = everywhere(|| {
        let run = over_all(|| {
            book(1, false)?;
            insert::<Audit>(2)?;
            Ok([count::<Account>()?, count::<Entry>()?, count::<Audit>()?])
        });
        run.unwrap()
    });
    assert_eq!((seen, rows), ([1; 3], Rows([vec![1], vec![1], vec![2]])));
}

#[test]
fn the_order_in_which_models_are_listed_changes_nothing() {
    let ((), rows) = everywhere(|| {
        let body = |id| {
            put_account(id)?;
            insert::<Audit>(id)?;
            put_entry(id)
        };
        atomic_many::<(Account, Entry, Audit)>().run(|_| body(1)).unwrap();
        atomic_many::<(Audit, Entry, Account)>().run(|_| body(2)).unwrap();
        atomic_many::<(Entry, Account, Audit)>().run(|_| body(3)).unwrap();
    });
    assert_eq!(rows, ([1, 2, 3], [1, 2, 3], [1, 2, 3]));
}

#[test]
fn handles_of_all_models_take_turns_in_one_transaction() {
    let ((), rows) = everywhere(|| {
        let run = atomic_many::<(Account, Entry, Audit)>().run(|scope| {
            let mut handles =
                (scope.conn::<Account, AnyConn>()?, scope.conn::<Entry, AnyConn>()?, scope.conn::<Audit, AnyConn>()?);
            for id in 1..4 {
                Account::insert(&mut handles.0, id)?;
                Entry::insert(&mut handles.1, id)?;
                Audit::insert(&mut handles.2, id)?;
            }
            let undone = handles.1.transaction(|conn| {
                Entry::insert(conn, 4)?;
                Account::insert(&mut handles.0, 4)?;
                Err::<(), _>(Mishap::OnPurpose)
            });
            assert!(matches!(undone, Err(Mishap::OnPurpose)));
            Ok::<_, Mishap>(())
        });
        run.unwrap();
    });
    assert_eq!(rows, ([1, 2, 3], [1, 2, 3], [1, 2, 3]));
}

#[test]
fn a_panic_undoes_what_every_database_got_and_the_caller_may_catch_it() {
    let ((), rows) = everywhere(|| {
        let panics = |id| {
            let panics = || -> Ran {
                book(id, false)?;
                resume_unwind(Box::new("on purpose"))
            };
            catch_unwind(AssertUnwindSafe(|| over_all(panics))).unwrap_err();
        };
        panics(1);
        let run = over_all(|| {
            book(2, false)?;
            panics(3);
            assert_eq!(scope::depth(), 1);
            put_entry(4)
        });
        run.unwrap();
    });
    assert_eq!(rows, ([2], [2, 4], []));
}

/// Opens a scope in its destructor.
struct PutsWhenDropped(i64);

impl Drop for PutsWhenDropped {
    fn drop(&mut self) {
        put_entry(self.0).unwrap();
    }
}

#[test]
fn a_scope_in_a_destructor_of_a_body_that_panics_belongs_to_the_transaction() {
    let ((), rows) = everywhere(|| {
        let panicked = catch_unwind(|| {
            over_all(|| -> Ran {
                put_account(1)?;
                let _guard = PutsWhenDropped(2);
                resume_unwind(Box::new("on purpose"))
            })
        });
        assert!(panicked.is_err());
        drop(PutsWhenDropped(3));
    });
    assert_eq!(rows, ([], [3], []));
}

#[test]
fn a_function_that_calls_itself_has_a_level_for_each_call_and_each_database() {
    fn descend(id: i64, fails_at: i64) -> Ran {
        let below = || {
            insert::<Account>(id)?;
            put_entry(id)?;
            if id == fails_at {
                return Err(Mishap::OnPurpose);
            }
            if id < 5 {
                let _ = descend(id + 1, fails_at);
            }
            Ok(())
        };
        if id % 2 == 0 { nested::<Account, ()>(below) } else { nested::<Entry, ()>(below) }
    }
    let ((), rows) = everywhere(|| over_all(|| descend(1, 4)).unwrap());
    assert_eq!(rows, ([1, 2, 3], [1, 2, 3], []));
}

#[test]
fn a_handle_that_outlives_its_scope_answers_closed() {
    let ((), rows) = everywhere(|| {
        let mut kept = None;
        let run = over_all(|| {
            kept = Some((connection::<Account, AnyConn>()?, connection::<Entry, AnyConn>()?));
            put_entry(1)
        });
        run.unwrap();
        let (mut used, mut unused) = kept.unwrap();
        for closed in [Account::insert(&mut used, 2), Entry::insert(&mut unused, 2)] {
            assert!(matches!(Error::from(closed.unwrap_err()), Error::Closed { .. }));
        }
    });
    assert_eq!(rows, ([], [1], []));
}

#[test]
fn the_transaction_has_one_id_on_all_its_databases() {
    everywhere(|| {
        assert_eq!(scope::current(), None);
        let run = over_all(|| {
            let outer = scope::current();
            assert!(outer.is_some());
            put_account(1)?;
            put_entry(1)?;
            nested::<Audit, ()>(|| {
                assert_eq!(scope::current(), outer);
                Ok(())
            })
        });
        run.unwrap();
    });
}

#[test]
fn an_independent_transaction_commits_whatever_becomes_of_the_one_around_it() {
    let ((), rows) = everywhere(|| {
        // Nothing was sent yet, so that the outer scope has no lock on a SQLite file.
        let run = over_all(|| {
            scope_on::<Entry, ()>(Propagation::RequiresNew, || {
                assert_eq!(scope::depth(), 1);
                put_entry(1)
            })?;
            let undone = scope_on::<Entry, ()>(Propagation::RequiresNew, || {
                put_entry(2)?;
                Err(Mishap::OnPurpose)
            });
            assert!(undone.is_err() && !scope::is_doomed());
            put_account(3)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(run, Err(Mishap::OnPurpose)));
    });
    assert_eq!(rows, ([], [1], []));
}

#[test]
fn inside_not_supported_every_propagation_finds_no_transaction() {
    let (words, rows) = everywhere(|| {
        let run = over_all(|| {
            scope_on::<Account, _>(Propagation::NotSupported, || {
                assert_eq!((scope::depth(), scope::current()), (0, None));
                let all = [
                    Propagation::Nested,
                    Propagation::Join,
                    Propagation::Durable,
                    Propagation::RequiresNew,
                    Propagation::Mandatory,
                    Propagation::Supports,
                    Propagation::Never,
                    Propagation::NotSupported,
                ];
                Ok((1..)
                    .zip(all)
                    .map(|(id, inner)| word(&scope_on::<Entry, ()>(inner, || put_entry(id))))
                    .collect::<Vec<_>>())
            })
        });
        run.unwrap()
    });
    assert_eq!(words.iter().filter(|word| *word != "ok").collect::<Vec<_>>(), ["mandatory"]);
    assert_eq!(rows, ([], [1, 2, 3, 4, 6, 7, 8], []));
}

#[test]
fn a_scope_in_another_thread_is_a_transaction_of_its_own() {
    let ((), rows) = everywhere(|| {
        let databases = multidb::Databases::current().unwrap();
        let base = base();
        let run = over_all(|| {
            let theirs = std::thread::scope(|threads| {
                let thread = threads.spawn(|| {
                    let _entered = databases.enter();
                    begin_after(base);
                    assert_eq!(scope::depth(), 0);
                    book(1, false).map(drop)
                });
                thread.join().unwrap()
            });
            theirs?;
            put_account(2)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(run.is_err());
    });
    assert_eq!(rows, ([1], [1], []));
}

#[test]
fn a_scope_that_only_reads_sees_every_database_and_writes_none() {
    let (seen, rows) = everywhere(|| {
        book(1, false).unwrap();
        let read = atomic_many::<(Account, Entry)>()
            .read_only()
            .run(|_| Ok::<_, Mishap>((count::<Account>()?, count::<Entry>()?)));
        let refused = atomic_many::<(Account, Entry)>().read_only().run(|_| insert::<Entry>(2));
        assert!(matches!(refused, Err(Mishap::Database(Error::ReadOnly { .. }))), "{refused:?}");
        let level = over_all(|| {
            put_account(3)?;
            let level = atomic::<Entry>().read_only().run(|_: &mut AnyConn| {
                assert_eq!((count::<Account>()?, count::<Entry>()?), (2, 1));
                insert::<Account>(4)
            });
            assert!(matches!(level, Err(Mishap::Database(Error::ReadOnly { .. }))), "{level:?}");
            put_entry(5)
        });
        level.unwrap();
        read.unwrap()
    });
    assert_eq!((seen, rows), ((1, 1), Rows([vec![1, 3], vec![1, 5], vec![]])));
}
