//! One database with its twin, and a plain connection to it.

use std::cell::{RefCell, RefMut};
use std::path::Path;
use std::time::{Duration, Instant};

use diesel::connection::{Connection, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text as SqlText};
use diesel::{MysqlConnection, PgConnection, SqliteConnection};

use super::ground::must;
use crate::fixture::{self, Kind};

/// How long a killed session may live on, and how often that is asked.
const GONE_LIMIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(1);

/// How many columns the wide table has.
const WIDE: usize = 70;

/// A database. A twin of it stands at its side, with the same tables.
pub(super) struct Site {
    pub(super) kind: Kind,
    pub(super) alias: &'static str,
    /// The service's.
    pub(super) url: String,
    pub(super) other_url: String,
    /// The schemas, databases or files.
    names: [String; 2],
    /// The role of the service, and one that it may take.
    roles: [String; 2],
    observer: RefCell<Observer>,
    /// The only connection is the database.
    pub(super) in_memory: bool,
}

pub(super) enum Observer {
    Postgres(PgConnection),
    Mysql(MysqlConnection),
    Sqlite(SqliteConnection),
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = SqlText)]
    word: String,
}

/// With the query's `$conn` on whatever connection it is.
macro_rules! on {
    ($observer:expr, $conn:ident => $body:expr) => {
        match &mut *$observer {
            Observer::Postgres($conn) => $body,
            Observer::Mysql($conn) => $body,
            Observer::Sqlite($conn) => $body,
        }
    };
}

impl Site {
    /// Makes the database, without tables; `None` where there is no server.
    pub(super) fn new(kind: Kind, in_memory: bool, alias: &'static str, folder: &Path) -> Option<Self> {
        let server = fixture::server(kind)?;
        let name = fixture::fresh_name();
        let mut names = [name.clone(), format!("{name}_b")];
        let roles = [format!("{name}_app"), format!("{name}_role")];
        let ([url, other_url], observer) = match kind {
            Kind::Sqlite if in_memory => {
                names = [":memory:", ":memory:"].map(str::to_owned);
                (names.clone(), Observer::Sqlite(SqliteConnection::establish(":memory:").unwrap()))
            }
            Kind::Sqlite => {
                names = names.map(|name| folder.join(format!("{name}.db")).to_str().unwrap().to_owned());
                let mut conn = SqliteConnection::establish(&names[0]).unwrap();
                must(&mut conn, &format!("PRAGMA busy_timeout = 100; ATTACH '{}' AS twin", names[1]));
                (names.clone(), Observer::Sqlite(conn))
            }
            Kind::Postgres => {
                let mut conn = PgConnection::establish(server).unwrap();
                let [app, role] = &roles;
                must(
                    &mut conn,
                    &format!("CREATE ROLE {app} LOGIN PASSWORD 'x'; CREATE ROLE {role}; GRANT {role} TO {app}"),
                );
                for name in &names {
                    must(
                        &mut conn,
                        &format!("CREATE SCHEMA {name} AUTHORIZATION {app}; GRANT USAGE ON SCHEMA {name} TO {role}"),
                    );
                }
                let (_, place) = server.split_once('@').unwrap();
                let url = |name: &String| format!("postgres://{app}:x@{place}?options=-csearch_path%3D{name}");
                (names.each_ref().map(url), Observer::Postgres(conn))
            }
            Kind::Mysql => {
                let mut conn = MysqlConnection::establish(server).unwrap();
                let [app, role] = &roles;
                must(
                    &mut conn,
                    &format!(
                        "CREATE USER {app} IDENTIFIED BY 'x'; GRANT ALL ON *.* TO {app}; CREATE ROLE {role}; GRANT {role} TO {app}"
                    ),
                );
                for name in &names {
                    must(&mut conn, &format!("CREATE DATABASE {name}; GRANT ALL ON {name}.* TO {role}"));
                }
                let (_, place) = server.split_once('@').unwrap();
                let (place, _) = place.rsplit_once('/').unwrap();
                let url = |name: &String| format!("mysql://{app}:x@{place}/{name}");
                must(&mut conn, "SET lock_wait_timeout = 1, innodb_lock_wait_timeout = 1");
                (names.each_ref().map(url), Observer::Mysql(conn))
            }
        };
        Some(Self { kind, alias, url, other_url, names, roles, observer: RefCell::new(observer), in_memory })
    }

