//! Two aliases of one SQLite file, and two that only look like one.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use multidb::{
    Databases, Error, Route, RouteRequest, Router, SqliteConn, atomic, atomic_on, connection, connection_on,
};

use crate::sqlite::*;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../tests/it/migrations");
const TABLE: &str = "CREATE TABLE items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)";

/// Gives `default` and `other` in turn.
struct InTurn(std::sync::atomic::AtomicU32);

impl Router for InTurn {
    fn select_db(&self, _request: &RouteRequest<'_>) -> Route {
        let turn = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Route::to(if turn.is_multiple_of(2) { "default" } else { "other" })
    }
}

fn count(alias: &'static str) -> i64 {
    items::table.count().get_result(&mut connection_on::<SqliteConn>(alias).unwrap()).unwrap()
}

/// A file under its own name and behind a symbolic link.
#[cfg(unix)]
fn linked(folder: &std::path::Path) -> Databases {
    let (file, link) = (folder.join("a.db"), folder.join("link.db"));
    SqliteConnection::establish(file.to_str().unwrap()).unwrap().batch_execute(TABLE).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    Databases::builder().sqlite("default", file).sqlite("other", link).router(ByApp).build().unwrap()
}

#[cfg(all(unix, feature = "testing"))]
#[test]
fn a_test_has_one_connection_for_a_file_under_two_names() {
    use multidb::testing::{Fault, Point, rolled_back};
    let folder = tempfile::tempdir().unwrap();
    let test = rolled_back(&linked(folder.path())).unwrap();
    put(1, 10).unwrap();
    put_record(2, 20).unwrap();
    assert_eq!((count("default"), count("other")), (2, 2));
    test.fail("other", Point::Statement, Fault::Refused).unwrap();
    assert_eq!(test.faults_left(), 1);
    put(3, 30).unwrap_err();
    assert_eq!(test.faults_left(), 0);
}

#[cfg(feature = "testing")]
#[test]
fn two_databases_in_memory_are_two_in_a_test_as_well() {
    let databases = Databases::builder().sqlite("default", ":memory:").sqlite("other", ":memory:").build().unwrap();
    let _test = multidb::testing::rolled_back(&databases).unwrap();
    for alias in ["default", "other"] {
        connection_on::<SqliteConn>(alias).unwrap().batch_execute(TABLE).unwrap();
    }
    connection_on::<SqliteConn>("other").unwrap().batch_execute("INSERT INTO items VALUES (1, 1)").unwrap();
    assert_eq!((count("default"), count("other")), (0, 1));
}

#[test]
fn migrations_reach_a_database_in_memory() {
    let databases = Databases::builder().sqlite("default", ":memory:").build().unwrap();
    let _entered = databases.enter();
    for ran in [1, 0] {
        let report = databases.migrate("library", MIGRATIONS).unwrap();
        assert_eq!(report.applied().next().unwrap().1.versions.len(), ran);
    }
    let rows = diesel::sql_query("SELECT id FROM books").execute(&mut connection::<Item, SqliteConn>().unwrap());
    rows.unwrap();
    multidb::schema::install(&databases).unwrap();
    let once = atomic_on("default").label("once").once("key").run(|_: &mut SqliteConn| Ok::<_, Error>(1));
    assert_eq!(once.unwrap(), 1);
}

#[cfg(unix)]
#[test]
fn a_route_to_the_same_file_under_another_name_is_no_other_route() {
    let folder = tempfile::tempdir().unwrap();
    let databases = linked(folder.path()).with_router(InTurn(std::sync::atomic::AtomicU32::new(0)));
    let _entered = databases.enter();
    atomic::<Item>().run(|_: &mut SqliteConn| put(1, 10)).unwrap();
    assert_eq!(count("default"), 1);
    // Nor a relation over two databases.
    let databases = databases.with_router(ByApp);
    databases.check_relation::<Item, Record>().unwrap();
}

#[test]
fn a_question_mark_in_a_path_belongs_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a?1.db", "a?2.db"].map(|name| folder.path().join(name));
    for file in &files {
        SqliteConnection::establish(file.to_str().unwrap()).unwrap().batch_execute(TABLE).unwrap();
    }
    let [first, second] = files;
    let databases =
        Databases::builder().sqlite("default", first).sqlite("other", second).router(ByApp).build().unwrap();
    let _entered = databases.enter();
    let run = atomic::<Item>().run(|_: &mut SqliteConn| put_record(1, 10));
    assert!(matches!(run, Err(Error::NotAtomic { .. })), "{run:?}");
}
