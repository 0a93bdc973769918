//! The handle that fits every backend.

#[cfg(feature = "mysql")]
use super::MysqlConn;
#[cfg(feature = "postgres")]
use super::PgConn;
#[cfg(feature = "sqlite")]
use super::SqliteConn;
use super::dispatch::{Handle, Origin, sealed};
use crate::alias::Alias;
use crate::databases::Kind;
use crate::error::Result;

/// A handle on whichever backend the database has: for functions whose model lives on PostgreSQL in production and on SQLite
/// in a test.
///
/// It is Diesel's [`MultiConnection`](diesel::MultiConnection) over the handles, one variant for each backend that is built
/// in, and has its limits:
///
/// - Queries are those that all the backends have: no `RETURNING`, no `on_conflict` with a target, no `ILIKE`, no arrays.
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
}

impl Handle for AnyConn {}

impl sealed::Open for AnyConn {
    fn open(origin: Origin<'_>, asked: &dyn Fn() -> String) -> Result<Self> {
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
