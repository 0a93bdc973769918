//! Tests of applications: what is rolled back at their end, and failures that they plan.

use std::cell::RefCell;
use std::rc::Rc;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::testing::{Fault, Point, capture_hooks, committed, rolled_back, rolled_back_on};
use multidb::{Error, HookErrors, Propagation, atomic, connection, scope, transactional};

use super::*;
use crate::fixture::Kind;

/// What the test itself sees, in autocommit.
fn seen() -> Vec<i64> {
    items::table.select(items::id).order(items::id).load(&mut connection::<Item, H>().unwrap()).unwrap()
}

fn insert(conn: &mut H, id: i64) -> QueryResult<usize> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)
}

#[test]
fn all_that_a_test_does_is_rolled_back_and_seen_until_then() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = rolled_back(&databases).unwrap();
    put(1, 10).unwrap();
    put_record(1, 10).unwrap();
    insert(&mut connection::<Item, H>().unwrap(), 2).unwrap();
    put_and_fail(3).unwrap_err();
    assert!(!put(1, 20).unwrap_err().is_retryable());
    put(4, 40).unwrap();
    assert_eq!(seen(), [1, 2, 4]);
    assert_eq!(in_use(test.databases(), "default"), 0);
    drop(test);
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    let _entered = databases.enter();
    put(5, 50).unwrap();
    assert_eq!(fixture.rows("default"), [(5, 50)]);
}

#[test]
fn scopes_of_a_test_are_outermost_ones() {
    #[transactional(Item, propagation = durable)]
    fn durable(id: i64) -> Result<(), Error> {
        assert_eq!(scope::depth(), 1);
        put(id, 0)
    }
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _test = rolled_back(&databases).unwrap();
    let ran = Rc::new(RefCell::new(Vec::new()));
    let hook = |name: &'static str| {
        let ran = Rc::clone(&ran);
        move || ran.borrow_mut().push((name, seen()))
    };
    durable(1).unwrap();
    atomic::<Item>()
        .run(|_: &mut H| {
            scope::on_commit(hook("committed"));
            put(2, 0)
        })
        .unwrap();
    let _ = atomic::<Item>().run(|_: &mut H| {
        scope::on_rollback(hook("undone"));
        put(3, 0)?;
        put_and_fail(4)
    });
    // A doom ends with its scope.
    let doomed = atomic::<Item>().run(|conn: &mut H| {
        let _ = insert(conn, 1);
        Ok::<_, Error>(())
    });
    assert!(matches!(doomed, Err(Error::Doomed { .. })));
    assert_eq!(*ran.borrow(), [("committed", vec![1, 2]), ("undone", vec![1, 2])]);
    // A manual scope commits what it has, and loses the rest.
    let manual = atomic::<Item>().manual().run(|_: &mut H| {
        put(5, 0)?;
        scope::commit()?;
        put(6, 0)?;
        scope::rollback()?;
        put(7, 0)
    });
    assert!(matches!(manual, Err(Error::PendingWork { .. })), "{manual:?}");
    assert_eq!(seen(), [1, 2, 5]);
    let nested = atomic::<Item>().run(|_: &mut H| {
        put(8, 0)?;
        put_and_fail(9).unwrap_err();
        let before = scope::savepoint("before")?;
        put(10, 0)?;
        before.rollback()?;
        durable(11).unwrap_err();
        Ok::<_, Error>(())
    });
    nested.unwrap();
    assert_eq!(seen(), [1, 2, 5, 8]);
}

