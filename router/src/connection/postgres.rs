//! PostgreSQL.

use std::fmt::Write;

use diesel::connection::{AnsiTransactionManager, Connection, SimpleConnection, TransactionManager};
use diesel::pg::{Pg, PgConnection, PgMetadataLookup};
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::query_builder::{CollectedQuery, MoveableBindCollector, QueryFragment};
use diesel::result::{ConnectionError, QueryResult};

use super::backend::{Dialect, Names, collect};
use super::control::{Control, Start, savepoint};
use super::guard::Syntax;
use super::settings::Settings;

/// PostgreSQL: the backend of [`PgConn`](crate::PgConn).
#[derive(Debug, Clone, Copy)]
pub enum Postgres {}

/// For a transaction that was begun inside another one: lock waits end after 5 s where they would never end.
const LIMITED_BEGIN: &str =
    "BEGIN; SELECT set_config('lock_timeout', '5s', true) WHERE current_setting('lock_timeout') = '0'";

impl Dialect for Postgres {
    type Native = Pg;
    type Raw = PgConnection;
    type Binds = <RawBytesBindCollector<Pg> as MoveableBindCollector<Pg>>::BindData;

    const NATIVE: Pg = Pg;
    const NAMES: Names = Names { backend: "PostgreSQL", handle: "PgConn" };
    const LOCAL_LOCK_LIMIT: Option<&str> =
        Some("SELECT set_config('lock_timeout', '5s', true) WHERE current_setting('lock_timeout') = '0'");
    const SYNTAX: Syntax = Syntax::Postgres;
    const DEFERS_RELEASE: bool = true;
    const LOCK_LIMIT: Option<[&str; 2]> = Some([
        "SELECT set_config('lock_timeout', '5s', false) WHERE current_setting('lock_timeout') = '0'",
        "RESET lock_timeout",
    ]);

    fn connect(settings: &Settings) -> Result<PgConnection, ConnectionError> {
        PgConnection::establish(&settings.url)
    }

    fn write(control: Control<'_>, sql: &mut String) {
        let written = match control {
            Control::Begin(start) if start.lock_limit => sql.write_str(LIMITED_BEGIN),
            Control::Begin(_) => sql.write_str("BEGIN"),
            Control::Savepoint(level) => write!(sql, "SAVEPOINT {}", savepoint(level)),
            Control::Release(level) => write!(sql, "RELEASE SAVEPOINT {}", savepoint(level)),
            Control::RollbackTo(level) => write!(sql, "ROLLBACK TO SAVEPOINT {}", savepoint(level)),
            Control::Commit(_) => sql.write_str("COMMIT"),
            Control::Rollback(_) => sql.write_str("ROLLBACK"),
            // A bare PREPARE of an aborted transaction answers success and rolls back; a SAVEPOINT there fails.
            Control::Prepare(gid) => {
                write!(sql, "SAVEPOINT multidb_alive; PREPARE TRANSACTION {}", gid.postgres())
            }
            Control::CommitPrepared(gid) => write!(sql, "COMMIT PREPARED {}", gid.postgres()),
            Control::RollbackPrepared(gid) => write!(sql, "ROLLBACK PREPARED {}", gid.postgres()),
        };
        written.expect("a String takes everything");
    }

    fn begins_at_once(start: &Start) -> bool {
        !start.lock_limit
    }

    fn refresh(raw: &mut PgConnection) {
        // A COPY that fails after its first row ends like a complete one, as Diesel reads it. COMMIT of the aborted
        // transaction would then answer success. Any statement makes Diesel ask; a failure of this one is what it sees.
        let _ = raw.batch_execute("SELECT 1");
    }

    fn alive(raw: &mut PgConnection) -> bool {
        // Diesel asks libpq after most statements, but not where preparing a query has failed. So it is made to ask once
        // more: an empty text is refused by Diesel, does nothing on the server, and may stand in an aborted transaction.
        let _ = raw.batch_execute("");
        AnsiTransactionManager::transaction_manager_status_mut(raw).transaction_depth().is_ok()
    }

    fn finds_leftover(raw: &mut PgConnection) -> bool {
        // libpq knows of the transaction, Diesel doesn't: the two disagree, and Diesel takes the connection for broken.
        !Self::alive(raw)
    }

    fn commit_may_have_happened(_message: &str) -> bool {
        false
    }

    fn collect_binds<T: QueryFragment<Pg>>(raw: &mut PgConnection, statement: &T) -> QueryResult<Self::Binds> {
        let lookup: &mut dyn PgMetadataLookup = raw;
        collect(statement, lookup, &Pg)
    }

    fn execute_prepared(raw: &mut PgConnection, sql: String, binds: Self::Binds) -> QueryResult<usize> {
        raw.execute_returning_count(&CollectedQuery::new(sql, true, binds))
    }
}
