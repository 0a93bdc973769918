//! SQLite.

use std::fmt::{self, Write};

use diesel::connection::{AnsiTransactionManager, Connection, LoadConnection, SimpleConnection, TransactionManager};
use diesel::deserialize::QueryableByName;
use diesel::dsl::sql;
use diesel::query_builder::{AstPass, CollectedQuery, MoveableBindCollector, Query, QueryFragment, QueryId};
use diesel::query_dsl::RunQueryDsl;
use diesel::result::{ConnectionError, QueryResult};
use diesel::sql_types::{BigInt, Untyped};
use diesel::sqlite::{Sqlite as Native, SqliteConnection};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};

use super::attached::attach;
use super::backend::{Dialect, Names, collect};
use super::born::Born;
use super::characteristics::{Characteristics, Lock};
use super::check::{Shortcoming, number, text};
use super::control::{Control, Start, savepoint};
use super::foreign_keys::ForeignKeys;
use super::own::{Words, own_statements};
use super::reach::Step;
use super::settings::{Settings, SqliteSettings};
use super::text::Syntax;

/// SQLite: the backend of [`SqliteConn`](crate::SqliteConn).
#[derive(Debug, Clone, Copy)]
pub enum Sqlite {}

/// The library's own tables.
const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

impl Dialect for Sqlite {
    type Native = Native;
    type Raw = SqliteConnection;
    type Binds =
        <<Native as diesel::backend::Backend>::BindCollector<'static> as MoveableBindCollector<Native>>::BindData;

    const CHANGES: Option<&'static str> = Some("SELECT total_changes() AS a, NULL AS b, NULL AS c");

    const NATIVE: Native = Native;
    const NAMES: Names = Names { backend: "SQLite", handle: "SqliteConn" };
    const SYNTAX: Syntax = Syntax::Sqlite;
    const DEFERS_RELEASE: bool = true;
    const EXECUTES_ONE_STEP: bool = true;
    // `INSERT OR ROLLBACK`, a full disk, and others.
    const FAILURES_MAY_UNDO_ALL: bool = true;

    const WORDS: Words = Words {
        now: "CAST(strftime('%s', 'now') AS INTEGER)",
        insert_new: ["INSERT INTO", "ON CONFLICT DO NOTHING"],
        now_committed: "",
        text: "?",
        if_written: "",
        numbered: false,
    };
    // A file has neither a server nor a failover.
    const IDENTITY: [&str; 3] = [
        "SELECT database_id || '|' || environment || '|' || incarnation || '|' || server AS a, '' AS b, '00000000' AS c \
         FROM multidb_meta",
        "{insert} multidb_meta (id, database_id, environment, server, incarnation, forgotten_up_to) VALUES (1, ?, ?, '', \
         '00000000', '') {or_nothing}",
        "UPDATE multidb_meta SET environment = ?, server = '', incarnation = '00000000'",
    ];
    const DURABLE: &[(&str, &str)] = &[];
    // Committed and synced: docs/DESIGN.md says why.
    const PROBE: &str = "PRAGMA synchronous = EXTRA; PRAGMA busy_timeout = {wait}000; BEGIN IMMEDIATE";
    const KEEPS_ASKED: bool = true;
    const LEVELS_CAN_BE_READ_ONLY: bool = true;

