//! The enum, and what Diesel's derive makes of it.
//!
//! The derive's `TransactionManager` leaves a transaction open when its closure panics, since it has nothing but what Diesel's
//! trait gives by itself. So here the derive implements another trait under that name: without the prelude of crates `diesel`
//! is the module below.

use ::std;
use ::std::prelude::rust_2024::*;
use ::std::unreachable;

#[cfg(feature = "mysql")]
use super::MysqlConn;
#[cfg(feature = "postgres")]
use super::PgConn;
#[cfg(feature = "sqlite")]
use super::SqliteConn;

/// Diesel, but for one trait.
mod diesel {
    pub use ::diesel::*;

    pub mod connection {
        pub use ::diesel::connection::*;

        pub use crate::handle::transactions::Transactions as TransactionManager;
    }
}

/// A handle on whichever backend the database has: for functions whose model lives on PostgreSQL in production and on SQLite
/// in a test.
///
/// It is Diesel's [`MultiConnection`](::diesel::MultiConnection) over the handles, one variant for each backend that is built
/// in, and has its limits:
///
/// - Queries are those that all the backends built in have: no `on_conflict`, no `ILIKE`, no arrays, and with `mysql` no
///   `RETURNING`.
/// - Columns of the types `Bool`, `Binary`, `Json`, `Uuid` and of your own need an `impl HasSqlType<..> for MultiBackend`;
///   numbers, texts, dates and times work as they are.
/// - There is no `with_raw`: match on the variant, and call that handle's.
///
/// A function that needs more than that takes the handle of its backend.
#[derive(::diesel::MultiConnection)]
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
