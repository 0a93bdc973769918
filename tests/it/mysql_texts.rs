//! Texts on MySQL and MariaDB of which only the server knows what they do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Error, MysqlConn, atomic, connection, connection_on, scope};

use crate::mysql::*;

fn put_alone(id: i64) {
    let mut conn = connection_on::<MysqlConn>("default").unwrap();
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(&mut conn).unwrap();
}

/// What leaves a transaction open, or the session without autocommit.
const LEFT_OPEN: [&str; 8] = [
    "EXECUTE IMMEDIATE 'START TRANSACTION'",
    "SET `autocommit` = 0",
    "EXECUTE IMMEDIATE 'SET autocommit = 0'",
    "EXECUTE IMMEDIATE CONCAT('XA STA', 'RT ''x''')",
    "PREPARE s FROM 'START TRANSACTION'; EXECUTE s",
    "BEGIN NOT ATOMIC EXECUTE IMMEDIATE 'BEGIN WORK'; END",
    "/*!50000 SET */ /*M! SESSION */ `autocommit` = OFF",
    "SET STATEMENT max_statement_time = 10 FOR EXECUTE IMMEDIATE 'BEGIN WORK'",
];

#[test]
fn a_text_that_leaves_a_transaction_open_is_an_error_and_loses_no_later_row() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    let mut id = 0;
    for text in LEFT_OPEN {
        for way in 0..3 {
            let mut conn = connection::<Item, MysqlConn>().unwrap();
            let left = match way {
                0 => conn.batch_execute(text).map_err(Error::from),
                1 if text.starts_with("SET `") => {
                    diesel::sql_query(text).execute(&mut conn).map(drop).map_err(Error::from)
                }
                _ => conn.with_raw(|raw| raw.batch_execute(text).map_err(Error::from)),
            };
            assert!(matches!(left, Err(Error::TransactionControl { .. })), "{text} {way}: {left:?}");
            id += 1;
            put_alone(id);
            assert_eq!(fixture.rows("default").len(), usize::try_from(id).unwrap(), "{text} {way}");
        }
    }
}

/// What ends the transaction around it.
const ENDING: [&str; 8] = [
    "CREATE TABLE made (id INT)",
    "SET STATEMENT max_statement_time = 10 FOR CREATE TABLE made (id INT)",
    "EXECUTE IMMEDIATE 'COMMIT'",
    "EXECUTE IMMEDIATE CONCAT('COM', 'MIT'); EXECUTE IMMEDIATE 'BEGIN WORK'",
    "PREPARE s FROM 'COMMIT'; EXECUTE s",
    "BEGIN NOT ATOMIC COMMIT; START TRANSACTION; END",
    "CALL commits()",
    "LOCK TABLES items WRITE",
];

#[test]
fn what_a_text_has_ended_is_reported_at_once_and_by_all_that_follows() {
    for text in ENDING {
        for way in 0..3 {
            let Some(fixture) = fixture() else { return };
            fixture.observer("default").batch_execute("CREATE PROCEDURE commits() COMMIT").unwrap();
            let _entered = fixture.databases().enter();
            let hooks = Rc::new(Cell::new(0));
            let told = Rc::clone(&hooks);
            let run = atomic::<Item>().manual().run(|conn: &mut MysqlConn| {
                put(1, 10)?;
                scope::on_rollback(move || told.set(told.get() + 1));
                let ended = match way {
                    0 => conn.batch_execute(text).map_err(Error::from),
                    _ => conn.with_raw(|raw| raw.batch_execute(text).map_err(Error::from)),
                };
                assert!(ended.is_err(), "{text}: {ended:?}");
                let later = put(2, 20);
                assert!(later.is_err(), "{text}: {later:?}");
                let ended = if way == 1 { scope::commit() } else { scope::rollback() };
                assert!(ended.is_err(), "{text}: {ended:?}");
                Ok::<_, Error>(())
            });
            let rows = fixture.rows("default");
            assert!(!rows.contains(&(2, 20)), "{text}: {run:?} {rows:?}");
            assert_eq!(hooks.get(), 0, "{text}: nothing was rolled back");
            put(3, 30).unwrap();
        }
    }
}

#[test]
fn set_rollback_reports_a_transaction_that_a_ddl_has_committed() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let hooks = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&hooks);
    let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
        put(1, 10)?;
        scope::on_rollback(move || told.borrow_mut().push("rolled back"));
        let _ = conn.batch_execute("CREATE TABLE made (id INT)");
        scope::set_rollback(true)?;
        Ok::<_, Error>(7)
    });
    assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "{run:?}");
    assert_eq!((fixture.rows("default"), hooks.take()), (vec![(1, 10)], vec![]));
}