    fn lacks(characteristics: &Characteristics) -> Option<&'static str> {
        characteristics.deferrable.then_some("deferrable")
    }

    fn restore(settings: &Settings) -> Option<String> {
        let SqliteSettings { busy_timeout, synchronous, .. } = &settings.sqlite;
        let mut sql = format!("PRAGMA query_only = 0; PRAGMA busy_timeout = {}", busy_timeout.as_millis());
        if !settings.is_rolled_back() {
            // It can't be changed inside of a transaction, and in such a test one is always open.
            write!(sql, "; PRAGMA synchronous = {}", synchronous.unwrap_or("FULL")).expect("a String takes everything");
        }
        Some(sql)
    }

    // A file is what it is, and each statement names it.
    fn born_alike() -> Option<Born> {
        Some(Born::of_file())
    }

    fn born(_raw: &mut SqliteConnection) -> QueryResult<Born> {
        Ok(Born::of_file())
    }

    fn connect(settings: &Settings) -> Result<SqliteConnection, ConnectionError> {
        if let Some(variable) = &settings.sqlite.must_exist
            && crate::databases::file_of(&settings.url).is_some_and(|path| !path.exists())
        {
            return Err(ConnectionError::BadConnection(crate::databases::missing(variable)));
        }
        let mut raw = SqliteConnection::establish(&settings.url)?;
        raw.batch_execute(&session(settings)).map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(raw)
    }

    fn write(control: Control<'_>, sql: &mut String) {
        let written = match control {
            Control::Begin(start) => begin(start, sql),
            Control::Narrow { to, .. } if to.read_only => sql.write_str("PRAGMA query_only = 1"),
            // It already has the only lock that it could wait for, and nothing to check later.
            Control::Narrow { .. } | Control::Across(_) | Control::Decide(_) => Ok(()),
            Control::Widen { to, .. } => write!(sql, "PRAGMA query_only = {}", u8::from(to.read_only)),
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

    #[inline]
    fn fixed(control: Control<'_>) -> Option<&'static str> {
        match control {
            Control::Begin(start) if start.characteristics.is_plain() && start.across.is_none() => {
                Some("BEGIN IMMEDIATE")
            }
            Control::Commit(_) => Some("COMMIT"),
            _ => None,
        }
    }

    fn begins_at_once(start: &Start) -> bool {
        // One that only reads may be sent with reads of several files.
        !start.characteristics.limits.read_only
    }

    // Steady writers must not starve it.
    const RECOVERY_WAIT: u64 = 5;

    fn prepared(_raw: &mut SqliteConnection) -> QueryResult<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn shortcomings(raw: &mut SqliteConnection, _born: &Born, _settings: &Settings) -> QueryResult<Vec<Shortcoming>> {
        let asked = "SELECT (SELECT journal_mode FROM pragma_journal_mode) AS a, (SELECT CAST(synchronous AS TEXT) FROM \
                     pragma_synchronous) AS b, NULL AS c";
        let mut found = Vec::new();
        for row in Self::ask(raw, asked, &[])? {
            let mode = text(&row);
            if matches!(mode, "off" | "memory") {
                let why = "a crash could leave half a transaction";
                found.push(Shortcoming::new("journal_mode", format!("`{mode}`"), "`delete`", why));
            }
            if number(&row) < 2 {
                let why = "a power failure could lose the decision of a transaction that another database joins late";
                found.push(Shortcoming::new("synchronous", row.b.unwrap_or_default(), "`full` or `extra`", why));
            }
        }
        Ok(found)
    }

    fn plan(raw: &mut SqliteConnection, sql: &str) -> QueryResult<Vec<Step>> {
        #[derive(QueryableByName)]
        #[diesel(table_name = plans)]
        struct Row {
            opcode: String,
            p1: i32,
            p2: i32,
            p3: i32,
            p5: i32,
        }
        diesel::table! { plans (opcode) { opcode -> Text, p1 -> Integer, p2 -> Integer, p3 -> Integer, p5 -> Integer, } }

        let rows: Vec<Row> = diesel::sql_query(format!("EXPLAIN {sql}")).load(raw)?;
        Ok(rows
            .into_iter()
            .map(|row| Step { opcode: row.opcode, numbers: [row.p1, row.p2, row.p3, 0, row.p5] })
            .collect())
    }

    fn indecisive(raw: &mut SqliteConnection) -> QueryResult<Option<&'static str>> {
        #[derive(QueryableByName)]
        struct Synchronous {
            #[diesel(sql_type = diesel::sql_types::Integer)]
            synchronous: i32,
        }
        let found: Synchronous = diesel::sql_query("PRAGMA synchronous").get_result(raw)?;
        // FULL is 2. What it leaves out, the folder, is synced by `sync_folder`.
        Ok((found.synchronous < 2).then_some(
            "its transaction has begun with `synchronous` lower than FULL, so that a power failure could lose the decision",
        ))
    }

    fn sync_folder(settings: &Settings) -> std::io::Result<()> {
        let Some(path) = crate::databases::file_of(&settings.url) else { return Ok(()) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(std::path::Path::new(".")))?.sync_all()
    }

    fn abandon(raw: &mut SqliteConnection) {
        // SQLite doesn't close a connection that has a statement, and Diesel panics then. Without its transaction it locks
        // nothing that another reader needs, and in WAL mode nothing that a writer needs.
        let _ = raw.batch_execute("ROLLBACK");
        if let Ok(empty) = SqliteConnection::establish(":memory:") {
            std::mem::forget(std::mem::replace(raw, empty));
        }
    }

    fn alive(_raw: &mut SqliteConnection) -> bool {
        true
    }

    fn finds_leftover(raw: &mut SqliteConnection) -> bool {
        // Without a transaction ROLLBACK is an error.
        raw.batch_execute("ROLLBACK").is_ok()
    }

    fn detach(raw: &mut SqliteConnection) -> QueryResult<()> {
        let asked =
            "SELECT name AS a, NULL AS b, NULL AS c FROM pragma_database_list WHERE name NOT IN ('main', 'temp')";
        for row in Self::ask(raw, asked, &[])? {
            raw.batch_execute(&format!("DETACH \"{}\"", text(&row).replace('"', "\"\"")))?;
        }
        Ok(())
    }

    // A file is opened anew. A database in memory would be lost with its connection.
    fn renewal(settings: &Settings) -> Option<String> {
        settings.private.then(|| format!("{DEFAULTS}; {}", session(settings)))
    }

    fn commit_may_have_happened(message: &str) -> bool {
        // The pages may have reached the file before its sync failed.
        message.contains("disk I/O error")
    }

    fn is_implicit_commit(message: &str) -> bool {
        message.contains("no transaction is active")
    }

    own_statements!(Native, SqliteConnection, ForeignKeys);

    fn collect_binds<T: QueryFragment<Native>>(_raw: &mut SqliteConnection, statement: &T) -> QueryResult<Self::Binds> {
        collect(statement, &mut (), &Native)
    }

    fn execute<T>(raw: &mut SqliteConnection, statement: &T, to_end: bool) -> QueryResult<usize>
    where
        T: QueryFragment<Native> + QueryId,
    {
        if !to_end {
            return raw.execute_returning_count(statement);
        }
        // Deferred keys are checked, and autocommit commits, at the last step.
        raw.load(Rows(statement))?.try_for_each(|row| row.map(drop))?;
        let changes: i64 = diesel::select(sql::<BigInt>("changes()")).get_result(raw)?;
        usize::try_from(changes).map_err(|error| diesel::result::Error::DeserializationError(error.into()))
    }

    fn execute_prepared(raw: &mut SqliteConnection, sql: String, binds: Self::Binds) -> QueryResult<usize> {
        raw.execute_returning_count(&CollectedQuery::new(sql, true, binds))
    }
}

/// A statement as a query, whatever its rows are.
struct Rows<'a, T>(&'a T);

