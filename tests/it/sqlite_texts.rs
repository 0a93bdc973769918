//! Texts on SQLite that the library could be misled by.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Error, SqliteConn, atomic, connection};

use crate::sqlite::*;

#[test]
fn names_in_brackets_are_names() {
    let fixture = fixture().unwrap();
    let _entered = fixture.databases().enter();
    connection::<Item, SqliteConn>().unwrap().batch_execute("CREATE TABLE [x; COMMIT] (a)").unwrap();
    let run = atomic::<Item>().run(|conn: &mut SqliteConn| {
        put(1, 10)?;
        conn.batch_execute("CREATE TABLE [it's] (a); INSERT INTO [it's] VALUES (1)")?;
        let refused = conn.batch_execute("SELECT * FROM [it's]; COMMIT; --'").map_err(Error::from);
        assert!(matches!(refused, Err(Error::TransactionControl { .. })), "{refused:?}");
        Err::<(), _>(Mishap::OnPurpose)
    });
    assert!(run.is_err());
    assert_eq!(fixture.rows("default"), []);
}

#[test]
fn a_read_only_scope_whose_text_lifts_query_only_is_refused() {
    let fixture = fixture().unwrap();
    let _entered = fixture.databases().enter();
    let whole = "PRAGMA query_only(0); INSERT INTO items VALUES (1, 10); PRAGMA query_only = 1";
    for text in ["PRAGMA query_only = 0; INSERT INTO items VALUES (1, 10)", "PRAGMA query_only(off)", whole] {
        for nested in [false, true] {
            let run = atomic::<Item>().run(|_: &mut SqliteConn| {
                let write = |conn: &mut SqliteConn| Ok::<_, Error>(conn.batch_execute(text)?);
                atomic::<Item>().read_only().run(write)
            });
            let alone = atomic::<Item>().read_only().run(|conn: &mut SqliteConn| {
                let lifted = conn.batch_execute(text).map_err(Error::from);
                assert!(matches!(lifted, Err(Error::ReadOnly { .. })), "{text}: {lifted:?}");
                if nested { Ok(()) } else { lifted }
            });
            assert!(run.is_err() && alone.is_err(), "{text}: {run:?} {alone:?}");
            assert_eq!(fixture.rows("default"), []);
        }
    }
    put(2, 20).unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
}

#[test]
fn a_database_in_memory_keeps_its_rows_and_its_settings_after_any_text() {
    let _entered = multidb::Databases::builder().sqlite("default", ":memory:").build().unwrap().enter();
    let mut conn = connection::<Item, SqliteConn>().unwrap();
    conn.batch_execute("CREATE TABLE items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)").unwrap();
    put(1, 10).unwrap();
    conn.batch_execute("PRAGMA foreign_keys = 0; PRAGMA query_only = 1").unwrap();
    let broken = "BEGIN; INSERT INTO items VALUES (2, 20); INSERT INTO items VALUES (1, 0); COMMIT";
    assert!(conn.batch_execute(broken).is_err());
    let left = conn.with_raw(|raw| raw.batch_execute("BEGIN; INSERT INTO items VALUES (3, 30)").map_err(Error::from));
    assert!(matches!(left, Err(Error::TransactionControl { .. })), "{left:?}");
    let _ = std::panic::catch_unwind(|| {
        let conn = &mut connection::<Item, SqliteConn>().unwrap();
        conn.with_raw(|raw| -> Result<(), Error> {
            raw.batch_execute("BEGIN; INSERT INTO items VALUES (6, 60)")?;
            panic!("on purpose")
        })
    });
    let _ = std::panic::catch_unwind(|| {
        atomic::<Item>().run(|conn: &mut SqliteConn| -> Result<(), Error> {
            put(7, 70)?;
            conn.with_raw(|_| panic!("on purpose"))
        })
    });
    let ended = atomic::<Item>().run(|conn: &mut SqliteConn| {
        let _ = conn
            .with_raw(|raw| raw.batch_execute("COMMIT; BEGIN; INSERT INTO items VALUES (4, 40)").map_err(Error::from));
        Ok::<_, Error>(())
    });
    assert!(matches!(ended, Err(Error::ImplicitCommit { .. })), "{ended:?}");
    put(5, 50).unwrap();
    let rows: Vec<(i64, i64)> = items::table.order(items::id).load(&mut conn).unwrap();
    assert_eq!(rows, [(1, 10), (5, 50)]);
    let checks = diesel::dsl::sql::<diesel::sql_types::Integer>("foreign_keys FROM pragma_foreign_keys");
    assert_eq!(diesel::select(checks).get_result::<i32>(&mut conn).unwrap(), 1);
}

/// SQLite runs the first one alone, and its driver passes over the rest.
#[test]
fn a_query_of_several_statements_is_an_error_and_no_part_of_it_is_lost_silently() {
    let fixture = fixture().unwrap();
    let _entered = fixture.databases().enter();
    let text = "INSERT INTO items VALUES (1, 10); INSERT INTO items VALUES (2, 20)";
    let alone = diesel::sql_query(text).execute(&mut connection::<Item, SqliteConn>().unwrap());
    assert!(alone.unwrap_err().to_string().contains("batch_execute"));
    let run = atomic::<Item>().run(|conn: &mut SqliteConn| Ok::<_, Error>(diesel::sql_query(text).execute(conn)?));
    assert!(run.is_err(), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    connection::<Item, SqliteConn>().unwrap().batch_execute(text).unwrap();
    diesel::sql_query("DELETE FROM items WHERE id = 1;")
        .execute(&mut connection::<Item, SqliteConn>().unwrap())
        .unwrap();
    assert_eq!(fixture.rows("default"), [(2, 20)]);
}

#[test]
fn a_savepoint_whose_statement_fails_leaves_no_transaction_open() {
    let fixture = fixture().unwrap();
    let _entered = fixture.builder(1).build().unwrap().enter();
    put(1, 10).unwrap();
    let text = "SAVEPOINT a; INSERT INTO items VALUES (1, 0); RELEASE a";
    for raw in [true, false] {
        let mut conn = connection::<Item, SqliteConn>().unwrap();
        let failed = if raw {
            conn.with_raw(|raw| raw.batch_execute(text).map_err(Error::from))
        } else {
            conn.batch_execute(text).map_err(Error::from)
        };
        assert!(failed.is_err(), "{failed:?}");
        let id = if raw { 2 } else { 3 };
        put(id, 0).unwrap();
        assert!(fixture.rows("default").contains(&(id, 0)), "a transaction was left open");
    }
}