    /// What makes the tables.
    pub(super) fn tables(&self) -> String {
        self.fill(tables(self.kind), &[])
    }

    /// Makes the tables and procedures that programs use, in both.
    pub(super) fn furnish(&self) {
        for (at, url) in [&self.url, &self.other_url].into_iter().enumerate() {
            let sql = self.tables();
            match self.kind {
                Kind::Postgres => {
                    let mut conn = PgConnection::establish(url).unwrap();
                    must(&mut conn, &sql);
                    let (name, role) = (&self.names[at], &self.roles[1]);
                    must(&mut conn, &format!("GRANT ALL ON ALL TABLES IN SCHEMA {name} TO {role}"));
                }
                Kind::Mysql => must(&mut MysqlConnection::establish(url).unwrap(), &sql),
                Kind::Sqlite => must(&mut SqliteConnection::establish(url).unwrap(), &sql),
            }
        }
    }

    /// A text with its names and numbers. The last number is for what needs one and is no row.
    pub(super) fn fill(&self, text: &str, ids: &[i64]) -> String {
        if !text.contains('{') {
            return text.to_owned();
        }
        let columns = |of: &dyn Fn(usize) -> String| (0..WIDE).map(of).collect::<Vec<_>>().join(", ");
        let mut sql = text.to_owned();
        for (at, id) in ids.iter().enumerate() {
            sql = sql.replace(&format!("{{{at}}}"), &id.to_string());
        }
        if let Some(last) = ids.last() {
            sql = sql.replace("{n}", &last.to_string());
        }
        for (mark, table) in
            [("{t}", "marks"), ("{d}", "later"), ("{e}", "events"), ("{u}", "uniques"), ("{w}", "wide")]
        {
            sql = sql.replace(mark, &format!("{}_{table}", self.alias));
        }
        if sql.contains("{c") || sql.contains("{v}") {
            sql = sql.replace("{c}", &columns(&|at| format!("c{at}")));
            sql = sql.replace("{v}", &columns(&|at| at.to_string()));
            sql = sql.replace("{cols}", &columns(&|at| format!("c{at} BIGINT")));
        }
        sql.replace("{b}", &self.names[1]).replace("{f}", &self.names[1]).replace("{r}", &self.roles[1])
    }

    /// The ids of the rows from this one on that stand in the database or in its twin.
    pub(super) fn held(&self, from: i64) -> Result<Vec<i64>, String> {
        let [own, twin] = match self.kind {
            Kind::Sqlite => ["main", "twin"],
            _ => self.names.each_ref().map(String::as_str),
        };
        let query = format!("{} UNION ALL {}", self.listing(own, from), self.listing(twin, from));
        let query = diesel::sql_query(query);
        let found: QueryResult<Vec<Number>> = on!(self.observer(), conn => query.load(conn));
        numbers(found).map_err(|error| format!("`{}` can't be read by others: {error}", self.alias))
    }

    /// The same on a connection that is the database.
    pub(super) fn held_by(&self, raw: &mut SqliteConnection, from: i64) -> Result<Vec<i64>, String> {
        let found = diesel::sql_query(self.listing("main", from)).load(raw);
        numbers(found).map_err(|error| format!("`{}` can't be read: {error}", self.alias))
    }

    fn listing(&self, name: &str, from: i64) -> String {
        let listing = |table| format!("SELECT id FROM {name}.{}_{table} WHERE id >= {from}", self.alias);
        format!("{} UNION ALL {}", listing("marks"), listing("later"))
    }

    /// The branches of the library that are prepared, by their names as the server wants them.
    pub(super) fn prepared(&self) -> Vec<String> {
        let name = &self.names[0];
        match &mut *self.observer() {
            Observer::Postgres(conn) => {
                let own = format!(
                    "SELECT gid AS word FROM pg_prepared_xacts, {name}.multidb_meta WHERE gid LIKE '%' || database_id"
                );
                words(diesel::sql_query(own).load(conn))
            }
            Observer::Mysql(conn) => {
                #[derive(QueryableByName)]
                struct Recovered {
                    #[diesel(sql_type = diesel::sql_types::Binary)]
                    data: Vec<u8>,
                }
                let found: Vec<Recovered> = diesel::sql_query("XA RECOVER").load(conn).unwrap();
                if found.is_empty() {
                    return Vec::new();
                }
                let own =
                    diesel::sql_query(format!("SELECT CAST(database_id AS CHAR) AS word FROM {name}.multidb_meta"));
                let own = words(own.load(conn)).remove(0);
                let names = found.into_iter().map(|row| String::from_utf8_lossy(&row.data).into_owned());
                let own = names.filter(|name| name.ends_with(&own)).map(|name| {
                    let (global, branch) = name.split_at(name.len() - own.len() - 2);
                    format!("'{global}','{branch}'")
                });
                own.collect()
            }
            Observer::Sqlite(_) => Vec::new(),
        }
    }

