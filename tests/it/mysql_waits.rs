//! Waits for locks of whole tables, which MySQL and MariaDB limit apart from those of rows, and to a day.

use std::sync::mpsc::channel;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use multidb::{
    CommitMode, Databases, Error, FailureClass, MysqlConn, Propagation, TransactionStatus, atomic, atomic_many,
    connection, connection_on, schema, scope, status,
};

use crate::mysql::*;
use crate::mysql_server::in_doubt::{COMMIT_PREPARED, Far};
use crate::support::proxy::{Loses, Then};

/// When a test is over that would wait for as long as the lock is held. Each wait has a limit of five seconds.
const LIMIT: Duration = Duration::from_mins(1);

fn installed(size: u32) -> Option<(Fixture, Databases)> {
    let fixture = fixture()?;
    let databases = fixture.builder(size).build().unwrap();
    schema::install(&databases).unwrap();
    Some((fixture, databases))
}

/// What some work comes to while another session has locked a table of `alias` as a whole.
fn while_locked<T: Send + 'static>(
    (fixture, databases): (&Fixture, &Databases),
    alias: &str,
    table: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let mut other = fixture.observer(alias);
    other.batch_execute(&format!("LOCK TABLES {table} WRITE")).unwrap();
    let (done, result) = channel();
    let databases = databases.clone();
    let thread = std::thread::spawn(move || {
        let _entered = databases.enter();
        let _ = done.send(work());
    });
    let result = result.recv_timeout(LIMIT);
    other.batch_execute("UNLOCK TABLES").unwrap();
    thread.join().unwrap();
    result.unwrap_or_else(|_| panic!("it has waited for `{table}` as long as it was locked"))
}

fn put_both(id: i64) -> Result<(), Error> {
    atomic_many::<(Item, Record)>().run(|_| {
        put(id, 10)?;
        put_record(id, 20)
    })
}

fn is_lock_timeout(error: &Error) -> bool {
    match error {
        Error::Doomed { first, .. } => first.class() == FailureClass::LockTimeout,
        other => other.is_retryable() && other.to_string().contains("Lock wait timeout"),
    }
}

#[test]
fn a_locked_table_ends_a_transaction_over_several_databases_by_the_limit_for_locks() {
    let Some((fixture, databases)) = installed(2) else { return };
    let on = (&fixture, &databases);
    for (at, (alias, table)) in
        [("default", "items"), ("other", "items"), ("other", "multidb_receipt"), ("default", "multidb_decision")]
            .into_iter()
            .enumerate()
    {
        let id = i64::try_from(at).unwrap();
        let error = while_locked(on, alias, table, move || put_both(id)).unwrap_err();
        assert!(is_lock_timeout(&error), "{alias}.{table}: {error:?}");
        assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]), "{alias}.{table}");
    }
    let parts = || {
        atomic_many::<(Item, Record)>().commit(CommitMode::BestEffort).run(|_| {
            put(1, 10)?;
            put_record(1, 20)
        })
    };
    let error = while_locked(on, "other", "items", parts).unwrap_err();
    assert!(is_lock_timeout(&error), "{error:?}");
    let joins = || atomic::<Item>().run(|_: &mut MysqlConn| put(1, 10).and_then(|()| put_record(1, 20)));
    let error = while_locked(on, "other", "items", joins).unwrap_err();
    assert!(is_lock_timeout(&error), "{error:?}");
    assert_eq!((fixture.rows("default"), fixture.rows("other")), (vec![], vec![]));
    assert!(databases.recover().unwrap().is_clear());
    let _entered = databases.enter();
    put_both(9).unwrap();
}

#[test]
fn the_question_what_a_database_is_waits_no_longer_than_that() {
    let Some((fixture, databases)) = installed(2) else { return };
    for alias in ["default", "other"] {
        // On connections that have not been asked yet.
        let error = while_locked((&fixture, &databases), alias, "multidb_meta", || put_both(1)).unwrap_err();
        assert!(is_lock_timeout(&error), "{alias}: {error:?}");
    }
    let _entered = databases.enter();
    put_both(1).unwrap();
    let session = "SELECT CONCAT(@@lock_wait_timeout, ' ', @@innodb_lock_wait_timeout) AS value";
    let of = |conn: &mut MysqlConn| diesel::sql_query(session).get_result::<Setting>(conn).unwrap().value;
    let fresh = fixture.observer("other");
    let born = diesel::sql_query(session).get_result::<Setting>(&mut { fresh }).unwrap().value;
    assert_eq!(of(&mut connection::<Record, MysqlConn>().unwrap()), born);
}

#[derive(QueryableByName)]
struct Setting {
    #[diesel(sql_type = Text)]
    value: String,
}

const LIMITS: &str = "SELECT CONCAT(@@innodb_lock_wait_timeout, ' ', @@lock_wait_timeout) AS value";

fn limits(conn: &mut MysqlConn) -> String {
    diesel::sql_query(LIMITS).get_result::<Setting>(conn).unwrap().value
}

