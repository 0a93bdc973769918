//! Hooks run once the outcome is known, in order, and never turn a commit into a failure.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use diesel::prelude::*;
use multidb::scope::{on_commit, on_commit_robust, on_rollback, set_rollback};
use multidb::{Error, HookErrors, Propagation, atomic, scope, transactional};

use super::*;

/// What has run, in order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<&'static str>>>);

impl Log {
    fn add(&self, what: &'static str) -> impl FnOnce() + 'static + use<> {
        let log = self.clone();
        move || log.0.borrow_mut().push(what)
    }

    fn take(&self) -> Vec<&'static str> {
        self.0.take()
    }
}

#[test]
fn hooks_run_after_the_outermost_commit_in_order_and_see_its_rows() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let (log, urls) = (Log::default(), fixture.rows("default"));
    assert_eq!(urls, []);
    let seen = Rc::new(RefCell::new(Vec::new()));
    atomic::<Item>()
        .run(|_: &mut H| {
            on_commit(log.add("first"));
            atomic::<Item>().run(|_: &mut H| {
                on_commit(log.add("inner"));
                on_rollback(log.add("never"));
                put(1, 10)
            })?;
            assert_eq!(log.take(), Vec::<&str>::new(), "nothing runs before the commit");
            let (seen, databases) = (Rc::clone(&seen), databases.clone());
            on_commit(move || {
                let free = in_use(&databases, "default") == 0;
                let count = items::table.count().get_result::<i64>(&mut multidb::connection::<Item, H>().unwrap());
                seen.borrow_mut().push((scope::depth(), free, count.unwrap()));
            });
            on_commit(log.add("last"));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(log.take(), ["first", "inner", "last"]);
    assert_eq!(seen.take(), [(0, true, 1)]);
}

#[test]
fn a_level_that_is_undone_drops_its_hooks() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let log = Log::default();
    atomic::<Item>()
        .run(|_: &mut H| {
            on_commit(log.add("before"));
            let undone = atomic::<Item>().run(|_: &mut H| {
                on_commit(log.add("undone"));
                atomic::<Item>().run(|_: &mut H| {
                    on_commit(log.add("undone as well"));
                    put(1, 10)
                })?;
                Err::<(), _>(Mishap::OnPurpose)
            });
            assert!(undone.is_err());
            on_commit(log.add("after"));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(log.take(), ["before", "after"]);
}

#[test]
fn after_a_rollback_the_hooks_of_the_other_kind_run() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let log = Log::default();
    put(1, 10).unwrap();
    let failed = atomic::<Item>().run(|_: &mut H| {
        on_commit(log.add("committed"));
        on_rollback(log.add("rolled back"));
        put(2, 20)?;
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(failed, Err(Mishap::OnPurpose)));
    assert_eq!(log.take(), ["rolled back"]);
    let doomed = atomic::<Item>().run(|_: &mut H| {
        on_rollback(log.add("doomed"));
        let _ = atomic::<Item>().propagation(Propagation::Join).run(|_: &mut H| Err::<(), _>(Mishap::OnPurpose));
        Ok::<_, Error>(())
    });
    assert!(matches!(doomed, Err(Error::Doomed { .. })));
    assert_eq!(log.take(), ["doomed"]);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        atomic::<Item>().run(|_: &mut H| -> Result<(), Error> {
            on_rollback(log.add("panicked"));
            panic!("on purpose")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(log.take(), ["panicked"]);
}

#[test]
fn outside_of_any_transaction_a_commit_hook_runs_at_once_and_a_rollback_hook_never() {
    let log = Log::default();
    on_commit(log.add("now"));
    on_rollback(log.add("never"));
    assert_eq!(log.take(), ["now"]);
}

#[test]
fn a_hook_that_fails_or_panics_stops_no_other_and_the_result_stays_ok() {
    let Some(fixture) = fixture() else { return };
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    let tell = move |error: &Error| listener.lock().unwrap().push((error.is_committed(), error.to_string()));
    let _entered = fixture.builder(2).on_hook_failure(tell).build().unwrap().enter();
    let log = Log::default();
    let run = |errors| {
        atomic::<Item>().hook_errors(errors).run(|_: &mut H| {
            on_commit_robust(|| Err::<(), _>("the robust one"));
            on_commit(|| Err::<(), _>("no mail server"));
            on_commit(|| -> () { panic!("in a hook") });
            on_commit(log.add("the last one"));
            diesel::delete(items::table).execute(&mut multidb::connection::<Item, H>()?)?;
            put(1, 10).map_err(Mishap::from)
        })
    };
    run(HookErrors::Reported).unwrap();
    assert_eq!(log.take(), ["the last one"]);
    let texts = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(texts.len(), 3);
    for ((committed, text), named) in texts.iter().zip(["the robust one", "no mail server", "in a hook"]) {
        assert!(*committed && text.contains(named) && text.contains("hooks.rs"), "{text}");
    }
    let Err(Mishap::Database(error)) = run(HookErrors::Returned) else { panic!("the failure is to be returned") };
    assert!(error.is_committed() && !error.is_retryable() && error.to_string().contains("no mail server"), "{error}");
    assert_eq!(fixture.rows("default"), [(1, 10)], "committed all the same");
}

#[test]
fn a_hook_may_open_scopes_and_its_own_hooks_run_after_them() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let log = Log::default();
    let inner = log.clone();
    atomic::<Item>()
        .run(|_: &mut H| {
            on_commit(move || {
                on_commit(inner.add("at once"));
                atomic::<Item>().run(|_: &mut H| {
                    on_commit(inner.add("after the hook's scope"));
                    put(2, 20)
                })
            });
            on_commit(log.add("second"));
            put(1, 10)
        })
        .unwrap();
    assert_eq!(log.take(), ["at once", "after the hook's scope", "second"]);
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)]);
}