    /// Rolls back what texts of programs have prepared under names of their own: a server takes only so many.
    pub(super) fn undo_prepared_by_texts(&self) {
        let Observer::Postgres(conn) = &mut *self.observer() else { return };
        let [app, role] = &self.roles;
        let all = format!(
            "SELECT gid AS word FROM pg_prepared_xacts WHERE owner IN ('{app}', '{role}') AND gid LIKE 'x%' AND database = current_database()"
        );
        for gid in words(diesel::sql_query(all).load(conn)) {
            must(conn, &format!("ROLLBACK PREPARED '{gid}'"));
        }
    }

    /// The service's role.
    pub(super) fn app(&self) -> &str {
        &self.roles[0]
    }

    /// Kills all sessions of the service.
    pub(super) fn kill(&self) {
        let app = &self.roles[0];
        kill(&mut self.observer(), app);
    }

    /// What ends the sessions of the service from another thread, should they wait for each other.
    pub(super) fn killer(&self) -> impl FnMut() + Send + use<> {
        let (kind, app) = (self.kind, self.roles[0].clone());
        move || {
            let Some(server) = fixture::server(kind) else { return };
            let mut observer = match kind {
                Kind::Sqlite => return,
                Kind::Postgres => Observer::Postgres(PgConnection::establish(server).unwrap()),
                Kind::Mysql => Observer::Mysql(MysqlConnection::establish(server).unwrap()),
            };
            kill(&mut observer, &app);
        }
    }

    /// Ends what sessions of the service have begun, and rolls back what they have prepared.
    pub(super) fn renew(&mut self) {
        self.kill();
        let [app, role] = &self.roles;
        match &mut *self.observer() {
            Observer::Postgres(conn) => {
                let all = format!("SELECT gid AS word FROM pg_prepared_xacts WHERE owner IN ('{app}', '{role}')");
                for gid in words(diesel::sql_query(all).load(conn)) {
                    must(conn, &format!("ROLLBACK PREPARED '{gid}'"));
                }
            }
            Observer::Mysql(_) | Observer::Sqlite(_) => {}
        }
        if self.kind == Kind::Mysql {
            for branch in self.prepared() {
                if let Observer::Mysql(conn) = &mut *self.observer() {
                    // It may have ended with its session.
                    let _ = conn.batch_execute(&format!("XA ROLLBACK {branch}"));
                }
            }
        }
    }

    fn observer(&self) -> RefMut<'_, Observer> {
        self.observer.borrow_mut()
    }
}

fn numbers(found: QueryResult<Vec<Number>>) -> QueryResult<Vec<i64>> {
    Ok(found?.into_iter().map(|row| row.id).collect())
}

fn words(found: QueryResult<Vec<Word>>) -> Vec<String> {
    found.unwrap().into_iter().map(|row| row.word).collect()
}

fn kill(observer: &mut Observer, app: &str) {
    match observer {
        Observer::Postgres(conn) => {
            // It asks in steps of 100 ms whether they have ended, and this in shorter ones.
            let kill = format!(
                "SELECT CAST(COUNT(pg_terminate_backend(pid)) AS TEXT) AS word FROM pg_stat_activity WHERE usename = '{app}'"
            );
            let begin = Instant::now();
            while words(diesel::sql_query(&kill).load(conn)) != ["0"] && begin.elapsed() < GONE_LIMIT {
                std::thread::sleep(POLL);
            }
        }
        Observer::Mysql(conn) => {
            let all =
                format!("SELECT CAST(id AS CHAR) AS word FROM information_schema.processlist WHERE user = '{app}'");
            for id in words(diesel::sql_query(all).load(conn)) {
                // It may have ended by itself.
                let _ = conn.batch_execute(&format!("KILL {id}"));
            }
        }
        Observer::Sqlite(_) => {}
    }
}