#[test]
fn a_committed_insert_is_not_run_again_after_a_deadlock() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let runs = Cell::new(0);
    let run = atomic::<Item>().retry(3).run(|conn: &mut MysqlConn| {
        runs.set(runs.get() + 1);
        put(runs.get(), 0)?;
        let ddl = format!("SET STATEMENT max_statement_time = 10 FOR CREATE TABLE made_{} (id INT)", runs.get());
        let _ = conn.batch_execute(&ddl);
        let deadlock =
            "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found when trying to get lock'";
        Ok::<_, Error>(conn.batch_execute(deadlock)?)
    });
    assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "{run:?}");
    assert_eq!((runs.get(), fixture.rows("default")), (1, vec![(1, 0)]));
}

#[test]
fn an_error_after_a_procedures_first_result_is_not_lost() {
    let Some(fixture) = fixture() else { return };
    let procedure = "CREATE PROCEDURE p(n INT) BEGIN INSERT INTO items VALUES (n, 0); SELECT n; \
                     SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'too late'; END";
    fixture.observer("default").batch_execute(procedure).unwrap();
    let _entered = fixture.databases().enter();
    for batch in [false, true] {
        let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
            put(1, 10)?;
            let called = if batch {
                conn.batch_execute("CALL p(21)")
            } else {
                diesel::sql_query("CALL p(21)").execute(conn).map(drop)
            };
            let error = called.unwrap_err().to_string();
            assert!(error.contains("too late"), "{error}");
            Ok::<_, Error>(1)
        });
        assert!(matches!(run, Err(Error::Doomed { .. })), "{run:?}");
        assert_eq!(fixture.rows("default"), []);
    }
    let mut conn = connection_on::<MysqlConn>("default").unwrap();
    let alone = diesel::sql_query("CALL p(21)").execute(&mut conn);
    assert!(alone.is_err(), "{alone:?}");
    let lent = conn.with_raw(|raw| diesel::sql_query("CALL p(22)").execute(raw).map_err(Error::from));
    assert!(lent.is_err(), "{lent:?}");
}

#[test]
fn a_lock_of_a_text_does_not_reach_the_pool() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    for text in ["LOCK TABLES items WRITE", "SELECT GET_LOCK('multidb test', 0)", "FLUSH TABLES items WITH READ LOCK"] {
        let _ = connection::<Item, MysqlConn>().unwrap().batch_execute(text);
        let _ = atomic::<Item>().run(|conn: &mut MysqlConn| Ok::<_, Error>(conn.batch_execute(text)?));
    }
    let mut observer = fixture.observer("default");
    observer.batch_execute("SET lock_wait_timeout = 10; INSERT INTO items VALUES (1, 0)").unwrap();
    let free = diesel::dsl::sql::<diesel::sql_types::Integer>("IS_FREE_LOCK('multidb test')");
    // The server ends the session a moment after its client.
    while diesel::select(free.clone()).get_result::<i32>(&mut observer).unwrap() != 1 {}
}

#[test]
fn compound_statements_are_run_and_not_refused() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let texts = [
        "BEGIN NOT ATOMIC INSERT INTO items VALUES (1, 0); INSERT INTO items VALUES (2, 0); END",
        "IF 1 THEN INSERT INTO items VALUES (3, 0); END IF",
        "FOR i IN 4..5 DO INSERT INTO items VALUES (i, 0); END FOR",
    ];
    for text in texts {
        connection::<Item, MysqlConn>().unwrap().batch_execute(text).unwrap();
    }
    fixture.observer("default").batch_execute("DELETE FROM items").unwrap();
    atomic::<Item>()
        .run(|conn: &mut MysqlConn| texts.iter().try_for_each(|text| conn.batch_execute(text)).map_err(Error::from))
        .unwrap();
    assert_eq!(fixture.rows("default").len(), 5);
}

#[test]
fn the_table_of_diesels_migrations_made_in_a_scope_is_an_implicit_commit() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
        put(1, 10)?;
        let _ = diesel::migration::MigrationConnection::setup(conn);
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "{run:?}");
}

#[test]
fn the_language_of_the_servers_messages_hides_no_implicit_commit() {
    for way in 0..3 {
        let Some(fixture) = fixture() else { return };
        let _entered = fixture.databases().enter();
        let run = atomic::<Item>().run(|conn: &mut MysqlConn| {
            let german = "SET lc_messages = 'de_DE'";
            match way {
                0 => conn.batch_execute(german)?,
                1 => conn.with_raw(|raw| raw.batch_execute(german).map_err(Error::from))?,
                _ => conn.batch_execute("EXECUTE IMMEDIATE CONCAT('SET lc_', 'messages = ''de_DE''')")?,
            }
            put(1, 10)?;
            let _ = conn.batch_execute("CREATE TABLE made (id INT)");
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "{way}: {run:?}");
        assert_eq!(fixture.rows("default"), [(1, 10)]);
        // A setting of the whole server reaches new sessions alone, and the library's own are born in English.
        let error = atomic::<Item>().run(|conn: &mut MysqlConn| {
            put(2, 20)?;
            let _ = conn.batch_execute("SELECT * FROM missing");
            Ok::<_, Error>(())
        });
        assert!(error.unwrap_err().to_string().contains("doesn't exist"), "{way}");
    }
}
