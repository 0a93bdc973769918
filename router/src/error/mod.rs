//! The one error type of the library.

mod predicates;
mod text;

use std::sync::Arc;
use std::time::Duration;

use diesel::result::Error as DieselError;

use crate::alias::Alias;
use crate::failure::Failure;
use crate::transaction_id::TransactionId;
use text::{Aliases, At, ENDED, Failing, Refused, Refuser, Reported, remedy};

/// What a function of this library returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with the remedy in its text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A router, an attribute or a call named a database that is not configured.
    #[error("there is no database `{alias}` ({asked}); {remedy}")]
    UnknownDatabase {
        /// The alias that is not configured.
        alias: Alias,
        /// Who asked for it, and for what.
        asked: String,
        /// The configured aliases, the nearest first, and what to write.
        remedy: String,
    },

    /// The handle's backend is not the backend of the database.
    #[error(
        "database `{database}` is {actual}, and a `{handle}` was asked for ({asked}); take the parameter as `&mut \
         {fitting}`, or route it to a database that fits"
    )]
    WrongBackend {
        /// The database.
        database: Alias,
        /// Its backend.
        actual: &'static str,
        /// The handle that was asked for.
        handle: &'static str,
        /// The handle that would fit.
        fitting: &'static str,
        /// Who asked.
        asked: String,
    },

    /// A router refused to answer.
    #[error("router `{router}` refused a database for {subject}: {reason}")]
    RouteRefused {
        /// The router.
        router: &'static str,
        /// The model or application that was asked for.
        subject: String,
        /// The reason that the router gave.
        reason: String,
    },

    /// Within one transaction a router has sent the same model, with the same hints, to another database than before.
    #[error(
        "the route of {subject} changed from `{was}` to `{now}` within the transaction of {outer}; let the router give one \
         answer for as long as a transaction runs, tell databases apart by hints, or use `requires_new`"
    )]
    RouteChanged {
        /// The model or application.
        subject: String,
        /// The database before.
        was: Alias,
        /// The database now.
        now: Alias,
        /// The scope that opened the transaction.
        outer: String,
    },

    /// The configuration is wrong.
    #[error("configuration{}: {problem}; {remedy}", At(.alias, .key))]
    Config {
        /// The database concerned, if it is one.
        alias: Option<Alias>,
        /// The key concerned, if it is one.
        key: Option<String>,
        /// What is wrong.
        problem: String,
        /// What to write.
        remedy: String,
    },

    /// No connection to the database could be made.
    #[error("no connection to database `{database}`: {problem}")]
    Pool {
        /// The database.
        database: Alias,
        /// What the driver said.
        problem: String,
    },

    /// Every connection of the pool is taken, and none came back in time.
    #[error(
        "all {size} connections of database `{database}` are taken, and none came back in {} ms; held by {holders}; \
         {remedy}",
        waited.as_millis()
    )]
    PoolExhausted {
        /// The database.
        database: Alias,
        /// How many connections the pool may have.
        size: u32,
        /// How long this call waited.
        waited: Duration,
        /// Who holds the connections.
        holders: String,
        /// What to do.
        remedy: &'static str,
    },

    /// The connection is in the middle of something else.
    #[error("database `{database}` is busy: {reason}")]
    Busy {
        /// The database.
        database: Alias,
        /// What it is in the middle of, and what to do.
        reason: &'static str,
    },

    /// The handle belongs to a scope that has ended.
    #[error(
        "this handle on database `{database}` has outlived its scope; take a new one with `multidb::connection`, or \
         move the statement into the scope"
    )]
    Closed {
        /// The database.
        database: Alias,
    },

    /// Something was asked of the open scope, and none is open on this thread.
    #[error("{asked} needs an open scope on this thread; call it inside a `#[transactional]` function or `atomic`")]
    NoScope {
        /// What was asked.
        asked: String,
    },

    /// A savepoint, or another level of a transaction, that was to be ended and has ended already.
    #[error(
        "{what} has ended already, with its scope, with an earlier savepoint, or by `commit` or `rollback` of a manual scope, \
         and nothing was changed now; end it before its scope ends"
    )]
    AlreadyEnded {
        /// What was to be ended.
        what: String,
    },

    /// A `durable` scope inside a transaction.
    #[error(
        "`{function}` is durable: its `Ok` must mean committed, which it can't inside the transaction of {outer}; call it \
         outside, or let it say `propagation = requires_new`"
    )]
    Durable {
        /// The function that is durable.
        function: &'static str,
        /// The scope that opened the transaction.
        outer: String,
    },

    /// A `mandatory` scope outside of any transaction.
    #[error("`{function}` is mandatory: call it inside a transaction, from a `#[transactional]` function or `atomic`")]
    Mandatory {
        /// The function that is mandatory.
        function: &'static str,
    },

    /// A `never` scope inside a transaction.
    #[error("`{function}` must never run inside a transaction, and {outer} has opened one; call it before or after")]
    Never {
        /// The function that must not run inside a transaction.
        function: &'static str,
        /// The scope that opened the transaction.
        outer: String,
    },

    /// An earlier statement failed, so nothing more can be committed.
    #[error(
        "the transaction is doomed and was or will be rolled back, because of what happened in `{function}` \
         ({file}:{line}): {first}{}; {}",
        Refused(*.refused),
        remedy(.first.class())
    )]
    Doomed {
        /// The first failure.
        first: Arc<Failure>,
        /// The function whose scope was open then.
        function: &'static str,
        /// Its file.
        file: &'static str,
        /// Its line.
        line: u32,
        /// How many statements were refused since.
        refused: u32,
    },

    /// Work on several databases that can't be committed as one.
    #[error("{} can't take part in one transaction: {reason}; {remedies}", Aliases(.databases))]
    NotAtomic {
        /// The databases.
        databases: Vec<Alias>,
        /// Why.
        reason: String,
        /// What would do instead.
        remedies: String,
    },

    /// Work that a database can't do as a part of a transaction over several databases: it refuses the statement, or to prepare
    /// what was done. Nothing is committed on any of them.
    #[error(
        "database `{database}` can't do this as a part of a transaction over several databases: {problem}; {remedy}"
    )]
    NotPreparable {
        /// The database.
        database: Alias,
        /// What it refuses, with its own words.
        problem: String,
        /// What to do.
        remedy: String,
    },

    /// A statement on a handle of one SQLite file that would reach another one, which shares its connection. It was not run.
    #[error(
        "{what} is in database `{other}`, and was asked for through a handle of database `{database}`, which reaches its own \
         file alone; {remedy}"
    )]
    OtherDatabase {
        /// The table or the statement.
        what: String,
        /// The handle's database.
        database: Alias,
        /// The database that has the table, or would get it.
        other: Alias,
        /// What to write.
        remedy: String,
    },

    /// A nested scope asks for what the open transaction can't give.
    #[error("{inner} contradicts the open transaction, {outer}; {remedy}")]
    OptionConflict {
        /// What the open transaction was opened with.
        outer: String,
        /// What the nested scope asks for.
        inner: String,
        /// What to write.
        remedy: &'static str,
    },

    /// A database can't enforce what a scope asks for.
    #[error("{asked} asks for `{option}`, which database `{database}` can't do, since it is {backend}; {remedy}")]
    Unsupported {
        /// The scope.
        asked: String,
        /// The option.
        option: &'static str,
        /// The database.
        database: Alias,
        /// Its backend.
        backend: &'static str,
        /// What to write.
        remedy: &'static str,
    },

    /// A write inside a read-only scope.
    #[error(
        "`{function}` ({file}:{line}) is read-only, and this statement on database `{database}` writes, or is not proven \
         a read; drop `read_only` there, or do this work outside of it"
    )]
    ReadOnly {
        /// The database.
        database: Alias,
        /// The function that is read-only.
        function: &'static str,
        /// Its file.
        file: &'static str,
        /// Its line.
        line: u32,
    },

    /// The key of a `once` scope doesn't fit what was stored under it.
    #[error("the `once` key `{key}` of `{function}` {problem}")]
    OnceMismatch {
        /// The key.
        key: String,
        /// The function that was called.
        function: String,
        /// What is wrong with it.
        problem: String,
    },

    /// Rows of the two models must not refer to each other.
    #[error(
        "rows of `{a}` and `{b}` must not refer to each other: they live on {}{}; route both to one database, or let \
         `allow_relation` say `Some(true)`",
        Aliases(.databases),
        Refuser(*.router)
    )]
    RelationRefused {
        /// The one model.
        a: &'static str,
        /// The other.
        b: &'static str,
        /// Their databases.
        databases: Vec<Alias>,
        /// The router that refused, if one did.
        router: Option<&'static str>,
    },

    /// A migration failed.
    #[error(
        "a migration of database `{database}` failed: {problem}; those before it stay, so mend it and run them again"
    )]
    Migration {
        /// The database.
        database: Alias,
        /// The migration, and what the database said.
        problem: String,
    },

    /// Some databases have committed and others have not: only where `commit = best_effort` was asked for.
    #[error(
        "the work is done in part: {} committed, and {} did not, or can't tell; compare them by hand before doing it again",
        Aliases(.committed),
        Aliases(.failed)
    )]
    PartialCommit {
        /// The databases that committed.
        committed: Vec<Alias>,
        /// The databases that rolled back or whose outcome is unknown.
        failed: Vec<Alias>,
    },

    /// The connection was lost after COMMIT was sent: the work may be committed and may be rolled back.
    #[error(
        "the outcome of transaction {id} on {} is unknown: the connection was lost while COMMIT was under way; before \
         doing the work again ask `multidb::status` with this id, and where that says unknown, look whether its rows are \
         there",
        Aliases(.databases)
    )]
    OutcomeUnknown {
        /// The transaction.
        id: TransactionId,
        /// Its databases.
        databases: Vec<Alias>,
    },

    /// A statement ended the transaction in its middle: on MySQL and MariaDB a DDL, elsewhere a raw COMMIT or ROLLBACK.
    #[error(
        "{ENDED} `{database}` behind the scope's back (on MySQL and MariaDB most DDL commits): what ran before it may be \
         permanent; run DDL and raw transaction statements outside of scopes{}",
        Failing(.failing)
    )]
    ImplicitCommit {
        /// The database.
        database: Alias,
        /// The error that the scope's function has returned, as [`Debug`](std::fmt::Debug) prints it. `None` if it returned `Ok`,
        /// and in the error of a statement.
        failing: Option<String>,
    },

    /// A statement that would begin or end a transaction behind the library's back.
    #[error(
        "`{statement}` on database `{database}` would begin or end a transaction behind the library's back; open a scope \
         (`#[transactional]`, `atomic`, or `transaction` on the handle) and return `Ok` to commit or `Err` to roll back"
    )]
    TransactionControl {
        /// The database.
        database: Alias,
        /// The statement's first words.
        statement: String,
    },

    /// `commit` or `rollback` inside a scope that commits on success.
    #[error(
        "{asked} was called inside `{function}` ({file}:{line}), which commits on success; say `mode = manual` on it, or \
         return `Ok` to commit and `Err` to roll back"
    )]
    NotManual {
        /// What was called.
        asked: &'static str,
        /// The innermost scope's function.
        function: &'static str,
        /// Its file.
        file: &'static str,
        /// Its line.
        line: u32,
    },

    /// A manual scope returned `Ok` with writes that it had not committed. They were rolled back.
    #[error(
        "`{function}` ({file}:{line}) is a manual scope and returned with {statements} statements that it had neither \
         committed nor rolled back, so they were rolled back; call `scope::commit` or `scope::rollback` before returning"
    )]
    PendingWork {
        /// The function.
        function: &'static str,
        /// Its file.
        file: &'static str,
        /// Its line.
        line: u32,
        /// How many statements were not proven reads.
        statements: u32,
    },

    /// A hook failed, after the outcome of its transaction was known.
    #[error(
        "{}, but a hook that `{function}` ({file}:{line}) had registered failed: {problem}; do its work again by itself",
        if *committed { "the transaction is committed" } else { "the transaction was rolled back" }
    )]
    HookFailed {
        /// The function that registered the hook.
        function: &'static str,
        /// Its file.
        file: &'static str,
        /// Its line.
        line: u32,
        /// What the hook returned, or the text of its panic.
        problem: String,
        /// Whether the transaction was committed.
        committed: bool,
    },

    /// A pragma that SQLite ignores while a transaction is open.
    #[error(
        "`PRAGMA {pragma}` changes nothing on database `{database}` while a transaction is open, since SQLite ignores it then; \
         {remedy}"
    )]
    IneffectivePragma {
        /// The database.
        database: Alias,
        /// The pragma.
        pragma: &'static str,
        /// What does it.
        remedy: &'static str,
    },

    /// A COPY that talks with the client, sent as a text.
    #[error(
        "COPY with STDIN or STDOUT on database `{database}` can't be sent as a text, since nobody would answer it; use \
         `conn.with_raw(|raw| diesel::copy_from(..).execute(raw))`"
    )]
    CopyByText {
        /// The database.
        database: Alias,
    },

    /// More of something than the library allows.
    #[error("there are more than {limit} {what}; look for a recursion, or do the work in parts")]
    LimitExceeded {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u32,
    },

    /// The database refused a statement, or Diesel could not build or read one.
    #[error("{}", Reported(.0))]
    Query(#[source] DieselError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_ours_comes_back_unchanged_through_diesels() {
        let carried = DieselError::from(Error::Closed { database: Alias::from("orders") });
        assert!(matches!(Error::from(carried), Error::Closed { database } if database == "orders"));
    }

    #[test]
    fn an_error_of_diesels_is_not_wrapped_twice() {
        let carried = DieselError::from(Error::Query(DieselError::NotFound));
        assert!(matches!(carried, DieselError::NotFound));
    }

    #[test]
    fn the_error_is_small_enough_for_every_result_and_can_cross_threads() {
        fn crosses<T: Send + Sync + 'static>() {}
        crosses::<Error>();
        assert!(size_of::<Error>() < 128, "{} bytes", size_of::<Error>());
    }
}
