//! MySQL and MariaDB.

use std::fmt::Write;

use diesel::connection::Connection;
use diesel::connection::SimpleConnection;
use diesel::mysql::{Mysql as Native, MysqlConnection};
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::query_builder::{CollectedQuery, MoveableBindCollector, QueryFragment};
use diesel::r2d2::R2D2Connection;
use diesel::result::{ConnectionError, QueryResult};

use super::backend::{Dialect, Names, collect};
use super::control::{Control, Start, savepoint};
use super::guard::Syntax;
use super::settings::Settings;

/// MySQL and MariaDB: the backend of [`MysqlConn`](crate::MysqlConn).
#[derive(Debug, Clone, Copy)]
pub enum Mysql {}

/// The savepoint that an implicit commit destroys.
const TRIPWIRE: &str = "multidb_0";

impl Dialect for Mysql {
    type Native = Native;
    type Raw = MysqlConnection;
    type Binds = <RawBytesBindCollector<Native> as MoveableBindCollector<Native>>::BindData;

    const NATIVE: Native = Native;
    const NAMES: Names = Names { backend: "MySQL or MariaDB", handle: "MysqlConn" };
    const SYNTAX: Syntax = Syntax::Mysql;
    const DEFERS_RELEASE: bool = false;

    fn connect(settings: &Settings) -> Result<MysqlConnection, ConnectionError> {
        let mut raw = MysqlConnection::establish(&settings.url)?;
        // Diesel gives no errno, so classes of errors are found by their English texts.
        raw.batch_execute("SET lc_messages = 'en_US'").map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(raw)
    }

    fn write(control: Control<'_>, sql: &mut String) {
        let written = match control {
            Control::Begin(start) => match (&start.xa, start.tripwire) {
                (Some(gid), _) => write!(sql, "XA START {}", gid.xa()),
                (None, true) => write!(sql, "START TRANSACTION; SAVEPOINT {TRIPWIRE}"),
                (None, false) => sql.write_str("START TRANSACTION"),
            },
            Control::Savepoint(level) => write!(sql, "SAVEPOINT {}", savepoint(level)),
            Control::Release(level) => write!(sql, "RELEASE SAVEPOINT {}", savepoint(level)),
            Control::RollbackTo(level) => write!(sql, "ROLLBACK TO SAVEPOINT {}", savepoint(level)),
            Control::Commit(start) => match (&start.xa, start.tripwire) {
                (Some(gid), _) => write!(sql, "XA END {0}; XA COMMIT {0} ONE PHASE", gid.xa()),
                (None, true) => write!(sql, "RELEASE SAVEPOINT {TRIPWIRE}; COMMIT"),
                (None, false) => sql.write_str("COMMIT"),
            },
            Control::Rollback(start) => match (&start.xa, start.tripwire) {
                (Some(gid), _) => write!(sql, "XA END {0}; XA ROLLBACK {0}", gid.xa()),
                (None, true) => write!(sql, "ROLLBACK TO SAVEPOINT {TRIPWIRE}; ROLLBACK"),
                (None, false) => sql.write_str("ROLLBACK"),
            },
            Control::Prepare(gid) => write!(sql, "XA END {0}; XA PREPARE {0}", gid.xa()),
            Control::CommitPrepared(gid) => write!(sql, "XA COMMIT {}", gid.xa()),
            Control::RollbackPrepared(gid) => write!(sql, "XA ROLLBACK {}", gid.xa()),
        };
        written.expect("a String takes everything");
    }

    fn begins_at_once(_start: &Start) -> bool {
        // Diesel switches batches on and off around it, which are round trips of their own.
        false
    }

    fn alive(raw: &mut MysqlConnection) -> bool {
        // A dead connection looks like any unknown error here, so only the server can tell.
        raw.ping().is_ok()
    }

    fn finds_leftover(raw: &mut MysqlConnection) -> bool {
        // It succeeds with and without a transaction, so nobody can tell.
        let _ = raw.batch_execute("ROLLBACK");
        false
    }

    fn commit_may_have_happened(message: &str) -> bool {
        message.contains("during COMMIT")
    }

    fn is_implicit_commit(message: &str) -> bool {
        message.contains("SAVEPOINT multidb_") && message.contains("does not exist")
    }

    fn collect_binds<T: QueryFragment<Native>>(_raw: &mut MysqlConnection, statement: &T) -> QueryResult<Self::Binds> {
        collect(statement, &mut (), &Native)
    }

    fn execute_prepared(raw: &mut MysqlConnection, sql: String, binds: Self::Binds) -> QueryResult<usize> {
        raw.execute_returning_count(&CollectedQuery::new(sql, true, binds))
    }
}
