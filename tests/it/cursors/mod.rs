//! What a query does to its database is known before its first row is given: an error in a cursor's end reaches no caller.

#[cfg(feature = "mysql")]
mod mysql_returning;
#[cfg(feature = "postgres")]
mod row_by_row;
#[cfg(feature = "sqlite")]
mod sqlite_file;

/// The claims of `claims.rs` on one backend, in the loading mode that borrows its connection.
macro_rules! cursors {
    ($feature:literal, $backend:ident, $mode:ty) => {
        #[cfg(feature = $feature)]
        #[path = "."]
        mod $backend {
            use crate::$backend::*;

            type Mode = $mode;

            mod claims;
        }
    };
}

cursors!("sqlite", sqlite, diesel::connection::DefaultLoadingMode);
cursors!("mysql", mysql, diesel::connection::DefaultLoadingMode);
cursors!("postgres", postgres, diesel::pg::PgRowByRowLoadingMode);
