//! Scopes that are run again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Barrier;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Error, FailureClass, Propagation, atomic, schema, scope};

use super::*;
use crate::fixture::Kind;

/// Makes a statement that fails as if the database had asked to run the transaction again.
pub(super) fn with_stumbling(fixture: &Fixture) {
    if KIND == Kind::Sqlite {
        let trigger = "CREATE TRIGGER stumble BEFORE UPDATE ON items WHEN NEW.value = -1
                       BEGIN SELECT RAISE(ABORT, 'database is locked'); END;
                       INSERT INTO items VALUES (-1, 0)";
        fixture.observer("default").batch_execute(trigger).unwrap();
    }
}

fn stumble(conn: &mut H) -> Result<(), Mishap> {
    Ok(conn.batch_execute(stumbling())?)
}

pub(super) fn stumbling() -> &'static str {
    match KIND {
        Kind::Postgres => "DO $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$",
        Kind::Mysql => {
            "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213,
             MESSAGE_TEXT = 'Deadlock found when trying to get lock; try restarting transaction'"
        }
        Kind::Sqlite => "UPDATE items SET value = -1 WHERE id = -1",
    }
}

fn rows(fixture: &Fixture) -> Vec<i64> {
    fixture.rows("default").into_iter().map(|(id, _)| id).filter(|id| *id > 0).collect()
}

