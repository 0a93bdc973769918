//! With Diesel and r2d2 alone.

use std::error::Error;
use std::hint::black_box;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::r2d2::{self, ConnectionManager, CustomizeConnection, Pool, R2D2Connection};

use super::{Case, JOURNAL_MODE, Outcome, POOL_SIZE, ids, statements};

type Pooled<C> = Pool<ConnectionManager<C>>;

/// What our configuration sets as well.
#[derive(Debug)]
struct Session;

impl CustomizeConnection<SqliteConnection, r2d2::Error> for Session {
    fn on_acquire(&self, conn: &mut SqliteConnection) -> Result<(), r2d2::Error> {
        let pragmas = "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = 1";
        conn.batch_execute(&format!("{pragmas}; PRAGMA journal_mode = {JOURNAL_MODE}")).map_err(r2d2::Error::QueryError)
    }
}

fn pool<C: R2D2Connection + 'static>() -> r2d2::Builder<ConnectionManager<C>> {
    Pool::builder().max_size(POOL_SIZE).min_idle(Some(0)).test_on_check_out(false)
}

pub fn case(name: &str, url: &str) -> Result<Case, Box<dyn Error>> {
    if name.starts_with("pg_") {
        let pool = pool().build(ConnectionManager::new(url))?;
        return Ok(match name {
            "pg_statement" => Box::new(move |n| pg_statements(&pool, n)),
            "pg_scope" => Box::new(move |n| ids(n).try_for_each(|id| pg_scope(&pool, id))),
            "pg_update" => Box::new(move |n| pg_updates(&pool, n)),
            "pg_nested" => Box::new(move |n| ids(n).try_for_each(|id| pg_nested(&pool, id))),
            _ => return Err(format!("there is no case `{name}` by hand").into()),
        });
    }
    let pool = pool().connection_customizer(Box::new(Session)).build(ConnectionManager::new(url))?;
    Ok(match name {
        "sqlite_select" => Box::new(move |n| sqlite_selects(&pool, n)),
        "sqlite_scope" => Box::new(move |n| ids(n).try_for_each(|id| sqlite_scope(&pool, id))),
        "sqlite_autocommit" => Box::new(move |n| ids(n).try_for_each(|id| sqlite_autocommit(&pool, id))),
        "sqlite_load_1000" => Box::new(move |n| sqlite_loads(&pool, n)),
        _ => return Err(format!("there is no case `{name}` by hand").into()),
    })
}

fn pg_statements(pool: &Pooled<PgConnection>, n: u32) -> Outcome {
    pool.get()?.transaction(|conn| {
        for id in ids(n) {
            black_box(statements::pg_select(conn, id)?);
        }
        Ok(())
    })
}

fn pg_scope(pool: &Pooled<PgConnection>, id: i64) -> Outcome {
    black_box(pool.get()?.transaction(|conn| statements::pg_select(conn, id))?);
    Ok(())
}

fn pg_updates(pool: &Pooled<PgConnection>, n: u32) -> Outcome {
    pool.get()?.transaction(|conn| {
        for id in ids(n) {
            black_box(statements::pg_update(conn, id)?);
        }
        Ok(())
    })
}

fn pg_nested(pool: &Pooled<PgConnection>, id: i64) -> Outcome {
    pool.get()?.transaction(|conn| {
        black_box(conn.transaction(|conn| statements::pg_select(conn, id))?);
        black_box(conn.transaction(|conn| statements::pg_select(conn, id))?);
        Ok(())
    })
}

fn sqlite_selects(pool: &Pooled<SqliteConnection>, n: u32) -> Outcome {
    pool.get()?.immediate_transaction(|conn| {
        for id in ids(n) {
            black_box(statements::sqlite_select(conn, id)?);
        }
        Ok(())
    })
}

fn sqlite_scope(pool: &Pooled<SqliteConnection>, id: i64) -> Outcome {
    black_box(pool.get()?.immediate_transaction(|conn| statements::sqlite_select(conn, id))?);
    Ok(())
}

fn sqlite_autocommit(pool: &Pooled<SqliteConnection>, id: i64) -> Outcome {
    let conn = &mut *pool.get()?;
    black_box(statements::sqlite_select(conn, id)?);
    Ok(())
}

fn sqlite_loads(pool: &Pooled<SqliteConnection>, n: u32) -> Outcome {
    pool.get()?.immediate_transaction(|conn| {
        for _ in 0..n {
            black_box(statements::sqlite_load(conn)?);
        }
        Ok(())
    })
}
