//! What holds on every backend, in the loading mode that reads row by row.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::connection::{LoadConnection, SimpleConnection};
use diesel::prelude::*;
use diesel::row::{Field, NamedRow, Row};
use diesel::sql_types::BigInt;
use multidb::{Error, atomic, connection};

use super::*;
use crate::fixture::Kind;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// A query that the library can't see through.
fn numbers() -> diesel::query_builder::SqlQuery {
    diesel::sql_query("SELECT id AS n FROM items ORDER BY id")
}

#[test]
fn while_rows_of_a_raw_query_are_read_other_statements_run() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|conn: &mut H| {
        put(1, 10)?;
        put(2, 20)?;
        let mut reading = numbers().load_iter::<Number, Mode>(conn)?;
        assert_eq!(reading.next().unwrap()?.n, 1);
        put(3, 30)?;
        assert_eq!(reading.next().unwrap()?.n, 2);
        assert!(reading.next().is_none(), "the rows are those of the time at which it ran");
        assert!(reading.next().is_none(), "and it ran once");
        put(4, 40)?;
        Ok::<_, Mishap>(())
    });
    run.unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (2, 20), (3, 30), (4, 40)]);
}

#[test]
fn a_forgotten_cursor_of_a_raw_query_is_harmless() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    for id in 1..4 {
        let run = atomic::<Item>().run(|conn: &mut H| {
            put(id, id)?;
            let mut reading = numbers().load_iter::<Number, Mode>(conn)?;
            assert!(reading.next().is_some());
            std::mem::forget(reading);
            Ok::<_, Mishap>(())
        });
        run.unwrap();
        std::mem::forget(numbers().load_iter::<Number, Mode>(&mut connection::<Item, H>().unwrap()).unwrap());
        assert_eq!(in_use(&databases, "default"), 0);
    }
    assert_eq!(fixture.rows("default"), [(1, 1), (2, 2), (3, 3)]);
}

#[test]
fn a_forgotten_cursor_of_a_read_is_an_error_of_its_scope_and_no_panic() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    for _ in 0..3 {
        let run = catch_unwind(AssertUnwindSafe(|| {
            atomic::<Item>().run(|conn: &mut H| {
                put(2, 20)?;
                let mut reading = items::table.load_iter::<Item, Mode>(conn)?;
                assert!(reading.next().is_some());
                std::mem::forget(reading);
                Ok::<_, Error>(())
            })
        }));
        let run = run.expect("no panic");
        let Err(error @ Error::Busy { .. }) = &run else { panic!("{run:?}") };
        assert!(error.to_string().contains("rows of an earlier query"), "{error}");
        assert_eq!(fixture.rows("default"), [(1, 10)]);
        assert_eq!(in_use(&databases, "default"), 0);
    }
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_forgotten_read_that_is_not_kept_prepared_is_an_error_and_no_panic() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.builder(1).build().unwrap();
    let _entered = databases.enter();
    if KIND == Kind::Sqlite {
        // Otherwise what is never read to its end keeps a writer from the file.
        fixture.observer("default").batch_execute("PRAGMA journal_mode = WAL").unwrap();
    }
    put(1, 10).unwrap();
    for begun in [true, false] {
        let run = catch_unwind(AssertUnwindSafe(|| {
            atomic::<Item>().run(|conn: &mut H| {
                put(2, 20)?;
                // Its text depends on the number of ids.
                let mut reading = items::table.filter(items::id.eq_any([1, 2])).load_iter::<Item, Mode>(conn)?;
                assert!(!begun || reading.next().is_some());
                std::mem::forget(reading);
                Ok::<_, Error>(())
            })
        }));
        assert!(matches!(run.expect("no panic"), Err(Error::Busy { .. })));
        assert_eq!(fixture.rows("default"), [(1, 10)]);
        assert_eq!(in_use(&databases, "default"), 0);
    }
    put(3, 30).unwrap();
    assert_eq!(fixture.rows("default"), [(1, 10), (3, 30)]);
}

#[test]
fn a_cursor_that_has_given_all_its_rows_keeps_no_connection() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    let conn = &mut connection::<Item, H>().unwrap();
    let mut reading = items::table.load_iter::<Item, Mode>(conn).unwrap();
    assert!(reading.next().is_some());
    assert_eq!(in_use(&databases, "default"), 1);
    assert!(reading.next().is_none());
    assert_eq!(in_use(&databases, "default"), 0);
    assert!(reading.next().is_none(), "it doesn't run again");
}

#[test]
fn copied_rows_are_read_by_place_by_name_and_in_parts_as_others_are() {
    let Some(fixture) = fixture() else { return };
    let databases = fixture.databases();
    let _entered = databases.enter();
    put(1, 10).unwrap();
    put(2, 20).unwrap();
    let conn = &mut connection::<Item, H>().unwrap();
    // Both in a tuple: each reads its part of the row.
    let both = items::table.select((items::id, (items::id, items::value))).order(items::id);
    let read = both.load_iter::<(i64, Item), Mode>(conn).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(read, [(1, Item { id: 1, value: 10 }), (2, Item { id: 2, value: 20 })]);
    let read = both.into_boxed().load_iter::<(i64, Item), Mode>(conn).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(read, [(1, Item { id: 1, value: 10 }), (2, Item { id: 2, value: 20 })]);
    let copied = diesel::sql_query("SELECT id, value, NULL AS missing FROM items ORDER BY id");
    let rows: Vec<_> = LoadConnection::<Mode>::load(conn, copied).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(rows.len(), 2);
    let row = &rows[1];
    assert_eq!(row.field_count(), 3);
    assert_eq!(NamedRow::get::<BigInt, i64>(row, "value").unwrap(), 20);
    assert_eq!(Row::get(row, 1).unwrap().field_name(), Some("value"));
    assert!(Row::get(row, 2).unwrap().is_null() && Row::get(row, 3).is_none());
    let part = row.partial_row(1..3);
    assert_eq!((part.field_count(), Row::get(&part, 0).unwrap().field_name()), (2, Some("value")));
}
