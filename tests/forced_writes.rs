//! How often PostgreSQL forces its log to disk: what a transaction over two databases costs beside a plain commit. Alone in
//! this program, because the server counts for all sessions together.

#![expect(clippy::unwrap_used, reason = "a test that can't go on panics")]

#[path = "support/servers.rs"]
#[expect(dead_code, reason = "of the servers one is needed")]
mod servers;

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use multidb::{Databases, Error, Model, PgConn, Route, RouteRequest, Router, atomic, atomic_many, schema};

diesel::table! { items (id) { id -> BigInt, } }

/// On `home`.
#[derive(Model)]
#[model(app = "home")]
struct Home;

/// On `other`.
#[derive(Model)]
#[model(app = "other")]
struct Other;

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

/// How many transactions are counted. Fewer than those after which rows are deleted.
const TRANSACTIONS: i64 = 60;
/// How long the server may take to see that a client has gone.
const LIMIT: Duration = Duration::from_secs(30);

struct Places {
    urls: [String; 2],
    observer: PgConnection,
}

impl Places {
    fn new() -> Option<Self> {
        let server = servers::postgres_url()?;
        let mut observer = PgConnection::establish(server).unwrap();
        let urls = ["home", "other"].map(|name| {
            let fresh = format!("f_{}_{name}", std::process::id());
            let create = format!("CREATE SCHEMA {fresh}; CREATE TABLE {fresh}.items (id BIGINT PRIMARY KEY)");
            observer.batch_execute(&create).unwrap();
            format!("{server}?options=-csearch_path%3D{fresh}")
        });
        let mut places = Self { urls, observer };
        schema::install(&places.databases()).unwrap();
        places.forced_writes();
        Some(places)
    }

    fn databases(&self) -> Databases {
        Databases::builder()
            .router(ByApp)
            .postgres("home", &*self.urls[0])
            .postgres("other", &*self.urls[1])
            .build()
            .unwrap()
    }

    fn count(&mut self, query: &str) -> i64 {
        diesel::sql_query(query).get_result::<Count>(&mut self.observer).unwrap().n
    }

    /// The server's count, once all other sessions have ended: each tells what it has done at its end.
    fn forced_writes(&mut self) -> i64 {
        let others = "SELECT COUNT(*) AS n FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> \
                      pg_backend_pid()";
        let begin = Instant::now();
        while self.count(others) > 0 {
            assert!(begin.elapsed() < LIMIT, "other sessions use the server");
            std::thread::yield_now();
        }
        self.observer.batch_execute("SELECT pg_stat_clear_snapshot()").unwrap();
        let counted = "SELECT COUNT(*) AS n FROM information_schema.columns WHERE table_name = 'pg_stat_wal' AND \
                       column_name = 'wal_sync'";
        if self.count(counted) == 1 {
            self.count("SELECT wal_sync AS n FROM pg_stat_wal")
        } else {
            self.count("SELECT SUM(fsyncs)::bigint AS n FROM pg_stat_io WHERE object = 'wal'")
        }
    }

    /// How many forced writes a transaction takes.
    fn cost(&mut self, from: i64, run: impl Fn(i64) -> Result<(), Error>) -> f64 {
        let databases = self.databases();
        // Its first connections are no part of it.
        {
            let _entered = databases.enter();
            run(from).unwrap();
        }
        drop(databases);
        let before = self.forced_writes();
        let databases = self.databases();
        {
            let _entered = databases.enter();
            (1..=TRANSACTIONS).for_each(|id| run(from + id).unwrap());
        }
        drop(databases);
        let forced = self.forced_writes() - before;
        println!("{forced} forced writes in {TRANSACTIONS} transactions");
        #[expect(clippy::cast_precision_loss, reason = "the counts are small")]
        let cost = forced as f64 / TRANSACTIONS as f64;
        cost
    }
}

fn put(conn: &mut PgConn, id: i64) -> Result<(), Error> {
    diesel::insert_into(items::table).values(items::id.eq(id)).execute(conn)?;
    Ok(())
}

#[test]
fn two_databases_take_three_forced_writes_where_a_plain_commit_takes_one() {
    let Some(mut places) = Places::new() else { return };
    let plain = places.cost(0, |id| atomic::<Home>().run(|conn: &mut PgConn| put(conn, id)));
    let both = |id: i64, setting: &str| {
        atomic_many::<(Home, Other)>().run(|scope| {
            let (mut home, mut other) = (scope.conn::<Home, PgConn>()?, scope.conn::<Other, PgConn>()?);
            put(&mut home, id)?;
            put(&mut other, id)?;
            diesel::sql_query(format!("SET LOCAL synchronous_commit = {setting}")).execute(&mut home)?;
            diesel::sql_query(format!("SET LOCAL synchronous_commit = {setting}")).execute(&mut other)?;
            Ok::<_, Error>(())
        })
    };
    let across = places.cost(1_000, |id| both(id, "on"));
    // Whatever the body has asked for: a decision that is lost would split the transaction.
    let lowered = places.cost(2_000, |id| both(id, "off"));
    let one_of_two = places
        .cost(3_000, |id| atomic_many::<(Home, Other)>().run(|scope| put(&mut scope.conn::<Other, PgConn>()?, id)));
    let close = |cost: f64, expected: f64| (cost - expected).abs() < 0.3;
    assert!(close(plain, 1.0) && close(one_of_two, 1.0), "plain {plain}, one of two {one_of_two}");
    assert!(close(across, 3.0) && close(lowered, 3.0), "across {across}, lowered {lowered}");
}
