//! Claims that only MySQL and MariaDB can meet.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use multidb::{Error, FailureClass, MysqlConn, atomic, connection, scope};

use crate::journal::Journal;
use crate::mysql::*;
use crate::recorder::Recorder;

#[test]
fn a_locking_read_and_an_upsert_run_on_the_handle() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    atomic::<Item>()
        .run(|conn: &mut MysqlConn| {
            for value in [10, 11, 12, 13] {
                let upsert = diesel::insert_into(items::table).values((items::id.eq(1), items::value.eq(value)));
                let upsert = upsert.on_conflict(diesel::dsl::DuplicatedKeys).do_update();
                upsert.set(items::value.eq(value)).execute(conn)?;
            }
            let locked: Vec<Item> = items::table.for_update().load(conn)?;
            assert_eq!(locked, [Item { id: 1, value: 13 }]);
            Ok::<_, Mishap>(())
        })
        .unwrap();
    assert_eq!(fixture.rows("default"), [(1, 13)]);
}

#[test]
fn a_ddl_that_commits_by_itself_is_told_and_never_ok() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let outermost = atomic::<Item>().run(|conn: &mut MysqlConn| {
        put(1, 10)?;
        conn.batch_execute("CREATE TABLE side (id INT)")?;
        Ok::<_, Error>(())
    });
    assert!(
        matches!(&outermost, Err(Error::ImplicitCommit { database, .. }) if *database == "default"),
        "{outermost:?}"
    );
    let nested = atomic::<Item>().run(|conn: &mut MysqlConn| {
        put(2, 20)?;
        let inner = atomic::<Item>().run(|_: &mut MysqlConn| {
            put(3, 30)?;
            conn.batch_execute("DROP TABLE side")?;
            Ok::<_, Error>(())
        });
        assert!(matches!(inner, Err(Error::ImplicitCommit { .. })), "{inner:?}");
        Ok::<_, Error>(())
    });
    assert!(nested.is_err(), "{nested:?}");
    assert_eq!(in_use(&databases, "default"), 0);
    put(4, 40).unwrap();
    // What ran before each DDL is permanent, which is what the error says.
    let kept = fixture.rows("default");
    assert!(kept.contains(&(1, 10)) && kept.contains(&(4, 40)), "{kept:?}");
}

#[test]
fn a_deadlock_undoes_the_whole_transaction_and_stays_a_deadlock() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put(2, 20).unwrap();
    let barrier = std::sync::Barrier::new(2);
    let ends = std::thread::scope(|threads| {
        let threads = [(1_i64, 2_i64), (2, 1)].map(|(first, second)| {
            let (databases, barrier) = (&databases, &barrier);
            threads.spawn(move || {
                let _entered = databases.enter();
                atomic::<Item>().run(|conn: &mut MysqlConn| {
                    put(10 + first, 0)?;
                    let bump = items::value.eq(items::value + 1);
                    diesel::update(items::table.find(first)).set(bump).execute(conn)?;
                    barrier.wait();
                    // In a nested scope, whose savepoint a deadlock takes away.
                    let _ = atomic::<Item>().run(|conn: &mut MysqlConn| {
                        let bump = items::value.eq(items::value + 1);
                        diesel::update(items::table.find(second)).set(bump).execute(conn)?;
                        Ok::<_, Mishap>(())
                    });
                    Ok::<_, Mishap>(())
                })
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    let failed: Vec<_> = ends.into_iter().filter_map(Result::err).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let Mishap::Database(error) = &failed[0] else { panic!("{failed:?}") };
    let Error::Doomed { first, .. } = error else { panic!("{error}") };
    assert_eq!(first.class(), FailureClass::Deadlock, "{first}");
    assert!(error.is_retryable());
    assert_eq!(fixture.rows("default").len(), 3, "one of the two transactions, whole: {:?}", fixture.rows("default"));
    assert_eq!(in_use(&databases, "default"), 0);
}

#[test]
fn a_lock_wait_timeout_dooms_its_level_alone() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    put(1, 10).unwrap();
    let mut other = fixture.observer("default");
    other.batch_execute("BEGIN; UPDATE items SET value = 0 WHERE id = 1").unwrap();
    let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
        diesel::sql_query("SET innodb_lock_wait_timeout = 1").execute(conn)?;
        put(2, 20)?;
        let waited = atomic::<Item>().run(|conn: &mut MysqlConn| {
            put(3, 30)?;
            diesel::update(items::table.find(1)).set(items::value.eq(5)).execute(conn)?;
            Ok::<_, Mishap>(())
        });
        let Err(Mishap::Query(error)) = waited else { panic!("{waited:?}") };
        assert!(Error::from(error).is_retryable());
        put(4, 40).map_err(Mishap::from)
    });
    run.unwrap();
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (4, 40)]);
}

