//! The handle that fits every backend.

use diesel::connection::{TransactionManager, TransactionManagerStatus};
use diesel::result::{Error as DieselError, QueryResult};

#[cfg(feature = "mysql")]
use super::MysqlConn;
#[cfg(feature = "postgres")]
use super::PgConn;
#[cfg(feature = "sqlite")]
use super::SqliteConn;
use super::any_derived::AnyConn;
use super::dispatch::{Handle, Origin, sealed};
use super::manager::transaction;
use super::transactions::Transactions;
use crate::alias::Alias;
use crate::databases::Kind;

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

    /// Diesel's [`transaction`](diesel::Connection::transaction), without its trait in scope.
    ///
    /// # Errors
    /// Those of `callback`, and those of beginning and committing.
    pub fn transaction<T, E, F>(&mut self, callback: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<DieselError>,
    {
        transaction::<Self, Self, _, _, _>(self, callback)
    }
}

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

impl TransactionManager<Self> for AnyConn {
    type TransactionStateData = Self;

    fn begin_transaction(conn: &mut Self) -> QueryResult<()> {
        <Self as Transactions<Self>>::begin_transaction(conn)
    }

    fn rollback_transaction(conn: &mut Self) -> QueryResult<()> {
        <Self as Transactions<Self>>::rollback_transaction(conn)
    }

    fn commit_transaction(conn: &mut Self) -> QueryResult<()> {
        <Self as Transactions<Self>>::commit_transaction(conn)
    }

    fn transaction_manager_status_mut(conn: &mut Self) -> &mut TransactionManagerStatus {
        <Self as Transactions<Self>>::transaction_manager_status_mut(conn)
    }

    fn is_broken_transaction_manager(conn: &mut Self) -> bool {
        <Self as Transactions<Self>>::is_broken_transaction_manager(conn)
    }

    fn transaction<F, R, E>(conn: &mut Self, callback: F) -> Result<R, E>
    where
        F: FnOnce(&mut Self) -> Result<R, E>,
        E: From<DieselError>,
    {
        transaction::<Self, Self, _, _, _>(conn, callback)
    }
}
