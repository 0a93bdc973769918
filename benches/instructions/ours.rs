//! With this library.

use std::hint::black_box;

use multidb::prelude::*;
use multidb::{__private as private, Access, DatabaseConfig, Error, SqliteConn, StaticRouter};

use super::{BenchRow, Case, JOURNAL_MODE, POOL_SIZE, ids, statements};

struct BenchRouter;

impl Router for BenchRouter {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        if request.app() == "bench" { Route::prefer("bench") } else { Route::pass() }
    }
}

pub fn case(name: &str, url: &str) -> Result<Case, Box<dyn std::error::Error>> {
    let mut config = DatabaseConfig::new("bench", url);
    config.pool.max_size = Some(POOL_SIZE);
    config.sqlite.journal_mode = Some(JOURNAL_MODE.into());
    if name == "route" {
        return route(config);
    }
    Databases::builder().database(config).router(BenchRouter).install()?;
    Ok(match name {
        "pg_statement" => Box::new(|n| Ok(pg_statements(n)?)),
        "pg_scope" => each(pg_scope),
        "pg_update" => Box::new(|n| Ok(pg_updates(n)?)),
        "pg_nested" => each(pg_outer),
        "sqlite_select" => Box::new(|n| Ok(sqlite_selects(n)?)),
        "sqlite_scope" => each(sqlite_scope),
        "sqlite_autocommit" => each(sqlite_autocommit),
        "sqlite_load_1000" => Box::new(|n| Ok(sqlite_loads(n)?)),
        "empty_scope" => each(empty_scope),
        _ => return Err(format!("there is no case `{name}`").into()),
    })
}

fn each<T: 'static>(operation: fn(i64) -> Result<T, Error>) -> Case {
    Box::new(move |n| {
        for id in ids(n) {
            black_box(operation(id)?);
        }
        Ok(())
    })
}

/// Passes on everything that has no hint.
struct ByTenant;

impl Router for ByTenant {
    fn select_db(&self, request: &RouteRequest<'_>) -> Route {
        match request.hint::<u32>() {
            Some(_) => Route::refuse("there are no tenants"),
            None => Route::pass(),
        }
    }
}

/// The decision alone, by the last of three routers.
fn route(config: DatabaseConfig) -> Result<Case, Box<dyn std::error::Error>> {
    let table = StaticRouter::new().prefer_app("shop", "shop").prefer_app("ledger", "ledger");
    let databases = Databases::builder().database(config).router(ByTenant).router(table).router(BenchRouter).build()?;
    Ok(Box::new(move |n| {
        for _ in 0..n {
            black_box(private::route::<BenchRow>(&databases, Access::Write)?);
        }
        Ok(())
    }))
}

#[transactional(BenchRow)]
fn pg_statements(#[conn] conn: &mut PgConn, n: u32) -> Result<(), Error> {
    for id in ids(n) {
        black_box(statements::pg_select(conn, id)?);
    }
    Ok(())
}

#[transactional(BenchRow)]
fn pg_scope(#[conn] conn: &mut PgConn, id: i64) -> Result<BenchRow, Error> {
    Ok(statements::pg_select(conn, id)?)
}

#[transactional(BenchRow)]
fn pg_updates(#[conn] conn: &mut PgConn, n: u32) -> Result<(), Error> {
    for id in ids(n) {
        black_box(statements::pg_update(conn, id)?);
    }
    Ok(())
}

#[transactional(BenchRow)]
fn pg_outer(id: i64) -> Result<(), Error> {
    black_box(pg_scope(id)?);
    black_box(pg_scope(id)?);
    Ok(())
}

#[transactional(BenchRow)]
fn sqlite_selects(#[conn] conn: &mut SqliteConn, n: u32) -> Result<(), Error> {
    for id in ids(n) {
        black_box(statements::sqlite_select(conn, id)?);
    }
    Ok(())
}

#[transactional(BenchRow)]
fn sqlite_scope(#[conn] conn: &mut SqliteConn, id: i64) -> Result<BenchRow, Error> {
    Ok(statements::sqlite_select(conn, id)?)
}

fn sqlite_autocommit(id: i64) -> Result<BenchRow, Error> {
    let conn = &mut connection::<BenchRow, SqliteConn>()?;
    Ok(statements::sqlite_select(conn, id)?)
}

#[transactional(BenchRow)]
fn sqlite_loads(#[conn] conn: &mut SqliteConn, n: u32) -> Result<(), Error> {
    for _ in 0..n {
        black_box(statements::sqlite_load(conn)?);
    }
    Ok(())
}

#[transactional(BenchRow)]
fn empty_scope(#[conn] conn: &mut SqliteConn, _id: i64) -> Result<(), Error> {
    black_box(conn);
    Ok(())
}