#[test]
fn the_outermost_scope_tells_of_an_implicit_commit_in_an_inner_one() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for fails in [false, true] {
        let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
            put(1, 10)?;
            let inner = atomic::<Item>().run(|_: &mut MysqlConn| {
                put(2, 20)?;
                conn.batch_execute("CREATE OR REPLACE TABLE side (id INT)")?;
                put(3, 30)?;
                if fails { Err(Mishap::OnPurpose) } else { Ok(()) }
            });
            assert!(inner.is_err());
            // Refused: it would commit by itself.
            assert!(put(4, 40).is_err());
            Ok::<_, Error>(())
        });
        let kept = fixture.rows("default");
        assert!(kept.starts_with(&[(1, 10), (2, 20)]) && !kept.contains(&(4, 40)), "{kept:?}");
        fixture.observer("default").batch_execute("DELETE FROM items").unwrap();
        assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "fails: {fails}, {run:?}");
        assert_eq!(in_use(&databases, "default"), 0);
    }
}

#[test]
fn autocommit_that_is_switched_off_in_any_way_does_not_reach_the_next_user() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    let texts = [
        "SET SESSION autocommit = 0",
        "SET @@autocommit = 0",
        "SET @x = 1, autocommit = 0",
        "# note\nSTART TRANSACTION",
        "/*!40000 SET autocommit = 0 */",
        "SELECT '\\''; BEGIN; SELECT ''",
        "SET completion_type = 1",
    ];
    for (id, text) in (0..).zip(texts) {
        let refused = connection::<Item, MysqlConn>().unwrap().batch_execute(text).map_err(Error::from);
        assert!(matches!(refused, Err(Error::TransactionControl { .. })), "{text}: {refused:?}");
        put(100 + id, 0).unwrap();
        let insert = diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0)));
        insert.execute(&mut connection::<Item, MysqlConn>().unwrap()).unwrap();
        assert!(fixture.rows("default").contains(&(id, 0)), "{text}");
    }
}

#[test]
fn a_kept_update_goes_to_the_database_in_use() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    for alias in ["default", "other"] {
        fixture.observer(alias).batch_execute("INSERT INTO items VALUES (1, 10)").unwrap();
    }
    let (_, other) = fixture.urls[1].rsplit_once('/').unwrap();
    let bump = || diesel::update(items::table.find(1)).set(items::value.eq(items::value + 1));
    atomic::<Item>()
        .run(|conn: &mut MysqlConn| {
            for _ in 0..3 {
                bump().execute(conn)?;
            }
            conn.batch_execute(&format!("USE {other}"))?;
            bump().execute(conn)?;
            Ok::<_, Mishap>(())
        })
        .unwrap();
    put(2, 20).unwrap();
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![(1, 13), (2, 20)], vec![(1, 11)]));
}

#[test]
fn levels_after_a_ddl_are_never_ok() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for begun in [true, false] {
        let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
            if begun {
                put(1, 10)?;
            }
            conn.batch_execute("CREATE OR REPLACE TABLE side (id INT)")?;
            assert!(matches!(put(2, 20), Err(Error::ImplicitCommit { .. })));
            let _ = put_and_fail(3);
            let _ = put(4, 40);
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "{run:?}");
        let kept = fixture.rows("default");
        assert!(!kept.contains(&(3, 0)) && !kept.contains(&(4, 40)), "{kept:?}");
        fixture.observer("default").batch_execute("DELETE FROM items").unwrap();
        assert_eq!(in_use(&databases, "default"), 0);
    }
}

