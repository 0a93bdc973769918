//! The test's databases on this backend, and the models and functions that the claims are about.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{DatabaseConfig, Databases, DatabasesBuilder, Error, Model, Route, RouteRequest, Router, transactional};

use super::{H, KIND, Raw};
use crate::fixture::{self, Kind};

diesel::table! { items (id) { id -> BigInt, value -> BigInt, } }

/// Lives on `default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable, Selectable, Insertable, Identifiable, AsChangeset, Model)]
#[diesel(table_name = items)]
#[model(app = "shop")]
pub(crate) struct Item {
    pub(crate) id: i64,
    pub(crate) value: i64,
}

/// Lives on `other`.
#[derive(Debug, Model)]
#[diesel(table_name = items)]
#[model(app = "audit")]
pub(crate) struct Record;

/// Sends the app `audit` to `other`.
pub(crate) struct ByApp;

impl Router for ByApp {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        if request.app() == "audit" { Route::to("other") } else { Route::pass() }
    }
}

/// The databases of one test.
pub(crate) struct Fixture {
    pub(crate) urls: [String; 2],
    _folder: Option<tempfile::TempDir>,
}

/// Two fresh databases, `default` and `other`, each with an empty table `items`; `None` where there is no server.
pub(crate) fn fixture() -> Option<Fixture> {
    let server = fixture::server(KIND)?;
    let folder = (KIND == Kind::Sqlite).then(|| tempfile::tempdir().unwrap());
    let urls = ["default", "other"].map(|name| {
        if let Some(folder) = &folder {
            return folder.path().join(format!("{name}.db")).to_str().unwrap().to_owned();
        }
        let (create, url) = fixture::create_statement(KIND, server, &fixture::fresh_name());
        Raw::establish(server).unwrap().batch_execute(&create).unwrap();
        url
    });
    for url in &urls {
        let table = "CREATE TABLE items (id BIGINT PRIMARY KEY, value BIGINT NOT NULL)";
        Raw::establish(url).unwrap().batch_execute(table).unwrap();
    }
    Some(Fixture { urls, _folder: folder })
}

impl Fixture {
    /// A builder with both databases, each with a pool of `size`.
    pub(crate) fn builder(&self, size: u32) -> DatabasesBuilder {
        let [default, other] = ["default", "other"].map(|alias| {
            let at = usize::from(alias == "other");
            let mut config = DatabaseConfig::new(alias, self.urls[at].clone());
            config.pool.max_size = Some(size);
            config.pool.connection_timeout = Some("10s".into());
            config
        });
        Databases::builder().database(default).database(other).router(ByApp)
    }

    pub(crate) fn databases(&self) -> Databases {
        self.builder(4).build().unwrap()
    }

    /// A connection that knows nothing of the library.
    pub(crate) fn observer(&self, alias: &str) -> Raw {
        Raw::establish(&self.urls[usize::from(alias == "other")]).unwrap()
    }

    /// What a database holds.
    pub(crate) fn rows(&self, alias: &str) -> Vec<(i64, i64)> {
        items::table.order(items::id).load(&mut self.observer(alias)).unwrap()
    }
}

/// How many connections of a pool are out.
pub(crate) fn in_use(databases: &Databases, alias: &str) -> u32 {
    let state = databases.database(alias).unwrap().pool_state();
    state.connections - state.idle_connections
}

#[transactional(Item)]
pub(crate) fn put(#[conn] conn: &mut H, id: i64, value: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(value))).execute(conn)?;
    Ok(())
}

/// Puts a row and then fails.
#[transactional(Item)]
pub(crate) fn put_and_fail(#[conn] conn: &mut H, id: i64) -> Result<(), Mishap> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(0))).execute(conn)?;
    Err(Mishap::OnPurpose)
}

#[transactional(Record)]
pub(crate) fn put_record(#[conn] conn: &mut H, id: i64, value: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(value))).execute(conn)?;
    Ok(())
}

#[transactional(Record, propagation = requires_new)]
pub(crate) fn put_record_apart(#[conn] conn: &mut H, id: i64, value: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values((items::id.eq(id), items::value.eq(value))).execute(conn)?;
    Ok(())
}

/// An error type as users write them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Mishap {
    #[error("on purpose")]
    OnPurpose,
    #[error(transparent)]
    Query(#[from] diesel::result::Error),
    #[error(transparent)]
    Database(#[from] Error),
}