#[test]
fn limits_hold_inside_of_a_test_and_end_with_their_scope() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _test = rolled_back(&databases).unwrap();
    let read_only = || atomic::<Item>().read_only().timeout(std::time::Duration::from_secs(1_000));
    let run = read_only().run(|conn: &mut H| {
        assert_eq!(items::table.count().get_result(conn), Ok(0_i64));
        let refused = conn.batch_execute("INSERT INTO items VALUES (1, 1)");
        // On MySQL and MariaDB a level can't be read-only for the server, and this is one there.
        refused.unwrap_err();
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
    read_only().run(|conn: &mut H| items::table.count().get_result::<i64>(conn)).unwrap();
    put(2, 20).unwrap();
    connection::<Item, H>().unwrap().batch_execute("INSERT INTO items VALUES (3, 3)").unwrap();
    assert_eq!(seen(), [2, 3]);
}

#[test]
fn a_second_connection_of_a_test_is_refused_at_once_with_what_to_do() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _test = rolled_back(&databases).unwrap();
    let mut outside = connection::<Item, H>().unwrap();
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        let independent = atomic::<Item>().propagation(Propagation::RequiresNew).run(|_: &mut H| put(2, 20));
        let Err(error @ Error::Busy { .. }) = independent else { panic!("{independent:?}") };
        // On SQLite the file is locked by this thread, in a test as everywhere.
        assert!(KIND == Kind::Sqlite || error.to_string().contains("testing::committed"), "{error}");
        let refused = insert(&mut outside, 3).map_err(Error::from).unwrap_err();
        assert!(refused.to_string().contains("testing::committed"), "{refused}");
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(seen(), [1]);
}

#[test]
fn a_database_that_the_test_did_not_declare_is_an_error_that_says_who_used_it() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    assert!(matches!(rolled_back_on(&databases, &["nowhere"]), Err(Error::UnknownDatabase { .. })));
    let _test = rolled_back_on(&databases, &["default"]).unwrap();
    put(1, 10).unwrap();
    let text = put_record(1, 10).unwrap_err().to_string();
    for part in ["`other`", "`put_record`", "not declared", "rolled_back_on"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn threads_of_a_test_share_its_work() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = rolled_back(&databases).unwrap();
    put(1, 10).unwrap();
    std::thread::scope(|threads| {
        for id in 2..6 {
            let databases = test.databases();
            threads.spawn(move || {
                let _entered = databases.enter();
                put(id, 0).unwrap();
            });
        }
    });
    assert_eq!(seen(), [1, 2, 3, 4, 5]);
    drop(test);
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn hooks_can_be_captured_and_run_later() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _test = rolled_back(&databases).unwrap();
    let ran = Rc::new(RefCell::new(Vec::new()));
    let hook = |name: &'static str| {
        let ran = Rc::clone(&ran);
        move || ran.borrow_mut().push(name)
    };
    let (result, captured) = capture_hooks(|| {
        scope::on_commit(hook("outside"));
        atomic::<Item>().run(|_: &mut H| {
            scope::on_commit(hook("inside"));
            let _ = atomic::<Item>().run(|_: &mut H| {
                scope::on_commit(hook("dropped"));
                put_and_fail(2)
            });
            put(1, 10)
        })
    });
    result.unwrap();
    assert_eq!((captured.len(), captured.functions(), ran.borrow().len()), (2, vec!["on_commit", "atomic"], 0));
    captured.run().unwrap();
    assert_eq!(*ran.borrow(), ["outside", "inside"]);
    // The next ones run by themselves again.
    scope::on_commit(hook("later"));
    assert_eq!(ran.borrow().last(), Some(&"later"));
}