#[test]
fn a_passing_failure_runs_the_whole_scope_again() {
    let Some(fixture) = fixture() else { return };
    with_stumbling(&fixture);
    let databases = fixture.databases();
    let _entered = databases.enter();
    // The failure is passed on, or swallowed, or happens in a level that is undone.
    for (at, way) in ["passed on", "swallowed", "in a level", "as an error of the caller's"].into_iter().enumerate() {
        let at = i64::try_from(at).unwrap() * 10;
        let mut attempts = 0;
        let run = atomic::<Item>().retry(3).run(|conn: &mut H| {
            attempts += 1;
            put(at + attempts, 0)?;
            if attempts < 3 {
                match way {
                    "passed on" => stumble(conn)?,
                    "swallowed" => drop(stumble(conn)),
                    "in a level" => atomic::<Item>().run(stumble)?,
                    _ => return stumble(conn).map_err(|_| Mishap::OnPurpose),
                }
            }
            Ok::<_, Mishap>(())
        });
        run.unwrap();
        assert_eq!(attempts, 3, "{way}");
        assert_eq!(rows(&fixture).last(), Some(&(at + 3)), "{way}");
    }
    assert_eq!(rows(&fixture), [3, 13, 23, 33]);
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn hooks_of_attempts_that_are_run_again_are_dropped() {
    let Some(fixture) = fixture() else { return };
    with_stumbling(&fixture);
    let _entered = fixture.databases().enter();
    let ran = Rc::new(RefCell::new(Vec::new()));
    for retries in [2, 1] {
        let attempts = Cell::new(0);
        let run = atomic::<Item>().retry(retries).run(|conn: &mut H| {
            attempts.set(attempts.get() + 1);
            let (attempt, committed, undone) = (attempts.get(), Rc::clone(&ran), Rc::clone(&ran));
            scope::on_commit(move || committed.borrow_mut().push(format!("committed {attempt}")));
            scope::on_rollback(move || undone.borrow_mut().push(format!("undone {attempt}")));
            if attempt < 3 { stumble(conn) } else { Ok(()) }
        });
        assert_eq!(run.is_ok(), retries == 2, "{run:?}");
    }
    assert_eq!(*ran.borrow(), ["committed 3", "undone 2"]);
}

#[test]
fn the_last_attempt_returns_the_error_of_its_body() {
    let Some(fixture) = fixture() else { return };
    with_stumbling(&fixture);
    let _entered = fixture.databases().enter();
    let mut attempts = 0;
    let run = atomic::<Item>().retry(2).run(|conn: &mut H| {
        attempts += 1;
        let _ = stumble(conn);
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
    assert_eq!(attempts, 3);

    attempts = 0;
    let run = atomic::<Item>().retry(1).run(|conn: &mut H| {
        attempts += 1;
        put(1, 0)?;
        let _ = stumble(conn);
        Ok::<_, Mishap>(())
    });
    let Err(Mishap::Database(error @ Error::Doomed { .. })) = &run else { panic!("{run:?}") };
    assert!(error.is_retryable(), "{error}");
    assert_eq!((attempts, rows(&fixture)), (2, vec![]));
}

#[test]
fn what_does_not_pass_is_not_run_again() {
    let Some(fixture) = fixture() else { return };
    with_stumbling(&fixture);
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let attempts = Cell::new(0);
    let run = |body: &dyn Fn(&mut H) -> Result<(), Mishap>| {
        attempts.set(0);
        let run = atomic::<Item>().retry(5).run(|conn: &mut H| {
            attempts.set(attempts.get() + 1);
            body(conn)
        });
        assert_eq!(attempts.get(), 1, "{run:?}");
        run
    };
    // An error of the caller's after a clean transaction, whatever it looks like.
    run(&|_| Err(Mishap::OnPurpose)).unwrap_err();
    run(&|_| {
        let first = std::sync::Arc::new(locked());
        Err(Mishap::Database(Error::Doomed { first, function: "f", file: "", line: 0, refused: 0 }))
    })
    .unwrap_err();
    // A constraint.
    run(&|_| Ok(put(1, 20)?)).unwrap_err();
    // A failure that was dealt with: work went on after it.
    run(&|conn| {
        atomic::<Item>().run(stumble).unwrap_err();
        diesel::insert_into(items::table).values((items::id.eq(2), items::value.eq(0))).execute(conn)?;
        Err(Mishap::OnPurpose)
    })
    .unwrap_err();
    // What was undone on purpose.
    run(&|conn| {
        let _ = stumble(conn);
        scope::set_rollback(true)?;
        Ok(())
    })
    .unwrap();
    assert_eq!(rows(&fixture), [1]);
}

/// A failure that may pass, as the library reports it.
fn locked() -> multidb::Failure {
    let fixture = fixture().unwrap();
    with_stumbling(&fixture);
    let run = atomic::<Item>().databases(fixture.databases()).propagation(Propagation::RequiresNew);
    let run = run.run(|conn: &mut H| {
        let _ = stumble(conn);
        Ok::<_, Error>(())
    });
    let Err(Error::Doomed { first, .. }) = run else { panic!("{run:?}") };
    assert!(first.class().is_retryable());
    (*first).clone()
}

#[test]
fn a_panic_is_not_run_again() {
    let Some(fixture) = fixture() else { return };
    with_stumbling(&fixture);
    let databases = fixture.databases();
    let _entered = databases.enter();
    let (attempts, undone) = (Cell::new(0), Rc::new(Cell::new(0)));
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        atomic::<Item>().retry(5).run(|conn: &mut H| -> Result<(), Mishap> {
            attempts.set(attempts.get() + 1);
            let undone = Rc::clone(&undone);
            scope::on_rollback(move || undone.set(undone.get() + 1));
            let _ = stumble(conn);
            panic!("on purpose");
        })
    }));
    assert!(run.is_err());
    assert_eq!((attempts.get(), undone.get(), in_use(&databases, "default")), (1, 1, 0));
}

#[test]
fn inside_a_transaction_the_outermost_scope_decides() {
    let Some(fixture) = fixture() else { return };
    with_stumbling(&fixture);
    let _entered = fixture.databases().enter();
    let (mut outer, mut inner) = (0, 0);
    let mut body = |retries: u32| {
        (outer, inner) = (0, 0);
        let run = atomic::<Item>().retry(retries).run(|_: &mut H| {
            outer += 1;
            put(outer, 0)?;
            atomic::<Item>().retry(5).run(|conn: &mut H| {
                inner += 1;
                match inner {
                    // Passed on, and swallowed.
                    1 => stumble(conn),
                    2 => {
                        let _ = stumble(conn);
                        Ok(())
                    }
                    _ => Ok(()),
                }
            })
        });
        (run.is_ok(), outer, inner)
    };
    assert_eq!(body(1), (false, 2, 2));
    assert_eq!(body(2), (true, 3, 3));
    assert_eq!(rows(&fixture), [3]);
}