/// The tables of one database. That of deferred constraints has no such thing on MariaDB.
fn tables(kind: Kind) -> &'static str {
    match kind {
        Kind::Postgres => {
            "CREATE TABLE {t} (id BIGINT NOT NULL, note TEXT); CREATE INDEX ON {t} (id); \
             CREATE TABLE {e} (id BIGINT, begin BIGINT, \"end\" BIGINT); CREATE TABLE {u} (id BIGINT PRIMARY KEY); \
             CREATE TABLE {w} ({cols}); \
             CREATE TABLE {d} (id BIGINT, ref BIGINT REFERENCES {u} (id) DEFERRABLE INITIALLY DEFERRED); \
             INSERT INTO {t} (id) VALUES (-1), (-2), (-3); INSERT INTO {u} VALUES (0); \
             CREATE PROCEDURE put(a BIGINT) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {t} (id) VALUES (a); END $$; \
             CREATE PROCEDURE put_and_commit(a BIGINT) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {t} (id) VALUES (a); COMMIT; END $$; \
             CREATE PROCEDURE put_and_roll_back(a BIGINT) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {t} (id) VALUES (a); ROLLBACK; END $$; \
             CREATE FUNCTION putting(a BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$ BEGIN INSERT INTO {t} (id) VALUES (a); RETURN a; END $$;"
        }
        Kind::Mysql => {
            "CREATE TABLE {t} (id BIGINT NOT NULL, note TEXT, INDEX (id)); \
             CREATE TABLE {e} (id BIGINT, begin BIGINT, `end` BIGINT); CREATE TABLE {u} (id BIGINT PRIMARY KEY); \
             CREATE TABLE {w} ({cols}); CREATE TABLE {d} (id BIGINT, ref BIGINT); \
             INSERT INTO {t} (id) VALUES (-1), (-2), (-3); INSERT INTO {u} VALUES (0); \
             CREATE PROCEDURE put(a BIGINT) INSERT INTO {t} (id) VALUES (a); \
             CREATE PROCEDURE put_and_commit(a BIGINT) BEGIN INSERT INTO {t} (id) VALUES (a); COMMIT; END; \
             CREATE PROCEDURE put_and_roll_back(a BIGINT) BEGIN INSERT INTO {t} (id) VALUES (a); ROLLBACK; END; \
             CREATE PROCEDURE begin_and_put(a BIGINT) BEGIN START TRANSACTION; INSERT INTO {t} (id) VALUES (a); END; \
             CREATE PROCEDURE put_and_signal(a BIGINT) BEGIN INSERT INTO {t} (id) VALUES (a); SIGNAL SQLSTATE '45000'; END; \
             CREATE PROCEDURE put_select_and_signal(a BIGINT) BEGIN INSERT INTO {t} (id) VALUES (a); SELECT a AS id; SIGNAL SQLSTATE '45000'; END; \
             CREATE PROCEDURE put_and_alter(a BIGINT) BEGIN INSERT INTO {t} (id) VALUES (a); ALTER TABLE {e} COMMENT = 'a'; END; \
             CREATE PROCEDURE put_and_handle(a BIGINT) BEGIN DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; \
             INSERT INTO {t} (id) VALUES (a); SIGNAL SQLSTATE '45000'; END; \
             CREATE FUNCTION putting(a BIGINT) RETURNS BIGINT BEGIN INSERT INTO {t} (id) VALUES (a); RETURN a; END"
        }
        Kind::Sqlite => {
            "CREATE TABLE {t} (id BIGINT NOT NULL, note TEXT); CREATE INDEX {t}_id ON {t} (id); \
             CREATE TABLE {e} (id BIGINT, begin BIGINT, [end] BIGINT); CREATE TABLE {u} (id BIGINT PRIMARY KEY); \
             CREATE TABLE {w} ({cols}); \
             CREATE TABLE {d} (id BIGINT, ref BIGINT REFERENCES {u} (id) DEFERRABLE INITIALLY DEFERRED); \
             CREATE TABLE {t}_trap (a BIGINT); CREATE TRIGGER {t}_trap BEFORE INSERT ON {t}_trap BEGIN \
             SELECT RAISE(ABORT, 'database is locked'); END; \
             INSERT INTO {t} (id) VALUES (-1), (-2), (-3); INSERT INTO {u} VALUES (0);"
        }
    }
}