impl<T: QueryFragment<Native>> QueryFragment<Native> for Rows<'_, T> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, Native>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }
}

impl<T: QueryId> QueryId for Rows<'_, T> {
    type QueryId = T::QueryId;
    const HAS_STATIC_QUERY_ID: bool = T::HAS_STATIC_QUERY_ID;
}

impl<T> Query for Rows<'_, T> {
    type SqlType = Untyped;
}

fn begin(start: &Start, sql: &mut String) -> fmt::Result {
    let Characteristics { lock, limits, .. } = start.characteristics;
    if start.across.is_some() {
        // It will hold the decision, which must not be lost. FULL doesn't sync the folder after the journal is unlinked.
        sql.write_str("PRAGMA synchronous = EXTRA; ")?;
    }
    if let Some(timeout) = limits.timeout {
        // The server's limit for a statement is the wait for a lock here.
        write!(sql, "PRAGMA busy_timeout = {}; ", timeout.as_millis().min(i32::MAX.unsigned_abs().into()))?;
    }
    sql.write_str(match lock {
        // A deferred BEGIN that writes later can fail with a stale snapshot, which no waiting mends.
        Lock::Usual if !limits.read_only => "BEGIN IMMEDIATE",
        Lock::Usual => "BEGIN",
        Lock::Immediate => "BEGIN IMMEDIATE",
        Lock::Exclusive => "BEGIN EXCLUSIVE",
    })?;
    if limits.read_only { sql.write_str("; PRAGMA query_only = 1") } else { Ok(()) }
}

/// What a session has that was just opened. Another place for what is temporary deletes all of it.
const DEFAULTS: &str = "PRAGMA temp_store = FILE; PRAGMA temp_store = MEMORY; PRAGMA temp_store = DEFAULT; PRAGMA cache_size = -2000; \
                        PRAGMA synchronous = FULL; PRAGMA query_only = 0; PRAGMA defer_foreign_keys = 0; PRAGMA ignore_check_constraints = 0; PRAGMA \
                        recursive_triggers = 0; PRAGMA reverse_unordered_selects = 0; PRAGMA case_sensitive_like = 0; PRAGMA \
                        writable_schema = 0; PRAGMA legacy_alter_table = 0; PRAGMA read_uncommitted = 0; PRAGMA locking_mode = NORMAL";

fn session(settings: &Settings) -> String {
    let sqlite = &settings.sqlite;
    let mut sql = format!(
        "PRAGMA busy_timeout = {}; PRAGMA foreign_keys = {};",
        sqlite.busy_timeout.as_millis(),
        u8::from(sqlite.foreign_keys)
    );
    if !settings.files.is_empty() {
        // Each pragma for its own file: without a name `journal_mode` is set on all of them.
        return sql + &attach(&settings.files);
    }
    for (pragma, value) in [("journal_mode", sqlite.journal_mode), ("synchronous", sqlite.synchronous)] {
        if let Some(value) = value {
            write!(sql, " PRAGMA {pragma} = {value};").expect("a String takes everything");
        }
    }
    sql
}

/// Whether migrations that must run outside of a transaction can be kept apart too.
const LOCKS_ALWAYS: bool = false;

/// Keeps others from running migrations at the same time, for a minute at most.
fn lock_schema(raw: &mut SqliteConnection) -> QueryResult<()> {
    AnsiTransactionManager::begin_transaction_sql(raw, "BEGIN IMMEDIATE")
}

fn unlock_schema(raw: &mut SqliteConnection) -> QueryResult<()> {
    AnsiTransactionManager::commit_transaction(raw)
}
