//! What comes from outside of a program: an instrumentation that panics, and sessions of others that hold locks.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use diesel::connection::{Connection, Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel::{MysqlConnection, PgConnection, SqliteConnection};

use super::program::{Moment, Relief};
use super::run::OnPurpose;
use super::site::Site;
use crate::fixture::{self, Kind};

/// Words that statements begin with at which an instrumentation panics.
pub(super) const MOMENTS: [&str; 11] = [
    "SELECT",
    "BEGIN",
    "START TRANSACTION",
    "SAVEPOINT",
    "ROLLBACK TO",
    "INSERT",
    "COMMIT",
    "ROLLBACK",
    "PREPARE TRANSACTION",
    "XA END",
    "COMMIT PREPARED",
];

/// Panics at a moment.
#[derive(Clone, Copy)]
pub(super) struct Grenade(pub(super) Moment);

impl Instrumentation for Grenade {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let seen = match event {
            InstrumentationEvent::StartQuery { query, .. } if !self.0.after => query.to_string(),
            InstrumentationEvent::FinishQuery { query, .. } if self.0.after => query.to_string(),
            _ => return,
        };
        if seen.contains(self.0.words) {
            std::panic::resume_unwind(Box::new(OnPurpose));
        }
    }
}

/// How often it is asked whether a session waits.
const POLL: Duration = Duration::from_millis(2);

/// How long a file is held: longer than the busy timeout of the program.
const FILE_HELD: Duration = Duration::from_millis(50);

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    id: i64,
}

/// A session of another program that holds a lock. Dropped, it gives it back.
pub(super) struct Holder {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Holder {
    /// Takes a lock that writers of the site's table need, unless the program has it. Once a session of the program waits for it,
    /// the lock is given back, or that session is killed.
    pub(super) fn of(site: &Site, relief: Relief) -> Self {
        let (stop, stopped) = mpsc::channel();
        let (tells, told) = mpsc::channel();
        let (kind, app, table, file) = (site.kind, site.app().to_owned(), site.fill("{t}", &[]), site.url.clone());
        let thread = std::thread::spawn(move || match kind {
            Kind::Sqlite => {
                let mut conn = SqliteConnection::establish(&file).unwrap();
                let _ = conn.batch_execute("BEGIN IMMEDIATE");
                tells.send(()).unwrap();
                // Who waits for a file can't be seen.
                let _ = stopped.recv_timeout(FILE_HELD);
            }
            Kind::Postgres => {
                let mut conn = PgConnection::establish(fixture::server(kind).unwrap()).unwrap();
                let _ = conn.batch_execute(&format!("BEGIN; LOCK TABLE {table} IN SHARE MODE NOWAIT"));
                tells.send(()).unwrap();
                let mut watcher = PgConnection::establish(fixture::server(kind).unwrap()).unwrap();
                let waiting = format!(
                    "SELECT CAST(pid AS BIGINT) AS id FROM pg_stat_activity WHERE usename = '{app}' AND wait_event_type = 'Lock'"
                );
                let waiting = until_one(&stopped, || diesel::sql_query(&waiting).load(&mut watcher));
                if let (Some(id), Relief::Kill) = (waiting, relief) {
                    let _ = watcher.batch_execute(&format!("SELECT pg_terminate_backend({id})"));
                    let _ = stopped.recv();
                }
            }
            Kind::Mysql => {
                let mut conn = MysqlConnection::establish(fixture::server(kind).unwrap()).unwrap();
                let _ = conn.batch_execute(&format!("LOCK TABLES {table} READ NOWAIT"));
                tells.send(()).unwrap();
                let mut watcher = MysqlConnection::establish(fixture::server(kind).unwrap()).unwrap();
                let waiting = format!(
                    "SELECT CAST(id AS SIGNED) AS id FROM information_schema.processlist WHERE user = '{app}' AND state LIKE \
                     '%lock%'"
                );
                let waiting = until_one(&stopped, || diesel::sql_query(&waiting).load(&mut watcher));
                if let (Some(id), Relief::Kill) = (waiting, relief) {
                    let _ = watcher.batch_execute(&format!("KILL {id}"));
                    let _ = stopped.recv();
                }
            }
        });
        told.recv().unwrap();
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

/// The session that waits; `None` if the program goes on without.
fn until_one(stopped: &mpsc::Receiver<()>, mut waiting: impl FnMut() -> QueryResult<Vec<Number>>) -> Option<i64> {
    loop {
        match stopped.recv_timeout(POLL) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return None,
        }
        if let Some(session) = waiting().unwrap().first() {
            return Some(session.id);
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A failure of it is one of the test's own, and has been printed.
            let _ = thread.join();
        }
    }
}
