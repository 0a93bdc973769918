//! Databases of different kinds that commit one after the other, among them those that could never be one transaction.

use std::cell::Cell;

use diesel::connection::{DefaultLoadingMode, SimpleConnection};
use diesel::prelude::*;
use multidb::testing::{Fault, Point, committed};
use multidb::{
    AnyConn, CommitMode, Databases, Error, Model, Route, RouteRequest, Router, SqliteConn, atomic, atomic_many,
    connection, scope,
};

use crate::fixture::{self, Kind};

diesel::table! { notes (id) { id -> BigInt, parent -> Nullable<BigInt>, } }

#[derive(Model)]
#[model(app = "first")]
struct First;

#[derive(Model)]
#[model(app = "second")]
struct Second;

#[derive(Model)]
#[model(app = "third")]
struct Third;

struct ByApp;

impl Router for ByApp {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::to(request.app().to_owned())
    }
}

const TABLE: &str = "CREATE TABLE notes (id BIGINT PRIMARY KEY, parent BIGINT)";
/// A row whose parent is missing is refused by COMMIT.
const DEFERRED: &str = "CREATE TABLE notes (id BIGINT PRIMARY KEY, \
                        parent BIGINT REFERENCES notes (id) DEFERRABLE INITIALLY DEFERRED)";
const ALIASES: [&str; 3] = ["first", "second", "third"];

/// Three files of SQLite.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        for alias in ALIASES {
            files.observer(alias).batch_execute(&format!("PRAGMA journal_mode = WAL; {DEFERRED}")).unwrap();
        }
        files
    }

    fn url(&self, alias: &str) -> String {
        self.folder.path().join(format!("{alias}.db")).to_str().unwrap().to_owned()
    }

    fn observer(&self, alias: &str) -> diesel::SqliteConnection {
        diesel::SqliteConnection::establish(&self.url(alias)).unwrap()
    }

    fn databases(&self) -> Databases {
        ALIASES
            .iter()
            .fold(Databases::builder(), |all, alias| all.sqlite(*alias, self.url(alias)))
            .router(ByApp)
            .build()
            .unwrap()
    }

    /// In which of them a row is.
    fn have(&self, id: i64) -> Vec<&'static str> {
        let is_there = |alias: &&str| {
            let found: i64 = notes::table.find(id).count().get_result(&mut self.observer(alias)).unwrap();
            found == 1
        };
        ALIASES.into_iter().filter(is_there).collect()
    }
}

fn insert(conn: &mut AnyConn, id: i64, parent: Option<i64>) -> Result<(), Error> {
    diesel::insert_into(notes::table).values((notes::id.eq(id), notes::parent.eq(parent))).execute(conn)?;
    Ok(())
}

/// Puts a row into each database; those that are named have no parent, which their COMMIT refuses.
fn put_all(id: i64, refused: &[&str]) -> Result<(), Error> {
    let parent = |alias: &str| refused.contains(&alias).then_some(-1);
    atomic_many::<(First, Second, Third)>().commit(CommitMode::BestEffort).run(|scope| {
        insert(&mut scope.conn::<First, AnyConn>()?, id, parent("first"))?;
        insert(&mut scope.conn::<Second, AnyConn>()?, id, parent("second"))?;
        insert(&mut scope.conn::<Third, AnyConn>()?, id, parent("third"))
    })
}

