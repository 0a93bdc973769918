//! The handle: a full Diesel connection that reaches the database of a scope.

mod any;
#[expect(missing_docs, reason = "Diesel's derive makes public items without documentation")]
#[no_implicit_prelude]
mod any_derived;
mod conn;
mod copies;
mod cursor;
mod dispatch;
mod load;
mod manager;
mod proof;
mod traits;
mod transactions;

pub use any_derived::{AnyConn, MultiBackend};
pub use conn::Conn;
pub use dispatch::Handle;

pub(crate) use dispatch::Origin;

/// A handle on a PostgreSQL database.
#[cfg(feature = "postgres")]
pub type PgConn = Conn<crate::Postgres>;
/// A handle on a MySQL or MariaDB database.
#[cfg(feature = "mysql")]
pub type MysqlConn = Conn<crate::Mysql>;
/// A handle on a SQLite database.
#[cfg(feature = "sqlite")]
pub type SqliteConn = Conn<crate::Sqlite>;
