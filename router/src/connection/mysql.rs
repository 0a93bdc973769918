//! MySQL and MariaDB.

mod session;

use std::fmt::{self, Write};
use std::time::Duration;

use diesel::connection::Connection;
use diesel::connection::SimpleConnection;
use diesel::deserialize::QueryableByName;
use diesel::mysql::{Mysql as Native, MysqlConnection};
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::query_builder::{CollectedQuery, MoveableBindCollector, QueryFragment};
use diesel::query_dsl::RunQueryDsl;
use diesel::r2d2::R2D2Connection;
use diesel::result::{ConnectionError, QueryResult};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use super::backend::{Dialect, Names, collect};
use super::born::Born;
use super::characteristics::{Characteristics, Lock};
use super::check::{Shortcoming, text};
use super::control::{BRANCH_IDLE_LIMIT, CROSS_LOCK_WAIT, Control, Start, savepoint};
use super::own::{TextRow, Words, own_statements};
use super::settings::Settings;
use super::text::Syntax;

/// MySQL and MariaDB: the backend of [`MysqlConn`](crate::MysqlConn).
#[derive(Debug, Clone, Copy)]
pub enum Mysql {}

/// The savepoint that an implicit commit destroys.
const TRIPWIRE: &str = "multidb_0";

/// For transactions that share a thread, and the library's own statements: waits for locks end after 5 s, or the user's own
/// limit. Rows have one limit; whole tables, backups and DDL have another one, which is a day by default.
const LIMIT_LOCKS: &str = "SET SESSION innodb_lock_wait_timeout = LEAST(@@innodb_lock_wait_timeout, 5), lock_wait_timeout = \
                           LEAST(@@lock_wait_timeout, 5)";
/// The session of a recovery.
const SURVEY: &str = "SET SESSION TRANSACTION ISOLATION LEVEL read committed; SET SESSION innodb_lock_wait_timeout = \
                      LEAST(@@innodb_lock_wait_timeout, 5), lock_wait_timeout = LEAST(@@lock_wait_timeout, 5)";
const _: () = assert!(CROSS_LOCK_WAIT.as_secs() == 5, "as these texts have it");
/// Takes that limit away again, and leaves a stricter one of the user's.
const FREE_LOCKS: &str = "SET SESSION innodb_lock_wait_timeout = IF(@@innodb_lock_wait_timeout < 5, @@innodb_lock_wait_timeout, \
                          @@GLOBAL.innodb_lock_wait_timeout), lock_wait_timeout = IF(@@lock_wait_timeout < 5, \
                          @@lock_wait_timeout, @@GLOBAL.lock_wait_timeout)";
/// Limits them as a branch of several databases, whatever was set before.
const LOCKS_OF_BRANCH: &str = "SET SESSION innodb_lock_wait_timeout = LEAST(@@GLOBAL.innodb_lock_wait_timeout, 5), \
                               lock_wait_timeout = LEAST(@@GLOBAL.lock_wait_timeout, 5)";
/// Takes all limits for locks away again.
const LOCKS_UNLIMITED: &str = "SET SESSION innodb_lock_wait_timeout = DEFAULT, lock_wait_timeout = DEFAULT";
/// Takes the limits of statements away again, behind those for locks. MariaDB runs the first comment, MySQL the second.
const STATEMENTS_UNLIMITED: &str =
    " /*M!100101 , max_statement_time = DEFAULT */ /*!80000 , max_execution_time = DEFAULT */";
/// The longest limit for the locks of tables that the servers take, in seconds.
const LOCK_WAIT_MAX: u128 = 31_536_000;

/// What a stored function may change, but for what the library sets itself.
const SETTINGS: &str = "SELECT CONCAT_WS('|', @@autocommit, @@completion_type, @@sql_mode, @@lc_messages, /*M!100000 @@tx_isolation, \
                        @@tx_read_only, CURRENT_ROLE(), */ /*!80000 @@transaction_isolation, @@transaction_read_only, \
                        CURRENT_ROLE(), */ @@foreign_key_checks, @@unique_checks, @@time_zone, @@character_set_client, \
                        @@character_set_connection, @@character_set_results, @@collation_connection, @@sql_select_limit, \
                        @@sql_safe_updates, @@group_concat_max_len, @@sql_auto_is_null, DATABASE()) AS a, \
                        NULL AS b, NULL AS c";

/// The library's own tables.
const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/mysql");

