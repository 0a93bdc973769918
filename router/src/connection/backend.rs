//! The three kinds of database, and what the library needs to know of each.

use std::borrow::Cow;

use diesel::connection::{AnsiTransactionManager, Connection, SimpleConnection};
use diesel::migration::MigrationConnection;
use diesel::query_builder::bind_collector::BindCollector;
use diesel::query_builder::{MoveableBindCollector, QueryBuilder, QueryFragment, QueryId};
use diesel::r2d2::R2D2Connection;
use diesel::result::{ConnectionError, QueryResult};

use super::born::Born;
use super::characteristics::Characteristics;
use super::check::Shortcoming;
use super::control::{Control, Start};
use super::migrations::{Migrations, Ran};
use super::own::{TextRow, Words};
use super::reach::Step;
use super::settings::Settings;
use super::text::Syntax;

/// A kind of database: [`Postgres`](crate::Postgres), [`Mysql`](crate::Mysql) or [`Sqlite`](crate::Sqlite).
///
/// These are markers of the library, not Diesel's backends, so that the handle's type says nothing of the transport.
/// The trait is sealed.
pub trait Backend: Dialect {}

impl<B: Dialect> Backend for B {}

/// Texts that name a backend in errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// The database's own name.
    pub backend: &'static str,
    /// The handle that fits it.
    pub handle: &'static str,
}

