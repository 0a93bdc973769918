//! Diesel's default instrumentation, which is one for the whole process: here no other test minds it.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::rc::Rc;

use diesel::connection::{Instrumentation, InstrumentationEvent, set_default_instrumentation};
use diesel::prelude::*;
use multidb::{Databases, Error, SqliteConn, atomic_on, scope};

diesel::table! { watched_rows (id) { id -> BigInt, } }

/// Panics at each statement with this word, before it is sent and after it has come back.
const WORD: &str = "watched_rows";

struct Loud;

impl Instrumentation for Loud {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let (InstrumentationEvent::StartQuery { query, .. } | InstrumentationEvent::FinishQuery { query, .. }) = event
        else {
            return;
        };
        let query = query.to_string();
        assert!(!(query.contains(WORD) && query.contains("INSERT")), "on purpose");
        assert!(query.trim() != "COMMIT", "on purpose");
    }
}

#[test]
fn a_default_instrumentation_that_panics_changes_no_outcome() {
    set_default_instrumentation(|| Some(Box::new(Loud))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watched.db").to_str().unwrap().to_owned();
    let databases = Databases::builder().sqlite("watched", &*file).build().unwrap();
    let _entered = databases.enter();
    let hooks = Rc::new(Cell::new(0));
    let ran = Rc::clone(&hooks);
    // The panic comes at COMMIT.
    let run = atomic_on("watched").run(|conn: &mut SqliteConn| {
        scope::on_commit(move || ran.set(ran.get() + 1));
        diesel::sql_query("CREATE TABLE watched_rows (id BIGINT PRIMARY KEY)").execute(conn)?;
        Ok::<_, Error>(())
    });
    run.unwrap();
    assert_eq!(hooks.get(), 1);
    // Here it comes at a statement.
    let run = catch_unwind(|| {
        atomic_on("watched").run(|conn: &mut SqliteConn| {
            diesel::insert_into(watched_rows::table).values(watched_rows::id.eq(1)).execute(conn)?;
            Ok::<_, Error>(())
        })
    });
    assert!(run.is_err(), "{run:?}");
    let mut observer = SqliteConnection::establish(&file).unwrap();
    assert_eq!(watched_rows::table.count().get_result::<i64>(&mut observer).unwrap(), 0);
}
