//! Fresh databases of any kinds, each with a table of its own.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Databases, Model, Route, RouteRequest, Router, schema};

use crate::servers;

diesel::table! { accounts (id) { id -> BigInt, } }
diesel::table! { entries (id) { id -> BigInt, } }
diesel::table! { audits (id) { id -> BigInt, } }

/// On the first database.
#[derive(Model)]
#[model(app = "accounts")]
pub(crate) struct Account;

/// On the second.
#[derive(Model)]
#[model(app = "entries")]
pub(crate) struct Entry;

/// On the last.
#[derive(Model)]
#[model(app = "audits")]
pub(crate) struct Audit;

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MariaDb,
    Sqlite,
}

/// The databases of one test, with their tables in this order.
pub(crate) struct Places {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) urls: Vec<String>,
    folder: tempfile::TempDir,
}

/// A connection that knows nothing of the library.
enum Observer {
    Postgres(diesel::PgConnection),
    MariaDb(diesel::MysqlConnection),
    Sqlite(diesel::SqliteConnection),
}

macro_rules! on {
    ($observer:expr, $raw:ident => $work:expr) => {
        match &mut $observer {
            Observer::Postgres($raw) => $work,
            Observer::MariaDb($raw) => $work,
            Observer::Sqlite($raw) => $work,
        }
    };
}

#[derive(QueryableByName)]
struct Id {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    id: i64,
}

const TABLES: [&str; 3] = ["accounts", "entries", "audits"];

impl Places {
    /// `None` where a server is missing, visibly.
    pub(crate) fn new(kinds: &[Kind]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut places = Self { kinds: kinds.to_vec(), urls: Vec::new(), folder };
        for (kind, table) in kinds.iter().zip(TABLES) {
            let url = places.make(*kind, table)?;
            places.urls.push(url);
        }
        for (at, table) in TABLES.iter().take(kinds.len()).enumerate() {
            let create = format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY)");
            on!(places.observer(at), raw => raw.batch_execute(&create)).unwrap();
        }
        schema::install(&places.databases()).unwrap();
        Some(places)
    }

    fn make(&self, kind: Kind, name: &str) -> Option<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let fresh = format!("c_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Some(match kind {
            Kind::Postgres => {
                let server = servers::postgres_url()?;
                let create = format!("CREATE SCHEMA {fresh}");
                diesel::PgConnection::establish(server).unwrap().batch_execute(&create).unwrap();
                format!("{server}?options=-csearch_path%3D{fresh}")
            }
            Kind::MariaDb => {
                let server = servers::mysql_url()?;
                let create = format!("CREATE DATABASE {fresh}");
                diesel::MysqlConnection::establish(server).unwrap().batch_execute(&create).unwrap();
                format!("{}/{fresh}", server.rsplit_once('/').unwrap().0)
            }
            Kind::Sqlite => self.folder.path().join(format!("{name}.db")).to_str().unwrap().to_owned(),
        })
    }

    fn observer(&self, at: usize) -> Observer {
        let url = &self.urls[at];
        match self.kinds[at] {
            Kind::Postgres => Observer::Postgres(diesel::PgConnection::establish(url).unwrap()),
            Kind::MariaDb => Observer::MariaDb(diesel::MysqlConnection::establish(url).unwrap()),
            Kind::Sqlite => Observer::Sqlite(diesel::SqliteConnection::establish(url).unwrap()),
        }
    }

    /// The registry of this process.
    pub(crate) fn databases(&self) -> Databases {
        registry(self.urls.iter().map(String::as_str))
    }

    /// Runs a text on one database.
    pub(crate) fn execute(&self, at: usize, sql: &str) {
        on!(self.observer(at), raw => raw.batch_execute(sql)).unwrap();
    }

    /// The ids in the table of one database.
    pub(crate) fn rows(&self, at: usize) -> Vec<i64> {
        self.ids(at, &format!("SELECT id FROM {} ORDER BY id", TABLES[at]))
    }

    fn ids(&self, at: usize, query: &str) -> Vec<i64> {
        let found: Vec<Id> = on!(self.observer(at), raw => diesel::sql_query(query).load(raw)).unwrap();
        found.into_iter().map(|row| row.id).collect()
    }

    /// How many branches of the library are prepared in one database.
    pub(crate) fn prepared(&self, at: usize) -> usize {
        #[derive(QueryableByName)]
        struct Own {
            #[diesel(sql_type = diesel::sql_types::Text)]
            id: String,
        }
        #[derive(QueryableByName)]
        struct Prepared {
            #[diesel(sql_type = diesel::sql_types::Text)]
            data: String,
        }
        let own = "SELECT CAST(database_id AS CHAR(12)) AS id FROM multidb_meta";
        let own: Own = on!(self.observer(at), raw => diesel::sql_query(own).get_result(raw)).unwrap();
        let listed: Vec<Prepared> = match self.observer(at) {
            Observer::Postgres(mut raw) => {
                diesel::sql_query("SELECT gid AS data FROM pg_prepared_xacts").load(&mut raw).unwrap()
            }
            Observer::MariaDb(mut raw) => diesel::sql_query("XA RECOVER").load(&mut raw).unwrap(),
            Observer::Sqlite(_) => Vec::new(),
        };
        listed.iter().filter(|prepared| prepared.data.ends_with(&own.id)).count()
    }
}

/// The registry of the databases at these URLs.
pub(crate) fn registry<'a>(urls: impl Iterator<Item = &'a str>) -> Databases {
    let mut builder = Databases::builder().router(ByApp);
    for (alias, url) in TABLES.into_iter().zip(urls) {
        builder = match url.split_once("://") {
            Some(("postgres", _)) => builder.postgres(alias, url),
            Some(("mysql", _)) => builder.mysql(alias, url),
            _ => builder.sqlite(alias, url),
        };
    }
    builder.build().unwrap()
}

struct ByApp;

impl Router for ByApp {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        Route::to(request.app().to_owned())
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, kind) in self.kinds.iter().enumerate() {
            write!(f, "{}{kind:?}", if at == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}
