//! What the keys of the attribute become.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Text;
use multidb::{DatabaseConfig, Databases, Error, atomic, schema, transactional};

use super::*;
use crate::fixture::Kind;

/// The fixture's databases, which don't wait for a locked SQLite file.
fn impatient(fixture: &Fixture) -> Databases {
    let mut config = DatabaseConfig::new("default", fixture.urls[0].clone());
    config.sqlite.busy_timeout = Some("1ms".into());
    Databases::builder().database(config).build().unwrap()
}

/// Fails as a statement does that may succeed next time.
fn fail_for_now(conn: &mut H, observer: &RefCell<Raw>) -> Result<(), Error> {
    match KIND {
        Kind::Postgres => {
            let failure = "DO $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$";
            sql_query(failure).execute(conn)?;
        }
        Kind::Mysql => conn.batch_execute(
            "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, \
             MESSAGE_TEXT = 'Deadlock found when trying to get lock; try restarting transaction'",
        )?,
        Kind::Sqlite => {
            observer.borrow_mut().batch_execute("BEGIN IMMEDIATE").unwrap();
            let locked = sql_query("DELETE FROM items").execute(conn);
            observer.borrow_mut().batch_execute("ROLLBACK").unwrap();
            locked?;
        }
    }
    panic!("the failure did not come");
}

fn insert(conn: &mut H, id: i64, value: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(value))).execute(conn)?;
    Ok(())
}

/// Changes and consumes what it was given, and fails the first `failures` times.
#[transactional(Item, retry = 2)]
fn consume(
    #[conn] conn: &mut H,
    runs: &Cell<u32>,
    failures: u32,
    mut ids: Vec<i64>,
    (note, mut value): (String, i64),
    observer: &RefCell<Raw>,
) -> Result<String, Error> {
    runs.set(runs.get() + 1);
    ids.push(3);
    value += 1;
    if runs.get() <= failures {
        drop((ids, note));
        fail_for_now(conn, observer)?;
        unreachable!();
    }
    for id in ids {
        insert(conn, id, value)?;
    }
    Ok(note)
}

#[test]
fn each_run_of_a_repeated_function_gets_the_arguments_of_its_caller() {
    let Some(fixture) = fixture() else { return };
    let databases = impatient(&fixture);
    let _entered = databases.enter();
    let (runs, observer) = (Cell::new(0), RefCell::new(fixture.observer("default")));
    let note = consume(&runs, 2, vec![1, 2], ("note".into(), 10), &observer).unwrap();
    assert_eq!((note.as_str(), runs.get()), ("note", 3));
    assert_eq!(fixture.rows("default"), [(1, 11), (2, 11), (3, 11)]);
}

#[test]
fn a_repeated_function_runs_no_more_often_than_it_says() {
    let Some(fixture) = fixture() else { return };
    let databases = impatient(&fixture);
    let _entered = databases.enter();
    let (runs, observer) = (Cell::new(0), RefCell::new(fixture.observer("default")));
    let error = consume(&runs, 3, vec![1, 2], ("note".into(), 10), &observer).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!((runs.get(), fixture.rows("default")), (3, vec![]));
}

#[transactional(Item, once = (&key, &order))]
fn order_once(#[conn] conn: &mut H, runs: &Cell<u32>, key: String, order: Vec<i64>) -> Result<(String, u32), Error> {
    runs.set(runs.get() + 1);
    for id in order {
        insert(conn, id, 0)?;
    }
    Ok((key, runs.get()))
}

#[test]
fn a_function_with_a_key_runs_once_and_repeats_its_result() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    schema::install(&databases).unwrap();
    let runs = Cell::new(0);
    let order = |key: &str, order: &[i64]| order_once(&runs, key.into(), order.to_vec());
    assert_eq!(order("a", &[1, 2]).unwrap(), ("a".into(), 1));
    assert_eq!(order("a", &[1, 2]).unwrap(), ("a".into(), 1), "the result of the first run");
    assert!(matches!(order("a", &[3]), Err(Error::OnceMismatch { .. })), "the body belongs to the key");
    assert_eq!(order("b", &[3]).unwrap(), ("b".into(), 2));
    assert_eq!(fixture.rows("default"), [(1, 0), (2, 0), (3, 0)]);
}

#[transactional(Item, retry = 3, once = format!("{prefix}-{}", id + 1))]
fn once_and_again(
    #[conn] conn: &mut H,
    runs: &Cell<u32>,
    (prefix, id): (&str, i64),
    observer: &RefCell<Raw>,
) -> Result<u32, Error> {
    runs.set(runs.get() + 1);
    if runs.get() == 1 && KIND != Kind::Sqlite {
        // On SQLite the key is written, so that nobody else can lock the file.
        fail_for_now(conn, observer)?;
    }
    insert(conn, id, 0)?;
    Ok(runs.get())
}