/// What differs between the databases.
pub trait Dialect: Sized + Send + Sync + 'static {
    /// Diesel's backend.
    type Native: diesel::backend::Backend<QueryBuilder: QueryBuilder<Self::Native> + Default> + 'static;
    /// Diesel's connection.
    type Raw: Connection<Backend = Self::Native, TransactionManager = AnsiTransactionManager>
        + R2D2Connection
        + MigrationConnection
        + Send
        + 'static;
    /// Collected bind values, free of the query's lifetime.
    type Binds: 'static;

    /// Diesel's backend, as a value.
    const NATIVE: Self::Native;

    /// How errors name it.
    const NAMES: Names;

    /// As [`LOCK_LIMIT`](Self::LOCK_LIMIT), for the open transaction. If it outlives that,
    /// [`restore`](Self::restore) takes it away.
    const LOCAL_LOCK_LIMIT: Option<[&str; 2]> = None;

    /// Whether any statement that fails may have rolled the whole transaction back.
    const FAILURES_MAY_UNDO_ALL: bool = false;

    /// The statement after which nothing can lift the read-only mode of the open transaction. `None` if there is none.
    const KEEPS_READ_ONLY: Option<&str> = None;

    /// Asks how many rows the connection has changed since it was opened. A number that has not changed proves a transaction a
    /// read, as long as only rows were changed.
    const CHANGES: Option<&'static str> = None;

    /// Whether a prepared query that failed while its rows came must not be run again. libmariadb would wait without end for the
    /// rest of the rows.
    const FAILED_QUERIES_HANG: bool = false;

    /// Whether Diesel executes a statement up to its first row alone.
    const EXECUTES_ONE_STEP: bool = false;

    /// What its texts may look like.
    const SYNTAX: Syntax;

    /// Whether RELEASE may wait for the next control statement.
    ///
    /// Not where RELEASE is what finds out that a DDL has committed the transaction.
    const DEFERS_RELEASE: bool;

    /// What a test runs where production has a COMMIT, to check the constraints that wait for it. Empty where they can't be
    /// asked for.
    #[cfg(feature = "testing")]
    const CHECK_DEFERRED: &str = "";

    /// Gives the session's lock waits a limit where they have none, or a longer one, and takes it away again. `None` if
    /// they have one anyway.
    const LOCK_LIMIT: Option<[&str; 2]> = None;

    /// Whether the server can keep a single level from writing. Where it can't, the handle refuses what is not proven a
    /// read.
    const LEVELS_CAN_BE_READ_ONLY: bool;

    /// What the database can't enforce of these, as the attribute's key writes it.
    fn lacks(characteristics: &Characteristics) -> Option<&'static str>;

    /// How it writes statements on the library's own tables.
    const WORDS: Words;

    /// What all connections begin with, where none needs to be asked.
    fn born_alike() -> Option<Born> {
        None
    }

    /// Asks a connection that was not used yet what all of them begin with.
    fn born(raw: &mut Self::Raw) -> QueryResult<Born>;

    /// Lets a session that the user has changed be as it was born, for statements of the library's, and gives what
    /// [`step_out`](Self::step_out) needs. `local`: in an open transaction.
    fn step_in(_raw: &mut Self::Raw, _born: &Born, _local: bool) -> QueryResult<TextRow> {
        Ok(TextRow::default())
    }

    /// Lets it be as it was before that.
    fn step_out(_raw: &mut Self::Raw, _born: &Born, _before: &TextRow, _local: bool) -> QueryResult<()> {
        Ok(())
    }

    /// A table of the library's that a temporary one hides, also from a statement that names its place.
    fn hidden(_raw: &mut Self::Raw, _born: &Born) -> Option<&'static str> {
        None
    }

    /// Fails now where a trigger would at PREPARE, which belongs to the user's statements.
    const FIRE: &str = "";

    /// Takes the role back that the connection was born with, until the connection is closed, since the server lets no other
    /// role finish what is prepared. Gives the role that is left if it is not that one.
    fn put_back(_raw: &mut Self::Raw, _born: &Born) -> QueryResult<Option<String>> {
        Ok(None)
    }

    /// Lets a connection make tables in this place.
    fn make_in(_raw: &mut Self::Raw, _born: &Born) -> QueryResult<()> {
        Ok(())
    }

    /// Asks what the database is, writes what it is to be, and writes that it is on this server now: see
    /// [`identity`](super::identity).
    const IDENTITY: [&str; 3];

    /// Whether a server that was promoted has a greater incarnation than the one before it.
    const INCARNATIONS_GROW: bool = false;

    /// Settings without which a confirmed commit may be lost, as the server shows them, and what they must be.
    const DURABLE: &[(&str, &str)];

    /// Why the open transaction can't hold a decision. Asked where another database joins it late.
    fn indecisive(_raw: &mut Self::Raw) -> QueryResult<Option<&'static str>> {
        Ok(None)
    }

    /// Whether it prepares transactions; `None` where the server doesn't say.
    fn prepares(_raw: &mut Self::Raw) -> QueryResult<Option<bool>> {
        Ok(None)
    }

    /// What is not set up for transactions over several databases.
    fn shortcomings(raw: &mut Self::Raw, born: &Born, settings: &Settings) -> QueryResult<Vec<Shortcoming>>;

    /// Makes a commit durable that the database itself has not made so.
    fn sync_folder(_settings: &Settings) -> std::io::Result<()> {
        Ok(())
    }

    /// Begins the transaction that asks what became of another one, with a limit of `{wait}` seconds for lock waits.
    const PROBE: &str;

    /// Whether the row that asks must stay: see [`Keep::IfOpen`](super::decision::Keep::IfOpen).
    const KEEPS_ASKED: bool = false;

    /// How many seconds recovery waits for a lock before it takes its holder for alive.
    const RECOVERY_WAIT: u64 = 1;
    /// Asks whether a transaction that nobody lists holds the row of a receipt, without waiting: then it is refused. `None` where
    /// who is told that a branch has ended need not doubt it.
    const IS_HELD: Option<&'static str> = None;

    /// The plan of a statement: what it would do to which file. Asked if a connection holds several.
    fn plan(_raw: &mut Self::Raw, _sql: &str) -> QueryResult<Vec<Step>> {
        Ok(Vec::new())
    }

    /// The branches that are prepared in this database, or on its whole server, by their names.
    fn prepared(raw: &mut Self::Raw) -> QueryResult<Vec<(String, String)>>;

    /// Makes the session of a recovery or a probe: it waits for nothing without a limit.
    const SURVEY: &str = "";

    /// Makes DELETE and UPDATE find their rows by their keys alone, and lets them choose again. `None` if they never touch
    /// other rows.
    const BY_KEY: Option<[&str; 2]> = None;

    /// Commits a write that is replicated, where anything is: it proves that this is the primary, and that what was read is
    /// replicated. An error where no standby confirms it in time.
    fn confirm(_raw: &mut Self::Raw, _born: &Born) -> QueryResult<()> {
        Ok(())
    }

    /// Undoes what limits have set on the session, where they outlive the transaction.
    fn restore(_settings: &Settings) -> Option<String> {
        None
    }

    /// Opens a connection and prepares its session.
    fn connect(settings: &Settings) -> Result<Self::Raw, ConnectionError>;

    /// Writes one control statement, without its semicolon.
    fn write(control: Control<'_>, sql: &mut String);

    /// What [`write`](Self::write) would write, where that is a text that never changes: of a BEGIN or a COMMIT alone.
    fn fixed(_control: Control<'_>) -> Option<&'static str> {
        None
    }

    /// Whether a BEGIN that failed alone has left the connection outside of any transaction.
    ///
    /// Not where it is sent in several statements, of which the first may have begun one.
    fn begins_at_once(start: &Start) -> bool;

    /// Lets Diesel find out what state the transaction is in, where something may have kept that from it.
    fn refresh(_raw: &mut Self::Raw) {}

    /// Gives up a connection with a statement that can't be ended any more.
    fn abandon(_raw: &mut Self::Raw) {}

    /// Whether the connection still reaches its server. Asked only after a failure.
    fn alive(raw: &mut Self::Raw) -> bool;

    /// Rolls back a transaction that Diesel doesn't know of. `false` if there certainly was none.
    fn finds_leftover(raw: &mut Self::Raw) -> bool;

    /// A mark in the open transaction, which its end takes away.
    fn mark(_number: u64) -> Cow<'static, str> {
        "SAVEPOINT multidb_mark".into()
    }

    /// Whether the mark is there. It is taken away.
    fn is_marked(raw: &mut Self::Raw, _number: u64) -> QueryResult<bool> {
        match raw.batch_execute("RELEASE SAVEPOINT multidb_mark") {
            Ok(()) => Ok(true),
            Err(error) if error.to_string().contains("multidb_mark") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The error of a statement that came after the results that Diesel has read.
    fn late_error(_raw: &mut Self::Raw) -> QueryResult<Option<String>> {
        Ok(None)
    }

    /// Makes the session what it was when it was opened, after anything was done to it. `None` if only a new one is.
    fn renewal(_settings: &Settings) -> Option<String> {
        None
    }

    /// Gives up other databases that a text has taken in.
    fn detach(_raw: &mut Self::Raw) -> QueryResult<()> {
        Ok(())
    }

    /// The settings of the session that a stored function may change.
    fn session_settings(_raw: &mut Self::Raw) -> QueryResult<Option<String>> {
        Ok(None)
    }

    /// Releases locks that belong to the session, and not to a transaction.
    fn release_locks(_raw: &mut Self::Raw) -> QueryResult<()> {
        Ok(())
    }

    /// Whether a COMMIT that failed on a live connection may nevertheless have committed.
    fn commit_may_have_happened(message: &str) -> bool;

    /// Whether a failed RELEASE or ROLLBACK TO says that a statement has committed the transaction by itself.
    fn is_implicit_commit(_message: &str) -> bool {
        false
    }

    /// What the database refuses in a part of a transaction over several databases, if the error of a statement says that it does,
    /// and what to do.
    fn not_in_branch(_message: &str) -> Option<(&'static str, &'static str)> {
        None
    }

    /// What to do, if a failed PREPARE says that the transaction holds what can't be prepared.
    fn not_prepared(_message: &str) -> Option<&'static str> {
        None
    }

    /// The bind values of a statement, ready to be used with a statement text of their own.
    fn collect_binds<T: QueryFragment<Self::Native>>(raw: &mut Self::Raw, statement: &T) -> QueryResult<Self::Binds>;

    /// Runs a statement on the library's own tables.
    fn execute_own(raw: &mut Self::Raw, born: &Born, sql: &str, binds: &[&str]) -> QueryResult<usize> {
        Self::execute_own_in(raw, born, 0, sql, binds)
    }

    /// Runs a query on the library's own tables.
    fn load_own(raw: &mut Self::Raw, born: &Born, sql: &str, binds: &[&str]) -> QueryResult<Vec<TextRow>> {
        Self::load_own_in(raw, born, 0, sql, binds)
    }

    /// Runs a statement on the library's own tables, in the file at this place of the connection.
    fn execute_own_in(raw: &mut Self::Raw, born: &Born, file: usize, sql: &str, binds: &[&str]) -> QueryResult<usize>;

    /// Runs a query on the library's own tables, in the file at this place of the connection.
    fn load_own_in(
        raw: &mut Self::Raw,
        born: &Born,
        file: usize,
        sql: &str,
        binds: &[&str],
    ) -> QueryResult<Vec<TextRow>>;

    /// Runs a query that needs no table of the library's, in the backend's own words.
    fn ask(raw: &mut Self::Raw, sql: &str, binds: &[&str]) -> QueryResult<Vec<TextRow>>;

    /// Runs what is missing of these migrations, or of the library's own.
    fn migrate(raw: &mut Self::Raw, source: Option<&dyn Migrations>) -> diesel::migration::Result<Ran>;

    /// Runs a statement, and counts the rows that it changed. `to_end` if it may give rows.
    fn execute<T>(raw: &mut Self::Raw, statement: &T, _to_end: bool) -> QueryResult<usize>
    where
        T: QueryFragment<Self::Native> + QueryId,
    {
        raw.execute_returning_count(statement)
    }

    /// Runs a statement text with collected binds as a prepared statement that the connection keeps.
    fn execute_prepared(raw: &mut Self::Raw, sql: String, binds: Self::Binds) -> QueryResult<usize>;
}

/// Collects the bind values of a statement and gives them away.
pub(super) fn collect<'a, N, T, C>(
    statement: &'a T,
    lookup: &mut N::MetadataLookup,
    backend: &'a N,
) -> QueryResult<C::BindData>
where
    N: diesel::backend::Backend<BindCollector<'a> = C>,
    T: QueryFragment<N>,
    C: BindCollector<'a, N> + MoveableBindCollector<N> + Default,
{
    let mut collector = C::default();
    statement.collect_binds(&mut collector, lookup, backend)?;
    Ok(collector.moveable())
}

