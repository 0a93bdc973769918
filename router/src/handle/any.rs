//! The handle that fits every backend.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use diesel::connection::{Connection, TransactionManager};

#[cfg(feature = "mysql")]
use super::MysqlConn;
#[cfg(feature = "postgres")]
use super::PgConn;
#[cfg(feature = "sqlite")]
use super::SqliteConn;
use super::dispatch::{Handle, Origin, sealed};
use crate::alias::Alias;
use crate::databases::Kind;

/// A handle on whichever backend the database has: for functions whose model lives on PostgreSQL in production and on SQLite
/// in a test.
///
/// It is Diesel's [`MultiConnection`](diesel::MultiConnection) over the handles, one variant for each backend that is built
/// in, and has its limits:
///
/// - Queries are those that all the backends built in have: no `on_conflict`, no `ILIKE`, no arrays, and with `mysql` no
///   `RETURNING`.
/// - Columns of the types `Bool`, `Binary`, `Json`, `Uuid` and of your own need an `impl HasSqlType<..> for MultiBackend`;
///   numbers, texts, dates and times work as they are.
/// - There is no `with_raw`: match on the variant, and call that handle's.
///
/// A function that needs more than that takes the handle of its backend.
#[derive(diesel::MultiConnection)]
pub enum AnyConn {
    /// PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(PgConn),
    /// MySQL or MariaDB.
    #[cfg(feature = "mysql")]
    Mysql(MysqlConn),
    /// SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConn),
}

impl AnyConn {
    /// The database that the handle leads to.
    pub fn alias(&self) -> &Alias {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(conn) => conn.alias(),
            #[cfg(feature = "mysql")]
            Self::Mysql(conn) => conn.alias(),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(conn) => conn.alias(),
        }
    }

    /// Diesel's [`transaction`](Connection::transaction), which on the other handles too rolls back where `callback` panics,
    /// and whose failed rollback hides no error of `callback`. It is a method of the handle itself, since that of
    /// `MultiConnection` would leave the transaction open after a panic.
    ///
    /// # Errors
    /// Those of `callback`, and those of beginning and committing.
    pub fn transaction<T, E, F>(&mut self, callback: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<diesel::result::Error>,
    {
        Manager::begin_transaction(self)?;
        match catch_unwind(AssertUnwindSafe(|| callback(self))) {
            Ok(Ok(value)) => {
                Manager::commit_transaction(self)?;
                Ok(value)
            }
            Ok(Err(error)) => {
                let _ = Manager::rollback_transaction(self);
                Err(error)
            }
            Err(panic) => {
                let _ = Manager::rollback_transaction(self);
                resume_unwind(panic)
            }
        }
    }
}

type Manager = <AnyConn as Connection>::TransactionManager;

impl Handle for AnyConn {}

impl sealed::Open for AnyConn {
    fn open(origin: Origin<'_>, asked: &dyn Fn() -> String) -> crate::error::Result<Self> {
        match origin.kind() {
            #[cfg(feature = "postgres")]
            Kind::Postgres => PgConn::open(origin, asked).map(Self::Postgres),
            #[cfg(feature = "mysql")]
            Kind::Mysql => MysqlConn::open(origin, asked).map(Self::Mysql),
            #[cfg(feature = "sqlite")]
            Kind::Sqlite => SqliteConn::open(origin, asked).map(Self::Sqlite),
            #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql")))]
            _ => unreachable!("a database whose backend is not built in can't be configured"),
        }
    }
}

impl std::fmt::Debug for AnyConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnyConn").field("database", self.alias()).finish_non_exhaustive()
    }
}