/// The server and the database on it. MariaDB has only a number, which need not be its own.
macro_rules! server {
    () => {
        "CONCAT(/*M!100000 @@server_id */ /*!80000 @@server_uuid */, '/', {database})"
    };
}

/// The server, which a failover changes.
macro_rules! incarnation {
    () => {
        "/*M!100000 LPAD(HEX(@@server_id), 8, '0') */ /*!80000 LEFT(REPLACE(@@server_uuid, '-', ''), 8) */"
    };
}

impl Dialect for Mysql {
    type Native = Native;
    type Raw = MysqlConnection;
    type Binds = <RawBytesBindCollector<Native> as MoveableBindCollector<Native>>::BindData;

    const NATIVE: Native = Native;
    const NAMES: Names = Names { backend: "MySQL or MariaDB", handle: "MysqlConn" };
    const LOCAL_LOCK_LIMIT: Option<[&str; 2]> = Some([LIMIT_LOCKS, FREE_LOCKS]);
    const FAILED_QUERIES_HANG: bool = true;
    const SYNTAX: Syntax = Syntax::Mysql;
    const DEFERS_RELEASE: bool = false;
    const LOCK_LIMIT: Option<[&str; 2]> = Some([LIMIT_LOCKS, LOCKS_UNLIMITED]);