#[test]
fn a_scope_with_a_longer_timeout_inside_leaves_a_transaction_over_several_databases_its_limits_for_locks() {
    let Some((_fixture, databases)) = installed(2) else { return };
    let _entered = databases.enter();
    let nested = |seconds, before: &str| {
        let inside = atomic::<Record>().timeout(Duration::from_secs(seconds)).run(|conn: &mut MysqlConn| {
            put_record(i64::try_from(seconds).unwrap(), 0)?;
            Ok::<_, Error>(limits(conn))
        });
        let after = limits(&mut connection::<Record, MysqlConn>().unwrap());
        assert_eq!((inside.unwrap().as_str(), after.as_str()), (before, "5 5"), "{seconds}");
    };
    let body = || {
        put(1, 10)?;
        put_record(1, 20)?;
        nested(100, "5 5");
        nested(3, "3 3");
        Ok::<_, Error>(())
    };
    atomic_many::<(Item, Record)>().run(|_| body()).unwrap();
    let own = atomic_many::<(Item, Record)>().timeout(Duration::from_secs(200)).run(|scope| {
        put(2, 10)?;
        assert_eq!(limits(&mut scope.conn::<Item, MysqlConn>()?), "5 5");
        Ok::<_, Error>(())
    });
    own.unwrap();
    // An independent transaction has a limit too: another one of its thread may hold the lock.
    let apart = atomic::<Item>().run(|_: &mut MysqlConn| {
        put(3, 10)?;
        let new = atomic::<Record>().propagation(Propagation::RequiresNew);
        new.run(|conn: &mut MysqlConn| {
            assert_eq!(limits(conn), "5 5");
            nested(101, "5 5");
            Ok::<_, Error>(())
        })
    });
    apart.unwrap();
}

#[test]
fn a_thread_that_waits_for_a_table_of_its_own_other_transaction_waits_no_longer_than_that() {
    let Some((fixture, databases)) = installed(4) else { return };
    let _entered = databases.enter();
    let alter = "ALTER TABLE items ADD COLUMN more INT NULL";
    let (done, result) = channel();
    let inner = databases.clone();
    std::thread::spawn(move || {
        let _entered = inner.enter();
        let run = atomic::<Item>().run(|_: &mut MysqlConn| {
            // It holds the table until the end.
            put(1, 10)?;
            let new = atomic::<Item>().propagation(Propagation::NotSupported);
            let new = new.run(|conn: &mut MysqlConn| Ok::<_, Error>(conn.batch_execute(alter)?));
            let detached =
                multidb::detached(|| Ok::<_, Error>(connection_on::<MysqlConn>("default")?.batch_execute(alter)?));
            Ok::<_, Error>([new, detached])
        });
        let _ = done.send(run);
    });
    let failed = result.recv_timeout(LIMIT).expect("it waits for itself").unwrap();
    for failed in failed {
        let error = failed.unwrap_err();
        assert!(error.to_string().contains("Lock wait timeout"), "{error}");
    }
    assert_eq!(fixture.rows("default"), [(1, 10)]);
    let born = diesel::sql_query(LIMITS).get_result::<Setting>(&mut fixture.observer("default")).unwrap().value;
    assert_eq!(limits(&mut connection::<Item, MysqlConn>().unwrap()), born);
}

#[test]
fn the_key_of_a_nested_scope_is_not_waited_for_without_a_limit() {
    let Some((fixture, databases)) = installed(2) else { return };
    let keyed = || {
        atomic::<Item>().run(|_: &mut MysqlConn| {
            atomic::<Item>().once("k").run(|conn: &mut MysqlConn| Ok::<_, Error>(limits(conn)))
        })
    };
    let error = while_locked((&fixture, &databases), "default", "multidb_once", keyed).unwrap_err();
    assert!(is_lock_timeout(&error), "{error:?}");
    let _entered = databases.enter();
    let born = diesel::sql_query(LIMITS).get_result::<Setting>(&mut fixture.observer("default")).unwrap().value;
    assert_eq!(keyed().unwrap(), born, "the limit is for the key alone");
    let forgotten = while_locked((&fixture, &databases), "default", "multidb_once", {
        let databases = databases.clone();
        move || scope::forget_once(&databases, Duration::ZERO)
    });
    assert!(is_lock_timeout(&forgotten.unwrap_err()));
}

#[test]
fn recovery_a_status_and_cleaning_wait_for_no_table_without_a_limit() {
    let Some(far) = Far::new() else { return };
    far.put_both(100).result.unwrap();
    far.proxies[1].lose_and_then(COMMIT_PREPARED, Loses::Request, Then::Refuses);
    let seen = far.put_both(1);
    assert!(seen.result.is_ok() && far.prepared() == 1);
    far.proxies[1].clear();
    far.until_lost_are_gone();
    let (id, near) = (seen.id.clone(), far.near.clone());
    for (alias, table) in [("default", "multidb_decision"), ("default", "multidb_meta"), ("other", "multidb_meta")] {
        let (own, asked) = (near.clone(), id.clone());
        let (report, status) =
            while_locked((&far.fixture, &near), alias, table, move || (own.recover(), status(&asked)));
        let report = report.unwrap();
        assert!(!report.is_clear(), "{alias}.{table}: {report}");
        assert!(!matches!(status, Ok(TransactionStatus::RolledBack)), "{alias}.{table}: {status:?}");
    }
    let own = near.clone();
    let report = while_locked((&far.fixture, &near), "other", "multidb_receipt", move || own.recover()).unwrap();
    assert!(report.heuristic().is_empty() && report.rolled_back().is_empty(), "{report}");
    assert!(far.agree(1, "unlocked"));
}