#[test]
fn a_procedure_that_leaves_a_transaction_open_does_not_reach_the_next_user() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    fixture.observer("default").batch_execute("CREATE PROCEDURE p() START TRANSACTION").unwrap();
    let mut conn = connection::<Item, MysqlConn>().unwrap();
    for id in [1, 2] {
        let left = if id == 1 {
            conn.batch_execute("CALL p()")
        } else {
            diesel::sql_query("CALL p()").execute(&mut conn).map(drop)
        };
        let left = left.map_err(Error::from);
        assert!(matches!(left, Err(Error::TransactionControl { .. })), "{left:?}");
        let insert = diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0)));
        insert.execute(&mut conn).unwrap();
    }
    assert_eq!(fixture.rows("default"), [(1, 0), (2, 0)]);
}

#[test]
fn no_limit_of_a_scope_can_interrupt_its_commit() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let recorder = Recorder::default();
    let run = atomic::<Item>().timeout(Duration::from_secs(100)).run(|conn: &mut MysqlConn| {
        conn.set_instrumentation(recorder.clone());
        put(1, 10)
    });
    run.unwrap();
    let sent = recorder.take();
    let commit = sent.iter().find(|sql| sql.ends_with("COMMIT")).expect("it has committed");
    for limit in ["innodb_lock_wait_timeout = DEFAULT", "max_statement_time = DEFAULT", "max_execution_time = DEFAULT"]
    {
        assert!(commit.contains(limit), "{commit}");
    }
    assert_eq!(fixture.rows("default"), [(1, 10)]);
}

#[test]
fn a_scope_whose_ddl_has_committed_is_not_run_again() {
    let refusals = [
        "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205, MESSAGE_TEXT = 'Lock wait timeout exceeded'",
        "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found when trying to get lock'",
    ];
    for (refusal, raw, swallows) in
        refusals.into_iter().flat_map(|it| [(it, false, false), (it, true, false), (it, false, true)])
    {
        let Some(fixture) = fixture() else { return };
        let databases = fixture.databases();
        let _entered = databases.enter();
        let mut attempts = 0;
        let run = atomic::<Item>().retry(2).run(|conn: &mut MysqlConn| {
            attempts += 1;
            put(attempts, 0)?;
            let ddl = format!("CREATE TABLE side_{attempts} (id INT)");
            if raw {
                conn.with_raw(|raw| raw.batch_execute(&ddl).map_err(Error::from))?;
            } else {
                conn.batch_execute(&ddl)?;
            }
            let refused = conn.batch_execute(refusal);
            if swallows { Ok(()) } else { refused.map_err(Error::from) }
        });
        assert_eq!((attempts, fixture.rows("default")), (1, vec![(1, 0)]), "{refusal}");
        assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "{run:?}");
        assert_eq!(in_use(&databases, "default"), 0);
    }
}

/// libmariadb takes the length 0 for an unknown one, and reads on.
#[test]
fn an_empty_text_is_an_error_and_reads_no_memory_of_others() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for empty in [String::new(), String::with_capacity(100)] {
        let refused = connection::<Item, MysqlConn>().unwrap().batch_execute(&empty).unwrap_err();
        assert_eq!(refused.to_string(), "Query was empty");
        let query = diesel::sql_query(empty).execute(&mut connection::<Item, MysqlConn>().unwrap()).unwrap_err();
        assert_eq!(query.to_string(), "Query was empty");
    }
}

#[test]
fn a_ddl_in_a_handles_own_transaction_that_is_rolled_back_runs_no_hook_and_is_an_event() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for (id, ddl) in [(1, true), (2, false)] {
        let hooks = Rc::new(RefCell::new(Vec::new()));
        let told = Rc::clone(&hooks);
        let journal = Journal::default();
        let run = journal.watch(|| {
            connection::<Item, MysqlConn>().unwrap().transaction(|conn| {
                put(id, 0)?;
                scope::on_rollback(move || told.borrow_mut().push("rolled back"));
                if ddl {
                    conn.batch_execute("CREATE TABLE made (id INT)")?;
                }
                Err::<(), _>(Mishap::OnPurpose)
            })
        });
        // A migration's own error must not be hidden.
        assert!(matches!(run, Err(Mishap::OnPurpose)), "{run:?}");
        let events = journal.events();
        let is_told = events
            .iter()
            .any(|(text, fields)| text.contains("a DDL has committed a transaction") && fields["alias"] == "default");
        assert_eq!(is_told, ddl, "{events:?}");
        assert_eq!(hooks.take().is_empty(), ddl);
    }
    assert_eq!(fixture.rows("default"), [(1, 0)]);
    put(3, 30).unwrap();
}