    const WORDS: Words = Words {
        now: "UNIX_TIMESTAMP()",
        insert_new: ["INSERT IGNORE INTO", ""],
        now_committed: "LOCK IN SHARE MODE",
        text: "?",
        if_written: "",
        numbered: false,
    };
    const IDENTITY: [&str; 3] = [
        concat!(
            "SELECT CONCAT(database_id, '|', environment, '|', incarnation, '|', server) AS a, CONCAT(",
            server!(),
            ", '|innodb_flush_log_at_trx_commit=', @@innodb_flush_log_at_trx_commit, IF(@@log_bin, CONCAT('|sync_binlog=', \
             @@sync_binlog), '')) AS b, IF(@@read_only, NULL, ",
            incarnation!(),
            ") AS c FROM multidb_meta"
        ),
        concat!(
            "{insert} multidb_meta (id, database_id, environment, server, incarnation, forgotten_up_to) SELECT 1, ?, ?, ",
            server!(),
            ", ",
            incarnation!(),
            ", ''"
        ),
        concat!(
            "UPDATE multidb_meta SET environment = ?, server = ",
            server!(),
            ", incarnation = IF(incarnation LIKE CONCAT(",
            incarnation!(),
            ", '%'), incarnation, LEFT(CONCAT(",
            incarnation!(),
            ", '<', incarnation), 62))"
        ),
    ];
    const DURABLE: &[(&str, &str)] = &[("innodb_flush_log_at_trx_commit", "1"), ("sync_binlog", "1")];
    const PROBE: &str = "SET SESSION innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {wait}; SET TRANSACTION ISOLATION \
                         LEVEL read committed, READ WRITE; START TRANSACTION";
    // MariaDB gives the name of a branch free a moment before InnoDB does, when its session ends. Whoever finishes it in between is
    // told that it was done, and nothing was: the branch is on no list until the server restarts.
    const IS_HELD: Option<&'static str> = Some(
        "SELECT branch AS a, NULL AS b, NULL AS c FROM multidb_receipt WHERE gid = ? AND branch = ? FOR UPDATE NOWAIT",
    );
    const LEVELS_CAN_BE_READ_ONLY: bool = false;

    // Read committed, so that what is deleted locks no gap.
    const SURVEY: &str = SURVEY;
    // A list of keys that is long for the table makes the server read all of it, and wait for each row that is locked. This is
    // what keeps it from that.
    const BY_KEY: Option<[&str; 2]> = Some(["SET SESSION sql_safe_updates = 1", "SET SESSION sql_safe_updates = 0"]);

    fn lacks(characteristics: &Characteristics) -> Option<&'static str> {
        match characteristics {
            Characteristics { deferrable: true, .. } => Some("deferrable"),
            Characteristics { lock: Lock::Immediate, .. } => Some("immediate"),
            Characteristics { lock: Lock::Exclusive, .. } => Some("exclusive"),
            Characteristics { .. } => None,
        }
    }

    fn restore(_settings: &Settings) -> Option<String> {
        Some(format!("{LOCKS_UNLIMITED}, wait_timeout = DEFAULT{STATEMENTS_UNLIMITED}"))
    }

    fn born(raw: &mut MysqlConnection) -> QueryResult<Born> {
        session::born(raw)
    }

    fn step_in(raw: &mut MysqlConnection, born: &Born, _local: bool) -> QueryResult<TextRow> {
        session::step_in(raw, born)
    }

    fn step_out(raw: &mut MysqlConnection, born: &Born, before: &TextRow, _local: bool) -> QueryResult<()> {
        session::step_out(raw, born, before)
    }

    fn hidden(raw: &mut MysqlConnection, born: &Born) -> Option<&'static str> {
        session::hidden(raw, born)
    }

    fn connect(settings: &Settings) -> Result<MysqlConnection, ConnectionError> {
        let mut raw = MysqlConnection::establish(&settings.url)?;
        // Diesel gives no errno, so classes of errors are found by their English texts.
        // A server's default may switch autocommit off, or let a COMMIT begin the next transaction.
        raw.batch_execute("SET lc_messages = 'en_US', autocommit = 1, completion_type = 'NO_CHAIN'")
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(raw)
    }

    fn write(control: Control<'_>, sql: &mut String) {
        let written = match control {
            Control::Begin(start) => begin(start, sql),
            Control::Across(_) => across(sql),
            Control::Narrow { to, locks_limited } => limit_statements(to.timeout, locks_limited, sql),
            Control::Widen { to, locks_limited, .. } if to.timeout.is_some() => {
                limit_statements(to.timeout, locks_limited, sql)
            }
            Control::Widen { locks_limited, .. } => unlimit_statements(locks_limited, sql),
            Control::Savepoint(level) => write!(sql, "SAVEPOINT {}", savepoint(level)),
            Control::Release(level) => write!(sql, "RELEASE SAVEPOINT {}", savepoint(level)),
            Control::RollbackTo(level) => write!(sql, "ROLLBACK TO SAVEPOINT {}", savepoint(level)),
            // Otherwise the decision would be a statement of its own, and committed at once.
            Control::Decide(start) if start.tripwire && start.xa().is_none() => {
                write!(sql, "RELEASE SAVEPOINT {TRIPWIRE}")
            }
            Control::Decide(_) => Ok(()),
            Control::Commit(start) => commit(start, sql),
            Control::Rollback(start) => match (start.xa(), start.tripwire) {
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

    fn prepared(raw: &mut MysqlConnection) -> QueryResult<Vec<(String, String)>> {
        /// Others' names need not be text.
        #[derive(QueryableByName)]
        struct Recovered {
            #[diesel(sql_type = diesel::sql_types::Binary)]
            data: Vec<u8>,
        }
        let found: Vec<Recovered> = diesel::sql_query("XA RECOVER").load(raw)?;
        let texts = found.into_iter().filter_map(|row| String::from_utf8(row.data).ok());
        Ok(texts.filter_map(|data| crate::transaction_id::split_global(&data)).collect())
    }

    fn shortcomings(raw: &mut MysqlConnection, born: &Born, _settings: &Settings) -> QueryResult<Vec<Shortcoming>> {
        let mut found = Vec::new();
        let asked = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('autocommit', 'completion_type', \
                     'innodb_flush_log_at_trx_commit', 'log_bin', 'sql_mode', 'sync_binlog', 'version', 'wsrep_on')";
        let variables: Vec<Variable> = diesel::sql_query(asked).load(raw)?;
        let value = |name: &str| variables.iter().find(|variable| variable.name == name).map(|found| &*found.value);
        let mut must = |name: &str, wanted: &str, why: &'static str| match value(name) {
            Some(value) if value != wanted => {
                found.push(Shortcoming::new(name, format!("`{value}`"), format!("`{wanted}`"), why));
            }
            _ => {}
        };
        must("innodb_flush_log_at_trx_commit", "1", DURABILITY);
        if value("log_bin") == Some("ON") {
            must("sync_binlog", "1", DURABILITY);
        }
        must("wsrep_on", "OFF", "Galera refuses XA");
        must("autocommit", "ON", "another client's statements are lost unless it commits them");
        must("completion_type", "NO_CHAIN", "another client's COMMIT begins a transaction that it doesn't know of");
        let mode = value("sql_mode").unwrap_or_default().to_owned();
        if !mode.contains("STRICT_") {
            let why = "a value that doesn't fit its column is stored changed, and the statement succeeds";
            found.push(Shortcoming::new("sql_mode", format!("`{mode}`"), "with `STRICT_TRANS_TABLES`", why));
        }
        let version = value("version").unwrap_or_default().to_owned();
        if !is_new_enough(&version) {
            let wanted = "MariaDB 10.5 or MySQL 8.0.30, or newer";
            found.push(Shortcoming::new("version", format!("`{version}`"), wanted, "older ones lose XA in a crash"));
        }
        let asked = "SELECT table_name AS a, engine AS b, NULL AS c FROM information_schema.tables WHERE table_schema = \
                     {database} AND table_type = 'BASE TABLE' AND engine <> 'InnoDB' ORDER BY table_name";
        for row in Self::load_own(raw, born, asked, &[])? {
            let engine = format!("in the engine {}", row.b.as_deref().unwrap_or_default());
            let why = "its rows stay when a transaction is rolled back";
            found.push(Shortcoming::new(format!("table {}", text(&row)), engine, "in InnoDB", why));
        }
        if let Err(error) = Self::prepared(raw) {
            let why = "recovery could not find what is prepared";
            found.push(Shortcoming::new("XA RECOVER", format!("refused ({error})"), "granted: XA_RECOVER_ADMIN", why));
        }
        Ok(found)
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
        // Outside of a transaction a savepoint is gone at once, unless autocommit is off. In other states both are refused.
        match raw.batch_execute("SAVEPOINT multidb_mark; RELEASE SAVEPOINT multidb_mark") {
            Err(error) if Self::is_implicit_commit(&error.to_string()) => false,
            _ => {
                let _ = raw.batch_execute("ROLLBACK");
                true
            }
        }
    }

    fn late_error(raw: &mut MysqlConnection) -> QueryResult<Option<String>> {
        #[derive(QueryableByName)]
        struct Errors {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            errors: i64,
        }
        let count: Errors = diesel::sql_query("SELECT @@error_count AS errors").get_result(raw)?;
        if count.errors == 0 {
            return Ok(None);
        }
        raw.batch_execute("GET DIAGNOSTICS CONDITION 1 @multidb_error = MESSAGE_TEXT")?;
        let found = Self::ask(raw, "SELECT @multidb_error AS a, NULL AS b, NULL AS c", &[])?;
        let message = found.into_iter().next().and_then(|row| row.a);
        Ok(Some(message.unwrap_or_else(|| "a statement failed after its first result".into())))
    }

    fn session_settings(raw: &mut MysqlConnection) -> QueryResult<Option<String>> {
        Ok(Self::ask(raw, SETTINGS, &[])?.into_iter().next().and_then(|row| row.a))
    }

    fn release_locks(raw: &mut MysqlConnection) -> QueryResult<()> {
        diesel::sql_query("DO RELEASE_ALL_LOCKS()").execute(raw).map(drop)
    }

    fn commit_may_have_happened(message: &str) -> bool {
        message.contains("during COMMIT")
    }

    fn is_implicit_commit(message: &str) -> bool {
        message.contains("SAVEPOINT multidb_") && message.contains("does not exist")
    }

    fn not_in_branch(message: &str) -> Option<(&'static str, &'static str)> {
        // The code begins the message in every language.
        if message.contains("XAER_RMFAIL") && message.contains("ACTIVE") {
            return Some((
                "a statement that commits by itself, such as DDL or LOCK TABLES, is refused there",
                "run it before or after the scope, or as a migration",
            ));
        }
        // MySQL.
        message.contains("xa_detach_on_prepare").then_some((
            "temporary tables are refused there",
            "use an ordinary table, or a scope of its own (`propagation = requires_new`)",
        ))
    }

    own_statements!(Native, MysqlConnection, ());

    fn collect_binds<T: QueryFragment<Native>>(_raw: &mut MysqlConnection, statement: &T) -> QueryResult<Self::Binds> {
        collect(statement, &mut (), &Native)
    }

    fn execute_prepared(raw: &mut MysqlConnection, sql: String, binds: Self::Binds) -> QueryResult<usize> {
        raw.execute_returning_count(&CollectedQuery::new(sql, true, binds))
    }
}

fn begin(start: &Start, sql: &mut String) -> fmt::Result {
    let Characteristics { isolation, limits, .. } = start.characteristics;
    if limits.timeout.is_some() {
        limit_statements(limits.timeout, start.limits_locks(), sql)?;
        sql.write_str("; ")?;
    }
    if start.across.is_some() {
        across(sql)?;
        sql.write_str("; ")?;
    } else if start.lock_limit {
        write!(sql, "{LIMIT_LOCKS}; ")?;
    }
    // Both hold for the next transaction alone.
    if let Some(isolation) = isolation {
        write!(sql, "SET TRANSACTION ISOLATION LEVEL {}; ", isolation.sql())?;
    }
    if limits.read_only {
        sql.write_str("SET TRANSACTION READ ONLY; ")?;
    }
    match (start.xa(), start.tripwire) {
        (Some(gid), _) => write!(sql, "XA START {}", gid.xa()),
        (None, true) => write!(sql, "START TRANSACTION; SAVEPOINT {TRIPWIRE}"),
        (None, false) => sql.write_str("START TRANSACTION"),
    }
}

fn commit(start: &Start, sql: &mut String) -> fmt::Result {
    if start.characteristics.limits.timeout.is_some() {
        // No limit may interrupt the COMMIT itself: nobody would know what became of it.
        unlimit_statements(start.limits_locks(), sql)?;
        sql.write_str("; ")?;
    }
    match (start.xa(), start.tripwire) {
        (Some(gid), _) => write!(sql, "XA END {0}; XA COMMIT {0} ONE PHASE", gid.xa()),
        (None, true) => write!(sql, "RELEASE SAVEPOINT {TRIPWIRE}; COMMIT"),
        (None, false) => sql.write_str("COMMIT"),
    }
}

/// The limits of a branch, never looser than the user's own.
fn across(sql: &mut String) -> fmt::Result {
    write!(
        sql,
        "SET SESSION innodb_lock_wait_timeout = LEAST(@@innodb_lock_wait_timeout, {0}), lock_wait_timeout = \
         LEAST(@@lock_wait_timeout, {0}), wait_timeout = LEAST(@@wait_timeout, {1})",
        CROSS_LOCK_WAIT.as_secs(),
        BRANCH_IDLE_LIMIT.as_secs()
    )
}

/// The server's limits for a single statement and for its lock waits, which MySQL's own limit leaves out. If lock waits have
/// a limit of their own, the shorter one holds.
fn limit_statements(timeout: Option<Duration>, locks_limited: bool, sql: &mut String) -> fmt::Result {
    let Some(timeout) = timeout else { return Ok(()) };
    // 0 would be no limit. The greatest are the server's.
    let milliseconds = timeout.as_millis().clamp(1, 31_536_000_000);
    let most = if locks_limited { CROSS_LOCK_WAIT.as_secs().into() } else { LOCK_WAIT_MAX };
    let (seconds, lock_seconds) = (milliseconds / 1000, milliseconds.div_ceil(1000).min(most));
    write!(
        sql,
        "SET SESSION innodb_lock_wait_timeout = {lock_seconds}, lock_wait_timeout = {lock_seconds} /*M!100101 , \
         max_statement_time = {seconds}.{:03} */ /*!80000 , max_execution_time = {milliseconds} */",
        milliseconds % 1000
    )
}

/// Takes the limits of statements away again, and those for locks if they have come with them.
fn unlimit_statements(locks_limited: bool, sql: &mut String) -> fmt::Result {
    let locks = if locks_limited { LOCKS_OF_BRANCH } else { LOCKS_UNLIMITED };
    write!(sql, "{locks}{STATEMENTS_UNLIMITED}")
}

const DURABILITY: &str = "a confirmed commit could be lost by a crash, on one database alone";

/// A server variable.
#[derive(QueryableByName)]
struct Variable {
    #[diesel(sql_type = diesel::sql_types::Text, column_name = "Variable_name")]
    name: String,
    #[diesel(sql_type = diesel::sql_types::Text, column_name = "Value")]
    value: String,
}

/// Whether a prepared transaction survives a crash of the server.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let mut next = || numbers.next().unwrap_or(0);
    let found = (next(), next(), next());
    if version.contains("MariaDB") { found >= (10, 5, 0) } else { found >= (8, 0, 30) }
}

/// Whether migrations that must run outside of a transaction can be kept apart too.
const LOCKS_ALWAYS: bool = true;

/// Keeps others from running migrations at the same time, for a minute at most.
fn lock_schema(raw: &mut MysqlConnection) -> QueryResult<()> {
    raw.batch_execute("DO GET_LOCK(CONCAT('multidb ', LEFT(DATABASE(), 50)), 60)")
}

fn unlock_schema(raw: &mut MysqlConnection) -> QueryResult<()> {
    raw.batch_execute("DO RELEASE_LOCK(CONCAT('multidb ', LEFT(DATABASE(), 50)))")
}
