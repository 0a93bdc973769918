//! Hooks run once, after every database has committed or rolled back.

use std::cell::RefCell;
use std::rc::Rc;

use multidb::scope::{on_commit, on_rollback, savepoint};
use multidb::{HookErrors, Propagation, atomic_many, scope};

use super::*;

/// What has run, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    /// Registers a hook of each kind.
    fn hook(&self, name: &'static str) {
        let (committed, rolled_back) = (self.clone(), self.clone());
        on_commit(move || committed.note(format!("c{name}")));
        on_rollback(move || rolled_back.note(format!("r{name}")));
    }

    fn note(&self, what: String) {
        assert_eq!(scope::depth(), 0, "hooks run in autocommit");
        self.0.borrow_mut().push(what);
    }

    fn take(&self) -> Vec<String> {
        self.0.take()
    }
}

#[test]
fn hooks_run_in_their_order_after_the_outermost_commit_and_see_every_database() {
    let (ran, rows) = everywhere(|| {
        let log = Log::default();
        let seen = log.clone();
        let run = over_all(|| {
            log.hook("1");
            put_account(1)?;
            nested::<Entry, ()>(|| {
                log.hook("2");
                put_entry(1)
            })?;
            scope_on::<Audit, ()>(Propagation::Join, || {
                log.hook("3");
                insert::<Audit>(1)
            })?;
            on_commit(move || {
                let counts = [count::<Account>(), count::<Entry>(), count::<Audit>()].map(Result::unwrap);
                seen.note(format!("{counts:?}"));
            });
            Ok(())
        });
        run.unwrap();
        log.take()
    });
    assert_eq!(ran, ["c1", "c2", "c3", "[1, 1, 1]"]);
    assert_eq!(rows, ([1], [1], [1]));
}

#[test]
fn hooks_of_an_undone_level_are_dropped_and_those_beside_it_run() {
    let (ran, rows) = everywhere(|| {
        let log = Log::default();
        let run = over_all(|| {
            log.hook("1");
            let _ = nested::<Entry, ()>(|| {
                log.hook("2");
                let _ = nested::<Account, ()>(|| {
                    log.hook("3");
                    put_account(3)
                });
                put_entry_and_fail(2)
            });
            let _ = nested::<Account, ()>(|| {
                log.hook("4");
                put_account(4)?;
                Err(Mishap::OnPurpose)
            });
            let before = savepoint("before")?;
            log.hook("5");
            before.rollback()?;
            log.hook("6");
            put_entry(6)
        });
        run.unwrap();
        log.take()
    });
    assert_eq!(ran, ["c1", "c6"]);
    assert_eq!(rows, ([], [6], []));
}

#[test]
fn after_a_rollback_the_hooks_of_the_other_kind_run() {
    let (ran, rows) = everywhere(|| {
        let log = Log::default();
        let failed = over_all(|| {
            log.hook("1");
            put_account(1)?;
            nested::<Entry, ()>(|| {
                log.hook("2");
                put_entry(1)
            })?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(failed.is_err());
        let doomed = over_all(|| {
            log.hook("3");
            let _ = scope_on::<Entry, ()>(Propagation::Join, || {
                log.hook("4");
                put_entry_and_fail(2)
            });
            Ok(())
        });
        assert_eq!(word(&doomed), "doomed");
        log.take()
    });
    assert_eq!(ran, ["r1", "r2", "r3", "r4"]);
    assert_eq!(rows, ([], [], []));
}

#[test]
fn a_hook_opens_transactions_of_its_own_on_any_database_and_their_hooks_run_before_the_next_one() {
    let (ran, rows) = everywhere(|| {
        let log = Log::default();
        let first = log.clone();
        let run = over_all(|| {
            put_account(1)?;
            put_entry(1)?;
            on_commit(move || {
                let inner = over_all(|| {
                    put_account(2)?;
                    put_entry(2)?;
                    first.hook("inner");
                    Ok(())
                });
                first.note(format!("first {}", word(&inner)));
            });
            log.hook("second");
            Ok(())
        });
        run.unwrap();
        log.take()
    });
    assert_eq!(ran, ["cinner", "first ok", "csecond"]);
    assert_eq!(rows, ([1, 2], [1, 2], []));
}

#[test]
fn a_hook_that_fails_stops_no_other_and_is_returned_where_that_was_asked_for() {
    let (words, rows) = everywhere(|| {
        let run = |errors, id| {
            let log = Log::default();
            let result = atomic_many::<(Account, Entry)>().hook_errors(errors).run(|_| {
                on_commit(|| Err::<(), _>("it fails"));
                log.hook("2");
                put_account(id)?;
                put_entry(id)
            });
            assert_eq!(log.take(), ["c2"]);
            result
        };
        run(HookErrors::Reported, 1).unwrap();
        let returned = run(HookErrors::Returned, 2);
        let Err(Mishap::Database(error)) = returned else { panic!("{returned:?}") };
        (error.is_committed(), error.is_retryable())
    });
    assert_eq!(words, (true, false));
    assert_eq!(rows, ([1, 2], [1, 2], []));
}

#[test]
fn hooks_run_at_each_commit_of_a_manual_scope() {
    let (ran, rows) = everywhere(|| {
        let log = Log::default();
        let run = atomic_many::<(Account, Entry)>().manual().run(|_| {
            log.hook("1");
            put_account(1)?;
            put_entry(1)?;
            scope::commit()?;
            log.hook("2");
            put_entry(2)?;
            scope::rollback()?;
            log.hook("3");
            put_account(3)?;
            Ok::<_, Mishap>(scope::commit()?)
        });
        run.unwrap();
        log.take()
    });
    assert_eq!(ran, ["c1", "r2", "c3"]);
    assert_eq!(rows, ([1, 3], [1], []));
}

#[test]
fn hooks_of_an_independent_transaction_run_with_it() {
    let (ran, rows) = everywhere(|| {
        let log = Log::default();
        let run = over_all(|| {
            log.hook("outer");
            scope_on::<Entry, ()>(Propagation::RequiresNew, || {
                log.hook("apart");
                put_entry(1)
            })?;
            put_account(2)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(run.is_err());
        log.take()
    });
    assert_eq!(ran, ["capart", "router"]);
    assert_eq!(rows, ([], [1], []));
}
