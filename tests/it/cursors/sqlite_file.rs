//! SQLite: a statement that gives rows is complete when it has been stepped to its end.

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use multidb::{Error, FailureClass, Propagation, SqliteConn, atomic, connection, scope};

use crate::sqlite::*;

#[derive(QueryableByName)]
struct Returned {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

diesel::table! { children (id) { id -> BigInt, parent -> BigInt, } }

#[derive(Insertable)]
#[diesel(table_name = children)]
struct Child {
    id: i64,
    parent: i64,
}

/// A child without its parent violates the key: at once, or at the end of its transaction.
fn with_children(deferred: bool) -> Fixture {
    let fixture = fixture().unwrap();
    let when = if deferred { "DEFERRABLE INITIALLY DEFERRED" } else { "" };
    let sql = format!("CREATE TABLE children (id BIGINT PRIMARY KEY, parent BIGINT REFERENCES items (id) {when})");
    fixture.observer("default").batch_execute(&sql).unwrap();
    fixture
}

fn children(fixture: &Fixture) -> Vec<i64> {
    children::table.select(children::id).load(&mut fixture.observer("default")).unwrap()
}

/// An orphan, by each of the ways that give its row.
fn orphan(conn: &mut SqliteConn, way: usize) -> QueryResult<i64> {
    let insert = diesel::insert_into(children::table).values((children::id.eq(4), children::parent.eq(99)));
    let text = "INSERT INTO children VALUES (4, 99) RETURNING id";
    match way {
        0 => insert.returning(children::id).get_result(conn),
        1 => insert.returning(children::id).load_iter::<i64, DefaultLoadingMode>(conn)?.next().unwrap(),
        2 => diesel::sql_query(text).get_result::<Returned>(conn).map(|row| row.id),
        3 => diesel::sql_query(text).load::<Returned>(conn).map(|rows| rows[0].id),
        4 => insert.returning(children::id).execute(conn).map(|_| 4),
        5 => diesel::sql_query(text).execute(conn).map(|_| 4),
        6 => diesel::insert_into(children::table)
            .values(Child { id: 4, parent: 99 })
            .returning(children::id)
            .execute(conn)
            .map(|_| 4),
        _ => diesel::sql_query("INSERT INTO children VALUES (4, 99)").execute(conn).map(|_| 4),
    }
}

fn is_constraint<T: std::fmt::Debug>(result: &QueryResult<T>) -> bool {
    matches!(result, Err(error) if error.to_string().contains("FOREIGN KEY constraint failed"))
}

#[test]
fn a_deferred_key_that_fails_after_the_last_row_is_an_error() {
    let fixture = with_children(true);
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for way in 0..8 {
        let conn = &mut connection::<Item, SqliteConn>().unwrap();
        let result = orphan(conn, way);
        assert!(is_constraint(&result), "{way}: {result:?}");
        assert_eq!(children(&fixture), Vec::<i64>::new());
    }
}

#[test]
fn a_key_that_an_insert_of_a_scope_violates_is_its_error_and_dooms() {
    let fixture = with_children(false);
    let databases = fixture.databases();
    let _entered = databases.enter();
    for way in 0..8 {
        let run = atomic::<Item>().run(|conn: &mut SqliteConn| {
            put(1, 10)?;
            let result = orphan(conn, way);
            assert!(is_constraint(&result), "{way}: {result:?}");
            Ok::<_, Error>(())
        });
        let Err(Error::Doomed { first, .. }) = &run else { panic!("{way}: {run:?}") };
        assert_eq!(first.class(), FailureClass::Constraint);
        assert_eq!((children(&fixture), fixture.rows("default")), (vec![], vec![]));
    }
}

#[test]
fn an_autocommit_insert_that_a_reader_holds_up_is_an_error() {
    let fixture = fixture().unwrap();
    let mut config = multidb::DatabaseConfig::new("default", fixture.urls[0].clone());
    config.sqlite.busy_timeout = Some("0s".into());
    let databases = multidb::Databases::builder().database(config).build().unwrap();
    let _entered = databases.enter();
    let mut reader = fixture.observer("default");
    reader.batch_execute("BEGIN; SELECT * FROM items").unwrap();
    let hooks = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let run = atomic::<Item>().propagation(Propagation::Supports).run(|conn: &mut SqliteConn| {
        let hooks = std::sync::Arc::clone(&hooks);
        scope::on_commit(move || {
            hooks.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        });
        let insert = diesel::insert_into(items::table).values(Item { id: 5, value: 50 });
        Ok::<i64, Error>(insert.returning(items::id).get_result(conn)?)
    });
    reader.batch_execute("COMMIT").unwrap();
    assert!(run.is_err(), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    put(6, 60).unwrap();
    assert_eq!(fixture.rows("default"), [(6, 60)]);
}

#[test]
fn execute_counts_the_rows_of_a_statement_that_gives_some() {
    let fixture = fixture().unwrap();
    let databases = fixture.databases();
    let _entered = databases.enter();
    let conn = &mut connection::<Item, SqliteConn>().unwrap();
    let insert = diesel::sql_query("INSERT INTO items VALUES (1, 1), (2, 2), (3, 3) RETURNING id");
    assert_eq!(insert.execute(conn), Ok(3));
    assert_eq!(diesel::update(items::table).set(items::value.eq(0)).returning(items::id).execute(conn), Ok(3));
    assert_eq!(diesel::sql_query("DELETE FROM items WHERE id > 1").execute(conn), Ok(2));
    assert_eq!(fixture.rows("default"), [(1, 0)]);
}

#[test]
fn a_returning_statement_runs_once_however_often_its_cursor_is_asked() {
    let fixture = fixture().unwrap();
    let databases = fixture.databases();
    let _entered = databases.enter();
    let conn = &mut connection::<Item, SqliteConn>().unwrap();
    let insert = diesel::sql_query("INSERT INTO items SELECT coalesce(max(id), 0) + 1, 0 FROM items RETURNING id");
    let mut reading = insert.load_iter::<Returned, DefaultLoadingMode>(conn).unwrap();
    for _ in 0..4 {
        let _ = reading.next();
    }
    drop(reading);
    assert_eq!(fixture.rows("default"), [(1, 0)]);
}
