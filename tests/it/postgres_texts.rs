//! Texts on PostgreSQL that the library could be misled by.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Error, PgConn, atomic, connection, connection_on};

use crate::postgres::*;

/// A COPY of 70 columns, in texts that end in it.
fn copies() -> Vec<String> {
    let columns: Vec<String> = (0..70).map(|n| format!("c{n}")).collect();
    let copy = format!("COPY wide ({}) FROM STDIN", columns.join(", "));
    vec![
        copy.clone(),
        format!("SELECT 1; {copy}"),
        format!("SELECT 'a\\'; {copy}; --'"),
        format!("SELECT E'\\''\n'\\''; {copy}"),
        format!("/* /* */ ; */ {copy}"),
        format!("SELECT $a$ ; $a$; {copy}"),
        "COPY items TO STDOUT".into(),
    ]
}

fn with_wide_table(fixture: &Fixture) {
    let columns: Vec<String> = (0..70).map(|n| format!("c{n} INT")).collect();
    fixture.observer("default").batch_execute(&format!("CREATE TABLE wide ({})", columns.join(", "))).unwrap();
}

#[test]
fn a_copy_of_many_columns_is_refused_and_loses_no_work() {
    let Some(fixture) = fixture() else { return };
    with_wide_table(&fixture);
    let _entered = fixture.builder(1).build().unwrap().enter();
    for (id, text) in (1..).zip(copies()) {
        let run = atomic::<Item>().run(|conn: &mut PgConn| {
            put(id, 0)?;
            let refused = conn.batch_execute(&text).map_err(Error::from);
            assert!(matches!(refused, Err(Error::CopyByText { .. })), "{text}: {refused:?}");
            Ok::<_, Error>(())
        });
        run.unwrap();
        // Alone it would leave a connection that hangs for its next user.
        let mut conn = connection_on::<PgConn>("default").unwrap();
        assert!(conn.batch_execute(&text).is_err(), "{text}");
        put(100 + id, 0).unwrap();
    }
    assert_eq!(fixture.rows("default").len(), 2 * copies().len());
}

#[test]
fn a_backslash_hides_no_commit_whatever_the_session_makes_of_it() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for (setting, text) in [("on", "SELECT '\\'; COMMIT; BEGIN; --'"), ("off", "SELECT '\\''; COMMIT; BEGIN; --'")] {
        let run = atomic::<Item>().run(|conn: &mut PgConn| {
            put(1, 10)?;
            conn.batch_execute(&format!("SET LOCAL standard_conforming_strings = {setting}"))?;
            let ended = conn.batch_execute(text);
            assert!(ended.is_err(), "{text}");
            Ok::<_, Error>(())
        });
        assert!(matches!(run, Err(Error::ImplicitCommit { .. })), "{text}: {run:?}");
        fixture.observer("default").batch_execute("DELETE FROM items").unwrap();
    }
    // The same texts are harmless under the other setting.
    for (setting, text) in [("off", "SELECT '\\'; COMMIT; BEGIN; --'"), ("on", "SELECT '\\\\'")] {
        let run = atomic::<Item>().run(|conn: &mut PgConn| {
            conn.batch_execute(&format!("SET LOCAL standard_conforming_strings = {setting}"))?;
            conn.batch_execute(text)?;
            put(1, 10)
        });
        run.unwrap();
        assert_eq!(fixture.rows("default"), [(1, 10)]);
        fixture.observer("default").batch_execute("DELETE FROM items").unwrap();
    }
}

#[test]
fn a_read_only_scope_whose_first_text_allows_writes_is_refused() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    for text in [
        "SET TRANSACTION READ WRITE; INSERT INTO items VALUES (1, 10)",
        "SET LOCAL transaction_read_only = off; INSERT INTO items VALUES (1, 10)",
        "SET TRANSACTION READ WRITE; INSERT INTO items VALUES (1, 10); SET TRANSACTION READ ONLY",
        "SET TRANSACTION READ WRITE",
    ] {
        for lends in [false, true] {
            let run = atomic::<Item>().read_only().run(|conn: &mut PgConn| {
                let lifted = if lends {
                    conn.with_raw(|raw| raw.batch_execute(text).map_err(Error::from))
                } else {
                    conn.batch_execute(text).map_err(Error::from)
                };
                assert!(lifted.is_err(), "{text}: {lifted:?}");
                Ok::<_, Error>(())
            });
            assert!(run.is_err(), "{run:?}");
            assert_eq!(fixture.rows("default"), []);
        }
    }
}

#[test]
fn a_lock_or_a_temporary_table_of_a_text_does_not_reach_the_pool() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    let texts = [
        "SELECT pg_advisory_lock(4711)",
        "CREATE TEMP TABLE items AS SELECT 5 AS id, 5 AS value",
        "LISTEN news",
        "SET ROLE none",
    ];
    for text in texts {
        connection::<Item, PgConn>().unwrap().batch_execute(text).unwrap();
        atomic::<Item>().run(|conn: &mut PgConn| Ok::<_, Error>(conn.batch_execute(text)?)).unwrap();
        put(1, 10).unwrap();
        let mut observer = fixture.observer("default");
        assert_eq!(fixture.rows("default"), [(1, 10)], "{text}");
        let free = diesel::dsl::sql::<diesel::sql_types::Bool>("pg_try_advisory_lock(4711)");
        assert!(diesel::select(free).get_result::<bool>(&mut observer).unwrap(), "{text}");
        observer.batch_execute("DELETE FROM items").unwrap();
    }
}

#[test]
fn a_snapshot_can_be_exported_by_a_text_and_inside_with_raw() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.databases().enter();
    atomic::<Item>()
        .run(|conn: &mut PgConn| {
            conn.batch_execute("SELECT pg_export_snapshot()")?;
            conn.with_raw(|raw| raw.batch_execute("SELECT pg_export_snapshot()").map_err(Error::from))
        })
        .unwrap();
}

#[test]
fn a_copy_that_was_sent_as_a_text_is_never_ok() {
    let Some(fixture) = fixture() else { return };
    let _entered = fixture.builder(1).build().unwrap().enter();
    let text = "COPY items FROM STDIN; INSERT INTO items VALUES (1, 10)";
    let lend = |conn: &mut PgConn| conn.with_raw(|raw| raw.batch_execute(text).map_err(Error::from));
    let alone = lend(&mut connection::<Item, PgConn>().unwrap());
    assert!(matches!(alone, Err(Error::CopyByText { .. })), "{alone:?}");
    let run = atomic::<Item>().run(|conn: &mut PgConn| {
        put(2, 20)?;
        let _ = lend(conn);
        Ok::<_, Error>(())
    });
    assert!(run.is_err(), "{run:?}");
    assert_eq!(fixture.rows("default"), []);
    // Diesel's own COPY is no such text.
    let copied = connection::<Item, PgConn>().unwrap().with_raw(|raw| {
        let rows = vec![(items::id.eq(3_i64), items::value.eq(30_i64))];
        Ok::<_, Error>(diesel::copy_from(items::table).from_insertable(rows).execute(raw)?)
    });
    assert_eq!(copied.unwrap(), 1);
    put(4, 40).unwrap();
    assert_eq!(fixture.rows("default"), [(3, 30), (4, 40)]);
}
