//! The models, and what tests do with them. No two tables have one name, since several SQLite files can be one connection.

use std::cell::Cell;

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as QueryError};
use multidb::{AnyConn, Error, Model, Propagation, atomic, connection, transactional};

diesel::table! { accounts (id) { id -> BigInt, } }
diesel::table! { entries (id) { id -> BigInt, } }
diesel::table! { audits (id) { id -> BigInt, } }

#[derive(Debug, Model)]
#[diesel(table_name = accounts)]
#[model(app = "bank")]
pub(super) struct Account;

#[derive(Debug, Model)]
#[diesel(table_name = entries)]
#[model(app = "ledger")]
pub(super) struct Entry;

#[derive(Debug, Model)]
#[diesel(table_name = audits)]
#[model(app = "audit")]
pub(super) struct Audit;

/// The tables, in the order of the models.
pub(super) const TABLES: [&str; 3] = ["accounts", "entries", "audits"];

/// A row that is there before any case, so that to put it again is refused.
pub(super) const TAKEN: i64 = 0;

/// How many ids a case has.
pub(super) const IDS: i64 = 1_000;

thread_local! {
    /// What the ids of the thread's case begin after. So the tables need not be emptied between two cases.
    static BASE: Cell<i64> = const { Cell::new(0) };
}

/// The ids of the thread's next case.
pub(super) fn begin_after(base: i64) {
    BASE.set(base);
}

/// What the ids of the thread's case begin after.
pub(super) fn base() -> i64 {
    BASE.get()
}

/// An error type as users write them.
#[derive(Debug, thiserror::Error)]
pub(super) enum Mishap {
    #[error("on purpose")]
    OnPurpose,
    #[error(transparent)]
    Database(#[from] Error),
}

impl From<diesel::result::Error> for Mishap {
    fn from(error: diesel::result::Error) -> Self {
        // One of the library's may be carried inside.
        Self::Database(error.into())
    }
}

/// What a body or a scope returns.
pub(super) type Ran<T = ()> = Result<T, Mishap>;

/// A result in a word, which must be the same in every layout.
pub(super) fn word<T>(ran: &Ran<T>) -> String {
    let error = match ran {
        Ok(_) => return "ok".into(),
        Err(Mishap::OnPurpose) => return "purpose".into(),
        Err(Mishap::Database(error)) => error,
    };
    let word = match error {
        Error::Doomed { .. } => "doomed",
        Error::Durable { .. } => "durable",
        Error::Mandatory { .. } => "mandatory",
        Error::Never { .. } => "never",
        Error::NoScope { .. } => "no scope",
        Error::AlreadyEnded { .. } => "ended",
        Error::NotManual { .. } => "not manual",
        Error::OptionConflict { .. } => "conflict",
        Error::PendingWork { .. } => "pending",
        Error::NotAtomic { .. } => "not atomic",
        Error::Busy { .. } => "busy",
        Error::Query(QueryError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => "refused",
        Error::Query(error) if error.to_string().contains("database is locked") => "locked",
        other => return format!("{other:?}"),
    };
    word.into()
}

/// A model's table.
pub(super) trait Table: Model {
    fn insert(conn: &mut AnyConn, id: i64) -> QueryResult<usize>;

    fn count(conn: &mut AnyConn) -> QueryResult<i64>;
}

macro_rules! table {
    ($model:ident, $table:ident) => {
        impl Table for $model {
            fn insert(conn: &mut AnyConn, id: i64) -> QueryResult<usize> {
                let id = if id == TAKEN { TAKEN } else { BASE.get() + id };
                diesel::insert_into($table::table).values($table::id.eq(id)).execute(conn)
            }

            fn count(conn: &mut AnyConn) -> QueryResult<i64> {
                $table::table.filter($table::id.gt(BASE.get())).count().get_result(conn)
            }
        }
    };
}

table!(Account, accounts);
table!(Entry, entries);
table!(Audit, audits);

/// Puts a row: one statement in the open transaction, or in autocommit.
pub(super) fn insert<M: Table>(id: i64) -> Ran {
    M::insert(&mut connection::<M, AnyConn>()?, id)?;
    Ok(())
}

/// How many rows of the case a model has.
pub(super) fn count<M: Table>() -> Ran<i64> {
    Ok(M::count(&mut connection::<M, AnyConn>()?)?)
}

#[transactional(Account)]
pub(super) fn put_account(#[conn] conn: &mut AnyConn, id: i64) -> Ran {
    Account::insert(conn, id)?;
    Ok(())
}

#[transactional(Entry)]
pub(super) fn put_entry(#[conn] conn: &mut AnyConn, id: i64) -> Ran {
    Entry::insert(conn, id)?;
    Ok(())
}

/// Puts a row and then fails.
#[transactional(Entry)]
pub(super) fn put_entry_and_fail(#[conn] conn: &mut AnyConn, id: i64) -> Ran {
    Entry::insert(conn, id)?;
    Err(Mishap::OnPurpose)
}

/// A scope on one model.
pub(super) fn scope_on<M: Model, T>(propagation: Propagation, body: impl FnOnce() -> Ran<T>) -> Ran<T> {
    atomic::<M>().propagation(propagation).run(|_: &mut AnyConn| body())
}

/// A scope on one model, in the open transaction a level of its own.
pub(super) fn nested<M: Model, T>(body: impl FnOnce() -> Ran<T>) -> Ran<T> {
    scope_on::<M, T>(Propagation::Nested, body)
}

/// A scope on all models.
pub(super) fn over_all<T>(body: impl FnOnce() -> Ran<T>) -> Ran<T> {
    multidb::atomic_many::<(Account, Entry, Audit)>().run(|_| body())
}
