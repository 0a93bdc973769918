//! The same functions with their models on one SQLite file and on several.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::testing::{Layouts, layouts};
use multidb::{Databases, Error, Model, SqliteConn, connection, transactional};

diesel::table! { rows (id) { id -> BigInt, } }
diesel::table! { more_rows (id) { id -> BigInt, } }

#[derive(Model)]
#[model(app = "first")]
struct First;

#[derive(Model)]
#[model(app = "second")]
struct Second;

#[transactional(First)]
fn put_first(#[conn] conn: &mut SqliteConn, id: i64) -> Result<(), Error> {
    diesel::insert_into(rows::table).values(rows::id.eq(id)).execute(conn)?;
    Ok(())
}

#[transactional(Second)]
fn put_second(#[conn] conn: &mut SqliteConn, id: i64) -> Result<(), Error> {
    diesel::insert_into(rows::table).values(rows::id.eq(id)).execute(conn)?;
    Ok(())
}

/// Puts a row of each model, each in a table of its own.
#[transactional(First, Second)]
fn put_both(
    #[conn(First)] first: &mut SqliteConn,
    #[conn(Second)] second: &mut SqliteConn,
    fails: bool,
) -> Result<(), Error> {
    diesel::insert_into(rows::table).values(rows::id.eq(1)).execute(first)?;
    diesel::insert_into(more_rows::table).values(more_rows::id.eq(2)).execute(second)?;
    if fails { Err(diesel::result::Error::RollbackTransaction.into()) } else { Ok(()) }
}

fn make_tables() {
    let sql = "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY)";
    connection::<First, SqliteConn>().unwrap().batch_execute(sql).unwrap();
    connection::<Second, SqliteConn>().unwrap().batch_execute(sql).unwrap();
}

/// The rows of both models, wherever they are.
fn all_rows() -> Vec<i64> {
    let [mut first, second] = [connection::<First, SqliteConn>(), connection::<Second, SqliteConn>()].map(|conn| {
        let mut conn = conn.unwrap();
        rows::table.select(rows::id).load::<i64>(&mut conn).unwrap()
    });
    first.extend(second);
    first.sort_unstable();
    first.dedup();
    first
}

#[test]
fn functions_that_touch_one_model_each_leave_the_same_rows_in_every_layout() {
    let mut names = Vec::new();
    layouts!(First, Second; |layout| {
        names.push(layout.name);
        make_tables();
        put_first(1).unwrap();
        put_second(2).unwrap();
        put_second(2).unwrap_err();
        all_rows()
    });
    assert_eq!(names, ["merged", "split"]);
}

#[test]
fn a_function_that_lists_both_models_keeps_all_of_it_or_nothing_in_every_layout() {
    let counts = layouts!(First, Second; |_layout| {
        let (mut first, mut second) = (connection::<First, SqliteConn>().unwrap(), connection::<Second, SqliteConn>().unwrap());
        first.batch_execute("CREATE TABLE rows (id INTEGER PRIMARY KEY)").unwrap();
        second.batch_execute("CREATE TABLE more_rows (id INTEGER PRIMARY KEY)").unwrap();
        let mut counts = move || -> [i64; 2] {
            [rows::table.count().get_result(&mut first).unwrap(), more_rows::table.count().get_result(&mut second).unwrap()]
        };
        put_both(true).unwrap_err();
        let undone = counts();
        put_both(false).unwrap();
        [undone, counts()]
    });
    assert_eq!(counts, [[0, 0], [1, 1]]);
}

#[test]
#[should_panic(expected = "at least one layout")]
fn no_layout_at_all_is_no_success() {
    Layouts::new().check(|_| ());
}

#[test]
#[should_panic(expected = "the layouts `merged` and `split` differ: [] and [1]")]
fn a_function_whose_result_depends_on_the_layout_is_found() {
    layouts!(First, Second; |_layout| {
        make_tables();
        put_first(1).unwrap();
        // As if each model had a table of its own, which it has on one of the two.
        connection::<Second, SqliteConn>().unwrap().batch_execute("DELETE FROM rows").unwrap();
        all_rows()
    });
}

#[test]
fn a_test_may_bring_layouts_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let database = |name: &str| Databases::builder().sqlite("default", folder.path().join(name)).build().unwrap();
    let layouts = Layouts::new().with("one", &database("one.db")).with("two", &database("two.db"));
    layouts.check(|_| {
        make_tables();
        put_first(1).unwrap();
        all_rows()
    });
}
