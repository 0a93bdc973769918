//! One operation, many times, with this library or with hand-written Diesel. `scripts/bench` counts the instructions.
//!
//! `instructions CASE ours|diesel N` prints the nanoseconds of one operation. Both sides run the same statements on the
//! same tables, with a pool of the same size that doesn't ping. The hand-written side is what one writes without a
//! library: take a connection, call Diesel's `transaction` on it.

mod by_hand;
mod ours;

use std::error::Error;
use std::time::Instant;

use diesel::prelude::*;
use multidb::prelude::*;

/// Opens the connection, and prepares the statement.
const WARM_UP: u32 = 10;
/// How many rows the table has.
const ROWS: u32 = 1_000;
/// The most connections of a pool. One is used; it is opened when it is first asked for.
const POOL_SIZE: u32 = 4;
/// What both sides set on a SQLite connection.
const JOURNAL_MODE: &str = "wal";

type Outcome = Result<(), Box<dyn Error>>;
/// Runs an operation this many times.
type Case = Box<dyn Fn(u32) -> Outcome>;

diesel::table! { bench_rows (id) { id -> BigInt, value -> BigInt, name -> Text, } }

#[derive(Queryable, Model)]
#[diesel(table_name = bench_rows)]
#[model(app = "bench")]
#[expect(dead_code, reason = "loaded, never looked at")]
struct BenchRow {
    id: i64,
    value: i64,
    name: String,
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, side, n] = &arguments[..] else {
        return Err("usage: instructions CASE ours|diesel N (scripts/bench does this)".into());
    };
    let n: u32 = n.parse()?;
    let folder = tempfile::tempdir()?;
    let url = if case.starts_with("pg_") {
        std::env::var("MULTIDB_TEST_POSTGRES_URL")?
    } else {
        folder.path().join("bench.db").display().to_string()
    };
    fill(&url)?;
    let operation = match &side[..] {
        "ours" => ours::case(case, &url),
        "diesel" => by_hand::case(case, &url),
        _ => Err(format!("there is no side `{side}`").into()),
    }?;
    operation(WARM_UP)?;
    let begin = Instant::now();
    operation(n)?;
    println!("{:.0}", begin.elapsed().as_secs_f64() * 1e9 / f64::from(n));
    Ok(())
}

/// Makes the table anew.
fn fill(url: &str) -> Outcome {
    let values: Vec<String> = (1..=ROWS).map(|id| format!("({id}, 0, 'the row number {id:04}')")).collect();
    let table = "CREATE TABLE bench_rows (id BIGINT PRIMARY KEY, value BIGINT NOT NULL, name TEXT NOT NULL)";
    let sql = format!("{table}; INSERT INTO bench_rows VALUES {}", values.join(", "));
    if url.starts_with("postgres") {
        let quiet = "SET client_min_messages = warning; DROP TABLE IF EXISTS bench_rows";
        PgConnection::establish(url)?.batch_execute(&format!("{quiet}; {sql}"))?;
    } else {
        SqliteConnection::establish(url)?.batch_execute(&format!("PRAGMA journal_mode = {JOURNAL_MODE}; {sql}"))?;
    }
    Ok(())
}

/// The ids of n rows, over and over.
fn ids(n: u32) -> impl Iterator<Item = i64> {
    (0..n).map(|at| i64::from(at % ROWS) + 1)
}

/// Statements that both sides run.
mod statements {
    use diesel::connection::LoadConnection;
    use diesel::pg::Pg;
    use diesel::prelude::*;
    use diesel::sqlite::Sqlite;

    use super::{BenchRow, bench_rows};

    pub fn pg_select(conn: &mut impl LoadConnection<Backend = Pg>, id: i64) -> QueryResult<BenchRow> {
        bench_rows::table.find(id).first(conn)
    }

    pub fn pg_update(conn: &mut impl Connection<Backend = Pg>, id: i64) -> QueryResult<usize> {
        diesel::update(bench_rows::table.find(id)).set(bench_rows::value.eq(bench_rows::value + 1)).execute(conn)
    }

    pub fn sqlite_select(conn: &mut impl LoadConnection<Backend = Sqlite>, id: i64) -> QueryResult<BenchRow> {
        bench_rows::table.find(id).first(conn)
    }

    pub fn sqlite_load(conn: &mut impl LoadConnection<Backend = Sqlite>) -> QueryResult<Vec<BenchRow>> {
        bench_rows::table.load(conn)
    }
}
