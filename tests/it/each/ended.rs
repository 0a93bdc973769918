//! Bodies that end their transaction behind the scope's back. The report comes whatever they return then.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use diesel::connection::{Connection, SimpleConnection};
use multidb::{Error, atomic, connection, scope};

use super::*;
use crate::fixture::Kind;
use crate::journal::Journal;

/// An error that keeps the text of one of the library's.
#[derive(Debug)]
enum Kept {
    Text(String),
    Database(Error),
}

impl From<Error> for Kept {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

/// How a body goes on once its transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Ok,
    ItsOwnError,
    /// It has heard of the end by a panic alone.
    ItsOwnErrorAfterAPanic,
    Panic,
    SetRollback,
    Nested,
}

/// What ends a transaction behind the scope's back.
fn ways() -> &'static [&'static str] {
    match KIND {
        Kind::Postgres => &["COMMIT", "COMMIT; BEGIN"],
        Kind::Mysql => &["COMMIT", "CREATE TABLE made_now (id INT)", "LOCK TABLES items WRITE"],
        Kind::Sqlite => &["COMMIT"],
    }
}

fn end(conn: &mut H, text: &str) -> Result<(), Error> {
    conn.with_raw(|raw: &mut Raw| raw.batch_execute(text).map_err(Error::from))
}

fn end_and_panic(conn: &mut H, text: &str) {
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        conn.with_raw(|raw: &mut Raw| {
            raw.batch_execute(text)?;
            resume_unwind(Box::new(()));
            #[expect(unreachable_code, reason = "gives the closure its type")]
            Ok::<(), Error>(())
        })
    }));
    assert!(panicked.is_err());
}

#[test]
fn a_transaction_that_a_statement_has_ended_is_reported_whatever_its_function_returns() {
    let all = [Then::Ok, Then::ItsOwnError, Then::ItsOwnErrorAfterAPanic, Then::Panic, Then::SetRollback, Then::Nested];
    for text in ways() {
        for then in all {
            let Some(fixture) = fixture() else { return };
            let databases = fixture.databases();
            let _entered = databases.enter();
            let (runs, hooks) = (Cell::new(0), Rc::new(RefCell::new(Vec::new())));
            let [committed, rolled_back] = [Rc::clone(&hooks), Rc::clone(&hooks)];
            let scope = atomic::<Item>().retry(2);
            let journal = Journal::default();
            let run = catch_unwind(AssertUnwindSafe(|| {
                journal.watch(|| {
                    scope.run(|conn: &mut H| {
                        runs.set(runs.get() + 1);
                        put(1, 10)?;
                        let (committed, rolled_back) = (Rc::clone(&committed), Rc::clone(&rolled_back));
                        scope::on_commit(move || committed.borrow_mut().push("committed"));
                        scope::on_rollback(move || rolled_back.borrow_mut().push("rolled back"));
                        match then {
                            Then::ItsOwnErrorAfterAPanic => end_and_panic(conn, text),
                            Then::Nested => {
                                let inner = atomic::<Item>().run(|conn: &mut H| {
                                    let _ = end(conn, text);
                                    Err::<(), _>(Mishap::OnPurpose)
                                });
                                assert!(inner.is_err());
                            }
                            _ => assert!(end(conn, text).is_err(), "{text}: the statement itself reports it"),
                        }
                        match then {
                            Then::Ok => Ok(()),
                            Then::ItsOwnError | Then::ItsOwnErrorAfterAPanic | Then::Nested => Err(Mishap::OnPurpose),
                            Then::Panic => resume_unwind(Box::new("on purpose")),
                            Then::SetRollback => Ok(scope::set_rollback(true)?),
                        }
                    })
                })
            }));
            let what = format!("{text}, {then:?}");
            match (&run, then) {
                (Err(panic), Then::Panic) => {
                    assert_eq!(panic.downcast_ref(), Some(&"on purpose"), "{what}");
                    let events = journal.events();
                    let told = events.iter().any(|(text, fields)| {
                        text.contains("could not be undone") && fields["error"].contains("`default`")
                    });
                    assert!(told, "{what}: {events:?}");
                }
                (Ok(Err(Mishap::Database(error @ Error::ImplicitCommit { .. }))), _) => {
                    let text = error.to_string();
                    let own = matches!(then, Then::ItsOwnError | Then::ItsOwnErrorAfterAPanic | Then::Nested);
                    assert!(text.contains("`default`"), "{what}: {text}");
                    assert_eq!(text.contains("OnPurpose"), own, "{what}: {text}");
                    assert!(error.is_in_doubt() && !error.is_retryable());
                }
                other => panic!("{what}: {other:?}"),
            }
            assert_eq!((runs.get(), hooks.take()), (1, vec![]), "{what}");
            assert_eq!(fixture.rows("default"), [(1, 10)], "{what}");
            assert_eq!(in_use(&databases, "default"), 0, "{what}");
            // Neither a lock nor an open transaction has reached the pool.
            put(2, 20).unwrap();
            assert_eq!(fixture.rows("default"), [(1, 10), (2, 20)], "{what}");
        }
    }
}

#[test]
fn an_error_that_holds_the_report_already_comes_back_unchanged() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        end(conn, "COMMIT")
    });
    assert!(matches!(run, Err(Error::ImplicitCommit { failing: None, .. })), "{run:?}");
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(2, 20)?;
        end(conn, "COMMIT").map_err(|error| Kept::Text(error.to_string()))
    });
    match &run {
        Err(Kept::Text(text)) => assert!(text.contains("`default`"), "{text}"),
        Err(Kept::Database(error)) => panic!("{error}"),
        Ok(()) => panic!("{run:?}"),
    }
}

#[test]
fn a_handles_own_transaction_reports_what_has_ended_it() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for panics in [false, true] {
        let mut conn = connection::<Item, H>().unwrap();
        let run = conn.transaction(|conn| {
            put(1 + i64::from(panics), 10)?;
            if panics {
                end_and_panic(conn, "COMMIT");
            } else {
                let _ = end(conn, "COMMIT");
            }
            Err::<(), _>(Mishap::OnPurpose)
        });
        let Err(Mishap::Query(error)) = run else { panic!("{run:?}") };
        assert!(matches!(Error::from(error), Error::ImplicitCommit { .. }));
    }
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 10)]);
}

#[test]
fn a_manual_scope_reports_what_has_ended_its_segment_and_goes_on() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().manual().run(|conn: &mut H| {
        put(1, 10)?;
        assert!(end(conn, "COMMIT").is_err());
        let rolled_back = scope::rollback();
        assert!(matches!(rolled_back, Err(Error::ImplicitCommit { .. })), "{rolled_back:?}");
        put(2, 20)?;
        scope::commit()?;
        put(3, 30)?;
        end_and_panic(conn, "COMMIT");
        Err::<(), _>(Mishap::OnPurpose)
    });
    let error = run.unwrap_err();
    assert!(matches!(&error, Mishap::Database(Error::ImplicitCommit { failing: Some(_), .. })), "{error:?}");
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (3, 30)]);
}