#[test]
fn a_function_with_a_key_that_fails_is_run_again_and_then_never() {
    let Some(fixture) = fixture() else { return };
    let databases = impatient(&fixture);
    let _entered = databases.enter();
    schema::install(&databases).unwrap();
    let (runs, observer) = (Cell::new(0), RefCell::new(fixture.observer("default")));
    let expected = if KIND == Kind::Sqlite { 1 } else { 2 };
    for _ in 0..2 {
        assert_eq!(once_and_again(&runs, ("order", 1), &observer).unwrap(), expected);
    }
    assert_eq!((runs.get(), fixture.rows("default")), (expected, vec![(1, 0)]));
    let keys: Vec<Name> =
        sql_query("SELECT id AS name FROM multidb_once").load(&mut fixture.observer("default")).unwrap();
    assert_eq!(keys[0].name, "order-2");
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

#[transactional(Item, read_only)]
fn read_or_write(#[conn] conn: &mut H, write: bool) -> Result<i64, Error> {
    if write {
        insert(conn, 2, 2)?;
    }
    Ok(items::table.count().get_result(conn)?)
}

#[test]
fn a_read_only_function_can_read_and_not_write() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 1).unwrap();
    assert_eq!(read_or_write(false).unwrap(), 1);
    assert!(read_or_write(true).is_err());
    assert_eq!(fixture.rows("default"), [(1, 1)]);
}

/// Whether a level with this timeout would be as long as the open transaction may take, and no longer.
fn is_timeout(expected: Duration) -> Result<(), Error> {
    let level = |timeout| atomic::<Item>().timeout(timeout).run(|_: &mut H| Ok::<_, Error>(()));
    level(expected)?;
    let longer = level(expected + Duration::from_nanos(1));
    assert!(matches!(longer, Err(Error::OptionConflict { .. })), "{longer:?}");
    Ok(())
}

#[transactional(Item, timeout = "1500ms")]
fn milliseconds() -> Result<(), Error> {
    is_timeout(Duration::from_millis(1_500))
}

#[transactional(Item, timeout = "5s")]
fn seconds() -> Result<(), Error> {
    is_timeout(Duration::from_secs(5))
}

#[transactional(Item, timeout = "2m")]
fn minutes() -> Result<(), Error> {
    is_timeout(Duration::from_mins(2))
}

#[transactional(Item, timeout = "576h")]
fn hours() -> Result<(), Error> {
    is_timeout(Duration::from_hours(576))
}

#[test]
fn a_timeout_is_as_long_as_it_is_written() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    for timeout in [milliseconds, seconds, minutes, hours] {
        timeout().unwrap();
    }
}

/// What a function with an isolation level of its own sees of another transaction that has not committed, and
/// PostgreSQL's name of the level.
macro_rules! isolated {
    ($($name:ident $level:ident)*) => {$(
        #[transactional(Item, isolation = $level)]
        fn $name(#[conn] conn: &mut H) -> Result<(i64, String), Error> {
            let level = match KIND {
                Kind::Postgres => "SELECT current_setting('transaction_isolation') AS name",
                Kind::Sqlite | Kind::Mysql => "SELECT 'unknown' AS name",
            };
            let seen = items::table.count().get_result(conn)?;
            Ok((seen, sql_query(level).get_result::<Name>(conn)?.name))
        }
    )*};
}

isolated! { dirty read_uncommitted committed read_committed repeatable repeatable_read }

#[transactional(Item, isolation = serializable, read_only, deferrable)]
fn deferred(#[conn] conn: &mut H) -> Result<String, Error> {
    let level =
        "SELECT concat(current_setting('transaction_isolation'), current_setting('transaction_deferrable')) AS name";
    Ok(sql_query(level).get_result::<Name>(conn)?.name)
}

#[test]
fn the_server_isolates_a_function_as_it_says() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    if KIND == Kind::Sqlite {
        assert_eq!(dirty().unwrap().0, 0);
        return;
    }
    let mut other = fixture.observer("default");
    other.batch_execute("BEGIN; INSERT INTO items VALUES (1, 1)").unwrap();
    let seen = [dirty().unwrap(), committed().unwrap(), repeatable().unwrap()];
    let expected = match KIND {
        Kind::Postgres => [(0, "read uncommitted"), (0, "read committed"), (0, "repeatable read")],
        _ => [(1, "unknown"), (0, "unknown"), (0, "unknown")],
    };
    assert_eq!(seen.each_ref().map(|(rows, level)| (*rows, level.as_str())), expected);
}

#[transactional(Item, immediate)]
fn locked_at_once(#[conn] conn: &mut H) -> Result<(), Error> {
    insert(conn, 1, 1)
}

#[transactional(Item, exclusive)]
fn locked_alone(#[conn] conn: &mut H) -> Result<(), Error> {
    insert(conn, 2, 2)
}

#[test]
fn what_is_known_to_one_database_alone_is_refused_by_the_others() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let unsupported = |result: Result<(), Error>| match result {
        Err(Error::Unsupported { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    if KIND == Kind::Sqlite {
        locked_at_once().and_then(|()| locked_alone()).unwrap();
        assert_eq!(fixture.rows("default"), [(1, 1), (2, 2)]);
    } else {
        assert_eq!((unsupported(locked_at_once()), unsupported(locked_alone())), ("immediate", "exclusive"));
    }
    if KIND == Kind::Postgres {
        assert_eq!(deferred().unwrap(), "serializableon");
    } else {
        assert_eq!(unsupported(deferred().map(drop)), "deferrable");
    }
}

#[transactional(Item, verify_commit)]
fn verified(#[conn] conn: &mut H) -> Result<(), Error> {
    insert(conn, 1, 1)
}

#[test]
fn a_verified_function_leaves_a_decision() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    schema::install(&databases).unwrap();
    verified().unwrap();
    let decisions = sql_query("SELECT 'one' AS name FROM multidb_decision");
    assert_eq!(decisions.load::<Name>(&mut fixture.observer("default")).unwrap().len(), 1);
}
