//! SQLite.

use std::fmt::Write;

use diesel::connection::{Connection, SimpleConnection};
use diesel::query_builder::{CollectedQuery, MoveableBindCollector, QueryFragment};
use diesel::result::{ConnectionError, QueryResult};
use diesel::sqlite::{Sqlite as Native, SqliteConnection};

use super::backend::{Dialect, Names, collect};
use super::control::{Control, Start, savepoint};
use super::guard::Syntax;
use super::settings::Settings;

/// SQLite: the backend of [`SqliteConn`](crate::SqliteConn).
#[derive(Debug, Clone, Copy)]
pub enum Sqlite {}

impl Dialect for Sqlite {
    type Native = Native;
    type Raw = SqliteConnection;
    type Binds =
        <<Native as diesel::backend::Backend>::BindCollector<'static> as MoveableBindCollector<Native>>::BindData;

    const NATIVE: Native = Native;
    const NAMES: Names = Names { backend: "SQLite", handle: "SqliteConn" };
    const SYNTAX: Syntax = Syntax::Sqlite;
    const DEFERS_RELEASE: bool = true;

    fn connect(settings: &Settings) -> Result<SqliteConnection, ConnectionError> {
        let mut raw = SqliteConnection::establish(&settings.url)?;
        raw.batch_execute(&session(settings)).map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(raw)
    }

    fn write(control: Control<'_>, sql: &mut String) {
        let written = match control {
            // A deferred BEGIN that writes later can fail with a stale snapshot, which no waiting mends.
            Control::Begin(_) => sql.write_str("BEGIN IMMEDIATE"),
            Control::Savepoint(level) => write!(sql, "SAVEPOINT {}", savepoint(level)),
            Control::Release(level) => write!(sql, "RELEASE {}", savepoint(level)),
            Control::RollbackTo(level) => write!(sql, "ROLLBACK TO {}", savepoint(level)),
            Control::Commit(_) => sql.write_str("COMMIT"),
            Control::Rollback(_) => sql.write_str("ROLLBACK"),
            // SQLite has no PREPARE: the statement is a syntax error, and nothing can come of it.
            Control::Prepare(_) | Control::CommitPrepared(_) | Control::RollbackPrepared(_) => sql.write_str("PREPARE"),
        };
        written.expect("a String takes everything");
    }

    fn begins_at_once(_start: &Start) -> bool {
        true
    }

    fn alive(_raw: &mut SqliteConnection) -> bool {
        true
    }

    fn finds_leftover(raw: &mut SqliteConnection) -> bool {
        // Without a transaction ROLLBACK is an error.
        raw.batch_execute("ROLLBACK").is_ok()
    }

    fn commit_may_have_happened(message: &str) -> bool {
        // The pages may have reached the file before its sync failed.
        message.contains("disk I/O error")
    }

    fn is_implicit_commit(message: &str) -> bool {
        message.contains("no transaction is active")
    }

    fn collect_binds<T: QueryFragment<Native>>(_raw: &mut SqliteConnection, statement: &T) -> QueryResult<Self::Binds> {
        collect(statement, &mut (), &Native)
    }

    fn execute_prepared(raw: &mut SqliteConnection, sql: String, binds: Self::Binds) -> QueryResult<usize> {
        raw.execute_returning_count(&CollectedQuery::new(sql, true, binds))
    }
}

fn session(settings: &Settings) -> String {
    let sqlite = &settings.sqlite;
    let mut sql = format!(
        "PRAGMA busy_timeout = {}; PRAGMA foreign_keys = {};",
        sqlite.busy_timeout.as_millis(),
        u8::from(sqlite.foreign_keys)
    );
    for (pragma, value) in [("journal_mode", sqlite.journal_mode), ("synchronous", sqlite.synchronous)] {
        if let Some(value) = value {
            write!(sql, " PRAGMA {pragma} = {value};").expect("a String takes everything");
        }
    }
    sql
}
