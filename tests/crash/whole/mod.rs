//! What happens to servers as a whole: a standby is promoted, a copy answers beside the original, a home loses its data.
//!
//! Each test has servers of its own, and as few of them as it needs. What must be fine meanwhile is on the shared ones.

mod clones;
mod exhausted;
pub(crate) mod forgotten;
mod lost_home;
mod participant;
mod standby;
mod synchronous;

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use multidb::{Databases, RecoveryReport};

use crate::child::recover;
use crate::matrix::check;
use crate::places::{Places, builder_of};
use crate::server::Server;

/// How long a server may take for anything.
const LIMIT: Duration = Duration::from_mins(1);

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LIMIT, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The URL of a database, as it is on another server.
fn moved(url: &str, to: &Server) -> String {
    format!("{}/{}", to.url().rsplit_once('/').unwrap().0, url.rsplit_once('/').unwrap().1)
}

/// The same databases, of which one is on another server now.
fn with_moved(mut places: Places, at: usize, to: &Server) -> Places {
    places.urls[at] = moved(&places.urls[at], to);
    places
}

/// A registry in which databases have other URLs, or are more, or fewer.
fn registry_of(urls: &[&str]) -> Databases {
    builder_of(urls.iter().copied().enumerate()).build_lazy().unwrap()
}

/// One pass of it.
fn pass(urls: &[&str]) -> RecoveryReport {
    registry_of(urls).recover().unwrap()
}

/// As after thirty days, or a hundred commits of one process.
fn is_complete_and_forgotten(places: &Places) {
    let databases = places.databases();
    recover(&databases);
    places.execute(0, "UPDATE multidb_decision SET created = 0");
    recover(&databases);
    assert_eq!((places.own_rows(0), places.own_rows(1)), ([0, 0], [0, 0]));
    assert_eq!(check(places, "complete"), [1]);
}

/// A connection to a PostgreSQL server that knows nothing of the library.
fn raw(server: &Server) -> PgConnection {
    PgConnection::establish(server.url()).unwrap()
}

/// What a query gives in its column `data`.
fn text(raw: &mut PgConnection, query: &str) -> Vec<String> {
    #[derive(QueryableByName)]
    struct Text {
        #[diesel(sql_type = diesel::sql_types::Text)]
        data: String,
    }
    diesel::sql_query(query).load::<Text>(raw).unwrap().into_iter().map(|row| row.data).collect()
}

/// A PostgreSQL, and what it streams to a standby.
struct Pair {
    primary: Server,
    standby: Server,
}

impl Pair {
    /// `None` where PostgreSQL is not installed, visibly.
    fn start() -> Option<Self> {
        let primary = Server::start("postgres")?;
        let standby = Server::make("postgres", "standby", Some(primary.folder()))?;
        Some(Self { primary, standby })
    }

    /// Waits until the standby has replayed all that the primary has written.
    fn until_caught_up(&self) {
        let written = text(&mut raw(&self.primary), "SELECT pg_current_wal_flush_lsn()::text AS data");
        let replayed = format!("SELECT (pg_last_wal_replay_lsn() >= '{}')::text AS data", written[0]);
        let standby = &mut raw(&self.standby);
        until("the standby catches up", || text(standby, &replayed) == ["true"]);
    }

    /// From now on the standby gets nothing. What takes it on again.
    fn hold(&self) -> String {
        let standby = &mut raw(&self.standby);
        let from = text(standby, "SELECT current_setting('primary_conninfo') AS data").remove(0);
        stream_from(standby, "");
        until("the stream ends", || text(standby, "SELECT pid::text AS data FROM pg_stat_wal_receiver").is_empty());
        let primary = &mut raw(&self.primary);
        until("its end is seen", || text(primary, "SELECT pid::text AS data FROM pg_stat_replication").is_empty());
        from
    }

    fn go_on(&self, from: &str) {
        stream_from(&mut raw(&self.standby), from);
    }

    /// The primary crashes, and the standby takes its place.
    fn fail_over(&self) {
        self.primary.kill();
        self.standby.must("promote");
    }
}

fn stream_from(standby: &mut PgConnection, from: &str) {
    let from = from.replace('\'', "''");
    standby.batch_execute(&format!("ALTER SYSTEM SET primary_conninfo = '{from}'")).unwrap();
    standby.batch_execute("SELECT pg_reload_conf()").unwrap();
}
