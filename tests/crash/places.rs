//! Fresh databases of any kinds, each with a table of its own.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Databases, DatabasesBuilder, Model, Route, RouteRequest, Router, TransactionId, schema};

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

/// How long a server may take to see that a client has gone.
const GONE_LIMIT: Duration = Duration::from_mins(1);

/// How long a poll leaves the processor to others.
pub(crate) const POLL: Duration = Duration::from_millis(1);

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MariaDb,
    Sqlite,
}

/// The sessions that a server knows of, by their numbers.
pub(crate) type Sessions = BTreeSet<i64>;

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
    /// Fresh databases on the servers that all tests share; `None` where one is missing, visibly.
    pub(crate) fn new(kinds: &[Kind]) -> Option<Self> {
        let servers = kinds.iter().map(|kind| match kind {
            Kind::Postgres => servers::postgres_url().map(str::to_owned),
            Kind::MariaDb => servers::mysql_url().map(str::to_owned),
            Kind::Sqlite => Some(String::new()),
        });
        Some(Self::on(kinds, &servers.collect::<Option<Vec<_>>>()?))
    }

    /// Fresh databases on these servers. A file needs none.
    pub(crate) fn on(kinds: &[Kind], servers: &[String]) -> Self {
        #[cfg(feature = "testing")]
        crate::idle::watch(false);
        let folder = tempfile::tempdir().unwrap();
        let mut places = Self { kinds: kinds.to_vec(), urls: Vec::new(), folder };
        for ((kind, server), table) in kinds.iter().zip(servers).zip(TABLES) {
            let url = places.make(*kind, server, table);
            places.urls.push(url);
            places.execute(places.urls.len() - 1, &format!("CREATE TABLE {table} (id BIGINT PRIMARY KEY)"));
        }
        schema::install(&places.databases()).unwrap();
        places
    }

    /// The same databases, of which one is reached by another URL.
    pub(crate) fn seen_by(&self, at: usize, url: &str) -> Self {
        let mut urls = self.urls.clone();
        url.clone_into(&mut urls[at]);
        Self { kinds: self.kinds.clone(), urls, folder: tempfile::tempdir().unwrap() }
    }

    fn make(&self, kind: Kind, server: &str, table: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let fresh = format!("c_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let create = format!("CREATE DATABASE {fresh}");
        match kind {
            Kind::Postgres => diesel::PgConnection::establish(server).unwrap().batch_execute(&create).unwrap(),
            Kind::MariaDb => diesel::MysqlConnection::establish(server).unwrap().batch_execute(&create).unwrap(),
            Kind::Sqlite => return self.folder.path().join(format!("{table}.db")).to_str().unwrap().to_owned(),
        }
        format!("{}/{fresh}", server.rsplit_once('/').unwrap().0)
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

    /// Empties the tables.
    pub(crate) fn clear(&self) {
        for (at, table) in TABLES.iter().take(self.urls.len()).enumerate() {
            self.execute(at, &format!("DELETE FROM {table}"));
        }
    }

    /// The ids in the table of one database.
    pub(crate) fn rows(&self, at: usize) -> Vec<i64> {
        self.ids(at, &format!("SELECT id FROM {} ORDER BY id", TABLES[at]))
    }

    /// What servers know of sessions on each of the databases, but for those of these questions.
    pub(crate) fn sessions(&self) -> Vec<Sessions> {
        (0..self.urls.len()).map(|at| self.sessions_of(at)).collect()
    }

    fn sessions_of(&self, at: usize) -> Sessions {
        let asked = match self.kinds[at] {
            Kind::Postgres => {
                "SELECT pid::bigint AS id FROM pg_stat_activity WHERE datname = current_database() AND pid <> \
                 pg_backend_pid() AND backend_type = 'client backend'"
            }
            Kind::MariaDb => {
                "SELECT CAST(id AS SIGNED) AS id FROM information_schema.processlist WHERE db = DATABASE() AND id <> \
                 CONNECTION_ID()"
            }
            Kind::Sqlite => return Sessions::new(),
        };
        self.ids(at, asked).into_iter().collect()
    }

    /// Waits until the servers know of no session but these: what others have left is prepared, or rolled back, by then.
    pub(crate) fn until_gone_but(&self, known: &[Sessions]) {
        let begin = Instant::now();
        while self.sessions().iter().zip(known).any(|(now, known)| !now.is_subset(known)) {
            assert!(begin.elapsed() < GONE_LIMIT, "{self}: sessions of a process that is gone: {:?}", self.sessions());
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the server of one database knows of no session on it but these.
    pub(crate) fn until_gone_from(&self, at: usize, known: &[Sessions]) {
        let begin = Instant::now();
        while !self.sessions_of(at).is_subset(&known[at]) {
            assert!(begin.elapsed() < GONE_LIMIT, "{self}: a session on {at} does not end");
            std::thread::sleep(POLL);
        }
    }

    /// Waits until the server of one database has taken a session off its list.
    pub(crate) fn until_ended(&self, at: usize, session: i64) {
        let begin = Instant::now();
        while self.sessions_of(at).contains(&session) {
            assert!(begin.elapsed() < GONE_LIMIT, "{self}: session {session} on {at} does not end");
            std::thread::sleep(POLL);
        }
    }

    /// Ends the sessions on one database but these, and waits until they are gone.
    pub(crate) fn end_sessions_but(&self, at: usize, known: &[Sessions]) {
        for id in self.sessions_of(at).difference(&known[at]) {
            // It may have ended by itself.
            let _ = match self.kinds[at] {
                Kind::Postgres => {
                    on!(self.observer(at), raw => raw.batch_execute(&format!("SELECT pg_terminate_backend({id})")))
                }
                _ => on!(self.observer(at), raw => raw.batch_execute(&format!("KILL {id}"))),
            };
        }
        self.until_gone_from(at, known);
    }

    fn ids(&self, at: usize, query: &str) -> Vec<i64> {
        let found: Vec<Id> = on!(self.observer(at), raw => diesel::sql_query(query).load(raw)).unwrap();
        found.into_iter().map(|row| row.id).collect()
    }

    /// What a query gives in its columns `id` and `value`.
    pub(crate) fn pairs(&self, at: usize, query: &str) -> Vec<(i64, i64)> {
        #[derive(QueryableByName)]
        struct Pair {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            id: i64,
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            value: i64,
        }
        let found: Vec<Pair> = on!(self.observer(at), raw => diesel::sql_query(query).load(raw)).unwrap();
        found.into_iter().map(|pair| (pair.id, pair.value)).collect()
    }

    /// The type that CAST takes for a whole number.
    pub(crate) fn integer(&self, at: usize) -> &'static str {
        if self.kinds[at] == Kind::MariaDb { "SIGNED" } else { "BIGINT" }
    }

    /// How many branches of the library are prepared in one database.
    pub(crate) fn prepared(&self, at: usize) -> usize {
        self.listed(at).len()
    }

    /// The names of the branches of the library that are prepared in one database, as the server wants them.
    pub(crate) fn listed(&self, at: usize) -> Vec<String> {
        let own = self.meta(at, "database_id");
        let split = |data: String| {
            let (global, branch) = data.split_at(data.len() - own.len() - 2);
            format!("'{global}','{branch}'")
        };
        match self.kinds[at] {
            Kind::Postgres => {
                let all = self.texts(at, "SELECT gid AS data FROM pg_prepared_xacts");
                all.into_iter().filter(|gid| gid.ends_with(&own)).map(|gid| format!("'{gid}'")).collect()
            }
            Kind::MariaDb => {
                self.texts(at, "XA RECOVER").into_iter().filter(|data| data.ends_with(&own)).map(split).collect()
            }
            Kind::Sqlite => Vec::new(),
        }
    }

    fn texts(&self, at: usize, query: &str) -> Vec<String> {
        #[derive(QueryableByName)]
        struct Text {
            #[diesel(sql_type = diesel::sql_types::Text)]
            data: String,
        }
        let found: Vec<Text> = on!(self.observer(at), raw => diesel::sql_query(query).load(raw)).unwrap();
        found.into_iter().map(|row| row.data).collect()
    }

    /// What a column of `multidb_meta` says.
    pub(crate) fn meta(&self, at: usize, column: &str) -> String {
        let query = format!("SELECT CAST({column} AS CHAR(12)) AS data FROM multidb_meta");
        self.texts(at, &query)[0].trim_end().to_owned()
    }

    /// The states of the decisions in one database.
    pub(crate) fn states(&self, at: usize) -> Vec<String> {
        self.texts(at, "SELECT state AS data FROM multidb_decision ORDER BY gid")
    }

    /// The transactions of which one database has a decision.
    pub(crate) fn gids(&self, at: usize) -> Vec<String> {
        self.texts(at, "SELECT gid AS data FROM multidb_decision ORDER BY gid")
    }

    /// An operator commits what is prepared in one database, or rolls it back. Its session has ended.
    pub(crate) fn finish_by_hand(&self, at: usize, commit: bool) {
        let verb = if commit { "COMMIT" } else { "ROLLBACK" };
        for name in self.listed(at) {
            let finish = match self.kinds[at] {
                Kind::Postgres => format!("{verb} PREPARED {name}"),
                _ => format!("XA {verb} {name}"),
            };
            on!(self.observer(at), raw => raw.batch_execute(&finish))
                .unwrap_or_else(|error| panic!("{finish}: {error}"));
        }
    }

    /// Prepares a branch in one database, as a coordinator would that named home, the first database, in this incarnation. It
    /// puts the row 77.
    pub(crate) fn prepare_by_hand(&self, at: usize, incarnation: &str) -> TransactionId {
        let (id, prepare) = self.preparing(at, incarnation);
        let known = self.sessions();
        self.execute(at, &prepare);
        self.until_gone_but(&known);
        id
    }

    /// What prepares such a branch.
    pub(crate) fn preparing(&self, at: usize, incarnation: &str) -> (TransactionId, String) {
        let home = self.meta(0, "database_id");
        let id = format!("m1_default_{home}_{incarnation}_06H06HMPM9OHBFN0A92GIFKVGG");
        let branch = format!("1_{}", self.meta(at, "database_id"));
        let insert = format!(
            "INSERT INTO {} VALUES (77); INSERT INTO multidb_receipt VALUES ('{id}', '{branch}', '{branch}')",
            TABLES[at]
        );
        let prepare = match self.kinds[at] {
            Kind::Postgres => format!("BEGIN; {insert}; PREPARE TRANSACTION '{id}:{branch}'"),
            _ => {
                format!("XA START '{id}','{branch}'; {insert}; XA END '{id}','{branch}'; XA PREPARE '{id}','{branch}'")
            }
        };
        (id.parse().unwrap(), prepare)
    }

    /// How many commits stand at home that nobody has closed, and how many receipts stand somewhere without a decision.
    pub(crate) fn unfinished(&self) -> [usize; 2] {
        let everywhere = |query: &str| (0..self.urls.len()).flat_map(|at| self.texts(at, query)).collect::<Vec<_>>();
        let open = everywhere("SELECT gid AS data FROM multidb_decision WHERE state = 'c' AND closed IS NULL");
        let decided: BTreeSet<String> = everywhere("SELECT gid AS data FROM multidb_decision").into_iter().collect();
        let receipts = everywhere("SELECT gid AS data FROM multidb_receipt");
        [open.len(), receipts.iter().filter(|gid| !decided.contains(*gid)).count()]
    }

    /// How many decisions and receipts stand in one database.
    pub(crate) fn own_rows(&self, at: usize) -> [i64; 2] {
        ["multidb_decision", "multidb_receipt"]
            .map(|table| self.ids(at, &format!("SELECT COUNT(*) AS id FROM {table}"))[0])
    }
}

/// The registry of the databases at these URLs.
pub(crate) fn registry<'a>(urls: impl Iterator<Item = &'a str>) -> Databases {
    builder_of(urls.enumerate()).build().unwrap()
}

/// A registry of some databases, each with the alias of the table with its number.
pub(crate) fn builder_of<'a>(urls: impl Iterator<Item = (usize, &'a str)>) -> DatabasesBuilder {
    let mut builder = Databases::builder().router(ByApp);
    for (at, url) in urls {
        let alias = TABLES[at];
        builder = match url.split_once("://") {
            Some(("postgres", _)) => builder.postgres(alias, url),
            Some(("mysql", _)) => builder.mysql(alias, url),
            _ => builder.sqlite(alias, url),
        };
    }
    builder
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
