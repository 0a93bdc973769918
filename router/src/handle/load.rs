//! Queries that give rows.

use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::expression::QueryMetadata;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::result::QueryResult;

use super::conn::Conn;
use super::cursor::{Stream, StreamRow};
use crate::connection::link::is_raw_sql;

/// Whether a query's type proves that it only reads: Diesel's SELECT without a locking clause and without raw SQL.
fn is_plain_read(type_name: &str) -> bool {
    const SELECT: &str = "diesel::query_builder::select_statement::";
    type_name.starts_with(SELECT) && !type_name.contains("::locking_clause::LockingClause<") && !is_raw_sql(type_name)
}

/// PostgreSQL's default cursor has received all rows before the first is read, and borrows nothing.
#[cfg(feature = "postgres")]
impl LoadConnection<DefaultLoadingMode> for Conn<crate::Postgres> {
    type Cursor<'conn, 'query> = <diesel::PgConnection as LoadConnection<DefaultLoadingMode>>::Cursor<'conn, 'query>;
    type Row<'conn, 'query> = <diesel::PgConnection as LoadConnection<DefaultLoadingMode>>::Row<'conn, 'query>;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Self::Backend> + QueryId + 'query,
        Self::Backend: QueryMetadata<T::SqlType>,
    {
        self.count(|| !is_plain_read(std::any::type_name::<T>()));
        self.run(|link| {
            link.admit_query(&source)?;
            LoadConnection::<DefaultLoadingMode>::load(link.raw(), source)
        })
    }
}

macro_rules! streaming {
    ($feature:literal, $backend:ty, $mode:ty) => {
        #[cfg(feature = $feature)]
        impl LoadConnection<$mode> for Conn<$backend> {
            type Cursor<'conn, 'query> = Stream<'conn, 'query, $backend, $mode>;
            type Row<'conn, 'query> = StreamRow<'conn, 'query, $backend, $mode>;

            fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<Self::Cursor<'conn, 'query>>
            where
                T: Query + QueryFragment<Self::Backend> + QueryId + 'query,
                Self::Backend: QueryMetadata<T::SqlType>,
            {
                self.count(|| !is_plain_read(std::any::type_name::<T>()));
                Stream::open(self, source)
            }
        }
    };
}

streaming!("sqlite", crate::Sqlite, DefaultLoadingMode);
streaming!("mysql", crate::Mysql, DefaultLoadingMode);
streaming!("postgres", crate::Postgres, diesel::pg::PgRowByRowLoadingMode);
