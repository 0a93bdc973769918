//! A SQLite home that has only been read carries no decision: the one database that has written commits by itself.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use multidb::{AnyConn, Databases, Error, Model, Route, RouteRequest, Router, SqliteConn, atomic_many, schema};

use crate::fixture::{self, Kind};

diesel::table! { notes (id) { id -> BigInt, } }

#[derive(Model)]
#[model(app = "home")]
struct Home;

#[derive(Model)]
#[model(app = "away")]
struct Away;

struct ByApp;

impl Router for ByApp {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::to(request.app().to_owned())
    }
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

struct Pair {
    databases: Databases,
    file: String,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn new(kind: Kind) -> Option<Self> {
        let server = fixture::server(kind)?;
        let (create, url) = fixture::create_statement(kind, server, &fixture::fresh_name());
        match kind {
            Kind::Postgres => diesel::PgConnection::establish(server).unwrap().batch_execute(&create).unwrap(),
            _ => diesel::MysqlConnection::establish(server).unwrap().batch_execute(&create).unwrap(),
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("home.db").to_str().unwrap().to_owned();
        let databases = Databases::builder().sqlite("home", &*file);
        let databases = match kind {
            Kind::Postgres => databases.postgres("away", url),
            _ => databases.mysql("away", url),
        };
        let databases = databases.router(ByApp).build().unwrap();
        schema::install(&databases).unwrap();
        for alias in ["home", "away"] {
            let table = "CREATE TABLE notes (id BIGINT PRIMARY KEY)";
            let _entered = databases.clone().enter();
            multidb::connection_on::<AnyConn>(alias).unwrap().batch_execute(table).unwrap();
        }
        Some(Self { databases, file, _folder: folder })
    }

    /// How many transactions have needed a decision so far.
    fn decisions(&self) -> i64 {
        let mut observer = diesel::SqliteConnection::establish(&self.file).unwrap();
        diesel::sql_query("SELECT COUNT(*) AS n FROM multidb_decision").get_result::<Count>(&mut observer).unwrap().n
    }

    fn notes(&self, alias: &'static str) -> i64 {
        let _entered = self.databases.clone().enter();
        notes::table.count().get_result(&mut multidb::connection_on::<AnyConn>(alias).unwrap()).unwrap()
    }
}

type Part = fn(&mut SqliteConn) -> Result<(), Error>;

/// What is done at home, and whether it may have changed something.
const PARTS: [(&str, Part, bool); 7] = [
    ("a read", |conn| Ok(notes::table.count().get_result::<i64>(conn).map(drop)?), false),
    ("nothing", |_| Ok(()), false),
    ("no row to delete", |conn| Ok(diesel::delete(notes::table.find(-1)).execute(conn).map(drop)?), false),
    ("a row", |conn| Ok(diesel::insert_into(notes::table).values(notes::id.eq(1)).execute(conn).map(drop)?), true),
    ("a text", |conn| Ok(conn.batch_execute("INSERT INTO notes VALUES (2)")?), true),
    ("a table", |conn| Ok(conn.batch_execute("CREATE TABLE more (id INTEGER)")?), true),
    (
        "a row that is undone",
        |conn| {
            let _ = conn.transaction(|conn| {
                diesel::insert_into(notes::table).values(notes::id.eq(3)).execute(conn)?;
                Err::<(), _>(diesel::result::Error::RollbackTransaction)
            });
            Ok(())
        },
        true,
    ),
];

#[test]
fn a_home_that_has_only_been_read_carries_no_decision() {
    for kind in [Kind::Postgres, Kind::Mysql] {
        let Some(pair) = Pair::new(kind) else { return };
        let _entered = pair.databases.clone().enter();
        let mut expected = 0;
        for (id, (what, part, writes)) in (100..).zip(PARTS) {
            let run = atomic_many::<(Home, Away)>().run(|scope| {
                part(&mut scope.conn::<Home, SqliteConn>()?)?;
                let conn = &mut scope.conn::<Away, AnyConn>()?;
                diesel::insert_into(notes::table).values(notes::id.eq(id)).execute(conn)?;
                Ok::<_, Error>(())
            });
            run.unwrap_or_else(|error| panic!("{what}: {error}"));
            expected += i64::from(writes);
            assert_eq!(pair.decisions(), expected, "{what}");
        }
        assert_eq!((pair.notes("home"), pair.notes("away")), (2, i64::try_from(PARTS.len()).unwrap()));
    }
}