#[test]
fn a_manual_scope_is_not_run_again() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().manual().retry(1).run(|_: &mut H| -> Result<(), Error> { panic!("must not run") });
    assert!(run.unwrap_err().is_config());
}

#[test]
fn two_that_deadlock_both_commit_in_the_end() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    if KIND == Kind::Sqlite {
        // Its one write lock is taken at BEGIN.
        return;
    }
    {
        let _entered = databases.enter();
        put(1, 0).unwrap();
        put(2, 0).unwrap();
    }
    let barrier = Barrier::new(2);
    let attempts: u32 = std::thread::scope(|threads| {
        let run = |order: [i64; 2]| {
            let (databases, barrier) = (&databases, &barrier);
            threads.spawn(move || {
                let _entered = databases.enter();
                let mut attempts = 0;
                let run = atomic::<Item>().retry(10).run(|conn: &mut H| {
                    attempts += 1;
                    let mut add =
                        |id| diesel::update(items::table.find(id)).set(items::value.eq(items::value + 1)).execute(conn);
                    add(order[0])?;
                    if attempts == 1 {
                        barrier.wait();
                    }
                    add(order[1])?;
                    Ok::<_, Mishap>(())
                });
                run.unwrap();
                attempts
            })
        };
        [run([1, 2]), run([2, 1])].into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(attempts > 2, "there was a deadlock");
    assert_eq!(fixture.rows("default"), [(1, 2), (2, 2)]);
}

#[test]
fn a_file_that_is_locked_at_begin_is_tried_again() {
    if KIND != Kind::Sqlite {
        return;
    }
    let Some(fixture) = fixture() else { return };
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.sqlite.busy_timeout = Some("0ms".into());
    let _entered = multidb::Databases::builder().database(config).build().unwrap().enter();
    let mut observer = fixture.observer("default");
    observer.batch_execute("BEGIN EXCLUSIVE").unwrap();
    let mut attempts = 0;
    let run = atomic::<Item>().retry(3).run(|_: &mut H| {
        attempts += 1;
        let done = put(attempts, 0);
        if attempts == 2 {
            let Err(error) = &done else { panic!("locked") };
            assert!(error.is_retryable(), "{error}");
            observer.batch_execute("COMMIT").unwrap();
        }
        done
    });
    run.unwrap();
    assert_eq!(rows(&fixture), [3]);
}

#[test]
fn the_class_decides_and_not_the_error_type() {
    assert!(FailureClass::Deadlock.is_retryable() && FailureClass::NotConnected.is_retryable());
    assert!(!FailureClass::ConnectionLost.is_retryable() && !FailureClass::Timeout.is_retryable());
}

#[test]
fn what_may_be_committed_in_part_is_not_run_again() {
    for once in [false, true] {
        let Some(fixture) = fixture() else { return };
        with_stumbling(&fixture);
        let databases = fixture.databases();
        schema::install(&databases).unwrap();
        let _entered = databases.enter();
        let mut attempts = 0;
        let body = |conn: &mut H| {
            attempts += 1;
            put(attempts, 0)?;
            conn.with_raw(|raw| {
                // A passing failure that the body swallows, and then a COMMIT behind the scope's back.
                drop(raw.batch_execute(stumbling()));
                raw.batch_execute("COMMIT")?;
                Ok::<_, Mishap>(())
            })
        };
        let scope = atomic::<Item>().retry(2);
        let run = if once { scope.once("a").run(body) } else { scope.run(body) };
        assert!(matches!(run, Err(Mishap::Database(Error::ImplicitCommit { .. }))), "{run:?}");
        assert_eq!(attempts, 1);
        assert!(rows(&fixture).len() <= 1);
        assert_eq!(in_use(&databases, "default"), 0);
    }
}
