//! Rows that borrow nothing.
//!
//! An error at the end of a cursor reaches no caller, and most callers end it early: `get_result` reads one row. So what may
//! write is run to its end, and its rows are copied, before the first of them is given.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "sqlite")]
mod sqlite;

use diesel::connection::LoadConnection;
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::row::Row;

use crate::connection::backend::Dialect;

/// A loading mode whose rows can be copied out of the connection.
pub trait Copies<M>: Dialect<Raw: LoadConnection<M>> {
    /// A row of its own.
    type Copied: for<'row> Row<'row, Self::Native> + 'static;

    /// Runs a query to its end, and gives all its rows.
    fn load_all<T>(raw: &mut Self::Raw, source: T) -> QueryResult<Vec<Self::Copied>>
    where
        T: Query + QueryFragment<Self::Native> + QueryId,
        Self::Native: QueryMetadata<T::SqlType>;
}

#[cfg(feature = "postgres")]
impl Copies<diesel::pg::PgRowByRowLoadingMode> for crate::Postgres {
    type Copied = <diesel::PgConnection as LoadConnection>::Row<'static, 'static>;

    fn load_all<T>(raw: &mut diesel::PgConnection, source: T) -> QueryResult<Vec<Self::Copied>>
    where
        T: Query + QueryFragment<Self::Native> + QueryId,
        Self::Native: QueryMetadata<T::SqlType>,
    {
        // Diesel's cursor for this mode swallows an error that follows the last row: that of the commit.
        LoadConnection::<diesel::connection::DefaultLoadingMode>::load(raw, source)?.collect()
    }
}