#[cfg(all(test, feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod tests {
    use super::super::characteristics::{Isolation, Limits, Lock};
    use super::*;

    /// Checks the texts of one backend, and says how many of them are fixed.
    fn fixed<B: Dialect>() -> usize {
        let timeout = Some(std::time::Duration::from_secs(1));
        let characteristics = [
            Characteristics::PLAIN,
            Characteristics { isolation: Some(Isolation::Serializable), ..Characteristics::PLAIN },
            Characteristics { lock: Lock::Exclusive, ..Characteristics::PLAIN },
            Characteristics { deferrable: true, ..Characteristics::PLAIN },
            Characteristics { limits: Limits { read_only: true, timeout: None }, ..Characteristics::PLAIN },
            Characteristics { limits: Limits { read_only: false, timeout }, ..Characteristics::PLAIN },
        ];
        let mut fixed = 0;
        for (characteristics, flags) in
            characteristics.into_iter().flat_map(|one| (0..4).map(move |flags| (one, flags)))
        {
            let (tripwire, lock_limit) = (flags & 1 == 1, flags & 2 == 2);
            let start = &Start { tripwire, lock_limit, characteristics, across: None };
            for control in
                [Control::Begin(start), Control::Commit(start), Control::Rollback(start), Control::Savepoint(2)]
            {
                let Some(text) = B::fixed(control) else { continue };
                let mut written = String::new();
                B::write(control, &mut written);
                assert_eq!(text, written, "{control:?}");
                fixed += 1;
            }
        }
        fixed
    }

    #[test]
    fn a_fixed_text_is_the_one_that_would_be_written() {
        // 24 kinds of COMMIT, and the plain BEGINs: on SQLite `lock_limit` changes nothing.
        assert_eq!(fixed::<crate::Postgres>(), 24 + 2);
        assert_eq!(fixed::<crate::Sqlite>(), 24 + 4);
        assert_eq!(fixed::<crate::Mysql>(), 0);
    }
}
