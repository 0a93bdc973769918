//! A connection of the test's own that asks the server for the library's sessions, and ends them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use multidb::{Databases, connection};

use super::*;
use crate::fixture::Kind;
use crate::support::proxy::Proxy;

/// How long the server may take to end what it was told to end.
const LIMIT: Duration = Duration::from_secs(30);

/// How long a poll leaves the processor to others.
pub(crate) const POLL: Duration = Duration::from_millis(1);

/// Held by the test that asks MySQL or MariaDB who waits: the answer comes from a copy that all share, and that is not renewed while
/// anybody has read it within a tenth of a second. Two that ask in turns would both see an old one for ever.
static LOOKING: Mutex<()> = Mutex::new(());

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Sees a database and all sessions on it but its own.
pub(crate) struct Witness(Raw);

impl Fixture {
    pub(crate) fn witness(&self) -> Witness {
        self.witness_of("default")
    }

    pub(crate) fn witness_of(&self, alias: &str) -> Witness {
        Witness(self.observer(alias))
    }
}

impl Witness {
    fn numbers(&mut self, sql: &str) -> Vec<i64> {
        let numbers: Vec<Number> = diesel::sql_query(sql).load(&mut self.0).unwrap();
        numbers.into_iter().map(|row| row.number).collect()
    }

    /// The library's sessions.
    fn sessions(&mut self) -> Vec<i64> {
        self.numbers(match KIND {
            Kind::Mysql => {
                "SELECT CAST(id AS SIGNED) AS number FROM information_schema.processlist
                 WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            }
            _ => {
                "SELECT pid::bigint AS number FROM pg_stat_activity
                 WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
            }
        })
    }

    /// How many of the library's sessions wait for a lock.
    fn waiting(&mut self) -> i64 {
        let _looking;
        let waiting = match KIND {
            Kind::Mysql => {
                _looking = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
                std::thread::sleep(Duration::from_millis(150));
                "SELECT COUNT(*) AS number FROM information_schema.innodb_trx
                 JOIN information_schema.processlist ON id = trx_mysql_thread_id
                 WHERE db = DATABASE() AND trx_state = 'LOCK WAIT'"
            }
            _ => {
                "SELECT COUNT(*) AS number FROM pg_locks JOIN pg_stat_activity USING (pid)
                 WHERE application_name = current_setting('application_name') AND NOT granted"
            }
        };
        self.numbers(waiting)[0]
    }

    /// Waits until a session waits for a lock.
    pub(crate) fn until_one_waits(&mut self) {
        self.until_waiting(1);
    }

    /// Waits until so many sessions wait for a lock.
    pub(crate) fn until_waiting(&mut self, expected: i64) {
        self.until("too few sessions wait for a lock", |witness| witness.waiting() >= expected);
    }

    /// Ends every session of the library: so many there are, once those that were closed before are gone.
    pub(crate) fn kill_all(&mut self, expected: usize) {
        self.until("there are other sessions to be killed", |witness| witness.sessions().len() == expected);
        let sessions = self.sessions();
        for id in &sessions {
            let kill = match KIND {
                Kind::Mysql => format!("KILL {id}"),
                _ => format!("SELECT pg_terminate_backend({id})"),
            };
            self.0.batch_execute(&kill).unwrap();
        }
        // Until the server has taken them off its list.
        self.until("a killed session is still there", |witness| witness.sessions().is_empty());
    }

    fn until(&mut self, otherwise: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < LIMIT, "{otherwise}");
            std::thread::sleep(POLL);
        }
    }

    /// What the database holds.
    pub(crate) fn rows(&mut self) -> Vec<(i64, i64)> {
        items::table.order(items::id).load(&mut self.0).unwrap()
    }

    /// Empties the table.
    pub(crate) fn empty(&mut self) {
        diesel::delete(items::table).execute(&mut self.0).unwrap();
    }

    /// Waits until the server knows no sessions but those that the pool has idle: what the others did is settled then.
    pub(crate) fn settle(&mut self, databases: &Databases, case: &str) {
        let state = databases.database("default").unwrap().pool_state();
        assert_eq!(state.connections, state.idle_connections, "{case}: a connection is out");
        let idle = usize::try_from(state.idle_connections).unwrap();
        let text = format!("{case}: the pool has {idle} connections, and the server knows of others");
        self.until(&text, |witness| witness.sessions().len() == idle);
    }

    /// Waits until the server knows no more sessions than so many.
    pub(crate) fn until_at_most(&mut self, expected: impl Fn() -> u32) {
        let text = "the server knows of more sessions than there are connections";
        self.until(text, |witness| witness.sessions().len() <= usize::try_from(expected()).unwrap());
    }

    /// Claims that no idle connection of the pool is inside a transaction, and that the pool serves who comes next.
    pub(crate) fn assert_clean(&mut self, databases: &Databases, case: &str) {
        self.settle(databases, case);
        let inside = if KIND == Kind::Mysql {
            // A transaction that has touched no row is in none of the server's lists, but its own session knows. A pool of
            // one hands out the session that is meant.
            let inside = diesel::sql_query("SELECT CAST(@@in_transaction AS SIGNED) AS number");
            let inside: Number = inside.get_result(&mut connection::<Item, H>().unwrap()).unwrap();
            inside.number
        } else {
            self.numbers(
                "SELECT COUNT(*) AS number FROM pg_stat_activity
                 WHERE application_name = current_setting('application_name') AND state LIKE 'idle in transaction%'",
            )[0]
        };
        assert_eq!(inside, 0, "{case}: a connection in the pool is inside a transaction");
        let before = self.rows();
        let alone = diesel::insert_into(items::table).values((items::id.eq(1001), items::value.eq(0)));
        alone.execute(&mut connection::<Item, H>().unwrap()).unwrap();
        let in_scope = put(1002, 0);
        assert!(in_scope.is_ok(), "{case}: the next scope: {in_scope:?}");
        let mut expected = before;
        expected.extend([(1001, 0), (1002, 0)]);
        assert_eq!(self.rows(), expected, "{case}: what the pool's next users wrote");
        self.settle(databases, case);
    }
}

/// The fixture's database behind a proxy, with a pool of this size.
pub(crate) fn behind_proxy(fixture: &Fixture, size: u32) -> (Proxy, Databases) {
    let url = &fixture.urls[0];
    let address = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
    let proxy = Proxy::start(address.parse().unwrap());
    let mut config = multidb::DatabaseConfig::new("default", proxy.url(url));
    config.pool.max_size = Some(size);
    let databases = Databases::builder().database(config).build().unwrap();
    (proxy, databases)
}