#[test]
fn a_planned_failure_happens_at_its_point_and_once() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    for rehearsed in [true, false] {
        let test = if rehearsed { rolled_back(&databases) } else { committed(&databases) }.unwrap();
        let outer = |id: i64, swallow: bool| {
            atomic::<Item>().run(|conn: &mut H| {
                let inner = put(id, 0);
                if !swallow {
                    inner?;
                }
                insert(conn, id + 1)?;
                Ok::<_, Mishap>(())
            })
        };
        for (point, swallow) in [
            (Point::Begin, false),
            (Point::Statement, false),
            (Point::Savepoint, false),
            (Point::Commit, true),
            (Point::Savepoint, true),
        ] {
            for fault in [Fault::Refused, Fault::Serialization, Fault::UniqueViolation] {
                test.fail("default", point, fault).unwrap();
                let run = outer(1, swallow);
                assert!(run.is_err(), "{point:?} {fault:?}: {run:?}");
                assert_eq!((test.faults_left(), in_use(test.databases(), "default")), (0, 0), "{point:?} {fault:?}");
                assert!(seen().is_empty(), "{point:?} {fault:?}");
            }
        }
        // A level that could not be undone takes its transaction with it.
        test.fail("default", Point::RollbackTo, Fault::Refused).unwrap();
        let run = atomic::<Item>().run(|_: &mut H| {
            put(1, 0)?;
            put_and_fail(2).unwrap_err();
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
        assert!(seen().is_empty());
        // Nothing of it stays.
        outer(1, false).unwrap();
        assert_eq!(seen(), [1, 2]);
        connection::<Item, H>().unwrap().batch_execute("DELETE FROM items").unwrap();
    }
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn a_lost_reply_to_a_verified_commit_is_resolved_in_a_test_too() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    multidb::schema::install(&databases).unwrap();
    let test = rolled_back(&databases).unwrap();
    for (fault, committed) in [(Fault::ReplyLost, true), (Fault::ConnectionLost, false)] {
        test.fail("default", Point::Commit, fault).unwrap();
        let id = if committed { 1 } else { 2 };
        let run = atomic::<Item>().verify_commit().run(|_: &mut H| put(id, 0));
        assert_eq!((run.is_ok(), test.faults_left()), (committed, 0), "{run:?}");
        assert_eq!(seen(), [1]);
    }
}

#[test]
fn a_planned_failure_can_be_retried_and_a_lost_reply_is_an_unknown_outcome() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let test = committed(&databases).unwrap();
    test.fail("default", Point::Statement, Fault::Deadlock).unwrap();
    test.fail_after("default", Point::Statement, 1, Fault::LockTimeout).unwrap();
    let mut attempts = 0;
    let run = atomic::<Item>().retry(5).run(|conn: &mut H| {
        attempts += 1;
        insert(conn, attempts)
    });
    assert_eq!((run.unwrap(), attempts, test.faults_left()), (1, 3, 0));

    test.fail("default", Point::Commit, Fault::ReplyLost).unwrap();
    let hooks = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&hooks);
    let error = atomic::<Item>()
        .hook_errors(HookErrors::Returned)
        .run(|conn: &mut H| {
            scope::on_commit(move || *counted.borrow_mut() += 1);
            insert(conn, 10).map_err(Error::from)
        })
        .unwrap_err();
    assert!(error.is_in_doubt(), "{error}");
    assert_eq!(*hooks.borrow(), 0);

    test.fail("default", Point::Statement, Fault::ConnectionLost).unwrap();
    let lost = put(11, 0).unwrap_err();
    assert!(matches!(&lost, Error::Query(_)) && !lost.is_retryable() && !lost.is_in_doubt(), "{lost}");
    put(12, 0).unwrap();
    assert_eq!(fixture.rows("default"), [(3, 0), (10, 0), (12, 0)]);
}

#[test]
fn a_thread_that_needs_the_connection_of_an_open_scope_of_the_test_learns_why_it_waits_in_vain() {
    let Some(fixture) = fixture() else { return };
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.pool.connection_timeout = Some("300ms".into());
    let databases = multidb::Databases::builder().database(config).build().unwrap();
    let rehearsal = rolled_back(&databases).unwrap();
    let from_a_thread = || {
        let databases = rehearsal.databases();
        std::thread::scope(|threads| {
            let thread = threads.spawn(|| {
                let _entered = databases.enter();
                put(2, 20)
            });
            thread.join().unwrap()
        })
    };
    let run = atomic::<Item>().run(|_: &mut H| {
        put(1, 10)?;
        Ok::<_, Error>(from_a_thread())
    });
    let error = run.unwrap().unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::PoolExhausted { .. }), "{text}");
    for part in ["`default`", "held by `put`", "rolled_back", "one connection", "after its scope", "testing::committed"]
    {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    assert!(!text.contains("max_size"), "{text}");
    from_a_thread().unwrap();
    assert_eq!(seen(), [1, 2]);
}