fn committed_and_failed(result: Result<(), Error>) -> (Vec<String>, Vec<String>) {
    let names = |aliases: Vec<multidb::Alias>| aliases.iter().map(ToString::to_string).collect();
    match result {
        Err(Error::PartialCommit { committed, failed }) => (names(committed), names(failed)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_three_files_in_wal_mode_the_first_commit_that_fails_ends_it() {
    let files = Files::new();
    let databases = files.databases();
    let _entered = databases.enter();
    put_all(1, &[]).unwrap();
    assert_eq!(files.have(1), ALIASES);
    let refused = put_all(2, &["third"]).unwrap_err();
    assert!(matches!(&refused, Error::Query(error) if error.to_string().contains("FOREIGN KEY")), "{refused}");
    assert!(files.have(2).is_empty());
    let (committed, failed) = committed_and_failed(put_all(3, &["second"]));
    assert_eq!((&committed[..], &failed[..]), (&["third".into()][..], &["second".into(), "first".into()][..]));
    assert_eq!(files.have(3), ["third"], "what was not tried any more is rolled back");
    let (committed, failed) = committed_and_failed(put_all(4, &["first"]));
    assert_eq!((&committed[..], &failed[..]), (&["third".into(), "second".into()][..], &["first".into()][..]));
    assert_eq!(files.have(4), ["second", "third"]);
    put_all(5, &[]).unwrap();
    assert_eq!(files.have(5), ALIASES);
}

#[test]
fn what_is_known_to_fail_is_found_out_before_anything_is_committed() {
    let files = Files::new();
    let databases = files.databases();
    let _entered = databases.enter();
    put_all(1, &[]).unwrap();
    let run = atomic_many::<(First, Second, Third)>().commit(CommitMode::BestEffort).run(|scope| {
        insert(&mut scope.conn::<Third, AnyConn>()?, 2, None)?;
        let mut first = scope.conn::<First, SqliteConn>()?;
        insert(&mut scope.conn::<First, AnyConn>()?, 2, None)?;
        // Nobody can end a transaction whose connection is lent to a cursor for ever.
        let reading = notes::table.select(notes::id).load_iter::<i64, DefaultLoadingMode>(&mut first)?;
        std::mem::forget(reading);
        Ok::<_, Error>(())
    });
    assert!(matches!(run, Err(Error::Busy { .. })), "{run:?}");
    assert!(files.have(2).is_empty());
}

#[test]
fn the_files_keep_their_own_settings() {
    let files = Files::new();
    let databases = files.databases();
    let _entered = databases.enter();
    let run = atomic_many::<(First, Second)>().commit(CommitMode::BestEffort).run(|scope| {
        for mut conn in [scope.conn::<First, SqliteConn>()?, scope.conn::<Second, SqliteConn>()?] {
            #[derive(QueryableByName)]
            struct Mode {
                #[diesel(sql_type = diesel::sql_types::Integer)]
                synchronous: i32,
            }
            let mode: Mode = diesel::sql_query("PRAGMA synchronous").get_result(&mut conn)?;
            assert_eq!(mode.synchronous, 2, "FULL, SQLite's default: there is no decision to be kept");
        }
        Ok::<_, Error>(())
    });
    run.unwrap();
}

/// A database in memory, a file, PostgreSQL and MariaDB, without any table of the library.
#[test]
fn databases_that_could_never_prepare_take_part_beside_those_that_could() {
    let (Some(postgres), Some(mysql)) = (fixture::server(Kind::Postgres), fixture::server(Kind::Mysql)) else { return };
    let files = Files::new();
    let [pg, my] = [(Kind::Postgres, postgres), (Kind::Mysql, mysql)].map(|(kind, server)| {
        let (create, url) = fixture::create_statement(kind, server, &fixture::fresh_name());
        if kind == Kind::Postgres {
            diesel::PgConnection::establish(server).unwrap().batch_execute(&create).unwrap();
            diesel::PgConnection::establish(&url).unwrap().batch_execute(DEFERRED).unwrap();
        } else {
            diesel::MysqlConnection::establish(server).unwrap().batch_execute(&create).unwrap();
            diesel::MysqlConnection::establish(&url).unwrap().batch_execute(TABLE).unwrap();
        }
        url
    });
    let in_pg = |id: i64| notes::table.find(id).count().get_result(&mut diesel::PgConnection::establish(&pg).unwrap());
    let in_my =
        |id: i64| notes::table.find(id).count().get_result(&mut diesel::MysqlConnection::establish(&my).unwrap());
    let builder = || Databases::builder().router(ByApp);
    // PostgreSQL beside two that can't prepare.
    let databases = builder()
        .postgres("first", &pg)
        .sqlite("second", ":memory:")
        .sqlite("third", files.url("third"))
        .build()
        .unwrap();
    let _entered = databases.enter();
    connection::<Second, SqliteConn>().unwrap().batch_execute(TABLE).unwrap();
    let in_memory =
        |id: i64| notes::table.find(id).count().get_result::<i64>(&mut connection::<Second, SqliteConn>().unwrap());
    put_all(1, &[]).unwrap();
    assert_eq!((in_pg(1), in_memory(1), files.have(1)), (Ok(1), Ok(1), vec!["third"]));
    let (committed, failed) = committed_and_failed(put_all(2, &["first"]));
    assert_eq!((committed, failed), (vec!["third".into(), "second".into()], vec!["first".into()]));
    assert_eq!((in_pg(2), in_memory(2), files.have(2)), (Ok(0), Ok(1), vec!["third"]));
    // They join later too, whoever is first.
    let late = atomic::<Third>().commit(CommitMode::BestEffort).run(|conn: &mut AnyConn| {
        insert(conn, 3, None)?;
        insert(&mut connection::<Second, AnyConn>()?, 3, None)?;
        insert(&mut connection::<First, AnyConn>()?, 3, Some(-1))
    });
    let refused = late.unwrap_err();
    assert!(matches!(&refused, Error::Query(_)), "the last to join is the first to commit: {refused}");
    assert_eq!((in_pg(3), in_memory(3), files.have(3)), (Ok(0), Ok(0), vec![]));
    // MariaDB beside two files.
    let databases =
        builder().mysql("first", &my).sqlite("second", files.url("second")).sqlite("third", files.url("third"));
    let databases = databases.build().unwrap();
    let _entered = databases.enter();
    put_all(5, &[]).unwrap();
    assert_eq!((in_my(5), files.have(5)), (Ok(1), vec!["second", "third"]));
    assert!(matches!(put_all(6, &["third"]), Err(Error::Query(_))));
    assert_eq!((in_my(6), files.have(6)), (Ok(0), vec![]));
}

/// A DDL on MariaDB commits what was done before it there. Its own error may be swallowed, that of the scope is not.
#[test]
fn an_implicit_commit_is_reported_and_nothing_is_run_again() {
    let Some(mysql) = fixture::server(Kind::Mysql) else { return };
    let files = Files::new();
    let (create, my) = fixture::create_statement(Kind::Mysql, mysql, &fixture::fresh_name());
    diesel::MysqlConnection::establish(mysql).unwrap().batch_execute(&create).unwrap();
    let mut observer = diesel::MysqlConnection::establish(&my).unwrap();
    observer.batch_execute(TABLE).unwrap();
    let builder = |server: &'static str, file: &'static str| {
        Databases::builder().mysql(server, &my).sqlite(file, files.url("third")).router(ByApp).build().unwrap()
    };
    let runs = Cell::new(0);
    let rolled_back = std::rc::Rc::new(Cell::new(0));
    let ddl = |id: i64, refused: Option<i64>, server_first: bool| {
        runs.set(0);
        atomic_many::<(First, Second)>().commit(CommitMode::BestEffort).retry(3).run(|opened| {
            runs.set(runs.get() + 1);
            let hook = std::rc::Rc::clone(&rolled_back);
            scope::on_rollback(move || hook.set(hook.get() + 1));
            let (first, second) = (opened.conn::<First, AnyConn>()?, opened.conn::<Second, AnyConn>()?);
            let (mut server, mut file) = if server_first { (first, second) } else { (second, first) };
            insert(&mut file, id, refused)?;
            insert(&mut server, id, None)?;
            let made = diesel::sql_query(format!("CREATE TABLE made_{id} (id BIGINT)")).execute(&mut server);
            assert!(matches!(made.map_err(Error::from), Err(Error::ImplicitCommit { .. })));
            // What is undone and might pass is no reason either.
            let _ = atomic::<Second>().run(|conn: &mut AnyConn| insert(conn, id + 100, None));
            Ok::<_, Error>(())
        })
    };
    let mut in_my = |id: i64| notes::table.find(id).count().get_result::<i64>(&mut observer);
    // The server would commit first.
    {
        let _entered = builder("second", "first").enter();
        let error = ddl(1, None, false).unwrap_err();
        assert!(matches!(&error, Error::ImplicitCommit { database, .. } if *database == "second"), "{error}");
        assert_eq!((runs.get(), in_my(1), files.have(1)), (1, Ok(1), vec![]));
    }
    // The file would, and its COMMIT would fail.
    let _entered = builder("first", "second").enter();
    let error = ddl(2, Some(-1), true).unwrap_err();
    assert!(matches!(&error, Error::ImplicitCommit { database, .. } if *database == "first"), "{error}");
    assert_eq!((runs.get(), in_my(2), files.have(2)), (1, Ok(1), vec![]));
    let test = committed(&Databases::current().unwrap()).unwrap();
    test.fail_after("second", Point::Statement, 1, Fault::LockTimeout).unwrap();
    let error = ddl(4, Some(-1), true).unwrap_err();
    assert!(matches!(&error, Error::ImplicitCommit { database, .. } if *database == "first"), "{error}");
    assert_eq!((runs.get(), in_my(4), files.have(4)), (1, Ok(1), vec![]));
    drop(test);
    let error = ddl(3, None, true).unwrap_err();
    assert!(matches!(&error, Error::ImplicitCommit { database, .. } if *database == "first"), "{error}");
    assert_eq!((runs.get(), in_my(3), files.have(3)), (1, Ok(1), vec![]));
}