#[test]
fn hooks_of_an_independent_transaction_run_with_it_and_outside_of_the_one_around() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let log = Log::default();
    let failed = atomic::<Item>().run(|_: &mut H| {
        on_commit(log.add("outer"));
        put(1, 10)?;
        atomic::<Record>().propagation(Propagation::RequiresNew).run(|_: &mut H| {
            on_commit(log.add("independent"));
            on_commit(|| assert_eq!(scope::depth(), 0, "the hook sees no transaction"));
            put_record(2, 20)
        })?;
        assert_eq!((log.take(), scope::depth()), (vec!["independent"], 1));
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(failed.is_err());
    assert_eq!(log.take(), Vec::<&str>::new());
}

/// Panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a bomb was dropped");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{}", unspeakable())]
struct Unspeakable;

fn unspeakable() -> &'static str {
    panic!("no text")
}

#[test]
fn a_panic_of_anything_that_belongs_to_a_hook_stops_no_other_and_leaves_the_scope_around_it_open() {
    let Some(fixture) = fixture() else { return };
    let listener = |_: &Error| panic!("a listener");
    let databases = fixture.builder(2).on_hook_failure(listener).build().unwrap();
    let _entered = databases.enter();
    let log = Log::default();
    let captured = |bomb: Bomb| {
        move || {
            let _captured = &bomb;
        }
    };
    let hooks: [(&str, &dyn Fn()); 5] = [
        ("what it has captured", &|| on_commit(captured(Bomb))),
        ("what one that never runs has captured", &|| on_rollback(captured(Bomb))),
        ("its error's text", &|| on_commit(|| Err::<(), _>(Unspeakable))),
        ("what it panicked with", &|| on_commit(|| -> () { std::panic::panic_any(Bomb) })),
        ("the listener", &|| on_commit(|| Err::<(), _>("no mail server"))),
    ];
    for (what, hook) in hooks {
        let failed = atomic::<Item>().run(|_: &mut H| {
            put(1, 10)?;
            let apart = atomic::<Record>().propagation(Propagation::RequiresNew).run(|_: &mut H| {
                hook();
                on_commit(log.add("the next one"));
                put_record(2, 20)
            });
            apart?;
            assert_eq!((log.take(), scope::depth()), (vec!["the next one"], 1), "{what}");
            let insert = diesel::insert_into(items::table).values((items::id.eq(3), items::value.eq(30)));
            insert.execute(&mut multidb::connection::<Item, H>()?)?;
            Err::<(), _>(Mishap::OnPurpose)
        });
        assert!(matches!(failed, Err(Mishap::OnPurpose)), "{what}: {failed:?}");
        assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![(2, 20)]), "{what}");
        assert_eq!((in_use(&databases, "default"), in_use(&databases, "other")), (0, 0), "{what}");
        diesel::delete(items::table).execute(&mut fixture.observer("other")).unwrap();
        // Outside of any transaction too, where `on_rollback` drops its hook in the caller's hands.
        if what != "what one that never runs has captured" {
            hook();
        }
    }
}

#[test]
fn hook_errors_can_be_asked_for_in_the_attribute() {
    #[transactional(Item, hook_errors = returned)]
    fn notify() -> Result<(), Error> {
        on_commit(|| Err::<(), _>("no mail server"));
        put(1, 10)
    }
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let error = notify().unwrap_err();
    assert!(matches!(&error, Error::HookFailed { function: "notify", .. }), "{error}");
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn set_rollback_undoes_the_innermost_scope_and_returns_its_value() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let log = Log::default();
    let value = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let inner = atomic::<Item>().run(|_: &mut H| {
            on_commit(log.add("undone"));
            put(2, 20)?;
            set_rollback(true)?;
            put(3, 30)?;
            Ok::<_, Error>("inner")
        })?;
        let kept = atomic::<Item>().run(|_: &mut H| {
            set_rollback(true)?;
            set_rollback(false)?;
            put(4, 40)
        });
        kept?;
        Ok::<_, Error>(inner)
    });
    assert_eq!(value.unwrap(), "inner");
    assert_eq!(fixture.rows("default"), [(1, 10), (4, 40)]);
    let dry_run = atomic::<Item>().run(|_: &mut H| {
        on_rollback(log.add("dry run"));
        put(5, 50)?;
        set_rollback(true)?;
        Ok::<_, Error>(5)
    });
    assert_eq!((dry_run.unwrap(), log.take()), (5, vec!["dry run"]));
    assert_eq!(fixture.rows("default"), [(1, 10), (4, 40)]);
    assert!(matches!(set_rollback(true), Err(Error::NoScope { .. })));
}
